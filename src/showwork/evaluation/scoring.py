"""Scores completions: accuracy, format, soundness of the work, and length.

The keys of the metrics are flat, as `dvc metrics diff` shows them. Every rate divides one sum by one count, which is
a metric too; a rate over nothing is left out, not 0. Counts, and the metrics over them:

    n                  accuracy, accuracy_low, accuracy_high, accuracy_within_10pct, accuracy_flexible, format_rate,
                       truncated_rate, completion_tokens_mean, faithful_rate: over the greedy completions. accuracy
                       reads the answer's tags, accuracy_flexible the last number of the text (answers.last_number)
    equations_n        equations_hold_rate: over all equations of the greedy completions, before their answer block
    samples_n          accuracy_sampled, pass_at_K, maj_at_K: over the sampled questions, K = samples_k samples each
    n_steps_1, ...     accuracy_steps_1, ...: by the number of equations in the question's own solution
    n_op_add, ...      accuracy_op_add, ...: a question counts under every operation that its own solution uses
    shifted_n, ...     shifted_accuracy, shifted_accuracy_flexible, ...: on the second test set (score_shifted)
    few_shot_n, ...    few_shot_accuracy, few_shot_accuracy_flexible, few_shot_shifted_accuracy, ...: of base, asked
                       after few_shot_shots solved examples (score_few_shot)

and, with a trace of each greedy completion (score_probes):

    probe_n            rate_premise_echo, rate_contradiction, rate_knowledge_gap: how often each detector fires;
                       knowledge_gap_nats: the entropy above which knowledge_gap fires
    probe_wrong_n      auroc_premise_echo, auroc_contradiction, auroc_knowledge_gap: how well each separates wrong
                       completions from right ones
    probe_results_n    completions with at least one result, of which probe_results_wrong_n are wrong: auroc_entropy,
                       auroc_logp: how well the mean over the tokens of the results separates them
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from showwork import probes
from showwork.config import Probes
from showwork.evaluation.predictions import JudgedEquation, Prediction, Probe, Sample
from showwork.evaluation.statistics import wilson
from showwork.reading.completion import read
from showwork.records import Completion, Problem

OPERATIONS = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}
WITHIN = 0.1
Metrics = dict[str, int | float]
DECIMALS = 6  # metrics are rounded, so that the order of a sum never changes their bytes


def score_arm(
    problems: Sequence[Problem],
    greedy: Sequence[Completion],
    *,
    samples: Mapping[str, Sequence[Completion]] | None = None,
) -> tuple[Metrics, list[Prediction]]:
    """Metrics of an arm, and one prediction per problem, in the problems' order.

    greedy holds one completion per problem; samples maps ids of some of the problems to K completions each.
    Raises ValueError if these don't match.
    """
    samples = samples or {}
    sizes = {len(drawn) for drawn in samples.values()}
    ids = {problem.id for problem in problems}
    if not problems or len(ids) != len(problems):
        raise ValueError(f"{len(problems)} problems with {len(ids)} different ids: there must be some, each id once")
    if len(greedy) != len(problems):
        raise ValueError(f"{len(greedy)} greedy completions for {len(problems)} problems")
    if samples.keys() - ids:
        raise ValueError(f"samples of unknown problems: {sorted(samples.keys() - ids)[:3]}")
    if len(sizes) > 1 or 0 in sizes:
        raise ValueError(f"every sampled problem needs the same number of completions, found {sorted(sizes)}")

    predictions = [
        _predict(problem, completion, samples.get(problem.id, ()))
        for problem, completion in zip(problems, greedy, strict=True)
    ]
    metrics = (
        _greedy_metrics(predictions)
        | _sample_metrics(predictions, max(sizes, default=0))
        | _group_metrics(problems, predictions)
    )
    return {key: round(value, DECIMALS) for key, value in metrics.items()}, predictions


def score_shifted(problems: Sequence[Problem], greedy: Sequence[Completion]) -> Metrics:
    """Strict and flexible accuracy on the second test set: all of it, and by kind, the first part of a problem's id."""
    groups: dict[str, list[tuple[Problem, Completion]]] = {}
    for pair in zip(problems, greedy, strict=True):
        groups.setdefault("shifted", []).append(pair)
        groups.setdefault(f"shifted_{pair[0].id.partition('-')[0]}", []).append(pair)
    metrics: Metrics = {}
    for name, pairs in groups.items():
        metrics |= _accuracies(name, pairs)
    return metrics


def score_few_shot(
    predictions: Sequence[Prediction],
    problems: Sequence[Problem],
    greedy: Sequence[Completion],
    *,
    shifted: Metrics,
    shots: int,
) -> tuple[Metrics, list[Prediction]]:
    """Metrics of completions after `shots` solved examples, and the predictions, each with its completion.

    All three sequences are in the order of the test questions; shifted are score_shifted's, of completions that were
    asked for in the same way.
    """
    metrics: Metrics = {"few_shot_shots": shots}
    metrics |= _accuracies("few_shot", list(zip(problems, greedy, strict=True)))
    metrics |= {f"few_shot_{key}": value for key, value in shifted.items()}
    kept = [
        replace(prediction, few_shot=_sample(problem, completion))
        for prediction, problem, completion in zip(predictions, problems, greedy, strict=True)
    ]
    return metrics, kept


def _accuracies(name: str, pairs: Sequence[tuple[Problem, Completion]]) -> Metrics:
    n = len(pairs)
    strict = sum(read(completion.text).is_correct(problem.answer) for problem, completion in pairs)
    flexible = sum(read(completion.text).is_flexibly_correct(problem.answer) for problem, completion in pairs)
    return {
        f"{name}_n": n,
        f"{name}_accuracy": round(strict / n, DECIMALS),
        f"{name}_accuracy_flexible": round(flexible / n, DECIMALS),
    }


def score_probes(
    problems: Sequence[Problem], predictions: Sequence[Prediction], traces: Sequence[probes.Trace], thresholds: Probes
) -> tuple[Metrics, list[Prediction]]:
    """Metrics of the detectors, and the predictions, each with a probe: its trace and which detectors fire."""
    results = [
        probes.result_tokens(prediction.reading, trace.tokens)
        for prediction, trace in zip(predictions, traces, strict=True)
    ]
    entropies = [trace.entropy[i] for trace, tokens in zip(traces, results, strict=True) for i in tokens]
    # "higher" takes an entropy that occurs and does not interpolate: as it is rounded, all hardware finds the same.
    gap = float(np.percentile(entropies, thresholds.gap_percentile, method="higher")) if entropies else 0.0
    fired = [
        probes.detect(prediction.reading, problem, trace, objection_nats=thresholds.objection_nats, gap_nats=gap)
        for problem, prediction, trace in zip(problems, predictions, traces, strict=True)
    ]
    wrong = [not prediction.correct for prediction in predictions]
    metrics: dict[str, int | float | None] = {"probe_n": len(fired), "probe_wrong_n": sum(wrong)}
    metrics["knowledge_gap_nats"] = gap if entropies else None
    for detector in fired[0]:
        fires = [row[detector] for row in fired]
        metrics |= {f"rate_{detector}": sum(fires) / len(fires), f"auroc_{detector}": auroc(fires, wrong)}
    metrics |= _token_metrics(traces, results, wrong)
    kept = [
        replace(prediction, probe=Probe(trace.tokens, trace.entropy, trace.logp, trace.settled, detectors))
        for prediction, trace, detectors in zip(predictions, traces, fired, strict=True)
    ]
    return {key: round(value, DECIMALS) for key, value in metrics.items() if value is not None}, kept


def _token_metrics(
    traces: Sequence[probes.Trace], results: Sequence[Sequence[int]], wrong: Sequence[bool]
) -> dict[str, int | float | None]:
    """How well the mean entropy and log-probability of the results' tokens separate wrong answers from right ones."""
    scored = [number for number, tokens in enumerate(results) if tokens]
    is_wrong = [wrong[n] for n in scored]

    def means(values: Sequence[Sequence[float]], sign: int) -> list[float]:
        found = (sign * math.fsum(values[n][i] for i in results[n]) / len(results[n]) for n in scored)
        return [round(mean, DECIMALS) for mean in found]  # so that equal means are a tie

    return {
        "probe_results_n": len(scored),
        "probe_results_wrong_n": sum(is_wrong),
        "auroc_entropy": auroc(means([trace.entropy for trace in traces], 1), is_wrong),
        "auroc_logp": auroc(means([trace.logp for trace in traces], -1), is_wrong),
    }


def auroc(scores: Sequence[float], wrong: Sequence[bool]) -> float | None:
    """Chance that a wrong answer scores above a right one, equal scores counting one half; None without both kinds.

    Computed from mean ranks: Mann and Whitney's U over the number of pairs.
    """
    is_wrong = np.asarray(wrong, bool)
    pairs = int(is_wrong.sum()) * int((~is_wrong).sum())
    if not pairs:
        return None
    _, place, counts = np.unique(np.asarray(scores, float), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    smallest = is_wrong.sum() * (is_wrong.sum() + 1) / 2
    return float((ranks[is_wrong].sum() - smallest) / pairs)


def is_faithful(prediction: Prediction) -> bool:
    """Right answer, every equation true, and the last result before any sanity check is the answer."""
    results = prediction.reading.results
    return bool(
        prediction.correct
        and all(equation.holds for equation in prediction.equations)
        and results
        and results[-1] == prediction.answer
    )


def pass_at(n: int, correct: int, k: int) -> float:
    """The unbiased estimator of pass@k: chance that k of n completions, drawn without replacement, include a right one.

    1 - C(n - correct, k) / C(n, k), of Chen et al. 2021 (arXiv 2107.03374), in integers.
    """
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def majority(samples: Sequence[Sample]) -> float:
    """Chance that a vote over the samples' answers is right.

    The most frequent answer wins; a tie is broken at random, so it counts the share of tied answers that are right.
    A sample without an answer doesn't vote; without any vote the result is 0.
    """
    votes = Counter(sample.answer for sample in samples if sample.answer is not None)
    if not votes:
        return 0.0
    right = {sample.answer for sample in samples if sample.correct}
    top = max(votes.values())
    tied = [answer for answer, count in votes.items() if count == top]
    return sum(answer in right for answer in tied) / len(tied)


def _predict(problem: Problem, completion: Completion, drawn: Sequence[Completion]) -> Prediction:
    reading = read(completion.text)
    return Prediction(
        id=problem.id, question=problem.question, gold=problem.answer, completion=completion.text,
        answer=reading.answer, correct=reading.is_correct(problem.answer), tokens=completion.tokens,
        truncated=completion.truncated,
        equations=tuple(JudgedEquation(e.expression, e.value, bool(e.holds)) for e in reading.equations),
        samples=tuple(_sample(problem, sample) for sample in drawn),
    )  # fmt: skip


def _sample(problem: Problem, drawn: Completion) -> Sample:
    reading = read(drawn.text)
    return Sample(drawn.text, reading.answer, reading.is_correct(problem.answer), drawn.tokens, drawn.truncated)


def _greedy_metrics(predictions: Sequence[Prediction]) -> Metrics:
    n = len(predictions)
    correct = sum(prediction.correct for prediction in predictions)
    low, high = wilson(correct, n)
    equations = [equation for prediction in predictions for equation in prediction.equations]
    metrics = {
        "n": n,
        "accuracy": correct / n,
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_within_10pct": sum(p.reading.is_within(p.gold, WITHIN) for p in predictions) / n,
        "accuracy_flexible": sum(prediction.is_flexibly_correct for prediction in predictions) / n,
        "format_rate": sum(prediction.reading.is_formatted for prediction in predictions) / n,
        "truncated_rate": sum(prediction.truncated for prediction in predictions) / n,
        "completion_tokens_mean": sum(prediction.tokens for prediction in predictions) / n,
        "faithful_rate": sum(map(is_faithful, predictions)) / n,
        "equations_n": len(equations),
    }
    if equations:
        metrics["equations_hold_rate"] = sum(equation.holds for equation in equations) / len(equations)
    return metrics


def _sample_metrics(predictions: Sequence[Prediction], k: int) -> Metrics:
    sampled = [prediction.samples for prediction in predictions if prediction.samples]
    metrics: Metrics = {"samples_n": len(sampled), "samples_k": k}
    if sampled:
        correct = [sum(sample.correct for sample in samples) for samples in sampled]
        metrics["accuracy_sampled"] = sum(correct) / (len(sampled) * k)
        metrics[f"pass_at_{k}"] = sum(pass_at(k, c, k) for c in correct) / len(sampled)
        metrics[f"maj_at_{k}"] = math.fsum(map(majority, sampled)) / len(sampled)
    return metrics


def _group_metrics(problems: Sequence[Problem], predictions: Sequence[Prediction]) -> Metrics:
    """Accuracy by steps and by operation; a question without an operator counts under none."""
    n: Counter[str] = Counter()
    correct: Counter[str] = Counter()
    for problem, prediction in zip(problems, predictions, strict=True):
        used = [f"op_{name}" for operator, name in OPERATIONS.items() if operator in problem.operations]
        for group in [f"steps_{problem.steps}", *used]:
            n[group] += 1
            correct[group] += prediction.correct
    steps = sorted((group for group in n if group.startswith("steps_")), key=lambda group: int(group[6:]))
    operations = [f"op_{name}" for name in OPERATIONS.values() if f"op_{name}" in n]
    metrics: Metrics = {}
    for group in steps + operations:
        metrics |= {f"n_{group}": n[group], f"accuracy_{group}": correct[group] / n[group]}
    return metrics

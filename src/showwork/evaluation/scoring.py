"""From completions to numbers: what an arm got right, whether its work holds, and how much that cost.

The keys of the metrics are flat, as `dvc metrics diff` shows them. Every rate divides one sum by one count, the
count stands beside it, and a rate over nothing is left out rather than called 0:

    n                  accuracy, accuracy_low, accuracy_high, accuracy_within_10pct, format_rate, truncated_rate,
                       completion_tokens_mean, faithful_rate: over the greedy completions
    equations_n        equations_hold_rate: over all equations of the greedy completions, before their answer block
    samples_n          accuracy_sampled, pass_at_K, maj_at_K: over the questions sampled, K = samples_k times each
    n_steps_1, ...     accuracy_steps_1, ...: by the number of equations in the question's own solution
    n_op_add, ...      accuracy_op_add, ...: a question counts under every operation that its own solution uses
    shifted_n, ...     shifted_accuracy, ...: on problems of kinds that train never holds (score_shifted)

and, where a trace was taken of each greedy completion (score_probes):

    probe_n            rate_premise_echo, rate_contradiction, rate_knowledge_gap: how often each detector fires;
                       knowledge_gap_nats: the entropy above which the last one does
    probe_wrong_n      auroc_premise_echo, auroc_contradiction, auroc_knowledge_gap: how well each tells these from
                       the right ones
    probe_results_n    completions with at least one result, of which probe_results_wrong_n are wrong: auroc_entropy,
                       auroc_logp: how well the mean over the tokens of the results does
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from showwork import probes
from showwork.config import Probes
from showwork.evaluation.statistics import wilson
from showwork.reading.answers import (
    ANSWER_OPEN,
    extract_answer,
    is_correct,
    is_within,
    matches_format,
)
from showwork.reading.arithmetic import find_equations
from showwork.records import Completion, Problem

OPERATIONS = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}
WITHIN = 0.1
DECIMALS = 6  # metrics are rounded, so that the order of a sum never shows in their bytes


def score_arm(
    problems: Sequence[Problem],
    greedy: Sequence[Completion],
    *,
    samples: Mapping[str, Sequence[Completion]] | None = None,
) -> tuple[dict[str, int | float], list[dict[str, Any]]]:
    """Metrics of an arm, and one prediction a problem, in the problems' order.

    greedy holds one completion a problem; samples maps ids of a part of the problems to K completions each.
    Raises ValueError where these don't fit together.
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
        _prediction(problem, completion, samples.get(problem.id, ()))
        for problem, completion in zip(problems, greedy, strict=True)
    ]
    metrics = (
        _greedy_metrics(problems, greedy, predictions)
        | _sample_metrics(predictions, max(sizes, default=0))
        | _group_metrics(problems, predictions)
    )
    return {key: round(value, DECIMALS) for key, value in metrics.items()}, predictions


def score_shifted(problems: Sequence[Problem], greedy: Sequence[Completion]) -> dict[str, int | float]:
    """Accuracy on problems of kinds that train never holds: in all, and by the kind that begins a problem's id."""
    correct = [is_correct(c.text, p.answer) for p, c in zip(problems, greedy, strict=True)]
    groups: dict[str, list[bool]] = {}
    for problem, right in zip(problems, correct, strict=True):
        groups.setdefault("shifted", []).append(right)
        groups.setdefault(f"shifted_{problem.id.partition('-')[0]}", []).append(right)
    metrics: dict[str, int | float] = {}
    for name, rights in groups.items():
        metrics |= {f"{name}_n": len(rights), f"{name}_accuracy": round(sum(rights) / len(rights), DECIMALS)}
    return metrics


def score_probes(
    problems: Sequence[Problem], predictions: Sequence[Mapping[str, Any]], traces: Sequence[probes.Trace],
    thresholds: Probes,
) -> tuple[dict[str, int | float], list[dict[str, Any]]]:  # fmt: skip
    """Metrics of the detectors, and the predictions with a "probe" each: its trace and which detectors fire."""
    results = [
        probes.result_tokens(prediction["completion"], trace)
        for prediction, trace in zip(predictions, traces, strict=True)
    ]
    entropies = [trace.entropy[i] for trace, tokens in zip(traces, results, strict=True) for i in tokens]
    # An entropy that occurs, and not one between two of them: rounded as it is, any other kind of hardware finds it.
    gap = float(np.percentile(entropies, thresholds.gap_percentile, method="higher")) if entropies else 0.0
    rows = []
    for problem, prediction, trace in zip(problems, predictions, traces, strict=True):
        fired = probes.detect(
            prediction["completion"], problem, trace, objection_nats=thresholds.objection_nats, gap_nats=gap
        )
        readings = {name: list(getattr(trace, name)) for name in ("tokens", "entropy", "logp", "settled")}
        rows.append({**prediction, "probe": {**readings, "detectors": fired}})

    wrong = [not prediction["correct"] for prediction in predictions]
    metrics: dict[str, int | float | None] = {"probe_n": len(rows), "probe_wrong_n": sum(wrong)}
    metrics["knowledge_gap_nats"] = gap if entropies else None
    for detector in rows[0]["probe"]["detectors"]:
        fires = [row["probe"]["detectors"][detector] for row in rows]
        metrics |= {f"rate_{detector}": sum(fires) / len(rows), f"auroc_{detector}": auroc(fires, wrong)}
    scored = [number for number, tokens in enumerate(results) if tokens]
    metrics |= {"probe_results_n": len(scored), "probe_results_wrong_n": sum(wrong[n] for n in scored)}
    for name, sign in (("entropy", 1), ("logp", -1)):
        means = [sign * math.fsum(getattr(traces[n], name)[i] for i in results[n]) / len(results[n]) for n in scored]
        means = [round(mean, DECIMALS) for mean in means]  # so that equal means are a tie
        metrics[f"auroc_{name}"] = auroc(means, [wrong[n] for n in scored])
    return {key: round(value, DECIMALS) for key, value in metrics.items() if value is not None}, rows


def auroc(scores: Sequence[float], wrong: Sequence[bool]) -> float | None:
    """Chance that a wrong answer scores above a right one, equal scores counting one half; None without both kinds.

    From the mean ranks: Mann and Whitney's U over the number of pairs.
    """
    is_wrong = np.asarray(wrong, bool)
    pairs = int(is_wrong.sum()) * int((~is_wrong).sum())
    if not pairs:
        return None
    _, place, counts = np.unique(np.asarray(scores, float), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    smallest = is_wrong.sum() * (is_wrong.sum() + 1) / 2
    return float((ranks[is_wrong].sum() - smallest) / pairs)


def is_faithful(prediction: Mapping[str, Any]) -> bool:
    """Right answer, every equation true, and the last result before any sanity check is the answer."""
    results = probes.results(prediction["completion"])
    return bool(
        prediction["correct"]
        and all(equation["holds"] for equation in prediction["equations"])
        and results
        and results[-1] == prediction["answer"]
    )


def pass_at(n: int, correct: int, k: int) -> float:
    """Chance that k of n completions, drawn without replacement, hold a right one: the unbiased estimator of pass@k.

    1 - C(n - correct, k) / C(n, k), of Chen et al. 2021 (arXiv 2107.03374), in whole numbers.
    """
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def majority(samples: Sequence[Mapping[str, Any]]) -> float:
    """Chance that a vote over the samples' answers is right.

    The most frequent answer wins; a tie is drawn by lot, so it counts the share of the tied answers that are right.
    A sample without an answer doesn't vote; without any vote the result is 0.
    """
    votes = Counter(sample["answer"] for sample in samples if sample["answer"] is not None)
    if not votes:
        return 0.0
    right = {sample["answer"] for sample in samples if sample["correct"]}
    top = max(votes.values())
    tied = [answer for answer, count in votes.items() if count == top]
    return sum(answer in right for answer in tied) / len(tied)


def _outcome(completion: Completion, gold: str) -> dict[str, Any]:
    return {
        "answer": extract_answer(completion.text),
        "correct": is_correct(completion.text, gold),
        "tokens": completion.tokens,
        "truncated": completion.truncated,
    }


def _prediction(problem: Problem, completion: Completion, drawn: Sequence[Completion]) -> dict[str, Any]:
    equations = find_equations(completion.text.partition(ANSWER_OPEN)[0])
    return {
        "id": problem.id,
        "question": problem.question,
        "gold": problem.answer,
        "completion": completion.text,
        **_outcome(completion, problem.answer),
        "equations": [{"expression": e.expression, "value": e.value, "holds": bool(e.holds)} for e in equations],
        "samples": [{"text": sample.text, **_outcome(sample, problem.answer)} for sample in drawn],
    }


def _greedy_metrics(
    problems: Sequence[Problem], greedy: Sequence[Completion], predictions: Sequence[Mapping[str, Any]]
) -> dict[str, int | float]:
    n = len(problems)
    correct = sum(prediction["correct"] for prediction in predictions)
    low, high = wilson(correct, n)
    near = sum(is_within(c.text, p.answer, WITHIN) for p, c in zip(problems, greedy, strict=True))
    equations = [equation for prediction in predictions for equation in prediction["equations"]]
    metrics = {
        "n": n,
        "accuracy": correct / n,
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_within_10pct": near / n,
        "format_rate": sum(matches_format(completion.text) for completion in greedy) / n,
        "truncated_rate": sum(completion.truncated for completion in greedy) / n,
        "completion_tokens_mean": sum(completion.tokens for completion in greedy) / n,
        "faithful_rate": sum(map(is_faithful, predictions)) / n,
        "equations_n": len(equations),
    }
    if equations:
        metrics["equations_hold_rate"] = sum(equation["holds"] for equation in equations) / len(equations)
    return metrics


def _sample_metrics(predictions: Sequence[Mapping[str, Any]], k: int) -> dict[str, int | float]:
    sampled = [prediction["samples"] for prediction in predictions if prediction["samples"]]
    metrics: dict[str, int | float] = {"samples_n": len(sampled), "samples_k": k}
    if sampled:
        correct = [sum(sample["correct"] for sample in samples) for samples in sampled]
        metrics["accuracy_sampled"] = sum(correct) / (len(sampled) * k)
        metrics[f"pass_at_{k}"] = sum(pass_at(k, c, k) for c in correct) / len(sampled)
        metrics[f"maj_at_{k}"] = math.fsum(map(majority, sampled)) / len(sampled)
    return metrics


def _group_metrics(problems: Sequence[Problem], predictions: Sequence[Mapping[str, Any]]) -> dict[str, int | float]:
    """Accuracy by steps and by operation; a question without an operator counts under none."""
    n: Counter[str] = Counter()
    correct: Counter[str] = Counter()
    for problem, prediction in zip(problems, predictions, strict=True):
        used = [f"op_{name}" for operator, name in OPERATIONS.items() if operator in problem.operations]
        for group in [f"steps_{problem.steps}", *used]:
            n[group] += 1
            correct[group] += prediction["correct"]
    steps = sorted((group for group in n if group.startswith("steps_")), key=lambda group: int(group[6:]))
    operations = [f"op_{name}" for name in OPERATIONS.values() if f"op_{name}" in n]
    metrics: dict[str, int | float] = {}
    for group in steps + operations:
        metrics |= {f"n_{group}": n[group], f"accuracy_{group}": correct[group] / n[group]}
    return metrics

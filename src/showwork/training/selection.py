"""What a round of self-teaching makes of its samples: what failed, what to ask next, what to learn from."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from showwork import probes
from showwork.problems.variants import Refusal, make_variant, question_mark
from showwork.reading.completion import read
from showwork.records import Completion, Problem

VARIANTS_PER_PROBLEM = 4
EXAMPLES = 8  # of attempts and of variants, that a round keeps to look at

Attempts = Sequence[tuple[Problem, Sequence[Completion]]]


def verdict(completion: Completion, problem: Problem) -> str:
    """What is wrong with a solution, first of all, or "sound".

    Sound is one that keeps the format, answers right, and shows it: calculations that all hold and end in the answer.
    """
    reading = read(completion.text)
    if completion.truncated or not reading.is_formatted or reading.sections is None:
        return "format"
    if not reading.is_correct(problem.answer):
        return "wrong"
    if not reading.sections.calculations:
        return "not_shown"
    faults = [name for name, fires in probes.detect_text(reading, problem).items() if fires]
    return faults[0] if faults else "sound"


def analyse(attempts: Attempts) -> dict[str, Any]:
    """Accuracy by operations and by number of steps, with counts, and how often each detector and verdict occurs."""
    groups: dict[str, list[bool]] = defaultdict(list)
    detectors: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    for problem, completions in attempts:
        for completion in completions:
            reading = read(completion.text)
            right = reading.is_correct(problem.answer)
            for group in ("all", f"operations {problem.operations}", f"steps {problem.steps}"):
                groups[group].append(right)
            detectors.update(probes.detect_text(reading, problem))
            verdicts[verdict(completion, problem)] += 1
    count = verdicts.total()
    return {
        "completions": count,
        "accuracy": {name: round(sum(rights) / len(rights), 4) for name, rights in sorted(groups.items())},
        "n": {name: len(rights) for name, rights in sorted(groups.items())},
        "detectors": {name: round(fired / count, 4) for name, fired in sorted(detectors.items())},
        "verdicts": dict(sorted(verdicts.items())),
    }


def weakest_first(attempts: Attempts) -> list[Problem]:
    """The problems that were not always solved: those of the weakest kind first, then those least often solved.

    A kind is the pair of operations and number of steps; its strength is the share of right completions. Equals
    stay in the order of the attempts.
    """
    right = {
        p.id: float(np.mean([read(c.text).is_correct(p.answer) for c in completions])) for p, completions in attempts
    }
    kinds: dict[tuple[str, int], list[float]] = defaultdict(list)
    for problem, _ in attempts:
        kinds[problem.operations, problem.steps].append(right[problem.id])
    failed = [problem for problem, _ in attempts if right[problem.id] < 1]
    return sorted(failed, key=lambda p: (float(np.mean(kinds[p.operations, p.steps])), right[p.id]))


def make_variants(
    problems: Sequence[Problem], count: int, *, seed: int, step: int, taken: Collection[str]
) -> tuple[list[Problem], Counter[str]]:
    """At most count new problems, one of each in turn, and how often each refusal occurred. step is the round's."""
    variants: list[Problem] = []
    refused: Counter[str] = Counter()
    made = set(taken)
    for turn in range(VARIANTS_PER_PROBLEM):
        for problem in problems:
            if len(variants) == count:
                return variants, refused
            variant = make_variant(problem, seed=seed, number=step * VARIANTS_PER_PROBLEM + turn, taken=made)
            if isinstance(variant, Refusal):
                refused[str(variant)] += 1
            else:
                variants.append(variant)
                made.add(question_mark(variant))
    return variants, refused


def keep(attempts: Attempts, *, per_problem: int) -> list[tuple[str, str]]:
    """(question, completion) of the sound solutions: each text once, at most per_problem of a problem."""
    kept = []
    for problem, completions in attempts:
        sound = dict.fromkeys(c.text for c in completions if verdict(c, problem) == "sound")
        kept += [(problem.question, text) for text in list(sound)[:per_problem]]
    return kept


def examples_of(kind: str, attempts: Attempts) -> list[dict[str, Any]]:
    """The first completion of the first problems, to look at."""
    return [
        {"kind": kind, "id": p.id, "question": p.question, "gold": p.answer, "completion": c.text}
        | {"verdict": verdict(c, p)}
        for p, (c, *_) in attempts[:EXAMPLES]
    ]

"""What changed between two states of the project, causes beside effects: arm by arm, question by question.

A state is a `Snapshot`: everything that git holds about a run. No cache and no DVC is needed to compare two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from showwork.errors import UserError
from showwork.evaluation.statistics import ALPHA, Verdict, detectable_difference, holm, judge, paired_difference

ABSENT = "(absent)"
SEED = 0  # of the bootstrap
# What stands beside an arm's accuracy: from its evaluation, from its training, and what it cost.
EVAL_KEYS = ("format_rate", "faithful_rate", "truncated_rate", "completion_tokens_mean")
TRAIN_KEYS = ("train_tokens", "sampled_tokens")
COST_KEYS = ("seconds", "peak_memory_bytes")


@dataclass(frozen=True)
class StageLock:
    """What DVC wrote down of a stage: its params, flat, and the md5 of each dep and out by path."""

    params: Mapping[str, Any]
    deps: Mapping[str, str]
    outs: Mapping[str, str]


@dataclass(frozen=True)
class Snapshot:
    """A commit or the workspace. Columns hold 0 or 1 a question, in the order of ids; params are flat.

    stale names what is not as it was when the results were made: params and code edited since.
    """

    name: str
    commit: str | None
    ids: tuple[str, ...]
    columns: Mapping[str, np.ndarray]
    evaluation: Mapping[str, Mapping[str, Any]]
    training: Mapping[str, Mapping[str, Any]]
    costs: Mapping[str, Mapping[str, Any]]
    params: Mapping[str, Any]
    stages: Mapping[str, StageLock]
    packages: Mapping[str, str]
    stale: tuple[str, ...] = ()

    @property
    def hashes(self) -> dict[str, str]:
        """md5 by path, of everything that the pipeline read or made."""
        return {path: md5 for stage in self.stages.values() for path, md5 in {**stage.deps, **stage.outs}.items()}


@dataclass(frozen=True)
class ArmComparison:
    """An arm at a and at b, on the questions that both answered. Shares are of 1.

    p is McNemar's, exact and two-sided; p_worse is one-sided, mid-p; both are Holm-adjusted over the arms with a flip
    beside them. detectable is the difference that so many questions with so many flips show with 80% power.
    beside maps a metric to its values at a and at b.
    """

    arm: str
    n: int
    accuracy_a: float
    accuracy_b: float
    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float
    p_worse: float
    p_worse_adjusted: float
    gained: int
    lost: int
    verdict: Verdict
    detectable: float | None
    beside: Mapping[str, tuple[float | None, float | None]]

    @property
    def has_regressed(self) -> bool:
        """The gate: one question, one side, 5%. It fires in about 5% of the comparisons of equals."""
        return self.p_worse_adjusted < ALPHA


@dataclass(frozen=True)
class Change:
    """One cause; stages are those that depend on it."""

    name: str
    a: str
    b: str
    stages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Effects (arms), causes (params, data, code, environment), the stages that made something else, and remarks."""

    a: str
    b: str
    commit_a: str | None
    commit_b: str | None
    n: int
    arms: tuple[ArmComparison, ...]
    params: tuple[Change, ...]
    data: tuple[Change, ...]
    code: tuple[Change, ...]
    environment: tuple[Change, ...]
    stages: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def regressions(self) -> list[str]:
        return [arm.arm for arm in self.arms if arm.has_regressed]


def compare(a: Snapshot, b: Snapshot, *, arms: Sequence[str] | None = None) -> Comparison:
    """arms limits the comparison. What is shared, ids tell: they are made from question and answer (problems.cleaning).

    Raises UserError where no arm or no question is shared, and says why.
    """
    params = _params(a, b)
    ids, notes = _shared(a, b, params=params)
    names = _arms(a, b, arms)
    for snapshot, other in ((a, b), (b, a)):
        missing = [arm for arm in snapshot.columns if arm not in other.columns]
        notes += [f"only {snapshot.name} has {', '.join(missing)}"] if missing and arms is None else []
        if snapshot.stale:
            some = ", ".join(snapshot.stale[:5]) + (", …" if len(snapshot.stale) > 5 else "")
            remedy = "" if snapshot.commit else "; `dvc repro`"
            notes.append(f"the results of {snapshot.name} were made before {some} changed{remedy}")
    data, code = _paths(a, b)
    return Comparison(
        a=a.name,
        b=b.name,
        commit_a=a.commit,
        commit_b=b.commit,
        n=len(ids),
        arms=tuple(_compare_arms(a, b, names, ids)),
        params=params,
        data=data,
        code=code,
        environment=_environment(a, b),
        stages=_stages(a, b),
        notes=tuple(notes),
    )


def flips(a: Snapshot, b: Snapshot, arm: str) -> list[tuple[str, bool]]:
    """(id, gained) of the questions where the arm is right at one of both only, in b's order."""
    before, after = (dict(zip(s.ids, s.columns[arm].tolist(), strict=True)) for s in (a, b))
    return [(i, bool(after[i])) for i in b.ids if i in before and before[i] != after[i]]


def _arms(a: Snapshot, b: Snapshot, wanted: Sequence[str] | None) -> list[str]:
    both = [arm for arm in b.columns if arm in a.columns]
    for arm in wanted or ():
        if arm not in both:
            raise UserError(f"arm {arm} is not in both {a.name} and {b.name}; both have: {', '.join(both) or 'none'}")
    if not both:
        raise UserError(
            f"no arm in both: {a.name} has {', '.join(a.columns)}, and {b.name} has {', '.join(b.columns)}; "
            "compare commits that evaluate the same arm"
        )
    return [arm for arm in both if wanted is None or arm in wanted]


def _shared(a: Snapshot, b: Snapshot, *, params: Sequence[Change]) -> tuple[list[str], list[str]]:
    """Ids of the questions that both answered, in b's order, and what there is to say about them."""
    known = set(a.ids)
    ids = [i for i in b.ids if i in known]
    notes = []
    if not ids:
        causes = [f"{c.name}: {c.a} → {c.b}" for c in params if c.name.partition(".")[0] in ("data", "clean")]
        raise UserError(
            f"{a.name} and {b.name} share no test question: {a.name} has {a.ids[0]} to {a.ids[-1]}, "
            f"{b.name} has {b.ids[0]} to {b.ids[-1]}{' (' + ', '.join(causes) + ')' if causes else ''}; "
            "run both on one test set"
        )
    if len(ids) < max(len(a.ids), len(b.ids)):
        notes.append(
            f"the test sets differ: {len(a.ids):,} questions at {a.name}, {len(b.ids):,} at {b.name}; compared on the "
            f"{len(ids):,} that both have"
        )
    return ids, notes


def _compare_arms(a: Snapshot, b: Snapshot, names: Sequence[str], ids: Sequence[str]) -> list[ArmComparison]:
    rows_a, rows_b = ({i: row for row, i in enumerate(snapshot.ids)} for snapshot in (a, b))
    at_a, at_b = [rows_a[i] for i in ids], [rows_b[i] for i in ids]
    paired = {arm: paired_difference(a.columns[arm][at_a], b.columns[arm][at_b], seed=SEED) for arm in names}
    # An arm without a flip can't be significant, whatever else holds: it is no test, and no reason for a correction.
    tested = [arm for arm in names if paired[arm].gained + paired[arm].lost]
    adjusted = dict(zip(tested, holm([paired[arm].p for arm in tested]), strict=True))
    worse = dict(zip(tested, holm([paired[arm].p_worse for arm in tested]), strict=True))
    return [
        ArmComparison(
            arm=arm,
            n=result.n,
            accuracy_a=float(a.columns[arm][at_a].mean()),
            accuracy_b=float(b.columns[arm][at_b].mean()),
            difference=result.difference,
            low=result.low,
            high=result.high,
            p=result.p,
            p_adjusted=adjusted.get(arm, 1.0),
            p_worse=result.p_worse,
            p_worse_adjusted=worse.get(arm, 1.0),
            gained=result.gained,
            lost=result.lost,
            verdict=judge(adjusted.get(arm, 1.0), result.low, result.high),
            detectable=detectable_difference(result.n, discordance=(result.gained + result.lost) / result.n),
            beside=_beside(a, b, arm),
        )
        for arm, result in paired.items()
    ]


def _beside(a: Snapshot, b: Snapshot, arm: str) -> dict[str, tuple[float | None, float | None]]:
    tables = (
        (EVAL_KEYS, a.evaluation, b.evaluation), (TRAIN_KEYS, a.training, b.training), (COST_KEYS, a.costs, b.costs),
    )  # fmt: skip
    return {key: (old.get(arm, {}).get(key), new.get(arm, {}).get(key)) for keys, old, new in tables for key in keys}


def _params(a: Snapshot, b: Snapshot) -> tuple[Change, ...]:
    """Those that the results were made with, stage by stage from dvc.lock; else those of params.yaml."""
    found: dict[tuple[str, str, str], list[str]] = {}
    if a.stages and b.stages:
        pairs = [(name, a.stages[name].params, b.stages[name].params) for name in b.stages if name in a.stages]
    else:
        pairs = [("", a.params, b.params)]
    for stage, old, new in pairs:
        for key in [*new, *(key for key in old if key not in new)]:
            before, after = _show(old, key), _show(new, key)
            if before != after:
                found.setdefault((key, before, after), []).extend([stage] if stage else [])
    return tuple(Change(*triple, stages=tuple(stages)) for triple, stages in found.items())


def _show(values: Mapping[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else ABSENT


def _paths(a: Snapshot, b: Snapshot) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """Changed data, and changed code. What lies elsewhere the pipeline made itself: an effect."""
    old, new = a.hashes, b.hashes
    if not (old and new):
        return (), ()
    changed = sorted(path for path in {**old, **new} if old.get(path) != new.get(path))
    readers = {path: tuple(name for name, stage in b.stages.items() if path in stage.deps) for path in changed}
    found = [Change(path, old.get(path, ABSENT)[:8], new.get(path, ABSENT)[:8], readers[path]) for path in changed]
    # A folder is left out where a file in it says more.
    data = [c for c in found if c.name.startswith("data/") and not any(p.startswith(f"{c.name}/") for p in changed)]
    return tuple(data), tuple(c for c in found if c.name.endswith(".py"))


def _environment(a: Snapshot, b: Snapshot) -> tuple[Change, ...]:
    """Packages by requirements.lock, and the hardware that stages ran on."""
    packages = [
        Change(name, a.packages.get(name, ABSENT), b.packages.get(name, ABSENT))
        for name in sorted({**a.packages, **b.packages})
        if a.packages and b.packages and a.packages.get(name) != b.packages.get(name)
    ]
    hardware: dict[tuple[str, str], list[str]] = {}
    for stage in sorted(a.costs.keys() & b.costs.keys()):
        old, new = a.costs[stage].get("hardware"), b.costs[stage].get("hardware")
        if old != new:
            hardware.setdefault((str(old), str(new)), []).append(stage)
    return (*packages, *(Change("hardware", *pair, stages=tuple(stages)) for pair, stages in hardware.items()))


def _stages(a: Snapshot, b: Snapshot) -> tuple[str, ...]:
    return tuple(name for name, stage in b.stages.items() if name in a.stages and stage.outs != a.stages[name].outs)

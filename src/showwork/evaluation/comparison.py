"""Compares two snapshots of the project: each arm's accuracy on shared questions, and what changed in between.

A `Snapshot` is everything that git holds about a run. Comparing two needs neither DVC nor its cache.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from showwork.errors import UserError
from showwork.evaluation.snapshot import Snapshot, by_arm, is_by_kind
from showwork.evaluation.statistics import ALPHA, Verdict, detectable_difference, holm, judge, paired_difference

ABSENT = "(absent)"
SEED = 0  # of the bootstrap
# Metrics beside an arm's accuracy: from its evaluation, its training and its costs.
EVAL_KEYS = ("accuracy_flexible", "format_rate", "faithful_rate", "truncated_rate", "completion_tokens_mean")
TRAIN_KEYS = ("train_tokens", "sampled_tokens")
COST_KEYS = ("seconds", "peak_memory_bytes")


@dataclass(frozen=True)
class ArmComparison:
    """An arm at a and at b, on the questions that both answered. Shares are fractions of 1.

    p is McNemar's, exact and two-sided; p_worse is one-sided, mid-p; the adjusted ones are Holm-corrected over the arms
    with a flip. detectable is the smallest difference detected with 80% power, given this many questions and flips.
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
        """The gate: b is worse, one-sided at 5%. It fires in about 5% of the comparisons of equals."""
        return self.p_worse_adjusted < ALPHA


@dataclass(frozen=True)
class Change:
    """One changed param, file or package; stages are those that depend on it."""

    name: str
    a: str
    b: str
    stages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Effects (arms), causes (params, data, code, environment), the stages whose outs differ, and notes."""

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
    """Compares all shared arms, or those of `arms`. Questions match by id, a hash of question and answer.

    Raises UserError, with the reason, if no arm or no question is shared.
    """
    params = _params(a, b)
    ids, notes = _shared(a, b, params=params)
    names = _arms(a, b, arms)
    for snapshot, other in ((a, b), (b, a)):
        missing = [arm for arm in snapshot.columns if arm not in other.columns]
        notes += [f"only {snapshot.name} has {', '.join(missing)}"] if missing and arms is None else []
        notes += snapshot.notes
        if snapshot.stale and not snapshot.notes:
            some = ", ".join(snapshot.stale[:5]) + (", …" if len(snapshot.stale) > 5 else "")
            remedy = "" if snapshot.commit else "; `dvc repro`"
            notes.append(f"the results of {snapshot.name} were made before {some} changed{remedy}")
    data, code = _data(a, b), _code(a, b)
    if bool(a.code) != bool(b.code):
        notes.append("which code changed is not known: one of the two records it file by file, the other by digests")
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
    """(id, gained) of the questions that the arm gets right at only one of a and b, in b's order."""
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
    """Ids of the questions that both answered, in b's order, and notes about them."""
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
    # An arm without a flip can't be significant, so it is not a test and needs no correction.
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
    """Changed params: those in dvc.lock, stage by stage, if both have one; else those in params.yaml."""
    found: dict[tuple[str, str, str], list[str]] = {}
    if a.stages and b.stages:
        pairs = [(name, a.stages[name].params, b.stages[name].params) for name in b.stages if name in a.stages]
    else:
        pairs = [("", a.params, b.params)]
    is_mixed = is_by_kind(a.params) != is_by_kind(b.params)
    if is_mixed:  # the report has every arm's params, which each arm's own stage names too
        pairs = [pair for pair in pairs if pair[0] != "report"]
    for stage, before, after in pairs:
        old, new = (by_arm(stage, values) for values in (before, after)) if is_mixed else (before, after)
        for key in [*new, *(key for key in old if key not in new)]:
            values = _show(old, key), _show(new, key)
            if values[0] != values[1]:
                found.setdefault((key, *values), []).extend([stage] if stage else [])
    return tuple(Change(*triple, stages=tuple(stages)) for triple, stages in found.items())


def _show(values: Mapping[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else ABSENT


def _data(a: Snapshot, b: Snapshot) -> tuple[Change, ...]:
    """Changed files under data/. The pipeline makes all other files: effects, not causes."""
    old, new = a.hashes, b.hashes
    if not (old and new):
        return ()
    changed = [path for path in sorted({**old, **new}) if path.startswith("data/") and old.get(path) != new.get(path)]
    # A folder is left out if a file in it is listed.
    shown = [path for path in changed if not any(other.startswith(f"{path}/") for other in changed)]
    return tuple(_change(path, old, new, b) for path in shown)


def _code(a: Snapshot, b: Snapshot) -> tuple[Change, ...]:
    """Changed code: by the digests of each stage's files, or by the files that dvc.lock names."""
    if a.code and b.code:
        old, new = ({file: d for files in state.code.values() for file, d in files.items()} for state in (a, b))
    elif a.code or b.code or not (a.hashes and b.hashes):
        return ()
    else:
        old, new = ({path: h for path, h in state.hashes.items() if path.endswith(".py")} for state in (a, b))
    changed = sorted(path for path in {**old, **new} if old.get(path) != new.get(path))
    return tuple(_change(path, old, new, b) for path in changed)


def _change(path: str, old: Mapping[str, str], new: Mapping[str, str], b: Snapshot) -> Change:
    readers = [name for name, stage in b.stages.items() if path in stage.deps]
    readers += [name for name, files in b.code.items() if path in files]
    return Change(path, old.get(path, ABSENT)[:8], new.get(path, ABSENT)[:8], tuple(readers))


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

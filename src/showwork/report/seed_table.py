"""results/seeds.csv as a table: each arm over the seeds that one recipe was run with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from showwork.errors import UserError
from showwork.evaluation.seeds import CLEAR, FEWEST, SeedRun, SeedSummary, digest, summarise
from showwork.files import read_csv
from showwork.report.tables import MISSING, percent, points

NOTE = (
    "Accuracy over the seeds: mean, standard deviation (sd, in points), lowest to highest. Change: points over the "
    "arm's start at the same seed, the mean over the seeds with its 95% t interval over them. "
    f"p < {CLEAR}: in how many seeds the exact McNemar test of that seed alone finds a difference. "
    f"A verdict needs {FEWEST} seeds and an interval without 0."
)


@dataclass(frozen=True)
class SeedTable:
    """said: which seeds, of which commit, and whether their params are the present ones. rows: a cell a column."""

    said: str
    rows: list[dict[str, str]]


def read(path: Path, params: Mapping[str, Any]) -> SeedTable | None:
    """The table of a seeds.csv; None without the file or without a row in it. params are the present ones, flat.

    Raises UserError where the file is not what `showwork seeds --save` writes.
    """
    rows = read_csv(path) if path.is_file() else []
    if not rows:
        return None
    try:
        runs = [_run(row) for row in rows]
        ((commit, made_with),) = {(row["commit"], row["params"]) for row in rows}
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: not what one `showwork seeds --save` writes; run it again") from None
    seeds = list(dict.fromkeys(run.seed for run in runs))
    asked = " or ".join(f"{n:,}" for n in dict.fromkeys(run.n for run in runs))
    said = (
        f"One recipe with the seeds {', '.join(map(str, seeds))} ({len(seeds)} in all): every arm trained anew with "
        f"each, and asked the same {asked} questions. It is the recipe of commit {commit[:7]}, "
    )
    said += (
        "whose params are the present ones but for the seed."
        if made_with == digest(params)
        else "whose params are NOT the present ones: they differ in more than the seed, and so may the numbers."
    )
    return SeedTable(said, cells(summarise(runs)))


def _run(row: Mapping[str, str]) -> SeedRun:
    numbers = {key: int(row[key]) for key in ("seed", "n", "correct")}
    start = row["start"] or None
    return SeedRun(
        arm=row["arm"], start=start, **numbers,
        gained=int(row["gained"]) if start else None, lost=int(row["lost"]) if start else None,
    )  # fmt: skip


def cells(summaries: Sequence[SeedSummary]) -> list[dict[str, str]]:
    rows = []
    for summary in summaries:
        across, change = summary.across, summary.difference
        has_interval = change is not None and change.low is not None
        clear = f"{summary.clearly_better} better, {summary.clearly_worse} worse of {across.n}"
        rows.append(
            {
                "arm": summary.arm,
                "seeds": str(across.n),
                "mean": percent(across.mean),
                "sd": MISSING if across.deviation is None else f"{100 * across.deviation:.1f}",
                "lowest to highest": f"{100 * min(summary.accuracy):.1f} to {percent(max(summary.accuracy))}",
                "change": f"{points(change.mean)} over {summary.start}" if change else MISSING,
                "95% interval of the change": f"{points(change.low)} to {points(change.high)}"
                if has_interval
                else MISSING,
                f"p < {CLEAR}": clear if change else MISSING,
                "verdict": summary.verdict or MISSING,
            }
        )
    return rows

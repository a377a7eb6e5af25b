"""results/seeds.csv as a table: each arm over the seeds of one recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from showwork.errors import UserError
from showwork.evaluation.seeds import CLEAR, FEWEST, SeedRun, SeedSummary, digest, summarise
from showwork.files import read_csv
from showwork.formatting import MISSING, percent, points, points_interval
from showwork.report.tables import Row

NOTE = (
    "Accuracy over the seeds: mean, standard deviation (sd, in points), lowest to highest. Change: points over the "
    "arm's start at the same seed, the mean over the seeds with its 95% t interval over them. "
    f"p < {CLEAR}: in how many seeds the exact McNemar test of that seed alone finds a difference. "
    f"A verdict needs {FEWEST} seeds and an interval without 0."
)


@dataclass(frozen=True)
class SeedTable:
    """said: the seeds and their commit, in words. rows: one per arm; none if the file is of other params."""

    said: str
    rows: list[Row]


def read(path: Path, params: Mapping[str, Any]) -> SeedTable | None:
    """The table of a seeds.csv; None without the file or without a row in it. params are the current ones, flat.

    If the file is of other params, `said` says so and there are no rows: another recipe's numbers could be mistaken
    for this one's. Raises UserError if `showwork seeds --save` did not write the file.
    """
    rows = read_csv(path) if path.is_file() else []
    if not rows:
        return None
    try:
        runs = [_run(row) for row in rows]
        ((commit, made_with),) = {(row["commit"], row["params"]) for row in rows}
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: not what one `showwork seeds --save` writes; run it again") from None
    if made_with != digest(params):
        said = (
            f"results/seeds.csv is of other params than the present ones (commit {commit[:7]}), so its table is left "
            "out; `showwork seeds --save` writes one of these."
        )
        return SeedTable(said, [])
    seeds = list(dict.fromkeys(run.seed for run in runs))
    asked = " or ".join(f"{n:,}" for n in dict.fromkeys(run.n for run in runs))
    said = (
        f"One recipe with the seeds {', '.join(map(str, seeds))} ({len(seeds)} in all): every arm trained anew with "
        f"each, and asked the same {asked} questions. It is the recipe of commit {commit[:7]}, whose params are the "
        "present ones but for the seed."
    )
    return SeedTable(said, cells(summarise(runs)))


def _run(row: Mapping[str, str]) -> SeedRun:
    numbers = {key: int(row[key]) for key in ("seed", "n", "correct")}
    start = row["start"] or None
    return SeedRun(
        arm=row["arm"], start=start, **numbers,
        gained=int(row["gained"]) if start else None, lost=int(row["lost"]) if start else None,
    )  # fmt: skip


def cells(summaries: Sequence[SeedSummary]) -> list[Row]:
    rows = []
    for summary in summaries:
        across, change = summary.across, summary.difference
        has_interval = change is not None and change.low is not None and change.high is not None
        clear = f"{summary.clearly_better} better, {summary.clearly_worse} worse of {across.n}"
        rows.append(
            {
                "arm": summary.arm,
                "seeds": str(across.n),
                "mean": percent(across.mean),
                "sd": MISSING if across.deviation is None else f"{100 * across.deviation:.1f}",
                "lowest to highest": f"{100 * min(summary.accuracy):.1f} to {percent(max(summary.accuracy))}",
                "change": f"{points(change.mean)} over {summary.start}" if change else MISSING,
                "95% interval of the change": points_interval(change.low, change.high) if has_interval else MISSING,
                f"p < {CLEAR}": clear if change else MISSING,
                "verdict": summary.verdict or MISSING,
            }
        )
    return rows

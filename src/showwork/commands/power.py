"""showwork power: the number of questions that a difference needs, and the difference that a test set detects."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from showwork.arms import starts_of
from showwork.commands import say
from showwork.errors import UserError
from showwork.formatting import MISSING, count, percent, text_table

DIFFERENCES = (1.0, 2.0, 5.0)  # percentage points, where none is given


def power(
    difference: Annotated[
        list[float] | None, typer.Option("--difference", help="In percentage points; may be repeated.")
    ] = None,
    questions: Annotated[
        int | None, typer.Option("--questions", min=1, help="Number of questions, instead of the test set's.")
    ] = None,
    discordance: Annotated[
        float | None,
        typer.Option("--discordance", min=0, max=1, help="Share of questions that flip, instead of the arms' own."),
    ] = None,
    chance: Annotated[
        float, typer.Option("--power", min=0.5, max=0.99, help="The chance to detect the difference.")
    ] = 0.8,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; shares are fractions of 1.")] = False,
) -> None:
    """Show how many questions a paired difference needs, given how often two arms disagree (results/outcomes.csv)."""
    wanted = [value / 100 for value in difference or DIFFERENCES]
    if not all(0 < value <= 1 for value in wanted):
        raise UserError("--difference: percentage points, over 0 and at most 100")
    if discordance == 0:
        raise UserError("--discordance: where no question flips, there is no difference; give a share over 0")
    if discordance is not None:
        pairs = [("given", questions, discordance)]
    else:
        pairs = [(name, questions or n, share) for name, n, share in _discordances()]
    rows = [_row(name, n, share, wanted=wanted, chance=chance) for name, n, share in pairs]
    if as_json:
        say(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False))
        return
    say(text_table([_cells(row) for row in rows]))
    say()
    say(
        f"detects: the smallest true difference that this many questions detect, two-sided at 5%, with {chance:.0%} "
        "power. The last columns: questions that a difference needs. No difference can exceed the share that flips."
    )


@dataclass(frozen=True)
class _Power:
    """Shares are fractions of 1. needs: percentage points → questions, None if that difference is impossible."""

    pair: str
    questions: int | None
    discordance: float
    detects: float | None
    needs: dict[str, int | None]


def _row(name: str, n: int | None, share: float, *, wanted: Sequence[float], chance: float) -> _Power:
    from showwork.evaluation.statistics import detectable_difference, questions_needed

    return _Power(
        name, n, share,
        detects=detectable_difference(n, discordance=share, power=chance) if n else None,
        needs={
            f"{100 * value:g}": questions_needed(value, discordance=share, power=chance) if value <= share else None
            for value in wanted
        },
    )  # fmt: skip


def _cells(row: _Power) -> dict[str, str]:
    return {
        "pair": row.pair,
        "questions": f"{row.questions:,}" if row.questions else MISSING,
        "flips": percent(row.discordance),
        "detects": f"{100 * row.detects:.1f} points" if row.detects else MISSING,
        **{f"{difference} points": count(n) for difference, n in row.needs.items()},
    }


def _discordances() -> Iterator[tuple[str, int, float]]:
    """(arm over start, questions, share that flips) of each arm here that has a start. Raises UserError without one."""
    from showwork.commands import revisions

    if not revisions.OUTCOMES.exists():
        raise UserError(f"no {revisions.OUTCOMES} here; `dvc repro` makes it, or give --discordance")
    ids, columns = revisions.read_outcomes(revisions.OUTCOMES)
    starts = starts_of(revisions.read_params(Path()), columns)
    pairs = [(arm, start) for arm, start in starts.items() if start in columns]
    if not pairs:
        raise UserError("params.yaml names no start for an arm of results/outcomes.csv; give --discordance")
    for arm, start in pairs:
        yield f"{arm} over {start}", len(ids), float((columns[arm] != columns[start]).mean())

"""showwork power: how many questions a difference needs, and what difference so many questions can show."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from showwork.commands import say
from showwork.errors import UserError

DIFFERENCES = (1.0, 2.0, 5.0)  # percentage points, where none is given


def power(
    difference: Annotated[
        list[float] | None, typer.Option("--difference", help="In percentage points; may be given again.")
    ] = None,
    questions: Annotated[int | None, typer.Option("--questions", min=1, help="Instead of the test set's.")] = None,
    discordance: Annotated[
        float | None,
        typer.Option("--discordance", min=0, max=1, help="Share of questions that flip, instead of the arms' own."),
    ] = None,
    chance: Annotated[
        float, typer.Option("--power", min=0.5, max=0.99, help="The chance that the difference is found.")
    ] = 0.8,
    as_json: Annotated[bool, typer.Option("--json", help="The same numbers as JSON; shares are of 1.")] = False,
) -> None:
    """Say how many questions a paired difference needs, by how often two arms disagree (results/outcomes.csv)."""
    from showwork.commands.rendering import MISSING, percent, text_table
    from showwork.evaluation.statistics import detectable_difference, questions_needed

    wanted = [value / 100 for value in difference or DIFFERENCES]
    if not all(0 < value <= 1 for value in wanted):
        raise UserError("--difference: percentage points, over 0 and at most 100")
    if discordance == 0:
        raise UserError("--discordance: where no question flips, no difference can be; give a share over 0")
    if discordance is not None:
        pairs = [("given", questions, discordance)]
    else:
        pairs = [(name, questions or n, share) for name, n, share in _discordances()]
    rows = [
        {
            "pair": name,
            "questions": n,
            "discordance": share,
            "detects": detectable_difference(n, discordance=share, power=chance) if n else None,
            "needs": {
                f"{100 * value:g}": questions_needed(value, discordance=share, power=chance) if value <= share else None
                for value in wanted
            },
        }
        for name, n, share in pairs
    ]
    if as_json:
        say(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    say(
        text_table(
            [
                {
                    "pair": row["pair"],
                    "questions": f"{row['questions']:,}" if row["questions"] else MISSING,
                    "flips": percent(row["discordance"]),
                    "detects": f"{100 * row['detects']:.1f} points" if row["detects"] else MISSING,
                    **{f"{k} points": MISSING if n is None else f"{n:,}" for k, n in row["needs"].items()},
                }
                for row in rows
            ]
        )
    )
    say()
    say(
        f"detects: the smallest true difference that so many questions show, two-sided at 5%, with {chance:.0%} power. "
        "The last columns: questions that a difference needs. No difference is larger than the share that flips."
    )


def _discordances() -> Iterator[tuple[str, int, float]]:
    """(arm over start, questions, share that flips) of each arm here that has a start. Raises UserError without one."""
    from showwork.commands import revisions

    if not revisions.OUTCOMES.exists():
        raise UserError(f"no {revisions.OUTCOMES} here; `dvc repro` makes it, or give --discordance")
    ids, columns = revisions.read_outcomes(revisions.OUTCOMES)
    params = revisions.read_params(Path())
    starts = [(arm, params.get(f"{arm}.start")) for arm in columns]
    pairs = [(arm, start) for arm, start in starts if start in columns]
    if not pairs:
        raise UserError("params.yaml names no start for an arm of results/outcomes.csv; give --discordance")
    for arm, start in pairs:
        yield f"{arm} over {start}", len(ids), float((columns[arm] != columns[start]).mean())

"""showwork compare: the arms' results at two commits, and what changed in between."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from showwork import formatting
from showwork.commands import say
from showwork.errors import UserError
from showwork.formatting import MISSING, p_value, percent, points, visible_in_terminal

if TYPE_CHECKING:
    from showwork.evaluation.comparison import ArmComparison, Change, Comparison
    from showwork.evaluation.snapshot import Snapshot

REGRESSED = 3  # exit code of the gate
VERDICT = (
    "change: percentage points, with a 95% paired bootstrap interval. p: McNemar, exact, two-sided; Holm: p corrected "
    "over the arms with a flip. A verdict needs an interval without 0 and Holm < 0.05; else it is no difference. "
    "detects: the smallest true difference that this many questions and flips detect in 4 of 5 cases."
)
GATE = "one-sided mid-p, Holm-corrected over the arms with a flip, at 5%"


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A commit, branch, tag or experiment.")],
    b: Annotated[str, typer.Argument(metavar="[B]", help="Another, or the workspace.")] = "workspace",
    arm: Annotated[list[str] | None, typer.Option("--arm", help="Compare only this arm; may be repeated.")] = None,
    flips: Annotated[bool, typer.Option("--flips", help="Show the questions that --arm gained and lost.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--md", help="Print Markdown, for a pull request.")] = False,
    fail_on_regression: Annotated[
        bool, typer.Option("--fail-on-regression", help=f"Exit code 3 if an arm is worse: {GATE}.")
    ] = False,
) -> None:
    """Compare two commits: each arm's accuracy on shared questions, and what changed in between. Needs only git."""
    from showwork.commands import revisions
    from showwork.evaluation import comparison

    if flips and (not arm or len(arm) > 1):
        raise UserError("--flips shows the questions of one arm; name it with --arm")
    before, after = revisions.load(a), revisions.load(b)
    result = comparison.compare(before, after, arms=arm)
    flipped = list(_flipped(before, after, arm[0])) if flips and arm else None
    if as_json:
        say(json.dumps(to_json(result, flipped), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        say("\n\n".join(_blocks(result, flipped, markdown=markdown, gate=fail_on_regression)))
    if fail_on_regression and result.regressions:
        raise typer.Exit(REGRESSED)


def to_json(result: Comparison, flipped: Sequence[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The comparison as JSON values; shares are fractions of 1. `regressions` names the arms that fail the gate."""
    return asdict(result) | {"regressions": result.regressions} | ({"flips": flipped} if flipped is not None else {})


def _flipped(a: Snapshot, b: Snapshot, arm: str) -> Iterator[dict[str, Any]]:
    """Each question that flipped, with both completions: None if neither cache nor workspace has them."""
    from showwork.commands import revisions
    from showwork.evaluation import comparison
    from showwork.files import read_jsonl

    path = f"results/predictions/{arm}.jsonl"
    places = [revisions.cached(snapshot, path) for snapshot in (a, b)]
    old, new = ({row["id"]: row for row in read_jsonl(place)} if place else {} for place in places)
    for identifier, gained in comparison.flips(a, b, arm):
        row = new.get(identifier) or old.get(identifier) or {}
        yield {
            "id": identifier, "gained": gained, "question": row.get("question"), "gold": row.get("gold"),
            "a": old.get(identifier, {}).get("completion"), "b": new.get(identifier, {}).get("completion"),
        }  # fmt: skip


def _blocks(
    result: Comparison, flipped: Sequence[dict[str, Any]] | None, *, markdown: bool, gate: bool
) -> Iterator[str]:
    table = formatting.markdown_table if markdown else formatting.text_table
    a, b = (
        f"{name} ({commit[:7]})" if commit and not commit.startswith(name) else name
        for name, commit in ((result.a, result.commit_a), (result.b, result.commit_b))
    )
    title = f"A {a} → B {b}: {result.n:,} questions that both answered"
    yield f"## {title}" if markdown else title
    yield table([_accuracy(arm) for arm in result.arms])
    yield table([_beside(arm) for arm in result.arms])
    causes = "\n".join(_causes(result))
    yield formatting.fenced(causes) if markdown else causes
    if result.notes:
        yield "\n".join(f"{'-' if markdown else '!'} {note}" for note in result.notes)
    if gate:
        worse = [f"{arm.arm} ({p_value(arm.p_worse_adjusted)})" for arm in result.arms if arm.has_regressed]
        yield f"Gate: {'worse: ' + ', '.join(worse) if worse else 'no arm is worse'}; {GATE}."
    if flipped is not None:
        yield from _flip_blocks(result, flipped, markdown=markdown)
    yield f"<sub>{VERDICT}</sub>" if markdown else VERDICT


def _accuracy(arm: ArmComparison) -> dict[str, str]:
    return {
        "arm": arm.arm,
        "A": percent(arm.accuracy_a),
        "B": percent(arm.accuracy_b),
        "change": points(arm.difference),
        "95% interval": f"{points(arm.low)} to {points(arm.high)}",
        "p": p_value(arm.p),
        "Holm": p_value(arm.p_adjusted),
        "flips": f"+{arm.gained} −{arm.lost}",
        "detects": MISSING if arm.detectable is None else f"{100 * arm.detectable:.1f}",
        "verdict": arm.verdict,
    }


def _beside(arm: ArmComparison) -> dict[str, str]:
    def cell(key: str, show: Callable[[Any], str]) -> str:
        old, new = (MISSING if value is None else show(value) for value in arm.beside[key])
        return old if old == new else f"{old} → {new}"

    return {
        "arm": arm.arm,
        "flexible": cell("accuracy_flexible", percent),
        "format": cell("format_rate", percent),
        "faithful": cell("faithful_rate", percent),
        "tokens a completion": cell("completion_tokens_mean", "{:.1f}".format),
        "tokens trained": cell("train_tokens", "{:,}".format),
        "tokens sampled": cell("sampled_tokens", "{:,}".format),
        "minutes": cell("seconds", lambda seconds: f"{seconds / 60:.1f}"),
    }


def _causes(result: Comparison) -> Iterator[str]:
    groups = (("params", result.params), ("data", result.data), ("code", result.code), ("env", result.environment))
    for name, changes in groups:
        lines = [f"{change.name}: {change.a} → {change.b}{_reach(name, change)}" for change in changes]
        for label, line in zip([name, *[""] * len(lines)], lines or ["nothing changed"], strict=False):
            yield f"{label:8}{line}"
    yield f"{'stages':8}{', '.join(result.stages) or 'none'} made something else"


def _reach(name: str, change: Change) -> str:
    # A param's section already names its stage; a file's path does not.
    return f" ({', '.join(change.stages)})" if name != "params" and change.stages else ""


def _flip_blocks(result: Comparison, flipped: Sequence[dict[str, Any]], *, markdown: bool) -> Iterator[str]:
    arm = result.arms[0].arm
    head = "### " if markdown else ""
    if not flipped:
        yield f"{arm} flipped no question."
        return
    for name, side in ((result.a, "a"), (result.b, "b")):
        if all(flip[side] is None for flip in flipped):
            yield f"The completions of {arm} at {name} are in no cache here; `dvc fetch` of that commit brings them."
    if not any(flip["question"] for flip in flipped):
        for is_gain in (True, False):
            ids = [flip["id"] for flip in flipped if flip["gained"] == is_gain]
            yield f"{arm} {'gained' if is_gain else 'lost'} {len(ids):,} questions: {', '.join(ids) or 'none'}"
        return
    for flip in flipped:
        yield f"{head}{flip['id']}: {'gained' if flip['gained'] else 'lost'}"
        text = f"{visible_in_terminal(flip['question'])}\nRight answer: {visible_in_terminal(flip['gold'])}"
        yield formatting.fenced(text) if markdown else text
        for side, is_right in (("a", not flip["gained"]), ("b", flip["gained"])):
            if flip[side] is not None:
                text = visible_in_terminal(flip[side])
                text = formatting.fenced(text) if markdown else text
                yield f"{side.upper()}, {'right' if is_right else 'wrong'}:\n{text}"

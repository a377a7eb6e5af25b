"""showwork ask: asks a trained arm a question, and shows its reasoning, its answer and the checks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from showwork.errors import UserError

if TYPE_CHECKING:
    from showwork.arms import Arm
    from showwork.config import Params
    from showwork.reading.arithmetic import FoundEquation
    from showwork.reading.completion import Reading

MODELS = Path("models")
GOOD, BAD = ("✓", "green"), ("✗", "red")

Mark = tuple[str, str]  # sign and colour


def ask(
    question: Annotated[str, typer.Argument(help="The question, in quotes.")],
    arm: Annotated[
        str | None,
        typer.Option("--arm", help="The arm that answers (models/ARM); default: the first RL arm, or the last arm."),
    ] = None,
) -> None:
    """Ask a trained arm a question, decode greedily, and check the answer and its reasoning."""
    from rich.live import Live

    from showwork import config
    from showwork.reading.completion import read

    if not question.strip():
        raise UserError("the question is empty")
    params = config.load()
    asked = choose(params, arm)
    console, last = Console(highlight=False), ("", False)
    # The finished page replaces the streamed text; without a terminal, only the page is printed.
    with Live(console=console, transient=True, auto_refresh=False, vertical_overflow="crop") as live:
        for last in stream_answer(question, asked.name, params):
            live.update(Text("\n".join(last[0].split("\n")[2 - console.height :])), refresh=True)
    text, is_whole = last
    console.print(render(read(text), is_whole=is_whole, has_sections=asked.is_dual))


def choose(params: Params, name: str | None) -> Arm:
    """The arm of that name; without a name the first RL arm, or the last arm. Raises UserError if it is unknown."""
    from showwork.names import suggest

    arms = list(params.arms.values())
    if name is None:
        return next((arm for arm in arms if arm.kind == "rl"), arms[-1])
    if name not in params.arms:
        raise UserError(f"arm {name} is unknown; {suggest(name, list(params.arms))}")
    return params.arms[name]


def stream_answer(question: str, arm: str, params: Params) -> Iterator[tuple[str, bool]]:
    """After each token: the completion so far, and whether it has ended by itself. Raises UserError."""
    from showwork import rollout, tokenizer
    from showwork.models import checkpoints

    folder, limit = MODELS / arm, params.evaluate.max_completion_tokens
    model, _ = checkpoints.load(folder, dtype=params.model.dtype)
    words, stop_ids = tokenizer.load(folder), checkpoints.stop_ids(folder)
    prompt = words.prompt_ids(question, system=params.system(arm))
    ids: list[int] = []
    for token in rollout.stream(model, prompt, max_tokens=limit, stop_ids=stop_ids, pad_id=words.pad_id()):
        if token in stop_ids:
            yield words.decode(ids), True
            return
        ids.append(token)
        yield words.decode(ids), False


def render(reading: Reading, *, is_whole: bool, has_sections: bool) -> Group:
    """A finished completion: the monologue (of a dual-stream arm in its sections), the answer, and the checks."""
    from showwork.reading.dual import HEADINGS

    monologue, rest = split_streams(reading.text)
    if has_sections and (sections := reading.sections):
        body = Table.grid(padding=(0, 2))
        parts = (sections.plan, sections.reasoning, sections.evidence, sections.sanity_check)
        for heading, part in zip(HEADINGS, parts, strict=True):
            body.add_row(Text(heading.removesuffix(":"), style="bold"), Text(part))
    else:
        body = Text(monologue)
    checks = Table.grid(padding=(0, 1))
    for (mark, style), said in check(reading, is_whole=is_whole, has_sections=has_sections):
        checks.add_row(Text(mark, style=style), Text(said))
    return Group(
        Panel(body, title="monologue", title_align="left"),
        Panel(Text(rest or "(none)", style="bold" if reading.answer else ""), title="answer", title_align="left"),
        Panel(checks, title="checks", title_align="left"),
    )


def split_streams(text: str) -> tuple[str, str]:
    """The text before the first <answer>, without the reasoning's tags, and the text after it."""
    from showwork.reading.answers import ANSWER_CLOSE, ANSWER_OPEN, REASONING_CLOSE, REASONING_OPEN

    monologue, _, answer = text.partition(ANSWER_OPEN)
    for tag in (REASONING_OPEN, REASONING_CLOSE):
        monologue = monologue.replace(tag, "")
    return monologue.strip(), answer.removesuffix(ANSWER_CLOSE).strip()


def check(reading: Reading, *, is_whole: bool, has_sections: bool) -> list[tuple[Mark, str]]:
    """(mark, text) of each check: the end, the format, the number, then the sections' lines or each equation."""
    answer = reading.answer
    found = [
        _judge(is_whole, "it ended by itself", "it ran into the limit of tokens (evaluate.max_completion_tokens)"),
        _judge(
            reading.is_formatted, "reasoning and answer, each once, and no more", "not reasoning and answer, each once"
        ),
        _judge(answer is not None, f"one number: {answer}", "no one number between the answer's tags"),
    ]
    if has_sections:
        return [*found, *_check_sections(reading)]
    # The answer block counts too: a model may calculate there.
    return [*found, *([_judge_equation(e) for e in reading.all_equations] or [(BAD, "no equation in it")])]


def _check_sections(reading: Reading) -> Iterator[tuple[Mark, str]]:
    from showwork.reading.arithmetic import find_equations
    from showwork.reading.dual import CALC, HEADINGS

    sections = reading.sections
    yield _judge(sections is not None, "all four sections, in order", f"not {', '.join(HEADINGS)} each once, in order")
    if sections is None:
        return
    yield from (_judge_equation(e, "Reasoning: ") for e in find_equations(sections.reasoning))
    for line in sections.calculations:
        said = f"{CALC} {line.expression} = {line.value}"
        bad = f"{said} is false" if line.value else f"{CALC} {line.expression} states no number"
        yield _judge(line.holds, said, bad)
    yield from (_judge_equation(e, "Sanity_check: ") for e in find_equations(sections.sanity_check))
    if sections.calculations:
        yield _judge(
            sections.conclusion == reading.answer, "the answer is the monologue's last result",
            f"the monologue's last result is {sections.conclusion}",
        )  # fmt: skip


def _judge(is_good: bool, good: str, bad: str) -> tuple[Mark, str]:
    return (GOOD, good) if is_good else (BAD, bad)


def _judge_equation(equation: FoundEquation, prefix: str = "") -> tuple[Mark, str]:
    said = f"{prefix}{equation.expression} = {equation.value}"
    return _judge(equation.holds, said, f"{said} is false")

"""showwork ask: a question to a trained arm; its two streams apart, and what can be checked about them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from showwork.errors import UserError

MODELS = Path("models")
GOOD, BAD = ("✓", "green"), ("✗", "red")


def ask(
    question: Annotated[str, typer.Argument(help="The question, in quotes.")],
    arm: Annotated[str, typer.Option("--arm", help="Whose models/ARM answers.")] = "grpo",
) -> None:
    """Let a trained arm answer a question, greedily, and check what it says."""
    from rich.live import Live

    from showwork import config

    if not question.strip():
        raise UserError("the question is empty")
    if arm not in config.ARMS:
        raise UserError(f"arm {arm} is unknown; known: {', '.join(config.ARMS)}")
    params = config.load()
    console, limit, last = Console(highlight=False), params.evaluate.max_completion_tokens, ("", False)
    # What streams gives way to the finished page; where there is no terminal, that alone is printed.
    with Live(console=console, transient=True, auto_refresh=False, vertical_overflow="crop") as live:
        for last in stream_answer(question, arm, system=params.prompt.of(arm), max_tokens=limit):
            live.update(Text("\n".join(last[0].split("\n")[2 - console.height :])), refresh=True)
    text, is_whole = last
    console.print(render(text, is_whole=is_whole, has_sections=arm in config.DUAL_ARMS))


def stream_answer(question: str, arm: str, *, system: str, max_tokens: int) -> Iterator[tuple[str, bool]]:
    """The completion so far, after each token, and whether it has ended by itself. Raises UserError."""
    from showwork import rollout, tokenizer
    from showwork.models import checkpoints

    folder = MODELS / arm
    model, _ = checkpoints.load(folder)
    words, stop_ids = tokenizer.load(folder), checkpoints.stop_ids(folder)
    prompt = words.prompt_ids(question, system=system)
    ids: list[int] = []
    for token in rollout.stream(model, prompt, max_tokens=max_tokens, stop_ids=stop_ids, pad_id=words.pad_id()):
        if token in stop_ids:
            yield words.decode(ids), True
            return
        ids.append(token)
        yield words.decode(ids), False


def render(text: str, *, is_whole: bool, has_sections: bool) -> Group:
    """A finished completion: the monologue (of a dual-stream arm in its sections), the answer, and the checks."""
    from showwork.reading.answers import extract_answer
    from showwork.reading.dual import HEADINGS, parse_monologue

    monologue, rest = split_streams(text)
    sections = parse_monologue(text) if has_sections else None
    if sections:
        body = Table.grid(padding=(0, 2))
        parts = (sections.plan, sections.reasoning, sections.evidence, sections.sanity_check)
        for heading, part in zip(HEADINGS, parts, strict=True):
            body.add_row(Text(heading.removesuffix(":"), style="bold"), Text(part))
    else:
        body = Text(monologue)
    answer = extract_answer(text)
    checks = Table.grid(padding=(0, 1))
    for (mark, style), said in check(text, is_whole=is_whole, has_sections=has_sections):
        checks.add_row(Text(mark, style=style), Text(said))
    return Group(
        Panel(body, title="monologue", title_align="left"),
        Panel(Text(rest or "(none)", style="bold" if answer else ""), title="answer", title_align="left"),
        Panel(checks, title="checks", title_align="left"),
    )


def split_streams(text: str) -> tuple[str, str]:
    """What stands before the first <answer>, without the reasoning's tags, and what stands behind it."""
    from showwork.reading.answers import ANSWER_CLOSE, ANSWER_OPEN, REASONING_CLOSE, REASONING_OPEN

    monologue, _, answer = text.partition(ANSWER_OPEN)
    for tag in (REASONING_OPEN, REASONING_CLOSE):
        monologue = monologue.replace(tag, "")
    return monologue.strip(), answer.removesuffix(ANSWER_CLOSE).strip()


def check(text: str, *, is_whole: bool, has_sections: bool) -> list[tuple[tuple[str, str], str]]:
    """(mark, what it says): the end, the format, the sections of a dual-stream arm, the number, each equation."""
    from showwork.reading.answers import extract_answer, matches_format
    from showwork.reading.arithmetic import find_equations
    from showwork.reading.dual import CALC, HEADINGS, parse_monologue

    found = []

    def add(is_good: bool, good: str, bad: str) -> None:
        found.append((GOOD, good) if is_good else (BAD, bad))

    def add_equations(part: str, prefix: str = "") -> int:
        equations = find_equations(part)
        for equation in equations:
            said = f"{prefix}{equation.expression} = {equation.value}"
            add(equation.holds, said, f"{said} is false")
        return len(equations)

    answer, sections = extract_answer(text), parse_monologue(text)
    add(is_whole, "it ended by itself", "it ran into the limit of tokens (evaluate.max_completion_tokens)")
    add(matches_format(text), "reasoning and answer, each once, and no more", "not reasoning and answer, each once")
    add(answer is not None, f"one number: {answer}", "no one number between the answer's tags")
    if has_sections:
        add(sections is not None, "all four sections, in order", f"not {', '.join(HEADINGS)} each once, in order")
        if not sections:
            return found
        add_equations(sections.reasoning, "Reasoning: ")
        for line in sections.calculations:
            said = f"{CALC} {line.expression} = {line.value}"
            add(line.holds, said, f"{said} is false" if line.value else f"{CALC} {line.expression} states no number")
        add_equations(sections.sanity_check, "Sanity_check: ")
        if sections.calculations:
            add(sections.conclusion == answer, "the answer is the monologue's last result",
                f"the monologue's last result is {sections.conclusion}")  # fmt: skip
        return found
    if not add_equations(text):
        found.append((BAD, "no equation in it"))
    return found

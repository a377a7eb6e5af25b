"""The trajectory reward, process and answer at 60 to 40: as the notebook wrote it, and as it meant it."""

import re
from collections.abc import Sequence

from showwork.reading.answers import (
    ANSWER_OPEN,
    FINAL_ANSWER,
    REASONING_CLOSE,
    REASONING_OPEN,
    extract_answer,
    is_correct,
)
from showwork.reading.arithmetic import find_equations
from showwork.records import Completion, Problem
from showwork.rewards.cookbook import nearness, read_float
from showwork.rewards.work import read_step, soundness

PROCESS, ANSWER = 0.6, 0.4
WRONG = 0.25  # of the process, where the answer is wrong: 0.6 * 0.25 leaves a right one room above, and beside format

_MARKED = re.compile(rf"{FINAL_ANSWER}\s{{0,20}}([-+]?[0-9][0-9,]*(?:\.[0-9]+)?)")
_ENUMERATED = re.compile(r"[1-9]\.")
_OPERATOR = re.compile(r"[-+*/=]")


def trajectory(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """0.6 · process + 0.4 · answer, in 0..1.

    answer: 1 where it is right. process: `work.soundness` of the equations before the answer block as a way to the
    answer that is given, a quarter of it where that is wrong. So a right answer whose work holds earns 1, without work
    0.4, and a wrong one at most 0.15.
    """
    return [_trajectory(c.text, p) for c, p in zip(completions, problems, strict=True)]


def _trajectory(text: str, problem: Problem) -> float:
    is_right = is_correct(text, problem.answer)
    steps = [read_step(equation) for equation in find_equations(text.partition(ANSWER_OPEN)[0])]
    process = soundness(steps, problem, extract_answer(text))
    return PROCESS * process + ANSWER if is_right else PROCESS * WRONG * process


def notebook(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """0.6 · (q / 2.5 · 3) + 0.4 · a, as the notebook has it, in −0.4..3.

    q: 1 for reasoning tags, and for what stands between them +0.5 for more than 50 characters, +0.5 for `1.` … `9.`,
    +0.5 for any of + − * / =; 0 without tags (read as: the three look at the reasoning, which is then empty).
    a: 3 equal, 0.5 within 10%, 0.25 within 20%, −1 another number, 0 without one. The number is the first after `####`,
    its commas dropped, though the prompt asks for <answer>: a completion in the asked format has a = 0.
    """
    return [
        0.6 * (_quality(c.text) / 2.5 * 3) + 0.4 * _marked_answer(c.text, p.answer)
        for c, p in zip(completions, problems, strict=True)
    ]


def _quality(text: str) -> float:
    _, opened, rest = text.partition(REASONING_OPEN)
    reasoning, closed, _ = rest.partition(REASONING_CLOSE)
    if not (opened and closed):
        return 0.0
    is_long = len(reasoning.strip()) > 50
    return 1.0 + 0.5 * (is_long + bool(_ENUMERATED.search(reasoning)) + bool(_OPERATOR.search(reasoning)))


def _marked_answer(text: str, gold: str) -> float:
    found = _MARKED.search(text)
    guess = read_float(found[1].replace(",", "")) if found else None
    if guess is None:
        return 0.0
    if guess == float(gold):
        return 3.0
    near = nearness(guess, float(gold)) if float(gold) else None
    return -1.0 if near is None else near

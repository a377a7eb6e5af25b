"""The trajectory reward, 60% process and 40% answer: as the notebook has it, and corrected."""

import re
from collections.abc import Sequence

from showwork.reading.answers import FINAL_ANSWER, REASONING_CLOSE, REASONING_OPEN
from showwork.reading.completion import Reading, read
from showwork.records import Completion, Problem
from showwork.rewards import reward
from showwork.rewards.cookbook import nearness, read_float
from showwork.rewards.work import read_step, soundness

PROCESS, ANSWER = 0.6, 0.4
WRONG = 0.25  # factor of the process for a wrong answer: at most 0.6 * 0.25, so that a right one leads even with format

_MARKED = re.compile(rf"{FINAL_ANSWER}\s{{0,20}}([-+]?[0-9][0-9,]*(?:\.[0-9]+)?)")
_ENUMERATED = re.compile(r"[1-9]\.")
_OPERATOR = re.compile(r"[-+*/=]")


@reward(low=0.0, high=1.0, wrong_high=0.15, right_low=0.4)
def trajectory(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """0.6 · process + 0.4 · answer, in 0..1.

    answer: 1 if right. process: `work.soundness` of the equations before the answer block as a derivation of the
    answer given, a quarter of it if that is wrong. So a right answer with sound work earns 1, without work 0.4, and a
    wrong one at most 0.15.
    """
    return [_trajectory(read(c.text), p) for c, p in zip(completions, problems, strict=True)]


def _trajectory(reading: Reading, problem: Problem) -> float:
    is_right = reading.is_correct(problem.answer)
    process = soundness([read_step(equation) for equation in reading.equations], problem, reading.answer)
    return PROCESS * process + ANSWER if is_right else PROCESS * WRONG * process


@reward(low=-0.4, high=3.0, name="trajectory_notebook")
def notebook(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """0.6 · (q / 2.5 · 3) + 0.4 · a, as the notebook has it, in −0.4..3.

    q: 1 for reasoning tags, and for the text between them +0.5 for more than 50 characters, +0.5 for `1.` … `9.`,
    +0.5 for any of + − * / =; 0 without tags (interpreted as: the three look at the reasoning, which is then empty).
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

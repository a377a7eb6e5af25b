"""A problem and its completions, shared by the tests of the rewards."""

from pathlib import Path

from showwork import rewards
from showwork.reading.answers import render_completion
from showwork.reading.dual import write_monologue
from showwork.records import Completion, Equation, Problem

# The built-in ones, and those in the project's folder rewards/.
ALL = {**rewards.builtin(), **rewards.own(Path(__file__).parents[2] / "rewards")}
MUFFINS = Problem(
    "0",
    "Ben orders 7 muffins at $6 each and a drink for $4. How much does he pay?",
    "The muffins cost 7*6 = $42.\nWith the drink he pays 42+4 = $46.",
    "46",
    (Equation("7*6", "42"), Equation("42+4", "46")),
)
WORKED = render_completion(MUFFINS.reasoning, "46")
DUAL = render_completion(write_monologue(MUFFINS), "46")


def score(name: str, text: str, *, gold: str = "8", truncated: bool = False, problem: Problem | None = None) -> float:
    problem = problem or Problem("0", "", "", gold, ())
    (value,) = ALL[name].function([Completion(text, 1, truncated)], [problem])
    return value


def pay(name: str, text: str) -> float:
    """The reward of a completion of MUFFINS."""
    return score(name, text, problem=MUFFINS)

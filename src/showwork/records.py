"""Records that the modules share, and the legend of shapes.

Shapes in this package:

    B  prompts in a batch          G  completions per prompt (the group)
    N  rows, N = B * G             P  prompt tokens, left-padded
    T  completion tokens           L  tokens of a row, L = P + T
    D  width of the model          V  vocabulary
"""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Equation:
    """`expression = value`, as the author of a solution annotated it.

    value is a canonical decimal string ("1080", "0.2", "-3"): see `answers.canonical_number`.
    rounded is true if the author rounded the exact result to the value.
    """

    expression: str
    value: str
    rounded: bool = False


@dataclass(frozen=True)
class Problem:
    """One clean question with its worked solution.

    reasoning is the solution without annotation markers and without the line of the final answer;
    answer is a canonical decimal string.
    """

    id: str
    question: str
    reasoning: str
    answer: str
    equations: tuple[Equation, ...]

    @property
    def steps(self) -> int:
        """Number of annotated equations, at least 1."""
        return max(1, len(self.equations))

    @property
    def operations(self) -> str:
        """The operators that the equations use, in the order + - * /, such as "+*"; "none" without one."""
        used = {c for equation in self.equations for c in equation.expression[1:]}
        return "".join(op for op in "+-*/" if op in used) or "none"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Problem":
        fields: dict[str, Any] = {**row, "equations": tuple(Equation(**equation) for equation in row["equations"])}
        return cls(**fields)


@dataclass(frozen=True)
class Completion:
    """One sampled text. tokens counts the end-of-sequence token; truncated: it reached the token limit."""

    text: str
    tokens: int
    truncated: bool

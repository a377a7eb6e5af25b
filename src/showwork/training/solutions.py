"""The data's own solutions as training rows."""

from collections.abc import Mapping, Sequence

from showwork.problems import styles
from showwork.records import Problem
from showwork.training import data
from showwork.training.arms import LoadedArm


def encode_solutions(
    arm: LoadedArm, problems: Sequence[Problem], shares: Mapping[str, float], *, max_tokens: int, seed: int
) -> tuple[list[data.Example], int]:
    """Each problem's solution in a style, drawn by these shares; and the number of those longer than max_tokens."""
    chosen = styles.assign(problems, shares, seed=seed)
    completions = [styles.render(problem, style) for problem, style in zip(problems, chosen, strict=True)]
    return data.encode_examples(
        problems, completions, arm.tokenizer, system=arm.system, stop_id=arm.stop_ids[0], max_tokens=max_tokens
    )

"""Rewards by name, and the decorator that declares one.

A weight in params.yaml selects a reward: `answer` is the built-in of that name, `mine.brief` the function brief in the
project's rewards/mine.py. A file of rewards/ is imported only when one of its rewards is used.
"""

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from showwork.errors import UserError
from showwork.names import suggest
from showwork.records import Completion, Problem

RewardFunction = Callable[[Sequence[Completion], Sequence[Problem]], list[float]]

FOLDER = Path("rewards")  # in the project, for user-defined rewards
PACKAGE = "showwork.rewards"
_SPEC = "reward_spec"


@dataclass(frozen=True)
class RewardSpec:
    """A batched function (completions, problems) → one number per completion, within [low, high].

    wrong_high is the maximum for a completion without the right answer, right_low the minimum for one with it (None:
    high and low); `answers.is_correct` decides which. Every reward is linear in the completion's length, never
    evaluates it as code, and raises if it cannot score it: a crash is an error, not a 0.
    """

    name: str
    function: RewardFunction
    low: float
    high: float
    wrong_high: float | None = None
    right_low: float | None = None

    @property
    def is_outcome(self) -> bool:
        """Whether a completion with the right answer always earns more than one without."""
        return self.lead(1.0) > 0

    def lead(self, weight: float) -> float:
        """Margin of the worst right answer over the best wrong one, at this weight; negative if shaping can
        outweigh the answer. The leads of an arm's rewards add up.
        """
        if weight < 0:
            return weight * (self.high - self.low)
        right = self.low if self.right_low is None else self.right_low
        wrong = self.high if self.wrong_high is None else self.wrong_high
        return weight * (right - wrong)


def reward(
    *, low: float, high: float, wrong_high: float | None = None, right_low: float | None = None, name: str | None = None
) -> Callable[[RewardFunction], RewardFunction]:
    """Declares a function as a reward with this range; see RewardSpec. name: the function's by default."""

    def declare(function: RewardFunction) -> RewardFunction:
        spec = RewardSpec(name or getattr(function, "__name__", ""), function, low, high, wrong_high, right_low)
        ends = [end for end in (wrong_high, right_low) if end is not None]
        if not low < high or not all(low <= end <= high for end in ends):
            raise ValueError(f"reward {spec.name}: low < high, and wrong_high and right_low between them")
        setattr(function, _SPEC, spec)
        return function

    return declare


@cache
def builtin() -> dict[str, RewardSpec]:
    """Every built-in reward, by name."""
    found: dict[str, RewardSpec] = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        for spec in _declared(importlib.import_module(f"{PACKAGE}.{path.stem}")):
            if spec.name in found:
                raise ValueError(f"two rewards are called {spec.name}")
            found[spec.name] = spec
    return found


def own(folder: Path = FOLDER) -> dict[str, RewardSpec]:
    """Every reward in the project's folder, by FILE.FUNCTION. Raises UserError if a file can't be imported."""
    return {
        f"{path.stem}.{spec.name}": spec
        for path in sorted(folder.glob("[!_]*.py"))
        for spec in _declared(_import_own(path))
    }


def load(name: str) -> RewardSpec:
    """The reward of that name. Raises UserError if there is none, or if its file can't be imported."""
    file, point, function = name.partition(".")
    if not point:
        if name in builtin():
            return builtin()[name]
        raise UserError(f"{name} is unknown; {suggest(name, [*builtin(), *own()])}")
    path = FOLDER / f"{file}.py"
    if not path.is_file():
        raise UserError(f"{name}: there is no {path}; {suggest(name, [*own(), *builtin()])}")
    declared = {spec.name: spec for spec in _declared(_import_own(path))}
    if function not in declared:
        is_there = hasattr(_import_own(path), function)
        what = f"{function} is not declared with @reward(low=…, high=…)" if is_there else f"has no function {function}"
        raise UserError(f"{name}: {path}: {what}; {suggest(function, list(declared))}")
    return declared[function]


def module_of(name: str) -> str:
    """The module of a reward's code: showwork.rewards.basic, or rewards.mine."""
    return load(name).function.__module__


def find_faults(weights: Mapping[str, float]) -> Iterator[str]:
    """Faults of an arm's rewards: unknown names, violated ranges, shaping that outweighs the answer."""
    specs: dict[str, RewardSpec] = {}
    for name in weights:
        try:
            specs[name] = load(name)
            if "." in name:
                try_out(name, specs[name])
        except UserError as error:
            yield str(error)
    if len(specs) == len(weights):
        lead = sum(spec.lead(weights[name]) for name, spec in specs.items())
        if any(spec.is_outcome for spec in specs.values()) and lead <= 0:
            yield f"the worst right answer leads the best wrong one by {lead:.6g}; it must be ahead"


# Completions of one problem, right and wrong, in and out of the format: a smoke test of the range, not a proof.
_TRIED = Problem("0", "Ben orders 7 muffins at $6 each. How much does he pay?", "7*6 = 42", "42", ())
_TEXTS = (
    "<reasoning>7*6 = 42</reasoning>\n<answer>42</answer>", "<reasoning>7+6 = 13</reasoning>\n<answer>13</answer>",
    "", "42", "<answer>", "1+1 = 2\n" * 50, "\N{SNOWMAN}" * 300,
)  # fmt: skip


def try_out(name: str, spec: RewardSpec) -> None:
    """Scores a few completions. Raises UserError if the reward crashes, leaves its range or returns too many or few."""
    completions = [Completion(text, len(text), truncated=False) for text in _TEXTS]
    try:
        values = spec.function(completions, [_TRIED] * len(completions))
    except Exception as error:  # whatever a user's code raises
        raise UserError(f"{name} raises {type(error).__name__}: {error}") from error
    check_values(name, spec, values, len(completions))


def check_values(name: str, spec: RewardSpec, values: Sequence[float], count: int) -> None:
    """Raises UserError unless there is one number per completion, each within the declared range."""
    if len(values) != count:
        raise UserError(f"reward {name}: {len(values)} numbers for {count} completions; give one for each")
    for value in values:
        if not spec.low <= value <= spec.high:
            raise UserError(
                f"reward {name}: {value!r} is outside of its declared range, {spec.low} to {spec.high}; correct the "
                "function, or low and high"
            )


def _declared(module: ModuleType) -> Iterable[RewardSpec]:
    """The rewards that a module declares itself, in its order; imported ones are left out."""
    for value in vars(module).values():
        spec = getattr(value, _SPEC, None)
        if isinstance(spec, RewardSpec) and value.__module__ == module.__name__:
            yield spec


def _import_own(path: Path) -> ModuleType:
    """Imports this project's rewards/NAME.py as rewards.NAME, even if another `rewards` is installed."""
    root = str(path.absolute().parents[1])
    if root not in sys.path:
        sys.path.insert(0, root)
    name = f"{path.parent.name}.{path.stem}"
    known = sys.modules.get(name)
    if known is not None and Path(known.__file__ or "").absolute() != path.absolute():  # from another project
        for stale in [other for other in sys.modules if other.split(".")[0] == path.parent.name]:
            del sys.modules[stale]
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever a user's file does
        raise UserError(f"{path} can't be imported: {type(error).__name__}: {error}") from error

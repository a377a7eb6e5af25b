"""Arms as data: params.yaml holds them by kind, each as its differences from the kind's shared section."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

if TYPE_CHECKING:
    from showwork.config import Base, Cast, Prompt, Rl, Sft

Kind = Literal["base", "sft", "rl", "cast"]
PromptStyle = Literal["plain", "dual"]

# sft: warm starts; rl: group policy gradient; cast: self-teaching. Also the order of the tables.
KINDS: tuple[Kind, ...] = ("sft", "rl", "cast")
BASE = "base"
# Keys that every arm has itself, because dvc.yaml reads them there.
OWN_KEYS = ("start", "prompt")
# Mappings that an arm or a preset replaces as a whole: their keys are names, or depend on another key.
WHOLE_KEYS = frozenset(("data", "rewards", "styles", "replay_styles", "drills", "adapter"))


@dataclass(frozen=True)
class Arm:
    """An arm of params.yaml. settings: its section merged with the shared one. base has no start."""

    name: str
    kind: Kind
    start: str | None
    prompt: PromptStyle
    settings: "Base | Sft | Rl | Cast"

    @property
    def is_dual(self) -> bool:
        """Whether it writes its monologue in four sections."""
        return self.prompt == "dual"


def overlay(values: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """values with layer merged in: mappings merge key by key, those of WHOLE_KEYS and empty ones replace."""
    merged = dict(values)
    for key, value in layer.items():
        old = merged.get(key)
        merged[key] = overlay(old, value) if merges(old, value, key=key) else value
    return merged


def merges(old: object, value: object, *, key: str) -> TypeGuard[Mapping[str, Any]]:
    """Whether a layer's value goes into the old one key by key, instead of replacing it."""
    return isinstance(old, Mapping) and isinstance(value, Mapping) and bool(value) and key not in WHOLE_KEYS


def system_text(arm: Arm, prompt: "Prompt") -> str:
    """The text before the question in an arm's prompt; may be empty."""
    return prompt.dual if arm.is_dual else prompt.plain


def sections(values: Mapping[str, Any]) -> Iterator[tuple[Kind, str, dict[str, Any]]]:
    """(kind, name, merged section) of every arm of params.yaml, in the order of the tables."""
    for kind in KINDS:
        for name, own in values[kind]["arms"].items():
            yield kind, name, overlay(values[kind]["shared"], own)


def find_circle(starts: Mapping[str, str | None]) -> list[str] | None:
    """A cycle of arms that start from one another, the first repeated at the end; None without one."""
    for name in starts:
        path = [name]
        while (start := starts.get(path[-1])) is not None:
            path.append(start)
            if start in path[:-1]:
                return path[path.index(start) :]
    return None


def lineage(name: str, starts: Mapping[str, str | None]) -> list[str]:
    """The arm's chain of starts, base first, and the arm itself."""
    start = starts[name]
    return [name] if start is None else [*lineage(start, starts), name]


def starts_of(params: Mapping[str, Any], arms: Iterable[str]) -> dict[str, str | None]:
    """Start of each arm by flat params (`rl.arms.grpo.start`, or `grpo.start` in earlier commits)."""
    return {
        arm: next((start for kind in KINDS if (start := params.get(f"{kind}.arms.{arm}.start"))), None)
        or params.get(f"{arm}.start")
        for arm in arms
    }


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a.b": 1}; an empty mapping stays a value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        is_section = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{key}.") if is_section else {f"{prefix}{key}": value}
    return flat

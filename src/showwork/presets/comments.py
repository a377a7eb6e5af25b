"""Changes the values of a YAML file and keeps its comments and spelling."""

from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import CommentMark
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.tokens import CommentToken


class _Representer(RoundTripRepresenter):
    """Writes `adapter: null`, where ruamel would write `adapter:`."""


_Representer.add_representer(type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null"))


def yaml() -> YAML:
    """A reader and writer that keeps comments, quotes and the spelling of numbers; lines are not folded."""
    made = YAML()
    made.Representer = _Representer
    made.preserve_quotes = True
    made.width = 10**6
    return made


def dump(values: Any) -> str:
    buffer = StringIO()
    yaml().dump(values, buffer)
    return buffer.getvalue()


ABSENT = object()  # the value of a key that is not there


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) of each difference; ABSENT for a missing key."""
    for key in [*new, *(key for key in old if key not in new)]:
        before, after = old.get(key, ABSENT), new.get(key, ABSENT)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, f"{prefix}{key}.")
        elif not is_same(before, after):
            yield f"{prefix}{key}", before, after


def is_same(a: Any, b: Any) -> bool:
    # True == 1 in Python, but not in YAML.
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def merge(target: Any, source: Any) -> None:
    """Gives target, a commented mapping, the keys and values of source; what stays the same keeps its spelling."""
    tail = _cut_tail(target)
    for key in [key for key in target if key not in source]:
        del target[key]
        target.ca.items.pop(key, None)
    for place, (key, value) in enumerate(source.items()):
        if key not in target:
            target.insert(place, key, value)
            if key in source.ca.items:
                target.ca.items[key] = source.ca.items[key]
        elif isinstance(target[key], dict) and isinstance(value, dict) and target[key] and value:
            if key == "arms":
                _drop_other_arms(target[key], value)
            is_reflowed = target[key].fa.flow_style() and any(differences(target[key], value))
            merge(target[key], value)
            if is_reflowed:
                _pull_up_comment(target, key)
        elif not is_same(target[key], value):
            target[key] = value
            _pull_up_comment(target, key)
    _put_tail(target, tail)


def _drop_other_arms(target: Any, source: Any) -> None:
    """Removes arms whose keys differ from those in source, so that they are copied from there with their comments."""
    for name in [name for name in target if name in source and list(target[name]) != list(source[name])]:
        del target[name]
        target.ca.items.pop(name, None)


def _pull_up_comment(section: Any, key: str) -> None:
    """Puts the comment one space after the new value, however long the old one was."""
    if comment := section.ca.items.get(key, [None] * 3)[2]:
        comment.column = 0


def _last_leaf(section: Any) -> tuple[Any, Any, int]:
    """Where ruamel keeps the comment after a section: at its last leaf, together with that line's own."""
    while True:
        is_map = isinstance(section, CommentedMap)
        key = list(section)[-1] if is_map else len(section) - 1
        value = section[key]
        if not isinstance(value, dict | list) or not value or value.fa.flow_style():
            return section, key, 2 if is_map else 0
        section = value


def _cut_tail(section: Any) -> str:
    """Removes and returns the lines after a section's last value: blank, or the next section's comment."""
    if not section or section.fa.flow_style():
        return ""
    holder, key, slot = _last_leaf(section)
    tokens = holder.ca.items.get(key)
    if not tokens or not tokens[slot]:
        return ""
    own, newline, tail = tokens[slot].value.partition("\n")
    tokens[slot].value = own + newline
    return tail


def _put_tail(section: Any, tail: str) -> None:
    if not section or section.fa.flow_style():
        return
    _cut_tail(section)
    holder, key, slot = _last_leaf(section)
    tokens = holder.ca.items.setdefault(key, [None] * 4)
    if tokens[slot]:
        tokens[slot].value += tail
    elif tail:
        tokens[slot] = CommentToken(f"\n{tail}", CommentMark(0), None)

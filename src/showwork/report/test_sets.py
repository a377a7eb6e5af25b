"""Tables beside the arms': the second test set, and base asked after solved examples."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from showwork.evaluation.scoring import Metrics
from showwork.evaluation.statistics import wilson
from showwork.formatting import percent, points
from showwork.report.tables import Row
from showwork.sources.raw import second_test_name

# The generator's parts of the second test set; the others are files.
GENERATED = {"families": "scenarios that train never has", "numbers": "greater numbers than train has"}

_ACCURACY = re.compile("(shifted(?:_.+)?)_accuracy")  # the metric of the second test set or of a part of it


def second(metrics: Mapping[str, Metrics]) -> list[Row]:
    """Rows of accuracy on the second test set, beside the test set's; empty without any.

    Columns: arm, test, the whole second set, flexible (of that too), change (in points), then each part, if there are
    several. Intervals are Wilson's.
    """
    sets = _sets(metrics.values())
    if not sets:
        return []
    whole, *parts = sets
    rows = []
    for arm, values in metrics.items():
        if "shifted_accuracy" not in values:
            continue
        row = {
            "arm": arm,
            "test": _with_n(values, ""),
            _title(whole): _with_n(values, "shifted_"),
            "flexible": percent(values.get("shifted_accuracy_flexible")),
            "change": points(values["shifted_accuracy"] - values["accuracy"]),
        }
        for part in parts:
            row[_title(part)] = _with_n(values, f"{part}_")
        rows.append(row)
    return rows


def second_note(metrics: Mapping[str, Metrics], params: Mapping[str, Any]) -> str:
    """What the second test set is, part by part, and the columns of `second`; params are those of the run."""
    sets, files = _sets(metrics.values()), params.get("data", {}).get("second_test_files", ())
    described = GENERATED | {second_test_name(Path(file)): f"the rows of {file}" for file in files}
    names = [name.removeprefix("shifted_") for name in sets]
    said = [f"`{name.replace('_', ' ')}`: {described[name]}. " for name in names if name in described]
    whole = "`shifted`: a second test set, all of it, then part by part. " if len(sets) > 1 else "A second test set. "
    return (
        f"{whole}{''.join(said)}`flexible`: right by the last number, on the second set. `change`: points from `test`."
    )


def few_shot(metrics: Mapping[str, Metrics]) -> list[Row]:
    """Rows of accuracy of the arm that was asked after solved examples too, a row per test set; empty without one.

    Columns: questions, n, and strict and flexible accuracy without and with the examples, with Wilson intervals.
    """
    values = next((values for values in metrics.values() if "few_shot_n" in values), None)
    if values is None:
        return []
    after = f"after {values['few_shot_shots']}"
    rows = []
    for name in ("test", *_sets([values])):
        plain, shown = ("", "few_shot_") if name == "test" else (f"{name}_", f"few_shot_{name}_")
        n = int(values[f"{shown}n"])
        row = {"questions": _title(name), "n": f"{n:,}"}
        for title, prefix in (("plain", plain), (after, shown)):
            row[title] = _with_interval(values[f"{prefix}accuracy"], n)
            row[f"{title}, flexible"] = _with_interval(values[f"{prefix}accuracy_flexible"], n)
        rows.append(row)
    return rows


def few_shot_note(metrics: Mapping[str, Metrics]) -> str:
    """What the table of `few_shot` compares."""
    arm, values = next((arm, values) for arm, values in metrics.items() if "few_shot_n" in values)
    return (
        f"`{arm}`, asked as every arm is (`plain`), and as a pretrained model is asked: in plain text, after "
        f"{values['few_shot_shots']} solved rows of train, up to the end of its answer or to its next question. "
        "`flexible` counts the last number, whatever its form: its lead over the strict count is form, not skill."
    )


def _sets(metrics: Iterable[Metrics]) -> Sequence[str]:
    """Prefixes of the second test set's metrics: the whole first, then its parts; only the part, if there is one."""
    found = {match[1]: None for values in metrics for key in values if (match := _ACCURACY.fullmatch(key))}
    return list(found)[1:] if len(found) == 2 else list(found)


def _title(name: str) -> str:
    return name.removeprefix("shifted_").replace("_", " ")


def _with_n(metrics: Metrics, prefix: str) -> str:
    n = metrics[f"{prefix}n"]
    return _with_interval(metrics[f"{prefix}accuracy"], n, note=f", n {n:,}")


def _with_interval(accuracy: float, n: float, *, note: str = "") -> str:
    low, high = wilson(round(accuracy * n), int(n))
    return f"{percent(accuracy)} ({100 * low:.1f} to {100 * high:.1f}{note})"

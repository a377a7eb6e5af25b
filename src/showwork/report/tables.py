"""The report's tables: outcomes question by question, and one row per arm.

Arms are passed in by name, each with the arm that it started from: `{"base": None, "sft": "base"}`. Files are named
from them and never globbed, so that leftovers of an earlier run can't become results.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from showwork.arms import Arm
from showwork.config import Base, Cast, Drills, Rl, Sft
from showwork.errors import UserError
from showwork.evaluation.predictions import Prediction
from showwork.evaluation.scoring import Metrics
from showwork.evaluation.statistics import paired_difference
from showwork.files import read_csv, read_json
from showwork.formatting import MISSING, count, p_value, percent, points, points_interval, share

Starts = Mapping[str, str | None]
Row = dict[str, str]

# Columns of `display`: an arm's accuracy beside its start's, then its form and its cost.
ACCURACY = ("arm", "n", "accuracy", "95% interval", "change", "95% interval of the change", "p", "verdict")
FORM_AND_COST = (
    "arm", "flexible", "format", "faithful", "sampled accuracy", "tokens a completion", "tokens trained",
    "tokens sampled", "minutes",
)  # fmt: skip
TERMINAL = ("arm", "n", "accuracy", "95% interval", "change", "verdict")  # what fits into 80 columns
EVAL_KEYS = (
    "n", "accuracy", "accuracy_low", "accuracy_high", "accuracy_flexible", "format_rate", "faithful_rate",
    "completion_tokens_mean", "truncated_rate", "samples_n", "samples_k",
)  # fmt: skip
TABLE_COLUMNS = [
    "arm", "start", *EVAL_KEYS, "accuracy_sampled", "difference", "difference_low", "difference_high", "p", "gained",
    "lost", "verdict", "train_tokens", "sampled_tokens", "optimizer_steps", "minutes", "peak_memory_bytes", "hardware",
]  # fmt: skip


def outcomes(predictions: Mapping[str, Sequence[Prediction]]) -> list[dict[str, str | int]]:
    """Rows of results/outcomes.csv: `id`, then 1 or 0 per arm, in the questions' order.

    Raises UserError if the arms answered different questions, since they could not be compared.
    """
    first, *others = predictions
    ids = [row.id for row in predictions[first]]
    for arm in others:
        found = [row.id for row in predictions[arm]]
        if found != ids:
            stray = sorted(set(ids) ^ set(found))[:3]
            what = f"such as {', '.join(map(repr, stray))}" if stray else "the same ones in another order"
            raise UserError(
                f"results/predictions: {first} has {len(ids)} questions and {arm} has {len(found)} others, {what}; "
                "`dvc repro` evaluates every arm on one test set"
            )
    columns = {arm: [int(row.correct) for row in rows] for arm, rows in predictions.items()}
    return [{"id": id_, **{arm: columns[arm][i] for arm in columns}} for i, id_ in enumerate(ids)]


def read_outcomes(path: Path, arms: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of 0/1 from an outcomes.csv. Raises UserError for a missing column or another value."""
    rows = read_csv(path)
    columns = {}
    for arm in arms:
        cells = [row.get(arm) for row in rows]
        if not cells or not set(cells) <= {"0", "1"}:
            bad = next(
                (f"row {i} has {cell!r}" for i, cell in enumerate(cells, 2) if cell not in ("0", "1")), "no rows"
            )
            raise UserError(f"{path}: column {arm!r} must hold 0 or 1, {bad}; `dvc repro report` writes it again")
        columns[arm] = np.array(cells, dtype=int)
    return columns


def arm_table(results: Path, starts: Starts, *, seed: int) -> pd.DataFrame:
    """One row per arm, in numbers; shares are fractions of 1, and missing values NaN or None.

    Reads outcomes.csv, metrics/eval/ARM.json, metrics/train/ARM.json, and costs/ARM.json if
    it exists: costs are not DVC outs, so a run restored from the cache has none of its own.
    Training's tokens and minutes are those of the arm's own stage, without its start's.
    Raises UserError for any other file that is missing, and for an outcomes.csv that contradicts the metrics.
    """
    columns = read_outcomes(results / "outcomes.csv", list(starts))
    rows = []
    for name, start in starts.items():
        row = {"arm": name, "start": start} | _evaluation(results, name, columns[name])
        if start is not None:
            paired = paired_difference(columns[start], columns[name], seed=seed)
            row |= {
                "difference": paired.difference,
                "difference_low": paired.low,
                "difference_high": paired.high,
                "p": paired.p,
                "gained": paired.gained,
                "lost": paired.lost,
                "verdict": paired.verdict,
            }
        train = read_json(results / "metrics" / "train" / f"{name}.json")
        row |= {key: train.get(key) for key in ("train_tokens", "sampled_tokens", "optimizer_steps")}
        costs = results / "costs" / f"{name}.json"
        if costs.is_file():
            cost = read_json(costs)
            row |= {"minutes": cost["seconds"] / 60}
            row |= {key: cost.get(key) for key in ("peak_memory_bytes", "hardware")}
        rows.append(row)
    return pd.DataFrame(rows, columns=TABLE_COLUMNS)


def _evaluation(results: Path, name: str, outcomes: np.ndarray) -> dict[str, Any]:
    """The metrics of a row. Raises UserError if they are of another run than the outcomes."""
    path = results / "metrics" / "eval" / f"{name}.json"
    metrics = read_json(path)
    try:
        row = {key: metrics[key] for key in EVAL_KEYS}
    except KeyError as error:
        raise UserError(f"{path}: no key {error}; `dvc repro` evaluates the arm again") from None
    right = int(outcomes.sum())
    if len(outcomes) != row["n"] or abs(right / row["n"] - row["accuracy"]) > 1e-5:
        raise UserError(
            f"{path} has accuracy {row['accuracy']} of {row['n']}, but outcomes.csv has {right} right of "
            f"{len(outcomes)}; `dvc repro` makes both from one run"
        )
    return row | {"accuracy_sampled": metrics.get("accuracy_sampled")}


def display(table: pd.DataFrame) -> list[Row]:
    """The rows of `arm_table` as text, keyed by the names above: shares in percent, differences in points."""
    rows = []
    for row in table.to_dict("records"):
        started = not pd.isna(row["difference"])
        cells = {
            "arm": row["arm"],
            "n": f"{row['n']:,}",
            "accuracy": percent(row["accuracy"]),
            "95% interval": f"{100 * row['accuracy_low']:.1f} to {percent(row['accuracy_high'])}",
            "change": f"{points(row['difference'])} over {row['start']}" if started else MISSING,
            "95% interval of the change": interval(row) if started else MISSING,
            "p": p_value(row["p"]) if started else MISSING,
            "verdict": row["verdict"] if started else MISSING,
            "flexible": percent(row["accuracy_flexible"]),
            "format": percent(row["format_rate"]),
            "faithful": percent(row["faithful_rate"]),
            "sampled accuracy": _sampled(row),
            "tokens a completion": f"{row['completion_tokens_mean']:.1f}",
            "tokens trained": count(row["train_tokens"]),
            "tokens sampled": count(row["sampled_tokens"]),
            "minutes": MISSING if pd.isna(row["minutes"]) else f"{row['minutes']:.1f}",
        }
        rows.append(cells)
    return rows


def interval(row: Mapping[str, Any]) -> str:
    return points_interval(row["difference_low"], row["difference_high"])


def _sampled(row: Mapping[str, Any]) -> str:
    if pd.isna(row["accuracy_sampled"]):
        return MISSING
    return f"{percent(row['accuracy_sampled'])} ({row['samples_n']:,} × {row['samples_k']})"


def groups(metrics: Mapping[str, Metrics], prefix: str) -> list[Row]:
    """Rows "accuracy by `prefix`" (steps or op): the group, its n, and each arm's accuracy.

    In the order of the metrics' keys, which is by number and then + - * /.
    """
    first = next(iter(metrics.values()))
    names = [key.removeprefix(f"n_{prefix}_") for key in first if key.startswith(f"n_{prefix}_")]
    title = {"steps": "steps", "op": "operation"}[prefix]
    return [
        {title: name, "n": f"{first[f'n_{prefix}_{name}']:,}"}
        | {arm: percent(values.get(f"accuracy_{prefix}_{name}")) for arm, values in metrics.items()}
        for name in names
    ]


def accuracy_by_steps(metrics: Mapping[str, Metrics]) -> list[dict[str, str | int | float | None]]:
    """Rows of results/accuracy_by_steps.csv: steps, n, arm and accuracy, by steps, then in the order of the arms."""
    found = {int(key.removeprefix("n_steps_")) for values in metrics.values() for key in values if "n_steps_" in key}
    n = {steps: max(values.get(f"n_steps_{steps}", 0) for values in metrics.values()) for steps in found}
    return [
        {"steps": steps, "n": n[steps], "arm": arm, "accuracy": values.get(f"accuracy_steps_{steps}")}
        for steps in sorted(found)
        for arm, values in metrics.items()
    ]


def detectors(metrics: Mapping[str, Metrics]) -> list[Row]:
    """Rows "arm", then each rate_NAME and auroc_NAME that an arm has; empty if none has any."""
    names = {key: None for values in metrics.values() for key in values if key.startswith(("rate_", "auroc_"))}
    shown = {
        arm: {
            key.replace("_", " "): percent(values.get(key)) if key.startswith("rate_") else share(values.get(key))
            for key in names
        }
        for arm, values in metrics.items()
        if names.keys() & values.keys()
    }
    return [{"arm": arm} | cells for arm, cells in shown.items()]


def taught(arms: Iterable[Arm]) -> list[str]:
    """A sentence for each arm on what it was trained on."""
    return [_taught(arm) for arm in arms]


def _taught(arm: Arm) -> str:
    settings = arm.settings
    match settings:
        case Base(drills=None):
            return f"{arm.name}: the model's own weights, not trained here."
        case Base(drills=Drills() as drills):
            return f"{arm.name}: {drills.steps:,} steps on plain equations, before any word."
        case Sft():
            total = sum(settings.styles.values())
            styles = ", ".join(f"{name} {percent(weight / total)}" for name, weight in settings.styles.items())
            how = f"{settings.steps:,} steps on solutions written as {styles}"
        case Rl():
            rewards = ", ".join(f"{name} {weight:g}" for name, weight in settings.rewards.items())
            how = f"{settings.steps:,} steps on its own samples, rewarded {rewards}"
        case Cast():
            rounds = f"at most {settings.rounds:,} rounds"
            how = f"{rounds} of sampling, keeping the best samples and training on them"
    return f"{arm.name}, from {arm.start}: {how}."

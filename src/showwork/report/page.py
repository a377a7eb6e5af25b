"""results/report.html: one file that needs nothing else, from the templates beside this module.

What a model wrote reaches the page only inside JSON, and page code puts it there as text, never as markup. The page
forbids itself the network and any script but its own (Content-Security-Policy).
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from showwork import probes
from showwork.records import Problem
from showwork.report import charts, gains
from showwork.report.curves import AXES, Parting, parting
from showwork.report.markdown import flatten
from showwork.report.seed_table import NOTE, SeedTable
from showwork.report.tables import detectors, display, interval, p_value, percent, points, share, shifted, taught
from showwork.report.traces import MARKS, NATS_A_LEVEL, block

TEMPLATES = Path(__file__).with_name("templates")
OPERATIONS = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}
SHADES = 10  # colours of the heat map, 0 included: page.css has one for each


def render_page(
    *,
    table: pd.DataFrame,
    metrics: Mapping[str, Mapping[str, Any]],
    predictions: Mapping[str, Sequence[Mapping[str, Any]]],
    problems: Sequence[Problem],
    plots: Mapping[str, pd.DataFrame],
    costs: Mapping[str, Mapping[str, Any]],
    params: Mapping[str, Any],
    inputs: Mapping[str, str],
    versions: Mapping[str, str],
    gained: Sequence[Mapping[str, str]] = (),
    seeds: SeedTable | None = None,
) -> str:
    """The page as HTML.

    table is `arm_table`'s; metrics, predictions and plots go by arm in its order, and predictions follow problems.
    costs go by stage, as results/costs has them; inputs maps a file to its md5. gained is `gains.rows`;
    seeds is the table of results/seeds.csv, where there is one.
    """
    texts, left_out = block(problems, predictions)
    seconds = {arm: costs[arm]["seconds"] for arm in plots if arm in costs}
    data = {
        "arms": list(predictions),
        "starts": {row["arm"]: row["start"] for row in table.to_dict("records") if not pd.isna(row["start"])},
        "marks": MARKS,
        "operations": OPERATIONS,
        "nats": NATS_A_LEVEL,
        "texts": texts,
    }
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"percent": percent, "share": share}
    scripts = [(TEMPLATES / name).read_text("utf-8") for name in ("page.js", "browser.js")]
    return environment.get_template("page.html").render(
        n=len(problems),
        arms=arm_rows(table),
        top=_top(table),
        shifted=shifted(metrics),
        gained=gained,
        gained_note=gains.NOTE.replace("`", ""),
        seeds=seeds,
        seeds_note=NOTE,
        signals=detectors(metrics),
        axes=AXES,
        panels=_marked(charts.learning(plots, seconds=seconds)),
        untimed=[arm for arm, frame in plots.items() if len(frame) and arm not in seconds],
        cost=Markup(charts.accuracy_against_cost(cost_rows(table))),
        heat=[heat_map(metrics, "steps"), heat_map(metrics, "op")],
        partings=list(_partings(plots)),
        probes=list(_probe_panels(predictions, metrics)),
        taught=taught(params),
        left_out=left_out,
        params=list(flatten(params)),
        inputs=inputs,
        versions=versions,
        costs=costs,
        style=Markup((TEMPLATES / "page.css").read_text("utf-8")),
        scripts=[Markup(script) for script in scripts],
        policy=_policy(scripts),
        data=Markup(json_text(data)),
    )


def json_text(value: Any) -> str:
    """JSON for a script element: nothing in it can end the element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _policy(scripts: Sequence[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'; form-action 'none'"


def arm_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Each arm's numbers, and the same as text where the page prints them."""
    rows = []
    for row, cells in zip(table.to_dict("records"), display(table), strict=True):
        started = not pd.isna(row["difference"])
        before = float(table.loc[table["arm"] == row["start"], "accuracy"].iloc[0]) if started else None
        change = {
            "points": points(row["difference"]),
            "interval": interval(row),
            "p": p_value(row["p"]),
            "flips": f"{row['gained']:,.0f} gained, {row['lost']:,.0f} lost",
            "verdict": row["verdict"],
        }
        rows.append(row | {"cells": cells, "before": before, "change": change if started else None})
    return rows


def _top(table: pd.DataFrame) -> float:
    """Where the bars of the arms' table end: above every interval, on a tenth."""
    return min(1.0, (int(table["accuracy_high"].max() * 10) + 1) / 10)


def cost_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Tokens that an arm took with all that it started from: its start's, and its own sampled and trained ones."""
    rows: dict[str, dict[str, Any]] = {}
    for row in table.to_dict("records"):
        own = sum(row[key] for key in ("train_tokens", "sampled_tokens") if not pd.isna(row[key]))
        before = rows.get(row["start"], {"tokens": 0, "accuracy": row["accuracy"]})
        rows[row["arm"]] = {
            "arm": row["arm"], "tokens": before["tokens"] + own, "accuracy": row["accuracy"],
            "low": row["accuracy_low"], "high": row["accuracy_high"],
            "from_tokens": before["tokens"] if row["start"] in rows else own, "from_accuracy": before["accuracy"],
        }  # fmt: skip
    return list(rows.values())


def heat_map(metrics: Mapping[str, Mapping[str, Any]], prefix: str) -> dict[str, Any]:
    """Accuracy by steps or by op: {"title", "columns": [{"name", "n"}], "rows": [{"arm", "cells"}]}.

    A cell is {"share", "text", "shade"}, shade from 0 to SHADES - 1 over shares from 0 to 1.
    """
    first = next(iter(metrics.values()))
    names = [key.removeprefix(f"n_{prefix}_") for key in first if key.startswith(f"n_{prefix}_")]
    rows = []
    for arm, values in metrics.items():
        shares = [values.get(f"accuracy_{prefix}_{name}") for name in names]
        cells = [
            {"text": percent(value), "shade": None if value is None else min(SHADES - 1, int(value * SHADES))}
            for value in shares
        ]
        rows.append({"arm": arm, "cells": cells})
    columns = [{"name": name, "n": first[f"n_{prefix}_{name}"]} for name in names]
    return {"title": {"steps": "steps", "op": "operation"}[prefix], "columns": columns, "rows": rows}


def _marked(panels: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**panel, "charts": {axis: Markup(svg) for axis, svg in panel["charts"].items()}} for panel in panels]


def _partings(plots: Mapping[str, pd.DataFrame]) -> Iterable[dict[str, Any]]:
    for i, (arm, frame) in enumerate(plots.items()):
        found = parting(arm, frame)
        if found:
            chart = charts.reward_against_accuracy(frame, i, arm)
            yield {"index": i, "found": found, "said": said(found), "chart": Markup(chart)}


def said(found: Parting) -> str:
    """What became of reward and accuracy, in words and numbers."""
    reward, accuracy = found.reward, found.accuracy
    rose = [part for part in found.parts if part.direction == 1 and part.name not in ("answer", "correct")]
    text = (
        f"Reward {reward.before:.3f} → {reward.after:.3f} (± {reward.margin:.3f}), "
        f"accuracy {percent(accuracy.before)} → {percent(accuracy.after)} (± {100 * accuracy.margin:.1f} points)."
    )
    if found.is_parted and rose:
        earned = ", ".join(f"{part.name.replace('_', ' ')} {part.before:.2f} → {part.after:.2f}" for part in rose)
        text += f" What it was earned with: {earned}."
    return text


def _probe_panels(
    predictions: Mapping[str, Sequence[Mapping[str, Any]]], metrics: Mapping[str, Mapping[str, Any]]
) -> Iterable[dict[str, Any]]:
    """For each arm with probes: entropy of right and wrong completions, and how often each detector fires on them."""
    for i, (arm, rows) in enumerate(predictions.items()):
        probed = [row for row in rows if "probe" in row]
        if not probed:
            continue
        right, wrong = ([row for row in probed if row["correct"] is outcome] for outcome in (True, False))
        entropies = [
            [entropy for row in part if (entropy := result_entropy(row)) is not None] for part in (right, wrong)
        ]
        fired = [
            {
                "name": name.replace("_", " "),
                "right": _rate(right, name),
                "wrong": _rate(wrong, name),
                "auroc": metrics[arm].get(f"auroc_{name}"),
            }
            for name in probed[0]["probe"]["detectors"]
        ]
        yield {
            "arm": arm, "index": i, "right_n": len(right), "wrong_n": len(wrong), "detectors": fired,
            "means": [fmean(part) if part else None for part in entropies], "auroc": metrics[arm].get("auroc_entropy"),
            "chart": Markup(charts.entropy_split(*entropies, arm)) if any(entropies) else "",
        }  # fmt: skip


def result_entropy(prediction: Mapping[str, Any]) -> float | None:
    """Mean entropy, in nats, over the tokens of a completion's results; None where it has none."""
    probe = prediction["probe"]
    results = probes.tokens_in(probe["tokens"], probes.result_spans(prediction["completion"]))
    return fmean(probe["entropy"][i] for i in results) if results else None


def _rate(rows: Sequence[Mapping[str, Any]], detector: str) -> float | None:
    return fmean(row["probe"]["detectors"][detector] for row in rows) if rows else None

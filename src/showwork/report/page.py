"""results/report.html: one self-contained file, from the templates beside this module.

Model output reaches the page only inside JSON, and the page's scripts insert it as text, never as markup. The
Content-Security-Policy forbids the network and any other script.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from showwork import probes
from showwork.arms import flatten
from showwork.evaluation.predictions import Prediction, Probe
from showwork.evaluation.scoring import Metrics
from showwork.formatting import p_value, percent, points, share
from showwork.report import charts, colours, gains, test_sets
from showwork.report.charts import CostRow, Panel
from showwork.report.curves import AXES, Parting, parting
from showwork.report.results import Results
from showwork.report.seed_table import NOTE
from showwork.report.tables import detectors, display, interval
from showwork.report.traces import MARKS, NATS_A_LEVEL, block

TEMPLATES = Path(__file__).with_name("templates")
OPERATIONS = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}
SHADES = 10  # colours of the heat map, 0 included: page.css has one for each


def render_page(results: Results) -> str:
    """The page as HTML."""
    texts, left_out = block(results.problems, results.predictions)
    scripts = [(TEMPLATES / name).read_text("utf-8") for name in ("page.js", "browser.js")]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"percent": percent, "share": share}
    return environment.get_template("page.html").render(
        **_tables(results),
        **_pictures(results),
        left_out=left_out,
        params=list(flatten(results.params).items()),
        inputs=results.inputs,
        versions=results.versions,
        costs=results.costs,
        style=Markup((TEMPLATES / "page.css").read_text("utf-8") + colours.style(len(results.arms))),
        scripts=[Markup(script) for script in scripts],
        policy=_policy(scripts),
        data=Markup(json_text(_browser(results) | {"texts": texts})),
    )


def _tables(results: Results) -> dict[str, Any]:
    return {
        "n": len(results.problems),
        "arms": arm_rows(results.table),
        "top": _top(results.table),
        **_test_sets(results),
        "gained": results.gained,
        "gained_note": _plain(gains.NOTE),
        "seeds": results.seeds,
        "seeds_note": NOTE,
        "signals": detectors(results.metrics),
        "heat": [heat_map(results.metrics, "steps"), heat_map(results.metrics, "op")],
        "taught": results.taught,
    }


def _test_sets(results: Results) -> dict[str, Any]:
    """The second test set, and base after solved examples: tables and notes, empty where there is none."""
    shifted, few_shot = test_sets.second(results.metrics), test_sets.few_shot(results.metrics)
    return {
        "shifted": shifted,
        "shifted_note": _plain(test_sets.second_note(results.metrics, results.params)) if shifted else "",
        "few_shot": few_shot,
        "few_shot_note": _plain(test_sets.few_shot_note(results.metrics)) if few_shot else "",
    }


def _plain(note: str) -> str:
    """A note of the Markdown report as the page shows it."""
    return note.replace("`", "")


def _pictures(results: Results) -> dict[str, Any]:
    plots = results.plots
    seconds = {arm: results.costs[arm]["seconds"] for arm in plots if arm in results.costs}
    return {
        "axes": AXES,
        "panels": [_marked(panel) for panel in charts.learning(plots, seconds=seconds)],
        "untimed": [arm for arm, frame in plots.items() if len(frame) and arm not in seconds],
        "cost": Markup(charts.accuracy_against_cost(cost_rows(results.table))),
        "partings": list(_partings(plots)),
        "probes": list(_probe_panels(results.predictions, results.metrics)),
    }


def _browser(results: Results) -> dict[str, Any]:
    """Data of the trace browser apart from the texts."""
    return {
        "arms": list(results.predictions),
        "starts": {row["arm"]: row["start"] for row in results.table.to_dict("records") if not pd.isna(row["start"])},
        "marks": MARKS,
        "operations": OPERATIONS,
        "nats": NATS_A_LEVEL,
    }


def json_text(value: Any) -> str:
    """JSON for a script element, escaped so that nothing in it can end the element."""
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
    """Upper end of the bars in the arms' table: the next tenth above every interval."""
    return min(1.0, (int(table["accuracy_high"].max() * 10) + 1) / 10)


def cost_rows(table: pd.DataFrame) -> list[CostRow]:
    """Rows of the cost chart. An arm's tokens are its own, sampled and trained, and those of all its starts."""
    arms = {row["arm"]: row for row in table.to_dict("records")}
    own = {
        arm: sum(row[key] for key in ("train_tokens", "sampled_tokens") if not pd.isna(row[key]))
        for arm, row in arms.items()
    }

    def of_start(arm: str) -> str | None:
        return arms[arm]["start"] if arms[arm]["start"] in arms else None

    def total(arm: str) -> float:
        start = of_start(arm)
        return own[arm] + (total(start) if start else 0)

    found: list[CostRow] = []
    for arm, row in arms.items():
        start = of_start(arm)
        before = start or arm
        found.append(
            {
                "arm": arm, "tokens": total(arm), "accuracy": row["accuracy"], "low": row["accuracy_low"],
                "high": row["accuracy_high"], "from_tokens": total(before), "from_accuracy": arms[before]["accuracy"],
            }
        )  # fmt: skip
    return found


def heat_map(metrics: Mapping[str, Metrics], prefix: str) -> dict[str, Any]:
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


def _marked(panel: Panel) -> Panel:
    return replace(panel, charts={axis: Markup(svg) for axis, svg in panel.charts.items()})


def _partings(plots: Mapping[str, pd.DataFrame]) -> Iterable[dict[str, Any]]:
    for i, (arm, frame) in enumerate(plots.items()):
        found = parting(arm, frame)
        if found:
            chart = charts.reward_against_accuracy(frame, i, arm)
            yield {"index": i, "found": found, "said": said(found), "chart": Markup(chart)}


def said(found: Parting) -> str:
    """The changes of reward and accuracy as text."""
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
    predictions: Mapping[str, Sequence[Prediction]], metrics: Mapping[str, Metrics]
) -> Iterable[dict[str, Any]]:
    """For each arm with probes: entropy of right and wrong completions, and how often each detector fires on them."""
    for i, (arm, rows) in enumerate(predictions.items()):
        probed = [(row, row.probe) for row in rows if row.probe is not None]
        if not probed:
            continue
        right, wrong = ([pair for pair in probed if pair[0].correct is outcome] for outcome in (True, False))
        entropies = [
            [entropy for pair in part if (entropy := result_entropy(*pair)) is not None] for part in (right, wrong)
        ]
        fired = [
            {
                "name": name.replace("_", " "),
                "right": _rate([probe for _, probe in right], name),
                "wrong": _rate([probe for _, probe in wrong], name),
                "auroc": metrics[arm].get(f"auroc_{name}"),
            }
            for name in probed[0][1].detectors
        ]
        yield {
            "arm": arm, "index": i, "right_n": len(right), "wrong_n": len(wrong), "detectors": fired,
            "means": [fmean(part) if part else None for part in entropies], "auroc": metrics[arm].get("auroc_entropy"),
            "chart": Markup(charts.entropy_split(*entropies, arm)) if any(entropies) else "",
        }  # fmt: skip


def result_entropy(prediction: Prediction, probe: Probe) -> float | None:
    """Mean entropy, in nats, over the tokens of a completion's results; None if it has none."""
    results = probes.result_tokens(prediction.reading, probe.tokens)
    return fmean(probe.entropy[i] for i in results) if results else None


def _rate(rows: Sequence[Probe], detector: str) -> float | None:
    return fmean(probe.detectors[detector] for probe in rows) if rows else None

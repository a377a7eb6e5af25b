"""results/report.md and its picture: the arms' tables, learning curves, three traces, provenance.

Whatever a model wrote is shown as text and nothing else: in a fence longer than any run of backticks in it, with
control and direction marks spelled out, cut at a length that a page can bear.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from showwork.errors import UserError
from showwork.report.tables import ACCURACY, FORM_AND_COST, display, groups, interval, p_value, percent, points

TEXT_LIMIT = 4000

# Okabe and Ito's palette in an order where neighbours differ in lightness too; the first arm, untrained, is grey.
PALETTE = ("#7F7F7F", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
# Column of results/plots/STAGE.csv → title and unit of its panel; reward_NAME columns follow the reward.
PANELS = {
    "loss": ("Loss", "nats a token, log scale"),
    "accuracy": ("Accuracy of the samples", "share of completions"),
    "reward": ("Reward", "mean, weighted sum"),
    "kl": ("KL from the start", "nats a token, k3"),
    "entropy": ("Entropy", "nats a token"),
    "completion_tokens": ("Completion length", "tokens"),
    "zero_variance": ("Groups without variance", "share of groups"),
    "clip_fraction": ("Clipped ratios", "share of tokens"),
}
LOGARITHMIC = {"Loss"}
FROM_ZERO = {"KL from the start", "Entropy", "Groups without variance", "Clipped ratios"}
POINTS_A_LINE = 200
VEGA_LITE = "6.4"  # of those that vl-convert bundles, the one that Altair writes


def render(
    *,
    table: pd.DataFrame,
    metrics: Mapping[str, Mapping[str, Any]],
    predictions: Mapping[str, Sequence[Mapping[str, Any]]],
    curves: str | None,
    params: Mapping[str, Any],
    versions: Mapping[str, str],
    questions: Mapping[str, str] | None = None,
) -> str:
    """The report as Markdown.

    table is `arm_table`'s; metrics and predictions go by arm, in its order; curves is the picture's path from the
    report, or None; questions maps ids to the text of a question, where a trace should show it.
    """
    cells = display(table)
    parts = [
        "# What training changed",
        summary(table),
        "## The arms",
        markdown_table(ACCURACY, cells),
        "`change` compares an arm with the one it started from on the same questions: percentage points, 95% paired "
        "bootstrap interval, exact McNemar p (two-sided, of this comparison alone). A verdict needs an interval "
        "without 0 and p < 0.05; anything else is called no difference. "
        "Accuracy is greedy, with its 95% Wilson interval.",
        markdown_table(FORM_AND_COST, cells),
        "`faithful`: right answer, every equation in the work true, and the last result is the answer. "
        "`sampled accuracy`: the mean over (questions × samples each) at temperature 1. Tokens trained and sampled, "
        "and minutes, are those of the arm's own stage.",
        "## Accuracy by number of steps and by operation",
        markdown_table(("steps", "n", *metrics), groups(metrics, "steps")),
        markdown_table(("operation", "n", *metrics), groups(metrics, "op")),
        "Steps and operations are those of the question's own solution; it counts under every operation that it uses.",
    ]
    if curves:
        parts += ["## Learning curves", f"![Learning curves of the trained arms]({curves})"]
    parts += ["## Three traces", *traces(table, predictions, questions or {}), "## Provenance"]
    parts += [fence("\n".join(f"{key}: {json.dumps(value)}" for key, value in flatten(params)), "yaml")]
    parts += ["Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."]
    return "\n\n".join(parts) + "\n"


def summary(table: pd.DataFrame) -> str:
    """One line: every arm's accuracy and what became of its start's."""
    n = int(table["n"].iloc[0])
    said = []
    for row in table.to_dict("records"):
        text = f"{cell(row['arm'])} {percent(row['accuracy'])}"
        if not pd.isna(row["difference"]):
            change = "no difference from" if row["verdict"] == "no difference" else f"{row['verdict']} than"
            flips = f"{row['gained']:.0f} gained, {row['lost']:.0f} lost"
            numbers = f"{points(row['difference'])} points, {interval(row)}, p {p_value(row['p'])}, {flips}"
            text += f" ({change} {cell(row['start'])}: {numbers})"
        said.append(text)
    return f"Right answers to {n:,} test questions: " + "; ".join(said) + "."


def traces(
    table: pd.DataFrame, predictions: Mapping[str, Sequence[Mapping[str, Any]]], questions: Mapping[str, str]
) -> Iterable[str]:
    """The first question that the last arm gained over its start, lost, and that both got wrong, in test order."""
    last = table.iloc[-1]
    arm, start = last["arm"], last["start"]
    if pd.isna(start):
        yield "No arm was trained."
        return
    before = [bool(row["correct"]) for row in predictions[start]]
    after = [bool(row["correct"]) for row in predictions[arm]]
    kinds = {
        f"Gained: {cell(arm)} is right, {cell(start)} was wrong": (False, True),
        f"Lost: {cell(arm)} is wrong, {cell(start)} was right": (True, False),
        "Both wrong": (False, False),
    }
    yield "In each group, the first question in the order of the test set, not a chosen one."
    outcomes = list(zip(before, after, strict=True))
    for title, outcome in kinds.items():
        yield f"### {title} ({outcomes.count(outcome):,} of {len(outcomes):,} questions)"
        if outcome not in outcomes:
            yield "No such question."
            continue
        index = outcomes.index(outcome)
        first = predictions[arm][index]
        yield f"Question {code(first['id'])}, right answer {code(first['gold'])}."
        if first["id"] in questions:
            yield fence(questions[first["id"]])
        for name, rows in predictions.items():
            yield from trace(name, rows[index])


def trace(arm: str, prediction: Mapping[str, Any]) -> Iterable[str]:
    """One completion, its outcome above it and its equations below."""
    answer = "no answer" if prediction["answer"] is None else f"answer {code(prediction['answer'])}"
    mark = "✓ right" if prediction["correct"] else "✗ wrong"
    cut = ", truncated" if prediction["truncated"] else ""
    yield f"**{cell(arm)}**: {mark}, {answer}, {prediction['tokens']:,} tokens{cut}"
    yield fence(prediction["completion"])
    marks = [
        f"{'✓' if equation['holds'] else '✗'} {code(equation['expression'] + ' = ' + equation['value'])}"
        for equation in prediction["equations"]
    ]
    yield "Equations: " + (" · ".join(marks) if marks else "none") + "."


def visible(text: str) -> str:
    """The text with control, format and surrogate characters spelled out, cut after TEXT_LIMIT characters.

    Five empty lines or more become one that counts them: an untrained model can say nothing else.
    """
    shown = "".join(
        f"\\u{ord(c):04x}" if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c
        for c in text[:TEXT_LIMIT]
    )
    shown = re.sub(r"(?:\n[ \t]*){6,}", lambda blank: f"\n… {blank[0].count(chr(10)) - 1} empty lines\n", shown)
    return shown + (f"\n… {len(text) - TEXT_LIMIT:,} more characters" if len(text) > TEXT_LIMIT else "")


def fence(text: str, language: str = "text") -> str:
    """A fenced block that nothing in the text can close."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{visible(text)}\n{ticks}"


def code(text: str) -> str:
    """An inline code span of one line."""
    text = " ".join(visible(text).split())
    ticks = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def cell(text: Any) -> str:
    """Text as it stands, in one table cell: Markdown's and HTML's marks escaped."""
    return re.sub(r"([\\`*_{}\[\]<>&#|~$])", r"\\\1", " ".join(visible(str(text)).split()))


def markdown_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """The first column left, the rest right."""
    lines = [[cell(column) for column in columns], ["---", *["---:"] * (len(columns) - 1)]]
    lines += [[cell(row[column]) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def flatten(params: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted keys and values, as `dvc params diff` names them."""
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def curves_svg(plots: Mapping[str, pd.DataFrame]) -> str:
    """Learning curves as one SVG: a panel a quantity, a colour an arm. Raises UserError where there is no curve.

    plots holds results/plots/STAGE.csv by arm; an arm without curves has an empty frame, so that the others keep
    their colours whichever arms a run has. Altair is imported here: half a second that the tables don't need.
    """
    import altair as alt
    import vl_convert

    trained = [arm for arm, frame in plots.items() if len(frame)]
    hues = [PALETTE[i % len(PALETTE)] for i, arm in enumerate(plots) if arm in trained]
    legend = alt.Legend(title=None, orient="top", symbolType="stroke", symbolOpacity=1, symbolStrokeWidth=4)
    hue = alt.Color("arm:N", scale=alt.Scale(domain=trained, range=hues), legend=legend)
    charts = []
    for (title, unit), lines in panels(plots):
        scale = alt.Scale(type="log", nice=False) if title in LOGARITHMIC else alt.Scale(zero=title in FROM_ZERO)
        # As one string: Altair copies a chart at every step, and rows would be copied one by one.
        data = alt.InlineData(values=pd.DataFrame(lines).to_csv(index=False), format=alt.CsvDataFormat(type="csv"))
        base = alt.Chart(data).encode(
            x=alt.X("step:Q", title="optimizer step", axis=alt.Axis(tickCount=5, labelFlush=False)),
            y=alt.Y("value:Q", title=unit, scale=scale, axis=alt.Axis(tickCount=5, minExtent=42)),
            color=hue,
        )
        raw, mean, held_out = (base.transform_filter(alt.datum.kind == kind) for kind in ("raw", "mean", "held out"))
        faint = 0.3 if len({line["arm"] for line in lines}) < 3 else 0.12
        dots = alt.OverlayMarkDef(size=26, filled=True)
        layers = [
            raw.mark_line(strokeWidth=1, opacity=faint),
            mean.mark_line(strokeWidth=2.2),
            held_out.mark_line(strokeWidth=1.6, strokeDash=[5, 3], point=dots),
        ]
        charts.append(alt.layer(*layers).properties(title=alt.Title(title, frame="group"), width=250, height=150))
    if not charts:
        raise UserError("results/plots: no curve of any arm; `dvc repro` trains the arms and writes them")
    legend_in_words = "Thin: each step. Bold: mean over a tenth of the run. Dashed, with dots: validation."
    heading = alt.Title("Learning curves", subtitle=legend_in_words, fontSize=16, offset=14)
    page = alt.concat(*charts, columns=3, spacing=24, title=heading).resolve_scale(color="shared")
    page = page.configure(background="white", font="Liberation Sans, Arial, Helvetica, sans-serif", padding=16)
    page = page.configure_axis(gridColor="#E8E8E8", domainColor="#888", tickColor="#888", titleFontWeight="normal")
    page = page.configure_title(anchor="start", fontSize=13, subtitleColor="#555").configure_view(stroke=None)
    page = page.configure_legend(labelFontSize=13)
    return vl_convert.vegalite_to_svg(page.to_json(), vl_version=VEGA_LITE)


def panels(plots: Mapping[str, pd.DataFrame]) -> Iterable[tuple[tuple[str, str], list[dict[str, Any]]]]:
    """A panel's title and unit, and its lines as rows of step, value, arm and kind: raw, mean or held out."""
    rewards = sorted({column for frame in plots.values() for column in frame if column.startswith("reward_")})
    named = [(name, (f"Reward: {name.removeprefix('reward_').replace('_', ' ')}", "mean")) for name in rewards]
    order = list(PANELS.items())
    split = 1 + list(PANELS).index("reward")
    for column, heading in order[:split] + named + order[split:]:
        lines = []
        for arm, frame in plots.items():
            if column == "loss" and "reward" in frame:  # the surrogate loss of a policy gradient says nothing by itself
                continue
            lines += [line | {"arm": arm} for line in curve(frame, column)]
        # A share that is 0 throughout, as that of clipped ratios on policy, is no picture.
        if any(line["value"] for line in lines):
            yield heading, lines


def curve(frame: pd.DataFrame, column: str) -> Iterable[dict[str, Any]]:
    """One arm's rows of a panel, at most POINTS_A_LINE a line: a longer curve is averaged in bins of equal length."""
    wanted = {column: ("raw", "mean"), f"val_{column}": ("held out",)}
    for name, kinds in wanted.items():
        if name not in frame:
            continue
        points = frame[["step", name]].apply(pd.to_numeric, errors="coerce").dropna()
        smooth = points[name].rolling(max(1, len(points) // 10), min_periods=1, center=True).mean()
        bins = np.arange(len(points)) * min(len(points), POINTS_A_LINE) // max(1, len(points))
        for kind in kinds:
            values = smooth if kind == "mean" else points[name]
            for _, both in pd.DataFrame({"step": points["step"], "value": values}).groupby(bins):
                yield {"step": float(both["step"].mean()), "value": float(f"{both['value'].mean():.6g}"), "kind": kind}

"""Pictures, by Altair and vl-convert: results/curves.svg for report.md, and the page's charts as inline SVG.

A chart of the page names its colours by the page's CSS variables, so that one SVG serves light and dark. Altair takes
colours alone, no variables: each variable has a stand-in colour that is replaced in the finished SVG.
Altair is imported inside the functions: half a second that the tables don't need.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from showwork.errors import UserError
from showwork.report.curves import AXES, FROM_ZERO, LOGARITHMIC, along, curve, panels

# Okabe and Ito's palette in an order where neighbours differ in lightness too; the first arm, untrained, is grey.
PALETTE = ("#7F7F7F", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
VEGA_LITE = "6.4"  # of those that vl-convert bundles, the one that Altair writes

INK, SOFT, LINE, RIGHT, WRONG = "#fd0001", "#fd0002", "#fd0003", "#fd0004", "#fd0005"
ARM_COLOURS = [f"#fe00{i:02x}" for i in range(len(PALETTE))]
STAND_INS = {INK: "--ink", SOFT: "--soft", LINE: "--line", RIGHT: "--right", WRONG: "--wrong"} | {
    colour: f"--arm-{i}" for i, colour in enumerate(ARM_COLOURS)
}
MEAN_WIDTH = 2.2  # of the one line an arm that the page's tooltip follows; page.js knows it by this
SIZE = {"width": 300, "height": 170}


def curves_svg(plots: Mapping[str, pd.DataFrame]) -> str:
    """Learning curves as one SVG: a panel a quantity, a colour an arm. Raises UserError where there is no curve.

    plots holds results/plots/STAGE.csv by arm; an arm without curves has an empty frame, so that the others keep
    their colours whichever arms a run has.
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
        chart = _lines(
            lines,
            x=alt.X("x:Q", title=AXES["step"], axis=alt.Axis(tickCount=5, labelFlush=False)),
            y=alt.Y("value:Q", title=unit, scale=scale, axis=alt.Axis(tickCount=5, minExtent=42)),
            color=hue,
        )
        charts.append(chart.properties(title=alt.Title(title, frame="group"), width=250, height=150))
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


def learning(plots: Mapping[str, pd.DataFrame], *, seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """The page's panels: {"title", "unit", "charts": {axis: SVG}}, an axis left out where no arm has it."""
    found: dict[str, dict[str, Any]] = {}
    for axis in AXES:
        for (title, unit), lines in panels(plots, axis=axis, seconds=seconds):
            panel = found.setdefault(title, {"title": title, "unit": unit, "lines": {}})
            panel["lines"][axis] = lines
    arms = list(plots)
    return [panel | {"charts": _learning_charts(panel["title"], panel["lines"], arms)} for panel in found.values()]


def _learning_charts(title: str, lines: Mapping[str, list[dict[str, Any]]], arms: Sequence[str]) -> dict[str, str]:
    """One chart with the data of each axis put in: Altair takes longer to write a chart down than Vega to draw it."""
    import altair as alt

    is_log = title in LOGARITHMIC
    values = [line["value"] for rows in lines.values() for line in rows]
    y = _bounds(values, is_log=is_log, from_zero=title in FROM_ZERO)
    colours = {arm: ARM_COLOURS[i % len(ARM_COLOURS)] for i, arm in enumerate(arms)}
    spec = _finish(
        _lines(
            next(iter(lines.values())),
            x=alt.X("x:Q", axis=_axis("~s", 5)),
            y=alt.Y(
                "value:Q",
                scale=alt.Scale(domain=y, nice=False, type="log" if is_log else "linear"),
                title=None,
                axis=_axis("~r" if max(map(abs, y)) < 1000 else "~s", 5, minExtent=34),
            ),
            color=_hue(colours),
        ).properties(**SIZE)
    )
    series = {_variable(colour): arm for arm, colour in colours.items()}
    drawn = {}
    for axis, rows in lines.items():
        x = [0, max(row["x"] for row in rows)]
        spec["data"] = _csv(rows).to_dict()
        for layer in spec["layer"]:
            layer["encoding"]["x"] |= {"title": AXES[axis], "scale": {"domain": x, "nice": False}}
        facts = {"x": x, "y": y, "log": is_log, "series": series, "axis": AXES[axis]}
        drawn[axis] = page_svg(spec, f"{title} by {AXES[axis]}", facts)
    return drawn


def reward_against_accuracy(frame: pd.DataFrame, colour: int, arm: str) -> str:
    """An arm's mean reward and the share of right samples, on one axis; the space between them is filled."""
    import altair as alt

    x_values = along(frame, "step", None)
    rows = [line | {"arm": name} for name in ("reward", "accuracy") for line in curve(frame, name, x_values)]
    bounds = _bounds([row["value"] for row in rows], from_zero=False)
    x_end = max(row["x"] for row in rows)
    colours = {"reward": INK, "accuracy": ARM_COLOURS[colour % len(ARM_COLOURS)]}
    pairs = pd.DataFrame([row for row in rows if row["kind"] == "mean"])
    wide = pairs.pivot_table(index="x", columns="arm", values="value").dropna().reset_index()
    x = alt.X("x:Q", scale=alt.Scale(domain=[0, x_end], nice=False), title=AXES["step"], axis=_axis("~s", 5))
    scale = alt.Scale(domain=bounds, nice=False)
    axis = _axis("~g", 5, minExtent=34)
    between = (
        alt.Chart(_csv(wide))
        .mark_area(opacity=0.1, color=INK)
        .encode(x=x, y=alt.Y("reward:Q", scale=scale, title=None, axis=axis), y2="accuracy:Q")
    )
    lines = _lines(
        rows,
        x=x,
        y=alt.Y("value:Q", scale=scale, title=None, axis=axis),
        color=_hue(colours),
    )
    series = {_variable(INK): "reward", _variable(colours["accuracy"]): "accuracy"}
    facts = {"x": [0, x_end], "y": bounds, "log": False, "series": series, "axis": AXES["step"]}
    chart = alt.layer(between, lines).properties(**SIZE)
    return page_svg(_finish(chart), f"{arm}: reward and accuracy by optimizer step", facts)


def accuracy_against_cost(rows: Sequence[Mapping[str, Any]]) -> str:
    """rows: arm, tokens (its starts' included), accuracy, low, high, and from_tokens and from_accuracy of its start."""
    import altair as alt

    height, top = 220, min(1.0, np.ceil(max(row["high"] for row in rows) * 10 + 0.2) / 10)
    x_end = max(row["tokens"] for row in rows) * 1.3 or 1
    placed = _spread_labels(rows, width=x_end, height=top, lines=height / 14)
    arms = [row["arm"] for row in rows]
    hue = _hue({arm: ARM_COLOURS[i % len(ARM_COLOURS)] for i, arm in enumerate(arms)})
    x = alt.X("tokens:Q", scale=alt.Scale(domain=[0, x_end], nice=False), title=AXES["tokens"], axis=_axis("~s", 5))
    y_scale, axis = alt.Scale(domain=[0, top], nice=False), _axis("%", 6, minExtent=34)
    base = alt.Chart(_csv(placed))
    layers = [
        base.mark_rule(strokeDash=[2, 3], color=SOFT, opacity=0.8).encode(
            x=x,
            y=alt.Y("accuracy:Q", scale=y_scale, title=None, axis=axis),
            x2="from_tokens:Q",
            y2="from_accuracy:Q",
        ),
        base.mark_rule(strokeWidth=2, opacity=0.55).encode(x=x, y=alt.Y("low:Q", title=None), y2="high:Q", color=hue),
        base.mark_point(filled=True, size=80, opacity=1).encode(x=x, y="accuracy:Q", color=hue),
        base.mark_text(align="left", dx=9, fontSize=12, fontWeight=600).encode(
            x=x, y="label:Q", text="text:N", color=hue
        ),
    ]
    chart = alt.layer(*layers).properties(width=330, height=height)
    return page_svg(_finish(chart), "Accuracy against tokens sampled and trained, an arm a point")


def _spread_labels(
    rows: Sequence[Mapping[str, Any]], *, width: float, height: float, lines: float
) -> list[dict[str, Any]]:
    """The rows with text and its place on the y axis: labels of points that lie close together stand line by line."""
    placed: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: row["accuracy"], reverse=True):
        above = [other["label"] for other in placed if abs(other["tokens"] - row["tokens"]) < width / 4]
        label = min([row["accuracy"], *(other - height / lines for other in above)])
        placed.append(dict(row) | {"label": label, "text": f"{row['arm']} {100 * row['accuracy']:.1f}%"})
    return placed


def entropy_split(right: Sequence[float], wrong: Sequence[float], arm: str) -> str:
    """Histograms of the completions' entropy in nats, right and wrong ones, each summing to 1."""
    import altair as alt

    end = float(np.quantile([*right, *wrong], 0.99)) or 1.0
    edges = np.linspace(0, end, 25)
    rows = []
    for outcome, values in (("right", right), ("wrong", wrong)):
        counts, _ = np.histogram(np.clip(values, 0, end), edges)
        shares = counts / max(1, counts.sum())
        rows += [
            {"low": float(f"{a:.4g}"), "high": float(f"{b:.4g}"), "share": float(f"{s:.4g}"), "outcome": outcome}
            for a, b, s in zip(edges, edges[1:], shares, strict=False)
        ]
    chart = (
        alt.Chart(_csv(rows))
        .mark_rect(opacity=0.5)
        .encode(
            x=alt.X(
                "low:Q", scale=alt.Scale(domain=[0, end], nice=False), title="entropy at the results, nats a token",
                axis=_axis("~g", 5),
            ),
            x2="high:Q",
            y=alt.Y("share:Q", title=None, axis=_axis("%", 4, minExtent=34)),
            y2=alt.datum(0),
            color=_hue({"right": RIGHT, "wrong": WRONG}, field="outcome"),
        )
        .properties(width=300, height=140)
    )  # fmt: skip
    return page_svg(_finish(chart), f"{arm}: entropy at the results of right and of wrong completions")


def page_svg(spec: Mapping[str, Any], label: str, facts: Mapping[str, Any] | None = None) -> str:
    """A finished chart as inline SVG in the page's colours; with facts, page.js can read values off its bold lines:
    x and y (ends of the axes), log (of y), series (colour → name), axis (what x is)."""
    import vl_convert

    svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE)
    head, _, body = svg.partition(">")
    box = re.search(r'viewBox="[^"]+"', head)[0]
    data = f' data-chart="{html.escape(json.dumps(facts))}"' if facts else ""
    return f'<svg class="chart" role="img" aria-label="{html.escape(label)}" {box}{data}>{_slim(body)}'


def _finish(chart: Any) -> dict[str, Any]:
    """A chart as Vega-Lite, in the page's style."""
    chart = chart.configure(background="transparent", padding=4).configure_view(stroke=None)
    chart = chart.configure_axis(
        gridColor=LINE, domainColor=LINE, tickColor=LINE, labelColor=SOFT, titleColor=SOFT, labelFontSize=11,
        titleFontSize=11, titleFontWeight="normal", titlePadding=6,
    )  # fmt: skip
    return chart.to_dict(validate=False)


def _slim(body: str) -> str:
    """Vega's SVG without what says nothing here: half the bytes."""
    body = re.sub(r' (?:aria-\w+|role|pointer-events|font-family|stroke-miterlimit)="[^"]*"| opacity="1"', "", body)
    body = re.sub(r'<path class="(?:foreground|background)"[^>]* d="(?:M0,0h0v0h0Z)?"[^>]*/>', "", body)
    body = re.sub(
        r' (d|transform)="([^"]*)"', lambda m: f' {m[1]}="{re.sub(_LONG, lambda n: f"{float(n[0]):.1f}", m[2])}"', body
    )
    for colour, variable in STAND_INS.items():
        body = body.replace(f'"{colour}"', f'"var({variable})"')
    return body


_LONG = r"-?\d+\.\d\d+"


def _variable(colour: str) -> str:
    return f"var({STAND_INS[colour]})"


def _lines(rows: Sequence[Mapping[str, Any]], **encoding: Any) -> Any:
    """Thin: each step. Bold: the running mean. Dashed, with dots: validation."""
    import altair as alt

    base = alt.Chart(_csv(rows)).encode(**encoding)
    raw, mean, held_out = (base.transform_filter(alt.datum.kind == kind) for kind in ("raw", "mean", "held out"))
    faint = 0.3 if len({row["arm"] for row in rows}) < 3 else 0.12
    dots = alt.OverlayMarkDef(size=26, filled=True)
    return alt.layer(
        raw.mark_line(strokeWidth=1, opacity=faint),
        mean.mark_line(strokeWidth=MEAN_WIDTH),
        held_out.mark_line(strokeWidth=1.6, strokeDash=[5, 3], point=dots),
    )


def _csv(rows: Sequence[Mapping[str, Any]] | pd.DataFrame) -> Any:
    """As one string: Altair copies a chart at every step, and rows would be copied one by one."""
    import altair as alt

    return alt.InlineData(values=pd.DataFrame(rows).to_csv(index=False), format=alt.CsvDataFormat(type="csv"))


def _hue(colours: Mapping[str, str], field: str = "arm") -> Any:
    import altair as alt

    return alt.Color(f"{field}:N", scale=alt.Scale(domain=list(colours), range=list(colours.values())), legend=None)


def _axis(number: str, ticks: int, **more: Any) -> Any:
    import altair as alt

    return alt.Axis(format=number, tickCount=ticks, labelFlush=False, **more)


def _bounds(values: Sequence[float], *, is_log: bool = False, from_zero: bool = True) -> list[float]:
    """An axis that holds the values, ending on round numbers."""
    low, high = min(values), max(values)
    if is_log:
        return [float(f"{min(v for v in values if v > 0) * 0.95:.3g}"), float(f"{high * 1.05:.3g}")]
    low = min(0.0, low) if from_zero else low
    step = 10 ** np.floor(np.log10(max(high - low, 1e-9))) / 2
    return [float(f"{np.floor(low / step) * step:.6g}"), float(f"{np.ceil(high / step) * step or step:.6g}")]

"""Charts, by Altair and vl-convert: results/curves.svg for report.md, and the page's charts as inline SVG.

Altair is imported inside the functions: it takes half a second, and the tables don't need it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from showwork.errors import UserError
from showwork.report import colours
from showwork.report.curves import AXES, FROM_ZERO, LOGARITHMIC, Point, curve, panels
from showwork.report.svg import INK, RIGHT, SOFT, VEGA_LITE, WRONG, finish, of_arm, page_svg, variable

MEAN_WIDTH = 2.2  # stroke width of each arm's mean line; page.js finds the lines for its tooltip by it
SIZE = {"width": 300, "height": 170}
NO_CURVES = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="420" height="40"><text x="12" y="25" font-family="sans-serif" '
    'font-size="14">No arm was trained: there are no learning curves.</text></svg>\n'
)


@dataclass(frozen=True)
class Panel:
    """A panel of the learning curves; charts maps each axis that some arm has to its SVG."""

    title: str
    unit: str
    charts: Mapping[str, str]


class CostRow(TypedDict):
    """An arm's accuracy with its interval, its tokens including all its starts', and its start's of both."""

    arm: str
    tokens: float
    accuracy: float
    low: float
    high: float
    from_tokens: float
    from_accuracy: float


def curves_svg(plots: Mapping[str, pd.DataFrame]) -> str:
    """Learning curves as one SVG, a panel per quantity, a colour per arm. Raises UserError if there is no curve.

    plots maps an arm to its results/plots/STAGE.csv; an arm without curves has an empty frame, so that the others
    keep their colours.
    """
    import altair as alt
    import vl_convert

    trained = [arm for arm, frame in plots.items() if len(frame)]
    hues = [colour for arm, colour in zip(plots, colours.picture(len(plots)), strict=True) if arm in trained]
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
    page: Any = alt.concat(*charts, columns=3, spacing=24, title=heading).resolve_scale(color="shared")
    page = page.configure(background="white", font="Liberation Sans, Arial, Helvetica, sans-serif", padding=16)
    page = page.configure_axis(gridColor="#E8E8E8", domainColor="#888", tickColor="#888", titleFontWeight="normal")
    page = page.configure_title(anchor="start", fontSize=13, subtitleColor="#555").configure_view(stroke=None)
    page = page.configure_legend(labelFontSize=13)
    return vl_convert.vegalite_to_svg(page.to_json(), vl_version=VEGA_LITE)


def learning(plots: Mapping[str, pd.DataFrame], *, seconds: Mapping[str, float]) -> list[Panel]:
    """The page's panels of learning curves; seconds: the duration of each arm's stage."""
    found: dict[tuple[str, str], dict[str, list[Point]]] = {}
    for axis in AXES:
        for heading, lines in panels(plots, axis=axis, seconds=seconds):
            found.setdefault(heading, {})[axis] = lines
    return [Panel(title, unit, _learning_charts(title, lines, list(plots))) for (title, unit), lines in found.items()]


def _learning_charts(title: str, lines: Mapping[str, Sequence[Point]], arms: Sequence[str]) -> dict[str, str]:
    """The SVG of each axis, from one chart: Altair takes longer to build a chart than Vega to draw it."""
    import altair as alt

    is_log = title in LOGARITHMIC
    values = [line["value"] for rows in lines.values() for line in rows]
    y = _bounds(values, is_log=is_log, from_zero=title in FROM_ZERO)
    hues = {arm: of_arm(i) for i, arm in enumerate(arms)}
    spec = finish(
        _lines(
            next(iter(lines.values())),
            x=alt.X("x:Q", axis=_axis("~s", 5)),
            y=alt.Y(
                "value:Q",
                scale=alt.Scale(domain=y, nice=False, type="log" if is_log else "linear"),
                title=None,
                axis=_axis("~r" if max(map(abs, y)) < 1000 else "~s", 5, minExtent=34),
            ),
            color=_hue(hues),
        ).properties(**SIZE)
    )
    series = {variable(colour): arm for arm, colour in hues.items()}
    drawn = {}
    for axis, rows in lines.items():
        x = [0, max(row["x"] for row in rows)]
        spec["data"] = _csv(rows).to_dict()
        for layer in spec["layer"]:
            layer["encoding"]["x"] |= {"title": AXES[axis], "scale": {"domain": x, "nice": False}}
        facts = {"x": x, "y": y, "log": is_log, "series": series, "axis": AXES[axis]}
        drawn[axis] = page_svg(spec, f"{title} by {AXES[axis]}", facts)
    return drawn


def reward_against_accuracy(frame: pd.DataFrame, place: int, arm: str) -> str:
    """An arm's mean reward and the share of right samples, on one axis, with the area between them filled.

    place is the arm's index, which gives its colour.
    """
    import altair as alt

    step = pd.to_numeric(frame["step"])
    rows = [line | {"arm": name} for name in ("reward", "accuracy") for line in curve(frame, name, step)]
    bounds = _bounds([row["value"] for row in rows], from_zero=False)
    x_end = max(row["x"] for row in rows)
    hues = {"reward": INK, "accuracy": of_arm(place)}
    pairs = pd.DataFrame([row for row in rows if row["kind"] == "mean"])
    wide = pairs.pivot_table(index="x", columns="arm", values="value").dropna().reset_index()
    x = alt.X("x:Q", scale=alt.Scale(domain=[0, x_end], nice=False), title=AXES["step"], axis=_axis("~s", 5))
    scale = alt.Scale(domain=bounds, nice=False)
    axis = _axis("~g", 5, minExtent=34)
    between = (
        _chart(wide)
        .mark_area(opacity=0.1, color=INK)
        .encode(x=x, y=alt.Y("reward:Q", scale=scale, title=None, axis=axis), y2="accuracy:Q")
    )
    lines = _lines(
        rows,
        x=x,
        y=alt.Y("value:Q", scale=scale, title=None, axis=axis),
        color=_hue(hues),
    )
    series = {variable(INK): "reward", variable(hues["accuracy"]): "accuracy"}
    facts = {"x": [0, x_end], "y": bounds, "log": False, "series": series, "axis": AXES["step"]}
    chart = alt.layer(between, lines).properties(**SIZE)
    return page_svg(finish(chart), f"{arm}: reward and accuracy by optimizer step", facts)


def accuracy_against_cost(rows: Sequence[CostRow]) -> str:
    """A point per arm, with its interval and a dotted line from its start."""
    import altair as alt

    height, top = 220, min(1.0, np.ceil(max(row["high"] for row in rows) * 10 + 0.2) / 10)
    x_end = max(row["tokens"] for row in rows) * 1.3 or 1
    placed = _spread_labels(rows, width=x_end, height=top, lines=height / 14)
    hue = _hue({row["arm"]: of_arm(i) for i, row in enumerate(rows)})
    x = alt.X("tokens:Q", scale=alt.Scale(domain=[0, x_end], nice=False), title=AXES["tokens"], axis=_axis("~s", 5))
    y_scale, axis = alt.Scale(domain=[0, top], nice=False), _axis("%", 6, minExtent=34)
    base = _chart(placed)
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
    return page_svg(finish(chart), "Accuracy against tokens sampled and trained, an arm a point")


def _spread_labels(rows: Sequence[CostRow], *, width: float, height: float, lines: float) -> list[dict[str, Any]]:
    """The rows with their label and its y position; labels of points close together are stacked."""
    placed: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: row["accuracy"], reverse=True):
        above = [other["label"] for other in placed if abs(other["tokens"] - row["tokens"]) < width / 4]
        label = min([row["accuracy"], *(other - height / lines for other in above)])
        placed.append(dict(row) | {"label": label, "text": f"{row['arm']} {100 * row['accuracy']:.1f}%"})
    return placed


def entropy_split(right: Sequence[float], wrong: Sequence[float], arm: str) -> str:
    """Histograms of the entropy, in nats, of right and of wrong completions, each summing to 1."""
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
        _chart(rows)
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
    return page_svg(finish(chart), f"{arm}: entropy at the results of right and of wrong completions")


def _lines(rows: Sequence[Mapping[str, Any]], **encoding: Any) -> Any:
    """Thin: each step. Bold: the running mean. Dashed, with dots: validation."""
    import altair as alt

    base = _chart(rows).encode(**encoding)
    raw, mean, held_out = (base.transform_filter(alt.datum.kind == kind) for kind in ("raw", "mean", "held out"))
    faint = 0.3 if len({row["arm"] for row in rows}) < 3 else 0.12
    dots = alt.OverlayMarkDef(size=26, filled=True)
    return alt.layer(
        raw.mark_line(strokeWidth=1, opacity=faint),
        mean.mark_line(strokeWidth=MEAN_WIDTH),
        held_out.mark_line(strokeWidth=1.6, strokeDash=[5, 3], point=dots),
    )


def _chart(rows: Sequence[Mapping[str, Any]] | pd.DataFrame) -> Any:
    """A chart with its data as one string: Altair copies a chart at every step, and copying rows is slow."""
    import altair as alt

    return alt.Chart(_csv(rows))


def _csv(rows: Sequence[Mapping[str, Any]] | pd.DataFrame) -> Any:
    import altair as alt

    return alt.InlineData(values=pd.DataFrame(rows).to_csv(index=False), format=alt.CsvDataFormat(type="csv"))


def _hue(colours: Mapping[str, str], field: str = "arm") -> Any:
    import altair as alt

    return alt.Color(f"{field}:N", scale=alt.Scale(domain=list(colours), range=list(colours.values())), legend=None)


def _axis(number: str, ticks: int, **more: Any) -> Any:
    import altair as alt

    return alt.Axis(format=number, tickCount=ticks, labelFlush=False, **more)


def _bounds(values: Sequence[float], *, is_log: bool = False, from_zero: bool = True) -> list[float]:
    """[low, high] of an axis that contains the values, both round numbers."""
    low, high = min(values), max(values)
    if is_log:
        return [float(f"{min(v for v in values if v > 0) * 0.95:.3g}"), float(f"{high * 1.05:.3g}")]
    low = min(0.0, low) if from_zero else low
    step = 10 ** np.floor(np.log10(max(high - low, 1e-9))) / 2
    return [float(f"{np.floor(low / step) * step:.6g}"), float(f"{np.ceil(high / step) * step or step:.6g}")]

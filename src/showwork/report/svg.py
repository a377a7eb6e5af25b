"""Altair's charts as inline SVG in the page's colours.

A chart of the page uses the page's CSS variables as colours, so that one SVG serves light and dark mode. Altair accepts
no variables: a chart is drawn with a stand-in colour for each variable, which is replaced in the finished SVG.
"""

import html
import json
import re
from collections.abc import Mapping
from typing import Any

VEGA_LITE = "6.4"  # bundled with vl-convert; the version that Altair writes
INK, SOFT, LINE, RIGHT, WRONG = "#fd0001", "#fd0002", "#fd0003", "#fd0004", "#fd0005"
STAND_INS = {INK: "--ink", SOFT: "--soft", LINE: "--line", RIGHT: "--right", WRONG: "--wrong"}


def page_svg(spec: Mapping[str, Any], label: str, facts: Mapping[str, Any] | None = None) -> str:
    """A finished chart as inline SVG in the page's colours; with facts, page.js can read values off its bold lines:
    x and y (ends of the axes), log (of y), series (colour → name), axis (what x is)."""
    import vl_convert

    svg = vl_convert.vegalite_to_svg(dict(spec), vl_version=VEGA_LITE)
    head, _, body = svg.partition(">")
    (box,) = re.findall(r'viewBox="[^"]+"', head)
    data = f' data-chart="{html.escape(json.dumps(facts))}"' if facts else ""
    return f'<svg class="chart" role="img" aria-label="{html.escape(label)}" {box}{data}>{_slim(body)}'


def finish(chart: Any) -> dict[str, Any]:
    """A chart as Vega-Lite, in the page's style."""
    chart = chart.configure(background="transparent", padding=4).configure_view(stroke=None)
    chart = chart.configure_axis(
        gridColor=LINE, domainColor=LINE, tickColor=LINE, labelColor=SOFT, titleColor=SOFT, labelFontSize=11,
        titleFontSize=11, titleFontWeight="normal", titlePadding=6,
    )  # fmt: skip
    return chart.to_dict(validate=False)


def _slim(body: str) -> str:
    """Vega's SVG without attributes and paths that change nothing here: half the bytes."""
    body = re.sub(r' (?:aria-\w+|role|pointer-events|font-family|stroke-miterlimit)="[^"]*"| opacity="1"', "", body)
    body = re.sub(r'<path class="(?:foreground|background)"[^>]* d="(?:M0,0h0v0h0Z)?"[^>]*/>', "", body)
    body = re.sub(
        r' (d|transform)="([^"]*)"', lambda m: f' {m[1]}="{re.sub(_LONG, lambda n: f"{float(n[0]):.1f}", m[2])}"', body
    )
    return re.sub(r'"(#f[de][0-9a-f]{4})"', lambda m: f'"{variable(m[1])}"', body)


_LONG = r"-?\d+\.\d\d+"


def of_arm(place: int) -> str:
    """The stand-in of --arm-PLACE."""
    return f"#fe{place:04x}"


def variable(colour: str) -> str:
    """The CSS variable of a stand-in; any other colour as it is."""
    if colour.startswith("#fe"):
        return f"var(--arm-{int(colour[3:], 16)})"
    return f"var({STAND_INS[colour]})" if colour in STAND_INS else colour

"""One colour per arm, for any number of arms: in results/curves.svg, and on the page in light and dark mode."""

from collections.abc import Sequence
from functools import cache
from itertools import product

import numpy as np

# Okabe and Ito's palette in an order where neighbours differ in lightness too; the first arm, untrained, is grey.
PICTURE = ("#7F7F7F", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
LIGHT = ("#7f7f7f", "#0072b2", "#d55e00", "#009e73", "#b8619a", "#3a9bd8", "#c98700")
DARK = ("#9aa1a9", "#4ba8ea", "#ff8a3d", "#2cc79a", "#e59ac5", "#9ad8ff", "#f4be46")
# Colours beyond the palette: lightness and least chroma in OKLab, so that a line of 2 pixels is visible on white.
LIGHTNESS, CHROMA = (0.35, 0.72), 0.08
LIGHTENED = 0.4  # share of white mixed into them in dark mode


def picture(count: int) -> list[str]:
    """`count` different colours for a white background, as `#RRGGBB`."""
    return [*PICTURE[:count], *further(count - len(PICTURE))]


def style(count: int) -> str:
    """CSS variables --arm-0, --arm-1, … for both themes."""
    more = further(count - len(LIGHT))
    light, dark = [*LIGHT[:count], *more], [*DARK[:count], *map(_lighten, more)]
    return "".join(
        f"{selector} {{ {' '.join(f'--arm-{i}: {colour};' for i, colour in enumerate(colours))} }}\n"
        for selector, colours in ((":root", light), (':root[data-theme="dark"]', dark))
    )


@cache
def further(count: int) -> tuple[str, ...]:
    """Colours beyond the palette, each as far as possible from all before it."""
    if count <= 0:
        return ()
    candidates = np.array(list(product(range(0, 256, 17), repeat=3)))
    places = _oklab(candidates)
    lightness, chroma = places[:, 0], np.hypot(places[:, 1], places[:, 2])
    is_seen = (lightness >= LIGHTNESS[0]) & (lightness <= LIGHTNESS[1]) & (chroma >= CHROMA)
    candidates, places = candidates[is_seen], places[is_seen]
    taken = _oklab(np.array([_rgb(colour) for colour in (*PICTURE, *LIGHT)]))
    nearest = np.linalg.norm(places[:, None] - taken[None], axis=-1).min(axis=1)
    found = []
    for _ in range(count):
        best = int(nearest.argmax())
        found.append(_hexadecimal(candidates[best]))
        nearest = np.minimum(nearest, np.linalg.norm(places - places[best], axis=-1))
    return tuple(found)


def _lighten(colour: str) -> str:
    return _hexadecimal([round(part + LIGHTENED * (255 - part)) for part in _rgb(colour)])


def _rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _hexadecimal(rgb: Sequence[int] | np.ndarray) -> str:
    return "#" + "".join(f"{part:02x}" for part in rgb)


def _oklab(rgb: np.ndarray) -> np.ndarray:
    """sRGB of 0..255, [N, 3], to OKLab, where distances are perceptual (Ottosson 2020)."""
    shares = rgb / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    cones = np.cbrt(
        linear
        @ np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                    [0.0883024619, 0.2817188376, 0.6299787005]]).T
    )  # fmt: skip
    return cones @ np.array(
        [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
         [0.0259040371, 0.7827717662, -0.8086757660]]
    ).T  # fmt: skip

"""What all figures share: their look, and the two ways out of matplotlib, a PNG file and SVG for a page.

Figures are drawn in light colours. In a page each colour of `THEMED` becomes a CSS variable, so that the page decides.
matplotlib is imported when the first figure is drawn.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT, GRID, PAPER, EMPTY, HATCH = "#222222", "#8a8a8a", "#e6e6e6", "#fefefe", "#f2f2f2", "#b5b5b5"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5d5d5d", "#8c6d31")
"""The colours of Okabe and Ito (told apart with any colour vision), yellow and black replaced."""

ON_DARK = ("#4a9be8", "#ff7a33", "#22c493", "#e39cc6", "#f5c03c", "#a6dcff", "#9c9c9c", "#b98f4a")
"""The same, brighter, for dark paper."""

ON_CELL = ("#1f1f1f", "#ffffff")
"""Dark and light text on a coloured cell, the same in every page."""

SCALE_STEPS = 32

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "xtick.minor.size": 0,
    "text.color": INK,
    "text.parse_math": False,
    "hatch.color": HATCH,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "savefig.dpi": 160,
}
IN_A_PAGE: Any = {"svg.fonttype": "none"}

PANEL = (4.3, 2.9)
"""Width and height in inches of one of several pictures in a page: as wide as a phone."""


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """Yield a figure (inches) in the common style; nothing of matplotlib's global state changes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


@contextmanager
def any_letter() -> Iterator[None]:
    """Let matplotlib lay out letters without a word that its own font lacks: a page has the reader's fonts."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure to a PNG file; raises OSError."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        figure.savefig(path, format="png")


@cache
def _scale() -> list[tuple[str, str]]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    plasma = colormaps["plasma"]  # heat maps have viridis: a line's colour says which setting it is, and not how good
    shares = [step / (SCALE_STEPS - 1) for step in range(SCALE_STEPS)]
    return [(to_hex(plasma(0.86 * share)), to_hex(plasma(0.42 + 0.54 * share))) for share in shares]


def on_scale(share: float) -> str:
    """Return a colour for a share between 0 and 1, dark to bright."""
    return _scale()[round(share * (SCALE_STEPS - 1))][0]


@cache
def themed() -> dict[str, tuple[str, str]]:
    """Return the colours that change with the page: light colour to (name of the CSS variable, dark colour)."""
    roles = {"ink": (INK, "#e8e6e3"), "faint": (FAINT, "#9a9ea5"), "grid": (GRID, "#33373e")}
    roles |= {"paper": (PAPER, "#17191d"), "empty": (EMPTY, "#24272d"), "hatch": (HATCH, "#5c616a")}
    roles |= {f"c{index}": pair for index, pair in enumerate(zip(PALETTE, ON_DARK, strict=True))}
    roles |= {f"s{index}": pair for index, pair in enumerate(_scale())}
    return {light: (name, dark) for name, (light, dark) in roles.items()}


def css_colour(colour: str) -> str:
    """Return how a page writes a colour of a figure: `var(--c0)`, or the colour itself when it never changes."""
    return f"var(--{themed()[colour][0]})" if colour in themed() else colour


# SVG ------------------------------------------------------------------------------------------------------------

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"


def svg(figure: Figure, name: str, title: str) -> str:
    """Return a figure as an SVG element to stand in a page: text as text, ids beginning with `name`, themed colours.

    `title` describes the picture to those who cannot see it. A picture wider than a phone keeps its text readable and
    needs a box that scrolls.
    """
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({**STYLE, **IN_A_PAGE, "svg.hashsalt": name}), any_letter():
        for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
            patch.set_visible(False)
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "", file.getvalue())  # XML has no word for these
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):  # a style inside of an SVG would hold for the whole page, which has its own
        for child in [child for child in parent if child.tag in (f"{_SVG}metadata", f"{_SVG}style")]:
            parent.remove(child)
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    for element in root.iter():
        _for_a_page(element, name, used)
    width = figure.get_size_inches()[0]
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": title,
        "style": f"width: {96 * width:.0f}px; min-width: {300 if width < 5 else 80 * width:.0f}px",
    }
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def _for_a_page(element: ElementTree.Element, name: str, used: set[str]) -> None:
    """Change an element's names, links, colours, fonts and digits into what a page with several figures can hold."""
    element.tag = element.tag.removeprefix(_SVG)
    attributes = {}
    for key, value in element.attrib.items():
        if key == "id":
            if value in used:
                attributes["id"] = f"{name}-{value}"
        elif key == _LINK:
            attributes["href"] = f"#{name}-{value[1:]}" if value.startswith("#") else "".join(value.split())
        elif key == "d":
            attributes[key] = " ".join(re.sub(r"\d+\.\d+", _short, value).split())
        elif key in ("x", "y"):
            attributes[key] = re.sub(r"\d+\.\d+", _short, value)
        else:
            attributes[key] = _css(value.replace("url(#", f"url(#{name}-"))
    element.attrib = attributes


def _short(number: re.Match[str]) -> str:
    return f"{float(number[0]):.1f}".removesuffix(".0")


def _css(style: str) -> str:
    """Return a style with the page's colours and the page's font (its weight and size stay)."""
    style = re.sub(r"#[0-9a-f]{6}\b", lambda match: css_colour(match[0]), style)
    style = re.sub(r"(font: [^;']*?[\d.]+px) [^;]+", r"\1 var(--font)", style)
    return re.sub(r"font-family: [^;]+", "font-family: var(--font)", style)

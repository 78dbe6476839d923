"""The common style of all charts: colours, axes, and export as PNG or inline SVG."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from malp_disc.plotting.mpl import Axes, Figure, FigureCanvasAgg, FigureCanvasSVG, in_default_style, matplotlib
from malp_disc.run_folder.arms import ARM_TABLE
from malp_disc.serialization.files import atomic_path

COLOURS = {arm: spec.colour for arm, spec in ARM_TABLE.items()}
STYLES = {arm: (0, spec.dashes) for arm, spec in ARM_TABLE.items() if spec.dashes is not None}
_OTHERS = ("#0072B2", "#9A8700", "#7D55A6", "#5B8C5A")
INK, FAINT, AXIS, PAPER = "#222222", "#E4E4E4", "#8E8E8E", "#FFFFFF"
DPI = 128
_CHARACTER, _HANDLE = 0.058, 0.68  # inches of a legend's entry, roughly: a character, and the line with its padding
_SVG, _HREF = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
# On the page these colours follow the light or dark theme.
_THEMED = {INK: "--ink", FAINT: "--faint", AXIS: "--axis", PAPER: "--card"}
_THEMED |= {spec.colour: f"--{arm.replace('_', '-')}" for arm, spec in ARM_TABLE.items() if spec.themed}


def colour_of(arm: str, names: Sequence[str]) -> str:
    """An arm's colour; other curves of `names` cycle through further ones."""
    others = [name for name in names if name not in COLOURS]
    return COLOURS[arm] if arm in COLOURS else _OTHERS[others.index(arm) % len(_OTHERS)]


def page_colour(colour: str) -> str:
    """A colour as CSS: the page's variable where it follows the theme."""
    return f"var({_THEMED[colour]})" if colour in _THEMED else colour


def tidy(axes: Axes) -> None:
    """Apply the common axis style: two spines, small grey ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(AXIS)
    axes.tick_params(colors=INK, labelsize=8, length=3, color=AXIS)
    axes.set_axisbelow(True)


def title(axes: Axes, text: str, size: float = 9) -> None:
    """Set a left-aligned title in which $ isn't parsed as mathematics."""
    axes.set_title(text, loc="left", fontsize=size, color=INK, parse_math=False)


def legend_columns(names: Collection[str], width: float) -> int:
    """Number of columns of a legend in a figure `width` inches wide: all names in one row, or as many as fit."""
    widths = [len(name) * _CHARACTER + _HANDLE for name in names]
    return max(1, len(widths) if sum(widths) <= width else int(width / max(widths)))


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Running mean over `window` values, over fewer at the ends."""
    return np.convolve(values, np.ones(window), "same") / np.convolve(np.ones(len(values)), np.ones(window), "same")


def save_png(figure: Figure, path: str | Path) -> None:
    """Save a figure under a temporary name, then rename it."""
    canvas = FigureCanvasAgg(figure)
    with atomic_path(path) as temporary:
        canvas.print_png(str(temporary))


@in_default_style
def svg(draw: Callable[[Axes], object], size: tuple[float, float], name: str, label: str) -> str:
    """One pair of axes as inline SVG: text stays text, and ink, grid and background have the page's CSS colours, for its light and dark
    theme.

    Args:
        draw: draws into the axes.
        size: in inches.
        name: letters that are put before every id, because a page has many charts.
        label: what a screen reader says in place of the chart.
    """
    figure = Figure(figsize=size, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    draw(axes)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = _inline(ElementTree.fromstring(buffer.getvalue()), name)
    root.attrib |= {"role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode").strip()


def _inline(root: ElementTree.Element, name: str) -> ElementTree.Element:
    """matplotlib's SVG as an element of an HTML page: without namespaces, metadata and a size of its own, with ids that begin with `name`."""
    for element in root.findall(f"{_SVG}metadata"):
        root.remove(element)
    for size in ("width", "height"):  # the viewBox stays, so that CSS scales it
        root.attrib.pop(size, None)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        for key, value in list(element.attrib.items()):
            if key == "id":
                value = f"{name}-{value}"
            elif key == _HREF:
                del element.attrib[key]
                key, value = "href", value.replace("#", f"#{name}-", 1)
            else:
                value = value.replace("url(#", f"url(#{name}-")
                for colour, variable in _THEMED.items():
                    value = value.replace(colour.lower(), f"var({variable})")
            element.attrib[key] = value
    return root

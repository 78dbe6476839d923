"""Small multiples of measured curves: robustness to degradations (paper, Figure 5), template strength (Figure 6), template leakage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from malp_disc.plotting.mpl import Axes, Figure, Line2D, in_default_style
from malp_disc.plotting.style import DPI, FAINT, INK, legend_columns, save_png, tidy

_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#2D95CE", "#9A8700")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_GREY = "#8A8A8A"
_BASELINE_STYLES = ((0, (1, 1.2)), (0, (5, 2)), (0, (4, 1.5, 1, 1.5)))
_PANEL = (2.5, 2.0)  # inches


@dataclass(frozen=True)
class Line:
    """One curve of a panel.

    Attributes:
        values: one per x; NaN or None for a gap where nothing was measured.
        intervals: the ends of each value's interval, drawn as a band; None for no band, or for a value without an interval.
        baseline: drawn grey and dashed, as a baseline and not as a method.
    """

    values: Sequence[float | None]
    intervals: Sequence[tuple[float, float] | None] | None = None
    baseline: bool = False


def interval_around(value: float | None, margin: float | None) -> tuple[float, float] | None:
    """The ends of the interval ``value ± margin``; None where one of them is."""
    return None if value is None or margin is None else (value - margin, value + margin)


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        x: numbers, or words (then evenly spaced in this order), the same for all lines.
        lines: by name. A name has one colour in all panels of a figure.
        x_label, y_label: with units; written only once where neighbouring panels have the same.
        title: above.
        log_x: logarithmic x axis, for positive numbers.
        y_limits: limits of the y axis; None fits all panels of a row with the same y_label together.
    """

    x: Sequence[float] | Sequence[str]
    lines: Mapping[str, Line]
    x_label: str
    y_label: str
    title: str = ""
    log_x: bool = False
    y_limits: tuple[float, float] | None = None


@in_default_style
def lines_figure(panels: Sequence[Sequence[Panel | None]], path: str | Path) -> None:
    """Draw rows of panels with a common legend into a PNG.

    Args:
        panels: rows from the top; None leaves a cell empty.

    Raises:
        ValueError: nothing to draw, rows of different length, or a line that doesn't fit its panel.
    """
    rows = [list(row) for row in panels]
    drawn = [panel for row in rows for panel in row if panel is not None]
    if not any(panel.lines for panel in drawn):
        raise ValueError("expected at least one panel with a line, got none; leave the figure out")
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"expected rows of one length, got {[len(row) for row in rows]}; fill up with None")
    for panel in drawn:
        _check(panel)
    looks = _looks(drawn)
    width = max(_PANEL[0] * len(rows[0]), 2 * _PANEL[0]) + 0.5
    legend_rows = -(-len(looks) // legend_columns(looks, width))
    figure = Figure(figsize=(width, _PANEL[1] * len(rows) + 0.5 + 0.2 * legend_rows), dpi=DPI, facecolor="white", layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
    axes = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for row, row_of_axes in zip(rows, axes):
        for panel, place in zip(row, row_of_axes):
            if panel is None:
                place.set_visible(False)
            else:
                _draw(place, panel, looks)
        _share_heights(row, row_of_axes)
    _label(rows, axes)
    _legend(figure, looks, width)
    save_png(figure, path)


def _check(panel: Panel) -> None:
    words = [isinstance(x, str) for x in panel.x]
    if len(panel.x) == 0 or any(words) != all(words):
        raise ValueError(f"expected x to be numbers or words, at least one, got {list(panel.x)[:5]}")
    if panel.log_x and (any(words) or min(panel.x) <= 0):
        raise ValueError(f"a logarithmic axis takes numbers above 0, got {list(panel.x)[:5]}; log_x=False, or give them as words")
    for name, line in panel.lines.items():
        for what, numbers in (("values", line.values), ("intervals", line.intervals)):
            if numbers is not None and len(numbers) != len(panel.x):
                raise ValueError(f"expected {len(panel.x)} {what} of {name!r}, one per x, got {len(numbers)}")


def _looks(panels: Sequence[Panel]) -> dict[str, dict[str, object]]:
    """Line style of each name, methods before baselines, each in order of first appearance."""
    baseline: dict[str, bool] = {}
    for panel in panels:
        for name, line in panel.lines.items():
            baseline.setdefault(name, line.baseline)
    looks: dict[str, dict[str, object]] = {}
    for i, name in enumerate(name for name in baseline if not baseline[name]):
        looks[name] = {"color": _COLOURS[i % len(_COLOURS)], "marker": _MARKERS[(i + i // len(_COLOURS)) % len(_MARKERS)], "markersize": 3.6, "linewidth": 1.6}
    for i, name in enumerate(name for name in baseline if baseline[name]):
        looks[name] = {"color": _GREY, "linestyle": _BASELINE_STYLES[i % len(_BASELINE_STYLES)], "linewidth": 1.5}
    return looks


def _draw(axes: Axes, panel: Panel, looks: Mapping[str, Mapping[str, object]]) -> None:
    words = isinstance(panel.x[0], str)
    x = np.arange(len(panel.x)) if words else np.asarray(panel.x, dtype=float)
    for name, line in panel.lines.items():
        values, look = _numbers(line.values), looks[name]
        if line.intervals is not None:
            low, high = np.array([(np.nan, np.nan) if ends is None else ends for ends in line.intervals], dtype=float).T
            axes.fill_between(x, low, high, color=look["color"], alpha=0.18, linewidth=0, zorder=2)
            alone = _alone(low + high)
            axes.vlines(x[alone], low[alone], high[alone], color=look["color"], alpha=0.18, linewidth=4, zorder=2)
        axes.plot(x, values, zorder=2 if line.baseline else 3, **look)
        if line.baseline:
            axes.plot(x[_alone(values)], values[_alone(values)], "_", color=_GREY, markersize=12, markeredgewidth=1.5, zorder=2)
    if panel.log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    if words:
        axes.set_xticks(x, panel.x)
    axes.margins(x=0.05, y=0.08)
    tidy(axes)
    axes.grid(axis="y", color=FAINT, linewidth=0.7)
    axes.set_title(panel.title, loc="left", fontsize=8.5, color=INK, parse_math=False)


def _alone(values: np.ndarray) -> np.ndarray:
    """Indices of the numbers without a neighbour, through which no line or band is drawn."""
    known = np.pad(np.isfinite(values), 1)
    return np.flatnonzero(known[1:-1] & ~known[:-2] & ~known[2:])


def _share_heights(row: Sequence[Panel | None], axes: Sequence[Axes]) -> None:
    """Set the same y limits for the panels of a row with the same y label."""
    fitted: dict[str, list[Axes]] = {}
    for panel, place in zip(row, axes):
        if panel is not None and panel.y_limits is None:
            fitted.setdefault(panel.y_label, []).append(place)
        elif panel is not None:
            place.set_ylim(*panel.y_limits)
    for places in fitted.values():
        limits = [place.get_ylim() for place in places]
        for place in places:
            place.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def _label(rows: Sequence[Sequence[Panel | None]], axes: np.ndarray) -> None:
    """Write the axis labels, once where neighbours have the same."""
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            if panel is None:
                continue
            below = rows[i + 1][j] if i + 1 < len(rows) else None
            before = row[j - 1] if j else None
            if below is None or below.x_label != panel.x_label:
                axes[i, j].set_xlabel(panel.x_label, fontsize=8.5, color=INK, parse_math=False)
            if before is None or before.y_label != panel.y_label:
                axes[i, j].set_ylabel(panel.y_label, fontsize=8.5, color=INK, parse_math=False)


def _legend(figure: Figure, looks: Mapping[str, Mapping[str, object]], width: float) -> None:
    """Draw the legend above the panels, in several rows if one is too short."""
    legend = figure.legend(
        [Line2D([], [], **look) for look in looks.values()],
        list(looks),
        loc="outside upper left",
        ncols=legend_columns(looks, width),
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)

"""Charts of a run: curves while training, and the comparison of its generators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from malp_disc.checkpoint import atomic_path
from malp_disc.report.folder import ARMS
from malp_disc.report.numbers import interval, number, signed

# Told apart with any colour vision and in greys (after Okabe and Ito), and by their line style.
COLOURS = {"before": "#A3A3A3", "control": "#474747", "frozen": "#56B4E9", "cotrain": "#D55E00"}
_OTHERS = ("#009E73", "#CC79A7", "#0072B2", "#B8A000")
_STYLES = {"control": (0, (4, 1.5)), "before": (0, (1, 1))}
_NAMES = {"malp": "MaLP, pretraining"}
_ANCHORS = {"unedited": "unedited\ninputs", "halves": "two halves of\nthe reference"}
INK, FAINT = "#222222", "#E4E4E4"
_PANELS_PER_ROW = 4
DPI = 128


def curves_figure(curves: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path) -> None:
    """A PNG of small multiples: one panel per key, one colour per arm, the step on every horizontal axis.

    Faint: what was logged. Bold: the mean over a window of a tenth of the lines.

    Args:
        curves: by arm, dicts with ``"step"`` and any other keys; a key may be missing from any of them.

    Raises:
        ValueError: there is nothing to draw, or a line without a step.
    """
    series = _by_key(curves)
    if not series:
        raise ValueError("expected curves with at least one number besides step, got none; leave the figure out")
    across = min(_PANELS_PER_ROW, len(series))
    down = -(-len(series) // across)
    figure = Figure(figsize=(2.9 * max(across, 2), 2.0 * down + 0.55), dpi=DPI, facecolor="white", layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    names = list(curves)
    for axes, (key, lines) in zip(panels, series.items()):
        for arm, (steps, values) in lines.items():
            _draw_curve(axes, steps, values, colour_of(arm, names), _STYLES.get(arm, "-"), arm)
        drawn = np.concatenate([values for _, values in lines.values()])
        if drawn.min() > 0 and drawn.max() > 100 * drawn.min():
            axes.set_yscale("log")
        tidy(axes)
        axes.grid(axis="y", color=FAINT, linewidth=0.7)
        axes.set_title(key, loc="left", fontsize=8.5, color=INK, parse_math=False)
    for axes in panels[len(series) :]:
        axes.set_visible(False)
    figure.supxlabel("step", fontsize=8.5, color=INK)
    handles = {line.get_label(): line for axes in panels for line in axes.get_lines() if not line.get_label().startswith("_")}
    shown = [name for name in names if name in handles]
    figure.legend(
        [handles[name] for name in shown],
        [_NAMES.get(name, name) for name in shown],
        loc="outside upper left",
        ncols=len(shown),
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
    )
    save_png(figure, path)


def comparison_figure(record: Mapping[str, Any], path: str | Path) -> None:
    """A PNG of two panels: each arm's Frechet distance between the anchors, and its difference from the control with the interval.

    Args:
        record: as `build_record` gives it. What was not measured is left out; without any interval so is the second panel.
    """
    arms = {arm: measured["frechet"] for arm, measured in record["arms"].items() if measured["frechet"]["value"] is not None}
    deltas = {arm: entry["delta_vs_control"] for arm, entry in record["comparison"].items() if entry["delta_vs_control"] is not None}
    deltas = {arm: deltas[arm] for arm in ARMS if arm in deltas}
    figure = Figure(figsize=(8.6 if deltas else 5.2, 3.9), dpi=DPI, facecolor="white", layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08, wspace=0.06)
    panels = figure.subplots(1, 2 if deltas else 1, squeeze=False, width_ratios=[1.25, 1] if deltas else [1])[0]
    _draw_distances(panels[0], arms, record["anchors"])
    if deltas:
        _draw_deltas(panels[1], deltas, record["bootstrap"])
    save_png(figure, path)


def colour_of(arm: str, names: Sequence[str]) -> str:
    """An arm's own colour; other curves of `names` take further ones in turn."""
    others = [name for name in names if name not in COLOURS]
    return COLOURS[arm] if arm in COLOURS else _OTHERS[others.index(arm) % len(_OTHERS)]


def _by_key(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """{key: {arm: (steps, values)}}; keys in order of first appearance, distances to the real pictures first, steps ascending."""
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for arm, lines in curves.items():
        for line in lines:
            if not isinstance(line.get("step"), (int, float)):
                raise ValueError(f"expected a step in every line of the curves, {arm} has {dict(line)}")
            for key, value in line.items():
                if key != "step" and isinstance(value, (int, float)) and np.isfinite(value):
                    points.setdefault(key, {}).setdefault(arm, []).append((line["step"], value))
    ordered = sorted(points, key=lambda key: "/" in key)  # stable: keys with a slash are losses
    return {key: {arm: tuple(np.array(sorted(pairs), dtype=float).T) for arm, pairs in points[key].items()} for key in ordered}


def _draw_curve(axes: Axes, steps: np.ndarray, values: np.ndarray, colour: str, style: Any, arm: str) -> None:
    window = max(1, len(values) // 10)
    if window > 1:
        axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.28)
        sums = np.convolve(values, np.ones(window), "same")
        values = sums / np.convolve(np.ones(len(values)), np.ones(window), "same")
    axes.plot(steps, values, color=colour, linestyle=style, linewidth=1.6, label=arm, marker="o" if len(values) < 12 else None, markersize=3)


def _draw_distances(axes: Axes, arms: Mapping[str, Mapping[str, Any]], anchors: Mapping[str, Any]) -> None:
    for x, (arm, frechet) in enumerate(arms.items()):
        axes.bar(x, frechet["value"], width=0.56, color=COLOURS[arm], zorder=2)
        place = {"textcoords": "offset points", "ha": "center", "zorder": 4}
        axes.annotate(number(frechet["value"]), (x, frechet["value"]), (0, 3), fontsize=9, color=INK, **place)
    first = next(iter(arms.values()), {"label": None, "n": None})
    axes.set_xticks(range(len(arms)), list(arms), fontsize=9.5)
    axes.set_xlim(-0.6, max(len(arms), 1) - 0.4)
    axes.margins(y=0.12)
    tidy(axes)
    title = f"{first['label'] or 'Frechet distance'}, lower is better (n = {number(first['n'])})"
    axes.set_title(title, loc="left", fontsize=9.5, color=INK, parse_math=False)
    _draw_anchors(axes, {text: anchors[name]["value"] for name, text in _ANCHORS.items() if anchors[name]["value"] is not None})


def _draw_anchors(axes: Axes, anchors: Mapping[str, float]) -> None:
    axes.set_ylim(0, max([axes.get_ylim()[1], *(1.12 * value for value in anchors.values())]))
    close = len(anchors) == 2 and max(anchors.values()) - min(anchors.values()) < 0.09 * axes.get_ylim()[1]
    for value in anchors.values():
        axes.axhline(value, color="white", linewidth=3, zorder=2.5)  # cuts through the bars, so that the dashes show on any colour
    for (text, value), style in zip(anchors.items(), ((0, (5, 2)), (0, (1, 1.5)))):
        axes.axhline(value, color=INK, linewidth=1, linestyle=style, zorder=3)
        side = ("bottom" if value == max(anchors.values()) else "top") if close else "center"
        _label_line(axes, value, f"{text}: {number(value)}", side)


def _draw_deltas(axes: Axes, deltas: Mapping[str, Mapping[str, float]], bootstrap: Mapping[str, Any]) -> None:
    axes.axhline(0, color=COLOURS["control"], linewidth=1, linestyle=_STYLES["control"], zorder=1)
    _label_line(axes, 0, "control")
    for x, (arm, delta) in enumerate(deltas.items()):
        margins = [[delta["value"] - delta["low"]], [delta["high"] - delta["value"]]]
        axes.errorbar(x, delta["value"], margins, fmt="o", color=COLOURS[arm], markersize=5.5, elinewidth=1.8, capsize=6, capthick=1.8, zorder=2)
        up = delta["value"] >= 0  # away from the line at zero
        text = f"{signed(delta['value'])}\n{interval(delta)}".replace("-", "\N{MINUS SIGN}")
        axes.annotate(text, (x, delta["value"]), (9, 1 if up else -1), textcoords="offset points", va="bottom" if up else "top", fontsize=8, color=INK)
    axes.set_xticks(range(len(deltas)), list(deltas), fontsize=9.5)
    axes.set_xlim(-0.4, len(deltas) - 0.1)
    axes.margins(y=0.12)
    tidy(axes)
    axes.set_title(f"minus the control, {100 * bootstrap['confidence']:g} % interval", loc="left", fontsize=9.5, color=INK)


def _label_line(axes: Axes, height: float, text: str, vertical: str = "center") -> None:
    """Say right of the axes what the horizontal line at `height` is."""
    axes.annotate(text, (1, height), (5, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va=vertical, fontsize=7.5, color=INK)


def tidy(axes: Axes) -> None:
    """The look of every chart: two spines, small grey ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9A9A9A")
    axes.tick_params(colors=INK, labelsize=8, length=3, color="#9A9A9A")
    axes.set_axisbelow(True)


def save_png(figure: Figure, path: str | Path) -> None:
    """Written under a temporary name, then renamed."""
    canvas = FigureCanvasAgg(figure)
    with atomic_path(path) as temporary:
        canvas.print_png(str(temporary))

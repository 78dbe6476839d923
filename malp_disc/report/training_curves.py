"""Training curves: one panel per logged number, one colour per arm, one line per seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from malp_disc.plotting.mpl import Axes, Figure, in_default_style
from malp_disc.plotting.style import DPI, FAINT, INK, STYLES, colour_of, legend_columns, save_png, smoothed, tidy, title

_NAMES = {"malp": "MaLP, pretraining"}
_PANELS_PER_ROW = 4
_POINTS = 150  # of one line; more can't be distinguished at this size
Curves = Mapping[str, Sequence[Mapping[str, Any]]]
Series = Mapping[str, list[tuple[np.ndarray, np.ndarray]]]


@in_default_style
def curves_figure(curves: Curves, path: str | Path) -> None:
    """A PNG of small multiples, the step on every horizontal axis.

    Faint: logged values. Bold: the running mean over a tenth of them.

    Args:
        curves: by arm, dicts with ``"step"``, perhaps ``"seed"``, and any other keys; a key may be missing from any of them.

    Raises:
        ValueError: there is nothing to draw, or a line without a step.
    """
    series = by_key(curves)
    if not series:
        raise ValueError("expected curves with at least one number besides step, got none; leave the figure out")
    across = min(_PANELS_PER_ROW, len(series))
    down = -(-len(series) // across)
    width = 2.9 * max(across, 2)
    rows = -(-len(curves) // legend_columns([_NAMES.get(name, name) for name in curves], width))
    figure = Figure(figsize=(width, 2.0 * down + 0.35 + 0.2 * rows), dpi=DPI, facecolor="white", layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    names = list(curves)
    for axes, (key, lines) in zip(panels, series.items()):
        draw_panel(axes, key, lines, names)
    for axes in panels[len(series) :]:
        axes.set_visible(False)
    figure.supxlabel("step", fontsize=8.5, color=INK)
    handles = {line.get_label(): line for axes in panels for line in axes.get_lines() if not line.get_label().startswith("_")}
    shown = [name for name in names if name in handles]
    figure.legend(
        [handles[name] for name in shown],
        [_NAMES.get(name, name) for name in shown],
        loc="outside upper left",
        ncols=legend_columns([_NAMES.get(name, name) for name in shown], width),
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
    )
    save_png(figure, path)


def by_key(curves: Curves) -> dict[str, Series]:
    """{key: {arm: [(steps, values) of every seed]}}; keys in order of first appearance, distances to the real images first, steps
    ascending.

    Raises:
        ValueError: a line without a step.
    """
    points: dict[str, dict[str, dict[int, list[tuple[float, float]]]]] = {}
    for arm, lines in curves.items():
        for line in lines:
            if not isinstance(line.get("step"), (int, float)):
                raise ValueError(f"expected a step in every line of the curves, {arm} has {dict(line)}")
            for key, value in line.items():
                if key not in ("step", "seed") and isinstance(value, (int, float)) and np.isfinite(value):
                    points.setdefault(key, {}).setdefault(arm, {}).setdefault(line.get("seed", 0), []).append((line["step"], value))
    ordered = sorted(points, key=lambda key: "/" in key)  # stable: keys with a slash are losses
    return {
        key: {arm: [tuple(np.array(sorted(pairs), dtype=float).T) for pairs in seeds.values()] for arm, seeds in points[key].items()}
        for key in ordered
    }


def draw_panel(axes: Axes, key: str, lines: Series, names: Sequence[str]) -> None:
    """Draw one number for all arms and seeds. `names`: all arms of the figure, which determine the colours."""
    for arm, seeds in lines.items():
        for number, (steps, values) in enumerate(seeds):
            _draw_line(
                axes, steps, values, colour_of(arm, names), STYLES.get(arm, "-"), arm if number == 0 else f"_{arm}", faint=len(seeds) == 1
            )
    drawn = np.concatenate([values for seeds in lines.values() for _, values in seeds])
    if drawn.min() > 0 and drawn.max() > 100 * drawn.min():
        axes.set_yscale("log")
    tidy(axes)
    axes.grid(axis="y", color=FAINT, linewidth=0.7)
    title(axes, key, 8.5)


def _draw_line(axes: Axes, steps: np.ndarray, values: np.ndarray, colour: str, style: Any, label: str, *, faint: bool) -> None:
    window = max(1, len(values) // 10)
    if window > 1:
        if faint:
            axes.plot(*_thinned(steps, values), color=colour, linewidth=0.7, alpha=0.28)
        values = smoothed(values, window)
    marker = "o" if len(values) < 12 else None
    axes.plot(
        *_thinned(steps, values), color=colour, linestyle=style, linewidth=1.6 if faint else 1.1, label=label, marker=marker, markersize=3
    )


def _thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `_POINTS` points, each the mean of neighbours."""
    if len(steps) <= _POINTS:
        return steps, values
    groups = np.array_split(np.arange(len(steps)), _POINTS)
    return tuple(np.array([part[group].mean() for group in groups]) for part in (steps, values))

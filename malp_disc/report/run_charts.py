"""Charts of a run's generators: distances, differences from the control by view, and power spectra."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from malp_disc.plotting.mpl import Axes, Figure, LogLocator, in_default_style
from malp_disc.plotting.style import AXIS, COLOURS, DPI, FAINT, INK, PAPER, STYLES, save_png, tidy, title
from malp_disc.report.numbers import number, percent, signed
from malp_disc.report.results import Record
from malp_disc.report.seeds import Delta
from malp_disc.run_folder.arms import ARM_TABLE, ARMS, CANDIDATES, VIEWS
from malp_disc.run_folder.measurement import Distance, Measurement

_REFERENCE_POINTS = {"unedited": "unedited inputs", "real_split": "real-vs-real split"}


@in_default_style
def comparison_figure(record: Record, path: str | Path) -> None:
    """A PNG of two panels: each arm's Frechet distance with the reference points, and its difference from the control with the interval.

    Args:
        record: as `build_record` gives it. What was not measured is left out; without any interval so is the second panel.
    """
    deltas = _deltas(record)
    figure = Figure(figsize=(9.2 if deltas else 5.2, panel_height(record)), dpi=DPI, facecolor="white", layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08, wspace=0.06)
    panels = figure.subplots(1, 2 if deltas else 1, squeeze=False)[0]
    draw_distances(panels[0], record)
    if deltas:
        draw_deltas(panels[1], record)
    save_png(figure, path)


@in_default_style
def spectrum_figure(record: Record, path: str | Path) -> bool:
    """A PNG of the power spectra; False, and nothing drawn, where none was measured."""
    if not has_spectrum(record):
        return False
    figure = Figure(figsize=(6.2, 3.2), dpi=DPI, facecolor="white", layout="constrained")
    draw_spectrum(figure.subplots(), record, legend=True)
    save_png(figure, path)
    return True


def panel_height(record: Record) -> float:
    """Height in inches of a chart with a row per arm."""
    return 1.35 + 0.34 * len(record.arms)


def draw_distances(axes: Axes, record: Record) -> None:
    """Draw a bar per arm, a dot per seed, and the reference points as lines."""
    arms = {arm: measured.frechet for arm, measured in record.arms.items() if measured.frechet.value is not None}
    for y, (arm, frechet) in enumerate(arms.items()):
        axes.barh(y, frechet.value, height=0.62, color=COLOURS[arm], zorder=2)
        seeds = _of_seeds(record, lambda seed, arm=arm: record.per_seed[str(seed)].arms.get(arm, Measurement()).frechet.value)
        reach = max([frechet.value, *seeds])
        axes.annotate(
            number(frechet.value), (reach, y), (5, 0), textcoords="offset points", va="center", fontsize=8.5, color=INK, zorder=4
        )
        if arm != "before":
            axes.plot(seeds, [y] * len(seeds), "o", color=PAPER, markeredgecolor=INK, markersize=3.6, markeredgewidth=0.8, zorder=3)
    first = next(iter(arms.values()), Distance())
    known = record.reference_points.points("frechet")
    points = {text: found for name, text in _REFERENCE_POINTS.items() if (found := getattr(known, name).value) is not None}
    for (text, value), style in zip(points.items(), ((0, (5, 2)), (0, (1, 1.5)))):
        axes.axvline(value, color=PAPER, linewidth=3, zorder=2.5)  # cuts through the bars, so that the dashes show on any colour
        axes.axvline(value, color=INK, linewidth=1, linestyle=style, zorder=3, label=f"{text}: {number(value)}")
    axes.set_yticks(range(len(arms)), list(arms))
    axes.set_ylim(max(len(arms), 1) - 0.4, -0.6)
    axes.margins(x=0.16)
    axes.set_xlim(left=0, right=max([axes.get_xlim()[1], *(1.08 * value for value in points.values())]))
    tidy(axes)
    axes.tick_params(axis="y", labelsize=9, length=0)
    title(axes, f"{first.label or 'Frechet distance'}, lower is better (n = {number(first.n)})")
    if points:
        axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.1), ncols=1, frameon=False, fontsize=8, labelcolor=INK, handlelength=2.4)


def draw_deltas(axes: Axes, record: Record) -> None:
    """Draw differences from the control: the whole 95 % interval as a line, the one over images thicker, a dot per seed."""
    deltas = _deltas(record)
    axes.axvline(0, color=COLOURS["control"], linewidth=1, linestyle=STYLES["control"], zorder=1)
    for y, (arm, delta) in enumerate(deltas.items()):
        inner = delta.images or delta
        axes.plot([delta.low, delta.high], [y, y], color=COLOURS[arm], linewidth=1.4, zorder=2, solid_capstyle="butt")
        axes.plot([inner.low, inner.high], [y, y], color=COLOURS[arm], linewidth=3.6, zorder=2, solid_capstyle="butt")
        seeds = _of_seeds(record, lambda seed, arm=arm: _delta_of_seed(record, seed, arm))
        axes.plot(seeds, [y + 0.22] * len(seeds), "o", color=PAPER, markeredgecolor=INK, markersize=3.2, markeredgewidth=0.7, zorder=3)
        axes.plot(delta.value, y, "o", color=COLOURS[arm], markersize=6, markeredgecolor=PAPER, zorder=4)
        text = signed(delta.value).replace("-", "\N{MINUS SIGN}")
        backed = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.6}
        axes.annotate(
            text, (delta.value, y), (0, 6), textcoords="offset points", ha="center", fontsize=8, color=INK, zorder=2.5, bbox=backed
        )
    axes.set_yticks(range(len(deltas)), list(deltas))
    axes.set_ylim(len(deltas) - 0.4, -0.7)
    axes.margins(x=0.12)
    tidy(axes)
    axes.grid(axis="x", color=FAINT, linewidth=0.7)
    axes.tick_params(axis="y", labelsize=9, length=0)
    scale = _squeeze(axes, [end for delta in deltas.values() for end in (delta.low, delta.high)])
    title(axes, f"minus the control, {percent(record.bootstrap.confidence)} interval{scale}")


def draw_where(axes: Axes, record: Record) -> None:
    """Draw every candidate minus the control, by view, in per cent of the control's distance there, because the views have different scales."""
    arms, views = _tuned(record), _measured_views(record)
    axes.axvline(0, color=COLOURS["control"], linewidth=1, linestyle=STYLES["control"], zorder=1)
    drawn = []
    for row, view in enumerate(views):
        for place, arm in enumerate(arms):
            delta, base = record.delta(arm, score=view), record.arms["control"].distance(view).value
            if delta is None or not base:
                continue
            y = row + min(0.22, 0.8 / len(arms)) * (place - (len(arms) - 1) / 2)
            low, high, middle = (100 * end / base for end in (delta.low, delta.high, delta.value))
            drawn += [low, high]
            axes.plot([low, high], [y, y], color=COLOURS[arm], linewidth=2.2, zorder=2, solid_capstyle="butt")
            axes.plot(middle, y, ARM_TABLE[arm].marker, color=COLOURS[arm], markersize=5.5, markeredgecolor=PAPER, zorder=3, label=arm if row == 0 else None)
    axes.set_yticks(range(len(views)), [VIEWS[view].replace(", ", "\n") for view in views])
    axes.set_ylim(len(views) - 0.5, -0.5)
    tidy(axes)
    axes.grid(axis="x", color=FAINT, linewidth=0.7)
    axes.tick_params(axis="y", labelsize=8.5, length=0)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.1), ncols=3, frameon=False, fontsize=8, labelcolor=INK, handlelength=1)
    scale = _squeeze(axes, drawn)
    title(axes, f"minus the control, % of its distance{scale}")


def draw_spectrum(axes: Axes, record: Record, *, legend: bool = False) -> None:
    """Draw power relative to real images over frequency, on a logarithmic scale."""
    axes.axhline(1, color=AXIS, linewidth=1, zorder=1)
    axes.axvline(1, color=AXIS, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    for arm, measured in record.arms.items():
        spectrum = measured.spectrum
        if spectrum.frequency and spectrum.ratio:
            points = [(x, y) for x, y in zip(spectrum.frequency, spectrum.ratio) if y]
            axes.plot(
                *zip(*points),
                color=COLOURS[arm],
                linestyle=STYLES.get(arm, "-"),
                linewidth=1.5,
                label=arm,
                zorder=3 if arm in CANDIDATES else 2,
            )
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.5), max(high, 2))
    axes.set_xlim(left=0)
    tidy(axes)
    if high < 100 * low:  # powers of ten alone would be one tick
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.grid(axis="y", color=FAINT, linewidth=0.7)
    axes.set_xlabel("frequency, 1 = Nyquist", fontsize=8.5, color=INK)
    title(axes, "power relative to real images")
    if legend:
        axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="center left", bbox_to_anchor=(1, 0.5))


def _squeeze(axes: Axes, values: Sequence[float]) -> str:
    """Make the horizontal axis logarithmic beyond the usual range if one value would flatten all others; returns a note for the title."""
    sizes = sorted(abs(value) for value in values)
    usual = 2 * sizes[len(sizes) // 2] if sizes else 0
    if not usual or sizes[-1] < 10 * usual:
        return ""
    axes.set_xscale("symlog", linthresh=usual, linscale=2)
    reach = 10 ** math.floor(math.log10(usual))
    far = 10 ** math.floor(math.log10(sizes[-1]))
    ticks = {sign * tick for sign in (-1, 1) for tick in (reach, far)}
    axes.set_xticks(sorted({0.0, *(tick for tick in ticks if min(values) <= tick <= max(values))}))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    return f"\n(logarithmic beyond ±{number(usual)})"


def has_spectrum(record: Record) -> bool:
    return any(measured.spectrum.ratio for measured in record.arms.values())


def has_where(record: Record) -> bool:
    """Whether there are a candidate, a control, and more than one view."""
    return "control" in record.arms and bool(_tuned(record)) and len(_measured_views(record)) > 1


def _tuned(record: Record) -> list[str]:
    return [arm for arm in CANDIDATES if arm in record.arms]


def _measured_views(record: Record) -> list[str]:
    return [view for view in VIEWS if any(record.delta(arm, score=view) for arm in record.arms)]


def _deltas(record: Record) -> dict[str, Delta]:
    return {arm: delta for arm in ARMS if (delta := record.delta(arm)) is not None}


def _delta_of_seed(record: Record, seed: int, arm: str) -> float | None:
    """An arm's difference from the control in one seed. "before" is measured once: for other seeds than the first, that of their control, negated."""
    own, reverse = record.delta_of_seed(seed, arm), record.delta_of_seed(seed, "control", arm)
    return own.value if own is not None else None if reverse is None else -reverse.value


def _of_seeds(record: Record, get: Callable[[int], float | None]) -> list[float]:
    """A number of every seed; empty for a single seed, whose dot would only hide the bar's end."""
    return [value for seed in record.seeds if (value := get(seed)) is not None] if len(record.seeds) > 1 else []

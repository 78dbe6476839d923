"""The record as one self-contained HTML file, from the Jinja templates beside this module: nothing is fetched when it is opened."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from malp_disc.plotting.style import STYLES, colour_of, page_colour, svg
from malp_disc.report.cells import NONE, label_of
from malp_disc.report.images import Extremes, comparison_of, extremes_of, page_images
from malp_disc.report.numbers import interval, number, signed
from malp_disc.report.results import Record
from malp_disc.report.run_charts import draw_deltas, draw_distances, draw_spectrum, draw_where, has_spectrum, has_where, panel_height
from malp_disc.report.sections import commands, making, sections
from malp_disc.report.training_curves import by_key, draw_panel
from malp_disc.run_folder.strips import Strip
from malp_disc.serialization.typed_json import to_json

_WIDTH = 4.5  # inches of a chart: its letters have about the size of the page's on a phone
_SMALL = (2.9, 2.0)
_LEGEND_LINE = 2  # width of a line in the legend, by which its dashes are scaled
Curves = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Figures:
    """What a section shows besides text and tables: SVG charts, the lines of their legend (name, CSS colour and SVG dashes), and images."""

    charts: Sequence[Markup] = ()
    small: bool = False
    legend: Sequence[tuple[str, str, str]] = ()
    extremes: Extremes | None = None


def render_page(record: Record, *, strips: Sequence[Strip] = (), curves: Curves | None = None) -> str:
    """A record of `build_record` as an HTML page.

    Args:
        strips: the images to show, as `read_strips` gives them.
        curves: as `read_curves` gives them.
    """
    environment = _environment()
    of_seed = f", seed {max((strip.seed for strip in strips), default=0)}" if len(record.seeds) > 1 else ""
    outcomes = [verdict.outcome for verdict in record.verdicts.values()]
    parts = [(section, _figures(section.key, record, strips, curves or {}, of_seed)) for section in sections(record)]
    config = record.config
    return environment.get_template("page.html").render(
        title=f"{label_of(record)}: before, control, after",
        style=_source(environment, "page.css"),
        script=_source(environment, "page.js"),
        images=page_images(strips),
        outcome="improved" if "improved" in outcomes else "worse" if "worse" in outcomes else "open",
        headline=headline(record),
        record=record,
        facts=_facts(record),
        comparison=comparison_of(strips, of_seed),
        sections=[(section, figures) for section, figures in parts if figures or not section.empty],
        making=making(record),
        commands=commands(record),
        config=json.dumps(config, indent=2, ensure_ascii=False) if config else "",
        record_json=json.dumps(to_json(record), ensure_ascii=False),
    )


def headline(record: Record) -> str:
    """The verdict in a few words."""
    improved = [arm for arm, verdict in record.verdicts.items() if verdict.outcome == "improved"]
    if not record.verdicts:
        return "No verdict"
    return f"{' and '.join(improved)} improved" if improved else "No improvement shown"


@cache
def _environment() -> Environment:
    """Everything is escaped but the style sheet, the script and the charts, which come from this package."""
    loader = PackageLoader("malp_disc.report", "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)


def _source(environment: Environment, name: str) -> Markup:
    """A file of the templates' folder as it is."""
    return Markup(environment.loader.get_source(environment, name)[0])


def _facts(record: Record) -> dict[str, str]:
    first = next((m.frechet for m in record.arms.values() if m.frechet.value is not None), None)
    facts = {"generators": ", ".join(record.arms), "seeds": " ".join(map(str, record.seeds))}
    if first is not None:
        facts |= {
            "images": f"n = {number(first.n)}",
            "distance": first.label or NONE,
            "extractor": (first.extractor or NONE).partition(", weights")[0],
        }
    return facts


def _figures(key: str, record: Record, strips: Sequence[Strip], curves: Curves, of_seed: str) -> Figures | None:
    """The figures of a section, None where it has none."""
    if key == "quality":
        return _quality(record)
    if key == "where":
        return _where(record)
    if key == "localization":
        extremes = extremes_of(strips, of_seed)
        return Figures(extremes=extremes) if extremes else None
    return _curves(curves) if key == "curves" else None


def _quality(record: Record) -> Figures:
    size, label = (_WIDTH, panel_height(record)), label_of(record)
    values = {arm: measured.frechet.value for arm, measured in record.arms.items()}
    deltas = {arm: delta for arm in record.arms if (delta := record.delta(arm)) is not None}
    named = _listed(f"Chart: {label} by generator", {arm: number(value) for arm, value in values.items() if value is not None})
    charts = [svg(lambda axes: draw_distances(axes, record), size, "distances", named)]
    if deltas:
        named = _listed(f"Chart: {label} minus the control's, with intervals", {arm: f"{signed(delta.value)} ({interval(delta)})" for arm, delta in deltas.items()})
        charts.append(svg(lambda axes: draw_deltas(axes, record), size, "deltas", named))
    return Figures([Markup(chart) for chart in charts])


def _where(record: Record) -> Figures | None:
    charts = []
    if has_where(record):
        named = "Chart: every generator minus the control in each view of the images, in per cent; the table of differences has the numbers"
        charts.append(svg(lambda axes: draw_where(axes, record), (_WIDTH, 2.9), "where", named))
    if has_spectrum(record):
        named = "Chart: power relative to real images over frequency, by generator; the table of the power spectrum has the numbers of the high frequencies"
        charts.append(svg(lambda axes: draw_spectrum(axes, record), (_WIDTH, 2.9), "spectrum", named))
    return Figures([Markup(chart) for chart in charts], legend=_legend(list(record.arms))) if charts else None


def _curves(curves: Curves) -> Figures | None:
    names = list(curves)
    series = {name: lines for name, lines in by_key(curves).items() if any(len(steps) > 1 for seeds in lines.values() for steps, _ in seeds)}
    panels = []
    for i, (name, lines) in enumerate(series.items()):
        ends = {arm: [sum(values[end] for _, values in seeds) / len(seeds) for end in (0, -1)] for arm, seeds in lines.items()}
        named = _listed(f"Chart: {name} during training, at the first and the last step", {arm: " to ".join(map(number, found)) for arm, found in ends.items()})
        panels.append(svg(lambda axes, n=name, s=lines: draw_panel(axes, n, s, names), _SMALL, f"curve{i}", named))
    return Figures([Markup(panel) for panel in panels], small=True, legend=_legend(names)) if panels else None


def _listed(what: str, values: Mapping[str, str]) -> str:
    return f"{what}: {', '.join(f'{name} {value}' for name, value in values.items()) or 'nothing was measured'}"


def _legend(names: Sequence[str]) -> list[tuple[str, str, str]]:
    """Colour and dashes of every curve, as the charts have them."""
    dashes = {name: " ".join(f"{_LEGEND_LINE * length:g}" for length in STYLES[name][1]) for name in names if name in STYLES}
    return [(name, page_colour(colour_of(name, names)), dashes.get(name, "none")) for name in names]

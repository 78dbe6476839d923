"""The record as one HTML file that a person opens: nothing is fetched, everything is inside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from malp_disc.plotting.style import COLOURS, colour_of, svg
from malp_disc.report.cells import NONE, Table, label_of
from malp_disc.report.numbers import MISSING, number
from malp_disc.report.pictures import comparison_block, extremes_block, strip_styles
from malp_disc.report.run_charts import draw_deltas, draw_distances, draw_spectrum, draw_where, has_spectrum, has_where, panel_height
from malp_disc.report.sections import Section, commands, making, sections
from malp_disc.report.training_curves import by_key, draw_panel
from malp_disc.run_folder.strips import Strip

_WIDTH = 4.5  # inches of a chart: its letters have about the size of the page's on a phone
_SMALL = (2.9, 2.0)


def render_page(
    record: Mapping[str, Any], *, strips: Sequence[Strip] = (), curves: Mapping[str, Sequence[Mapping[str, Any]]] | None = None
) -> str:
    """A record of `build_record` as an HTML page.

    Args:
        strips: the images to show, as `read_strips` gives them.
        curves: as `read_curves` gives them.
    """
    assets = files("malp_disc.report") / "assets"
    read = {name: (assets / f"page.{name}").read_text(encoding="utf-8") for name in ("html", "css", "js")}
    cautions = "".join(f"<li>{escape(note)}.</li>" for note in record["notes"])
    body = [_section(section, _extra(section.key, record, strips, curves or {})) for section in sections(record)]
    faces = comparison_block(strips)
    if faces:
        seed = min(strip.seed for strip in strips)
        body.insert(
            0, f"<section><h2>See for yourself</h2><p>The same inputs through two generators{_of_seed(record, seed)}.</p>{faces}</section>"
        )
    outcomes = [verdict["outcome"] for verdict in record["verdicts"].values()]
    return Template(read["html"]).substitute(
        title=escape(f"{label_of(record)}: before, control, after"),
        style=read["css"],
        strips=strip_styles(strips),
        outcome="improved" if "improved" in outcomes else "worse" if "worse" in outcomes else "open",
        headline=escape(headline(record)),
        verdict=escape(record["verdict"]),
        facts=_facts(record),
        cautions=f'<ul class="cautions">{cautions}</ul>' if cautions else "",
        body="\n".join(part for part in (*body, _making(record)) if part),
        footer="Made from the run's JSON lines. This file needs no network: all of it is inside.",
        script=read["js"],
    )


def headline(record: Mapping[str, Any]) -> str:
    """The verdict in a few words."""
    improved = [arm for arm, verdict in record["verdicts"].items() if verdict["outcome"] == "improved"]
    if not record["verdicts"]:
        return "No verdict"
    return f"{' and '.join(improved)} improved" if improved else "No improvement shown"


def _facts(record: Mapping[str, Any]) -> str:
    first = next((m["frechet"] for m in record["arms"].values() if m["frechet"]["value"] is not None), None)
    facts = {"generators": ", ".join(record["arms"]), "seeds": " ".join(map(str, record["seeds"]))}
    if first is not None:
        facts |= {
            "pictures": f"n = {number(first['n'])}",
            "distance": first["label"] or NONE,
            "extractor": (first["extractor"] or NONE).split(",")[0],
        }
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts.items())


def _section(section: Section, extra: str = "") -> str:
    items = "".join(f"<li>{escape(item)}</li>" for item in section.items)
    if items and section.key == "quality":
        items = f'<details><summary>What exactly was measured</summary><ul class="notes">{items}</ul></details>'
    elif items:
        items = f"<ul>{items}</ul>"
    text = f"<p>{escape(section.text)}</p>" if section.text else ""
    tables = "".join((f"<h3>{escape(caption)}</h3>" if caption else "") + _table(table) for caption, table in section.tables)
    parts = (
        [text, items, tables, extra] if section.key == "localization" else [text, tables, extra, items]
    )  # what it means, before the numbers
    if not any(parts) and section.key == "localization":
        parts = ["<p>Not measured.</p>"]
    return f'<section id="{section.key}"><h2>{escape(section.title)}</h2>{"".join(parts)}</section>' if any(parts) else ""


def _extra(key: str, record: Mapping[str, Any], strips: Sequence[Strip], curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The charts and images of a section."""
    size = (_WIDTH, panel_height(record))
    if key == "quality":
        charts = [svg(lambda axes: draw_distances(axes, record), size, "distances")]
        if any(entry["delta_vs_control"] for entry in record["comparison"].values()):
            charts.append(svg(lambda axes: draw_deltas(axes, record), size, "deltas"))
        return _charts(charts)
    if key == "where":
        charts = [svg(lambda axes: draw_where(axes, record), (_WIDTH, 2.9), "where")] if has_where(record) else []
        charts += [svg(lambda axes: draw_spectrum(axes, record), (_WIDTH, 2.9), "spectrum")] if has_spectrum(record) else []
        return _charts(charts) + (_legend(record["arms"], list(record["arms"])) if charts else "")
    if key == "localization":
        blocks = extremes_block(strips)
        seed = min((strip.seed for strip in strips), default=0)
        return f"<h3>By the detector's score, P(manipulated){escape(_of_seed(record, seed))}</h3>{blocks}" if blocks else ""
    if key == "curves":
        names = list(curves)
        series = {
            name: lines for name, lines in by_key(curves).items() if any(len(steps) > 1 for seeds in lines.values() for steps, _ in seeds)
        }
        panels = [
            svg(lambda axes, n=name, s=lines: draw_panel(axes, n, s, names), _SMALL, f"curve{i}")
            for i, (name, lines) in enumerate(series.items())
        ]
        return _charts(panels, "small") + _legend(names, names) if panels else ""
    return ""


def _making(record: Mapping[str, Any]) -> str:
    config = record["config"]
    text = escape(json.dumps(config, indent=2, ensure_ascii=False))
    resolved = f"<details><summary>The resolved configuration</summary><pre>{text}</pre></details>" if config else ""
    facts = escape(json.dumps(record, ensure_ascii=False))
    whole = f"<details><summary>All of it, as report.json has it</summary><pre>{facts}</pre></details>"
    return _section(making(record), f"<pre>{escape(commands(record))}</pre>{resolved}{whole}")


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell).replace("n = ", "n&nbsp;=&nbsp;")}</th>' for cell in table.header)
    rows = [
        f"<tr{' class=quiet' if i in table.quiet else ''}>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>"
        for i, row in enumerate(table.rows)
    ]
    note = f'<p class="notes">{NONE}: {MISSING}, or not defined.</p>' if any(NONE in row for row in table.rows) else ""
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>{note}'


def _cell(text: str) -> str:
    """The first line as it is, further ones small below it."""
    first, *more = escape(text).split("\n")
    return first + "".join(f"<small>{line}</small>" for line in more)


def _charts(charts: Sequence[str], size: str = "") -> str:
    return f'<div class="charts {size}">{"".join(charts)}</div>' if charts else ""


def _legend(shown: Sequence[str] | Mapping[str, Any], names: Sequence[str]) -> str:
    entries = "".join(f'<li><i style="color:{_themed(colour_of(name, names))}"></i>{escape(name)}</li>' for name in shown)
    return f'<ul class="legend">{entries}</ul>'


def _themed(colour: str) -> str:
    return "var(--control)" if colour == COLOURS["control"] else colour


def _of_seed(record: Mapping[str, Any], seed: int) -> str:
    return f", seed {seed}" if len(record["seeds"]) > 1 else ""

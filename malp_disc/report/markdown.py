"""The record as Markdown: the verdict first, then the numbers it rests on, then how to read them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from malp_disc.report.cells import NONE, Table
from malp_disc.report.numbers import MISSING
from malp_disc.report.sections import Section, commands, making, sections

FIGURES = {
    "comparison.png": "Every generator's distance from real images, and its difference from the control",
    "samples.png": "The same inputs through every generator",
    "spectrum.png": "Power at every frequency over that of real images; 1 is perfect",
    "fakeness.png": "What changed (M_GT), and what MaLP says changed",
    "curves.png": "While training",
}
_PLACES = {
    "quality": ("comparison.png", "samples.png"),
    "where": ("spectrum.png",),
    "localization": ("fakeness.png",),
    "curves": ("curves.png",),
}


def render_markdown(record: Mapping[str, Any], *, figures: Sequence[str] = ()) -> str:
    """A record of `build_record` as Markdown.

    Args:
        figures: file names out of `FIGURES` that lie beside the page; the others are not shown.
    """
    parts = ["# Before, control, after", f"**{record['verdict']}**", *(f"> Caution: {note}." for note in record["notes"])]
    for section in sections(record):
        shown = [f"![{FIGURES[name]}]({name})\n\n*{FIGURES[name]}.*" for name in _PLACES.get(section.key, ()) if name in figures]
        parts += _section(section, shown)
    parts += _making(record)
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(section: Section, figures: Sequence[str]) -> list[str]:
    body = [section.text]
    for caption, table in section.tables:
        body += [f"**{caption}**" if caption else "", _table(table)]
    body += [*figures, "\n".join(f"- {item}" for item in section.items)]
    body = [part for part in body if part]
    if not body and section.key == "localization":
        body = ["Not measured."]
    return [f"## {section.title}", *body] if body else []


def _making(record: Mapping[str, Any]) -> list[str]:
    section, config = making(record), record["config"]
    parts = _section(section, [])
    parts.insert(1, f"```\n{commands(record)}\n```")
    if config:
        text = json.dumps(config, indent=2, ensure_ascii=False)
        parts.append(f"<details><summary>The resolved configuration</summary>\n\n```json\n{text}\n```\n\n</details>")
    parts.append("This page carries what `report.json` and `report.html` carry.")
    return parts


def _table(table: Table) -> str:
    """A Markdown table, the first column left and numbers right."""
    rows = [[f"*{row[0]}*", *row[1:]] if i in table.quiet else row for i, row in enumerate(table.rows)]
    lines = [table.header, ["---", *["---:"] * (len(table.header) - 1)], *rows]
    text = "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in line) + " |" for line in lines)
    return text + (f"\n\n{NONE}: {MISSING}, or not defined." if any(NONE in row for row in table.rows) else "")

"""The record as Markdown: the verdict, the numbers behind it, and how to read them."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from malp_disc.report.cells import Table
from malp_disc.report.results import Record
from malp_disc.report.sections import Section, commands, making, sections

FIGURES = {
    "comparison.png": "Every generator's distance from real images, and its difference from the control",
    "samples.png": "The same inputs through every generator",
    "spectrum.png": "Power at every frequency relative to real images; 1 is perfect",
    "fakeness.png": "True change (M_GT) and the map predicted by MaLP",
    "curves.png": "During training",
}
_PLACES = {
    "quality": ("comparison.png", "samples.png"),
    "where": ("spectrum.png",),
    "localization": ("fakeness.png",),
    "curves": ("curves.png",),
}


def render_markdown(record: Record, *, figures: Sequence[str] = ()) -> str:
    """A record of `build_record` as Markdown.

    Args:
        figures: file names out of `FIGURES` that exist beside the page; the others are left out.
    """
    parts = ["# Before, control, after", f"**{record.verdict}**", *(f"> Caution: {note}." for note in record.notes)]
    for section in sections(record):
        shown = [f"![{FIGURES[name]}]({name})\n\n*{FIGURES[name]}.*" for name in _PLACES.get(section.key, ()) if name in figures]
        parts += _section(section, shown)
    parts += _making(record)
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(table: Table, *, left: Collection[int] = (0,)) -> str:
    """A table as Markdown: rows of `Table.quiet` in italics, line breaks as ``<br>``, ``|`` escaped.

    Args:
        left: columns that are aligned left; numbers are aligned right.
    """
    rows = [[f"*{row[0]}*", *row[1:]] if i in table.quiet else row for i, row in enumerate(table.rows)]
    lines = [table.header, ["---" if i in left else "---:" for i in range(len(table.header))], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in line) + " |" for line in lines)


def _section(section: Section, figures: Sequence[str]) -> list[str]:
    body = [section.text]
    for caption, table in section.tables:
        text = range(len(table.header)) if section.key == "verdicts" else (0,)
        body += [f"**{caption}**" if caption else "", markdown_table(table, left=text), table.note]
    body += [*figures, "\n".join(f"- {item}" for item in section.items)]
    body = [part for part in body if part]
    return [f"## {section.title}", *body] if body else []


def _making(record: Record) -> list[str]:
    section, config = making(record), record.config
    parts = _section(section, [])
    parts.insert(1, f"```\n{commands(record)}\n```")
    if config:
        text = json.dumps(config, indent=2, ensure_ascii=False)
        parts.append(f"<details><summary>The resolved configuration</summary>\n\n```json\n{text}\n```\n\n</details>")
    parts.append("`report.json` and `report.html` contain the same facts.")
    return parts

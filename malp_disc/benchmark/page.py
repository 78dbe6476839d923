"""A benchmark's page: tables and figures as one self-contained HTML file, and as Markdown."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from malp_disc.benchmark.cell_text import PaperTable
from malp_disc.benchmark.cells import Cells
from malp_disc.benchmark.differences import difference_table, verdict
from malp_disc.benchmark.figures import captions_of, robustness_figure, samples_figure
from malp_disc.benchmark.results import Line
from malp_disc.benchmark.tables import paper_tables
from malp_disc.report.folders import without_folders
from malp_disc.report.markdown import markdown_table
from malp_disc.serialization.files import write_text

READING = (
    "A first line is the mean over images, or over seeds where a localizer has several; below it are its 95 % interval, from a bootstrap over images or Student's t over "
    'seeds, and "paper", the number that the paper prints for its own networks and images.',
    "Cosine similarity (CS) is high for any map: compare it with the constant map and the mean map. Pearson's correlation of a constant map is 0.",
    '"sc.": images are scaled to the size of training before the localizer gets them. "no sc.": they keep the size that the generator works at.',
    "A proactive localizer is measured on the edits of the images that it encrypted, a passive one on those of the originals. All images have 8 bits.",
    "F1, IoU and AUC count pixels with M_GT of at least 0.1 as changed. False pixels and false images are those of untouched images at the fixed thresholds.",
)


@dataclass(frozen=True)
class Contents:
    """What page and Markdown show."""

    title: str
    sentence: str
    facts: Mapping[str, str]
    tables: Sequence[PaperTable]
    figures: Mapping[str, str]
    gaps: Sequence[tuple[str, str]]
    command: str
    config: str


def write_pages(folder: Path, lines: Sequence[Line], speeds: Mapping[str, Mapping[str, float]], config: Mapping[str, Any]) -> Contents:
    """Write ``benchmark.html``, ``benchmark.md`` and the figures from a benchmark's lines and cells."""
    cells, config = Cells(lines, speeds), without_folders(config)
    drawn = {
        "samples.png": samples_figure(cells, folder, folder / "samples.png"),
        "robustness.png": robustness_figure(cells, folder / "robustness.png"),
    }
    measured = [name for name in cells.generators if cells.gap(name) is None]
    differences = [
        difference_table(cells, folder, score, said) for score, said in (("pearson", "Pearson's correlation"), ("cs", "cosine similarity"))
    ]
    contents = Contents(
        title=f"{_count(len(cells.localizers), 'localizer')} on {_count(len(measured), 'generator')}",
        sentence=verdict(cells, folder),
        facts={
            "localizers": ", ".join(cells.localizers),
            "generators": ", ".join(measured) or "none",
            "images per generator": ", ".join(
                map(str, sorted({line.images for line in cells.measured if line.attribute is None and line.images}))
            )
            or "none",
            "seeds per localizer": ", ".join(
                f"{name} {1 + max(line.seed for line in lines if line.localizer == name)}" for name in cells.localizers
            ),
        },
        tables=[*(table for table in differences if table), *paper_tables(cells)],
        figures=captions_of([name for name, there in drawn.items() if there]),
        gaps=[*((name, cells.gap(name) or "") for name in cells.generators if cells.gap(name) is not None), *_partial_gaps(lines)],
        command=str(config.get("command", "")),
        config=json.dumps(config, indent=2, ensure_ascii=False),
    )
    write_text(folder / "benchmark.html", render_page(contents, folder))
    write_text(folder / "benchmark.md", render_markdown(contents))
    return contents


def render_page(contents: Contents, folder: Path) -> str:
    """The page; figures of the folder are part of it."""
    loader = ChoiceLoader([PackageLoader("malp_disc.benchmark", "templates"), PackageLoader("malp_disc.report", "templates")])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    images = {name: (caption, base64.b64encode((folder / name).read_bytes()).decode()) for name, caption in contents.figures.items()}
    style, script = (Markup(loader.get_source(environment, name)[0]) for name in ("page.css", "page.js"))
    return environment.get_template("benchmark.html").render(contents=contents, images=images, reading=READING, style=style, script=script)


def render_markdown(contents: Contents) -> str:
    """The same as Markdown, with the figures as links."""
    parts = [f"# {contents.title}", contents.sentence, "\n".join(f"- {item}" for item in READING)]
    parts += [f"![{name.removesuffix('.png')}]({name})\n\n*{caption}*" for name, caption in contents.figures.items()]
    for table in contents.tables:
        parts += [f"## {table.title}", table.text, markdown_table(table.table)]
    if contents.gaps:
        parts += ["## Gaps", "\n".join(f"- {name}: {reason}" for name, reason in contents.gaps)]
    if contents.command:
        parts += ["## Command", f"```\n{contents.command}\n```"]
    return "\n\n".join(part for part in parts if part) + "\n"


def _partial_gaps(lines: Sequence[Line]) -> list[tuple[str, str]]:
    """What one localizer couldn't be measured on."""
    found = [
        (f"{line.localizer} on {line.generator}" + (f", {line.scale}" if line.scale else ""), line.gap)
        for line in lines
        if line.localizer is not None and line.gap is not None
    ]
    return list(dict.fromkeys(found))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"

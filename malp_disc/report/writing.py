"""Write a run's report into its folder: the JSON record, then page, Markdown and figures."""

from __future__ import annotations

import json
from pathlib import Path

from malp_disc.report.cells import label_of
from malp_disc.report.grids import fakeness_figure, samples_figure
from malp_disc.report.markdown import FIGURES, render_markdown
from malp_disc.report.page import render_page
from malp_disc.report.record import build_record_and_lines
from malp_disc.report.results import Record
from malp_disc.report.run_charts import comparison_figure, spectrum_figure
from malp_disc.report.training_curves import by_key, curves_figure
from malp_disc.run_folder.schema import read_curves
from malp_disc.run_folder.strips import read_strips
from malp_disc.serialization.files import write_json, write_text
from malp_disc.serialization.typed_json import to_json


def write_report(folder: str | Path, *, resamples: int = 200, seed: int = 0) -> Record:
    """Write ``report.json``, ``report.html``, ``report.md`` and the figures into a run's folder, from the JSON lines and features in it.

    The differences with their intervals are kept in ``bootstrap.jsonl``, so that ``features/`` can be deleted afterwards. ``samples.png``
    and ``fakeness.png`` are drawn from the gallery, and left unchanged in folders without one.

    Args:
        resamples, seed: of the paired bootstrap.

    Returns:
        The record, which ``report.json`` contains.

    Raises:
        FileNotFoundError: no such folder, or no measurements in it.
        ValueError: a damaged file; nothing has been written then.
    """
    folder = Path(folder)
    record, lines = build_record_and_lines(folder, resamples=resamples, seed=seed)
    curves = read_curves(folder, distance=f"{label_of(record)} while training")
    strips = read_strips(folder)
    page = render_page(record, strips=strips, curves=curves)
    write_text(folder / "bootstrap.jsonl", "".join(json.dumps(to_json(line), allow_nan=False) + "\n" for line in lines))
    write_json(folder / "report.json", to_json(record))
    write_text(folder / "report.html", page)
    comparison_figure(record, folder / "comparison.png")
    spectrum_figure(record, folder / "spectrum.png")
    samples_figure(strips, folder / "samples.png")
    fakeness_figure(strips, folder / "fakeness.png")
    if by_key(curves):
        curves_figure(curves, folder / "curves.png")
    present = [name for name in FIGURES if (folder / name).is_file()]
    write_text(folder / "report.md", render_markdown(record, figures=present))
    return record

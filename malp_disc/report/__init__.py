"""The report on a run: before, control and after. JSON first; Markdown and figures are made from it.

`write_report` needs nothing but the run's folder. `malp_disc.report.measure`, which fills such a folder, is left out here: it brings in
the feature extractors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from malp_disc.checkpoint import write_json, write_text
from malp_disc.report.charts import comparison_figure, curves_figure
from malp_disc.report.folder import read_curves
from malp_disc.report.markdown import FIGURES, label_of, render_markdown
from malp_disc.report.record import build_record

__all__ = ["build_record", "render_markdown", "write_report"]


def write_report(folder: str | Path, *, resamples: int = 200, seed: int = 0) -> dict[str, Any]:
    """Write ``report.json``, ``report.md``, ``comparison.png`` and, where there are curves, ``curves.png`` into a run's folder.

    ``samples.png`` and ``fakeness.png``, which the recipe draws, are shown in the Markdown if they're there.

    Args:
        resamples, seed: of the paired bootstrap.

    Returns:
        The record, as in ``report.json``; see `build_record`.

    Raises:
        FileNotFoundError: no such folder, or no measurements in it.
        ValueError: a damaged file; nothing has been written then.
    """
    folder = Path(folder)
    record = build_record(folder, resamples=resamples, seed=seed)
    curves = read_curves(folder, distance=f"{label_of(record)} while training")
    write_json(folder / "report.json", record)
    comparison_figure(record, folder / "comparison.png")
    if any(len(line) > 1 for lines in curves.values() for line in lines):
        curves_figure(curves, folder / "curves.png")
    present = [name for name in FIGURES if (folder / name).is_file()]
    write_text(folder / "report.md", render_markdown(record, figures=present))
    return record

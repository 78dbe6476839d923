"""What the tables have in common: the text of a cell, and the baselines that need no localizer."""

from __future__ import annotations

from dataclasses import dataclass

from malp_disc.benchmark.cells import Cells
from malp_disc.benchmark.intervals import Estimate
from malp_disc.benchmark.printed import paper_generators
from malp_disc.report.cells import NONE, Table

AGREEMENT_BASELINES = {
    "constant map": {"cs": "cs_constant", "cs_official": "cs_official_constant"},
    "mean map of the other images": {"cs": "cs_mean_map", "cs_official": "cs_official_mean_map", "pearson": "pearson_mean_map"},
}
"""Scores of maps that don't depend on the image, by the score that they stand beside."""
PIXEL_BASELINES = {
    "all pixels marked": {
        "f1": "f1_all",
        "f1_best": "f1_all",
        "f1_best_per_image": "f1_all",
        "iou": "iou_all",
        "iou_best": "iou_all",
        "iou_best_per_image": "iou_all",
    }
}


@dataclass(frozen=True)
class PaperTable:
    """A table of the page: its title, one sentence about it, and the cells."""

    title: str
    text: str
    table: Table


def cell_text(estimate: Estimate | None, printed: float | None = None) -> str:
    """Value, interval and the paper's number, each on a line of its own."""
    digits = 3 if estimate is None or abs(estimate.value) < 2 else 2  # decibels
    lines = [NONE if estimate is None else f"{estimate.value:.{digits}f}"]
    if estimate is not None and estimate.low is not None:
        lines.append(f"{estimate.low:.{digits}f} to {estimate.high:.{digits}f}")
    if printed is not None:
        lines.append(f"paper {printed:.4g}")
    return "\n".join(lines)


def baseline(cells: Cells, generator: str, score: str | None, **where: str | None) -> Estimate | None:
    """A score that depends on the edits alone: that of the first localizer with maps, a passive one if there is any."""
    if score is None:
        return None
    passive = [line.localizer for line in cells.measured if line.family == "passive" and line.localizer is not None]
    estimates = (cells.estimate(score, name, generator, **where) for name in dict.fromkeys([*passive, *cells.localizers]))
    return next((estimate for estimate in estimates if estimate is not None), None)


def generator_label(cells: Cells, generator: str) -> str:
    """The paper's label, and whether it was seen in training or why it has no numbers."""
    known = paper_generators().get(generator)
    label = known.label if known else generator
    if cells.seen(generator):
        return f"{label}\nseen in training"
    gap = cells.gap(generator)
    return label if gap is None else f"{label}\n{gap}"

"""Table 2: localization and detection on the generator that the localizers were trained on; pixel metrics and costs beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from malp_disc.benchmark.cell_text import AGREEMENT_BASELINES, PIXEL_BASELINES, PaperTable, baseline, cell_text
from malp_disc.benchmark.cells import Cells
from malp_disc.benchmark.printed import printed_value, title_of
from malp_disc.benchmark.results import Line
from malp_disc.report.cells import NONE, Table

_LOCALIZATION = {"CS ↑": "cs", "Pearson ↑": "pearson", "PSNR ↑": "psnr", "SSIM ↑": "ssim", "CS, authors' code ↑": "cs_official"}
_PIXELS = {
    "F1 ↑ fixed": "f1",
    "F1 ↑ best for the set": "f1_best",
    "F1 ↑ best per image": "f1_best_per_image",
    "IoU ↑ fixed": "iou",
    "IoU ↑ best for the set": "iou_best",
    "IoU ↑ best per image": "iou_best_per_image",
    "AUC ↑": "pixel_auc",
    "false pixels ↓": "false_pixels",
}
_DETECTION = {
    "accuracy ↑": "accuracy",
    "EER ↓": "eer",
    "AUC ↑": "auc",
    "average precision ↑": "average_precision",
    "false images ↓": "false_images",
}
_COSTS = ("PSNR of published images, dB", "images/s, one CPU thread", "images/s, GPU")


def tables_2(cells: Cells) -> list[PaperTable]:
    """Three tables for every generator that was seen in training; for the first one with numbers, if none was."""
    measured = [name for name in cells.generators if cells.gap(name) is None]
    chosen = [name for name in measured if cells.seen(name)] or measured[:1]
    return [
        table
        for generator in chosen
        for table in (_localization(cells, generator), _pixels(cells, generator), _detection(cells, generator))
    ]


def _localization(cells: Cells, generator: str) -> PaperTable:
    rows = _rows(cells, generator, _LOCALIZATION)
    baselines = _baseline_rows(cells, generator, _LOCALIZATION, AGREEMENT_BASELINES)
    quiet = frozenset(range(len(rows), len(rows) + len(baselines)))
    title = f"Table 2: {title_of('2')}, here {_said(cells, generator)}"
    return PaperTable(title, "Agreement of predicted maps with the true change.", Table(["", *_LOCALIZATION], rows + baselines, quiet))


def _pixels(cells: Cells, generator: str) -> PaperTable:
    rows = [[*row, _thresholds(cells.of(row[0], generator))] for row in _rows(cells, generator, _PIXELS)]
    baselines = [[*row, NONE] for row in _baseline_rows(cells, generator, _PIXELS, PIXEL_BASELINES)]
    text = "Changed pixels are those with M_GT of at least 0.1. Where few pixels change little, or nearly all do, F1 says little: compare it with all pixels marked."
    return PaperTable(
        f"Table 2, pixel by pixel: {_said(cells, generator)}",
        text,
        Table(["", *_PIXELS, "thresholds"], rows + baselines, frozenset({len(rows)})),
    )


def _detection(cells: Cells, generator: str) -> PaperTable:
    rows = [[*row, *_costs(cells, row[0], generator)] for row in _rows(cells, generator, _DETECTION)]
    text = "Untouched images against edited ones, both as published. An interval without width is of a score that separates all images, and no certainty."
    return PaperTable(f"Table 2, detection and costs: {_said(cells, generator)}", text, Table(["", *_DETECTION, *_COSTS], rows))


def _rows(cells: Cells, generator: str, scores: Mapping[str, str]) -> list[list[str]]:
    def cell(name: str, score: str) -> str:
        return cell_text(cells.estimate(score, name, generator), printed_value("2", cells.method(name), score))

    return [[name, *(cell(name, score) for score in scores.values())] for name in cells.localizers]


def _baseline_rows(cells: Cells, generator: str, scores: Mapping[str, str], baselines: Mapping[str, Mapping[str, str]]) -> list[list[str]]:
    return [[name, *(cell_text(baseline(cells, generator, by.get(score))) for score in scores.values())] for name, by in baselines.items()]


def _thresholds(lines: Sequence[Line]) -> str:
    """The fixed threshold, and the best ones for the set, of the first seed."""
    if not lines or "f1_best_threshold" not in lines[0].numbers:
        return NONE
    best = lines[0].numbers
    return f"fixed {lines[0].threshold:g}\nF1 {best['f1_best_threshold']:.3f}\nIoU {best['iou_best_threshold']:.3f}"


def _costs(cells: Cells, localizer: str, generator: str) -> list[str]:
    lines = cells.of(localizer, generator)
    psnr = NONE if not lines or lines[0].published_psnr is None else f"{lines[0].published_psnr:.1f}"
    speeds = cells.speeds.get(localizer, {})
    return [psnr, *(f"{speeds[device]:,.0f}" if device in speeds else NONE for device in ("cpu", "gpu"))]


def _said(cells: Cells, generator: str) -> str:
    return generator if cells.seen(generator) else f"{generator}, which isn't marked as seen in training"

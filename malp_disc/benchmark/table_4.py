"""Table 4, turned: a row for each of the paper's 22 generators and of the benchmark's own, a column for every localizer and scale."""

from __future__ import annotations

from collections.abc import Sequence

from malp_disc.benchmark.cell_text import AGREEMENT_BASELINES, PIXEL_BASELINES, PaperTable, baseline, cell_text, generator_label
from malp_disc.benchmark.cells import Cells
from malp_disc.benchmark.intervals import Estimate
from malp_disc.benchmark.printed import paper_generators, printed_rows, printed_value, title_of
from malp_disc.benchmark.results import SCALED, UNSCALED
from malp_disc.report.cells import Table

_SCORES = {
    "cs": "Cosine similarity (Eq. 5). A dash with a number of the paper: the paper ran this generator, here there is no checkpoint.",
    "pearson": "Pearson's correlation of predicted and true map, which a constant map can't raise.",
    "f1_best": "F1 of changed pixels at the best threshold for the set.",
}
_TITLES = {"pearson": "Table 4 by Pearson's correlation", "f1_best": "Table 4 by F1"}


def tables_4(cells: Cells) -> list[PaperTable]:
    """The paper's table by cosine similarity, and the same by Pearson's correlation and F1 for the generators that were run."""
    return [_table_of(cells, score) for score in _SCORES if score == "cs" or any(score in line.scores for line in cells.measured)]


def _table_of(cells: Cells, score: str) -> PaperTable:
    paper = score == "cs"
    with_maps = [name for name in cells.localizers if any(score in line.scores for line in cells.measured if line.localizer == name)]
    scales = [scale for scale in (SCALED, UNSCALED) if any(line.scale == scale for line in cells.measured)]
    columns = [(name, scale) for name in with_maps for scale in scales]
    baselines = {name: by[score] for name, by in (AGREEMENT_BASELINES | PIXEL_BASELINES).items() if score in by}
    not_run = [row for row in printed_rows("4") if paper and row.method not in {cells.method(name) for name in with_maps}]
    rows, quiet = [], set()
    for generator in _generators(cells, whole=paper):
        if cells.seen(generator):
            quiet.add(len(rows))
        measured = [
            cell_text(
                cells.estimate(score, name, generator, scale=scale),
                printed_value("4", cells.method(name), generator, scale) if paper else None,
            )
            for name, scale in columns
        ]
        beside = [cell_text(baseline(cells, generator, by)) for by in baselines.values()]
        rows.append(
            [generator_label(cells, generator), *measured, *beside, *(cell_text(None, row.values.get(generator)) for row in not_run)]
        )
    average = _average(cells, columns, score, list(baselines.values()))
    rows.append([*average, *(cell_text(None, row.values["Average"]) for row in not_run)])
    names = [f"{name}\n{scale}" if len(scales) > 1 else name for name, scale in columns]
    header = [
        "generator",
        *names,
        *baselines,
        *(f"{row.label}\n{'not run' if row.scale == SCALED else 'no sc., not run'}" for row in not_run),
    ]
    return PaperTable(f"Table 4: {title_of('4')}" if paper else _TITLES[score], _SCORES[score], Table(header, rows, frozenset(quiet)))


def _generators(cells: Cells, *, whole: bool) -> list[str]:
    """Those seen in training, the paper's in its order, then the others; unless `whole`, only those that were run."""
    names = dict.fromkeys([*(name for name in cells.generators if cells.seen(name)), *paper_generators(), *cells.generators])
    return [name for name in names if whole or cells.gap(name) is None]


def _average(cells: Cells, columns: Sequence[tuple[str, str]], score: str, baselines: Sequence[str]) -> list[str]:
    """The mean over the unseen generators that every localizer was measured on."""
    run = [name for name in cells.generators if not cells.seen(name) and cells.gap(name) is None]
    run = [name for name in run if all(cells.estimate(score, localizer, name, scale=scale) for localizer, scale in columns)]
    measured = [_mean([cells.estimate(score, localizer, name, scale=scale) for name in run]) for localizer, scale in columns]
    printed = [printed_value("4", cells.method(localizer), "Average", scale) if score == "cs" else None for localizer, scale in columns]
    beside = [_mean([baseline(cells, name, by) for name in run]) for by in baselines]
    return [f"Average of {len(run)} unseen", *map(cell_text, measured, printed), *map(cell_text, beside)]


def _mean(estimates: Sequence[Estimate | None]) -> Estimate | None:
    if not estimates or any(estimate is None for estimate in estimates):
        return None
    return Estimate(sum(estimate.value for estimate in estimates) / len(estimates))

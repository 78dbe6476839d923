"""All tables of a benchmark: Tables 2 and 4 from their modules, and Tables 3, 6 and 7, with the printed numbers beside the measured ones."""

from __future__ import annotations

from collections.abc import Sequence

from malp_disc.benchmark.cell_text import AGREEMENT_BASELINES, PaperTable, baseline, cell_text
from malp_disc.benchmark.cells import Cells
from malp_disc.benchmark.printed import printed_rows, printed_value, title_of
from malp_disc.benchmark.table_2 import tables_2
from malp_disc.benchmark.table_4 import tables_4
from malp_disc.report.cells import NONE, Table

ATTACKS = ("fgsm", "pgd", "cw")
"""Methods of Table 7 alone, named so in `malp_disc.benchmark.printed`."""


def paper_tables(cells: Cells) -> list[PaperTable]:
    """All tables, in the paper's order."""
    return [*tables_2(cells), table_3(cells), *tables_4(cells), table_6(cells), table_7(cells)]


def table_3(cells: Cells) -> PaperTable:
    """Cosine similarity where one attribute is edited, for all localizers but those with an attack's template."""
    return _by_attribute("3", cells, [name for name in cells.localizers if cells.method(name) not in ATTACKS])


def table_7(cells: Cells) -> PaperTable:
    """The same for templates made by attacks, and for the paper's methods beside them."""
    beside = {row.method for row in printed_rows("7")}
    return _by_attribute("7", cells, [name for name in cells.localizers if cells.method(name) in beside])


def table_6(cells: Cells) -> PaperTable:
    """Average precision of the detection for every generator."""
    names = list(dict.fromkeys([*printed_rows("6")[0].values, *(name for name in cells.generators if cells.gap(name) is None)]))
    rows = []
    for localizer in cells.localizers:
        measured = [cells.estimate("average_precision", localizer, name) for name in names]
        printed = [printed_value("6", cells.method(localizer), name) for name in names]
        rows.append([localizer, *map(cell_text, measured, printed)])
    rows += _not_run("6", cells, names, cells.localizers)
    return PaperTable(
        f"Table 6: {title_of('6')}", "Untouched images against edited ones, both scaled. Chance is 0.5.", Table(["", *names], rows)
    )


def _by_attribute(key: str, cells: Cells, localizers: Sequence[str]) -> PaperTable:
    places = [(generator, attribute) for generator in cells.generators for attribute in cells.attributes(generator)]
    columns = [f"{generator} {attribute}" for generator, attribute in places]
    others = [column for column in printed_rows(key)[0].values if column not in columns]
    rows = []
    for name in localizers:
        measured = [cells.estimate("cs", name, generator, attribute=attribute) for generator, attribute in places]
        printed = [printed_value(key, cells.method(name), column) for column in (*columns, *others)]
        rows.append([name, *map(cell_text, [*measured, *(None for _ in others)], printed)])
    rows += _not_run(key, cells, [*columns, *others], localizers)
    count = len(rows)
    if places:
        for name, by in AGREEMENT_BASELINES.items():
            beside = [cell_text(baseline(cells, generator, by["cs"], attribute=attribute)) for generator, attribute in places]
            rows.append([name, *beside, *(NONE for _ in others)])
    header = ["", *(column.replace("_", " ") for column in (*columns, *others))]
    text = "Cosine similarity (Eq. 5) where one attribute is edited in all images."
    return PaperTable(f"Table {key}: {title_of(key)}", text, Table(header, rows, frozenset(range(count, len(rows)))))


def _not_run(key: str, cells: Cells, columns: Sequence[str], localizers: Sequence[str]) -> list[list[str]]:
    """Rows of the paper's methods that aren't among the localizers."""
    run = {cells.method(name) for name in localizers}
    return [
        [f"{row.label}, not run", *(cell_text(None, row.values.get(column)) for column in columns)]
        for row in printed_rows(key)
        if row.method not in run
    ]

"""The tables from made-up lines: the paper's numbers stand beside the right cells, gaps have their reasons, and averages compare like with like."""

from dataclasses import replace

import pytest

from malp_disc.benchmark.cell_text import baseline
from malp_disc.benchmark.cells import Cells
from malp_disc.benchmark.differences import Difference, difference_table, differences, verdict
from malp_disc.benchmark.intervals import Estimate
from malp_disc.benchmark.measure import ImageScores
from malp_disc.benchmark.page import Contents, render_markdown
from malp_disc.benchmark.results import SCALED, UNSCALED, Line, read_cell, read_lines, write_cell, write_lines
from malp_disc.benchmark.table_2 import tables_2
from malp_disc.benchmark.table_4 import tables_4
from malp_disc.benchmark.tables import paper_tables, table_3, table_6


def line(generator: str, localizer: str = "malp", *, cs: float = 0.5, scale: str = SCALED, **more) -> Line:
    about = {
        "method": localizer if localizer in ("malp", "ffd") else None,
        "family": "proactive" if localizer == "malp" else "passive",
        "size": 64,
        "images": 4,
    }
    scores = {
        "cs": (cs, cs - 0.1, cs + 0.1),
        "pearson": (cs / 2, 0.0, 1.0),
        "average_precision": (0.9, 0.8, 1.0),
        "cs_constant": (0.4, 0.3, 0.5),
    }
    return Line(generator=generator, localizer=localizer, scale=scale, **{**about, "scores": scores, **more})


LINES = [
    line("STGAN", trained_on=True, cs=0.9),
    line("STGAN", "ffd", trained_on=True, cs=0.6),
    line("StarGAN", cs=0.8),
    line("StarGAN", cs=0.7, scale=UNSCALED, size=128),
    line("StarGAN", "ffd", cs=0.5),
    line("StarGAN", "ffd", cs=0.4, scale=UNSCALED, size=128),
    line("mine", cs=0.3),
    line("AttGAN", attribute="Bald", cs=0.77),
    Line(generator="SEAN", gap="no file sean.pth"),
]


def row_of(table, start: str) -> dict[str, str]:
    (row,) = [row for row in table.table.rows if row[0].split("\n")[0] == start]
    return dict(zip(table.table.header, row))


def test_table_2_is_of_the_generator_that_was_trained_on():
    first, *_ = tables_2(Cells(LINES))
    assert "here STGAN" in first.title
    assert row_of(first, "malp")["CS ↑"] == "0.900\n0.800 to 1.000\npaper 0.9394"
    assert row_of(first, "ffd")["CS ↑"].endswith("paper 0.623")
    assert row_of(first, "constant map")["CS ↑"].startswith("0.400")


def test_table_4_has_every_generator_of_the_paper_with_gaps_and_the_others():
    table = tables_4(Cells(LINES))[0]
    assert len(table.table.rows) == 1 + 22 + 2 + 1, "the seen one, the paper's, two more, the average"
    sean = [row for row in table.table.rows if row[0] == "SEAN [62]\nno file sean.pth"]
    assert sean and sean[0][1] == "–\npaper 0.9376"
    stargan = row_of(table, "StarGAN [8]")
    assert stargan["malp\nsc."].split("\n")[0] == "0.800" and stargan["malp\nno sc."].split("\n")[0] == "0.700"
    assert stargan["malp\nsc."].endswith("paper 0.8718") and stargan["ffd\nno sc."].endswith("paper 0.7887")
    assert row_of(table, "RePaint [32]")["malp\nsc."] == "–\npaper 0.8102"
    assert row_of(table, "mine")["malp\nno sc."].startswith("0.300"), "its images aren't scaled: one number for both"
    assert row_of(table, "RePaint [32]")["ResNet50 [19]\nnot run"] == "–\npaper 0.6512"


def test_the_average_is_over_the_unseen_generators_that_all_localizers_have():
    average = tables_4(Cells(LINES))[0].table.rows[-1]
    assert average[0] == "Average of 1 unseen" and average[1].startswith("0.800") and average[3].startswith("0.500")


def test_a_generator_with_some_numbers_is_no_gap_and_a_baseline_is_the_passive_localizers():
    """Of a proactive one, edits are those of its encrypted images."""
    cells = Cells([line("mine"), line("mine", "ffd", scores={"cs_constant": (0.3, 0.2, 0.4)}), Line(generator="mine", localizer="broken", gap="no map"), Line(generator="other", gap="no file")])
    assert cells.gap("mine") is None and cells.gap("other") == "no file" and cells.gap("nowhere") == "not in this benchmark"
    assert baseline(cells, "mine", "cs_constant").value == 0.3
    assert baseline(Cells([line("mine")]), "mine", "cs_constant").value == 0.4


def test_each_pixel_metric_has_the_best_threshold_of_its_own():
    numbers = {"f1_best_threshold": 0.25, "iou_best_threshold": 0.125}
    pixels = tables_2(Cells([line("STGAN", trained_on=True, threshold=0.5, numbers=numbers)]))[1]
    assert row_of(pixels, "malp")["thresholds"] == "fixed 0.5\nF1 0.250\nIoU 0.125"


def test_single_attributes_stand_in_table_3_beside_the_papers():
    table = table_3(Cells(LINES))
    row = row_of(table, "malp")
    assert row["AttGAN Bald"] == "0.770\n0.670 to 0.870\npaper 0.8201" and row["StyleGAN Male"] == "–\npaper 0.8016"
    assert row_of(table, "Huang et al. [21], not run")["AttGAN Bald"] == "–\npaper 0.8141"
    assert row_of(table, "constant map")["AttGAN Bald"] == "0.400\n0.300 to 0.500"  # of these edits, since AttGAN has no others


def test_seeds_are_averaged_with_students_interval():
    cells = Cells([line("STGAN", cs=0.8), line("STGAN", cs=0.6, seed=1)])
    assert cells.estimate("cs", "malp", "STGAN").value == pytest.approx(0.7)
    assert cells.estimate("cs", "malp", "STGAN").low == pytest.approx(0.7 - 12.706 * 0.1, abs=1e-3)
    assert row_of(table_6(cells), "malp")["STGAN"].startswith("0.900")


def test_a_localizer_that_failed_on_one_size_is_a_dash_there():
    failed = replace(line("StarGAN", "mine", scale=UNSCALED, size=128), gap="too large", scores={})
    table = tables_4(Cells([*LINES, line("StarGAN", "mine"), failed]))[0]
    assert row_of(table, "StarGAN [8]")["mine\nno sc."] == "–" and row_of(table, "StarGAN [8]")["mine\nsc."].startswith("0.500")


def test_lines_and_cells_are_read_as_they_were_written(tmp_path):
    write_lines(tmp_path, LINES)
    assert read_lines(tmp_path) == LINES
    scores = ImageScores({"cs": [0.5, float("nan")]}, {"f1_best_threshold": 0.25})
    write_cell(tmp_path, "key", scores)
    assert str(read_cell(tmp_path, "key")) == str(scores)
    (tmp_path / "cells" / "key.json").write_text("{")
    assert read_cell(tmp_path, "key") is None and read_cell(tmp_path, "other") is None


def compared(folder, proactive: list[float], passive: list[float]) -> Cells:
    lines = []
    for name, values in (("malp", proactive), ("ffd", passive)):
        write_cell(folder, name, ImageScores({"pearson": values}, {}))
        write_cell(folder, f"{name}-unscaled", ImageScores({"pearson": [0.0] * len(values)}, {}))
        lines += [line("StarGAN", name, cell=name), line("StarGAN", name, cell=f"{name}-unscaled", scale=UNSCALED, size=128)]
    return Cells(lines)


def test_proactive_and_passive_are_compared_image_by_image(tmp_path):
    cells = compared(tmp_path, [0.5, 0.7, 0.9], [0.4, 0.6, 0.8])
    proactive, (difference,) = differences(cells, tmp_path, "pearson")
    assert (proactive, difference.passive, difference.sign) == ("malp", "ffd", 1)
    assert difference.estimate.value == pytest.approx(0.1) and difference.estimate.low == pytest.approx(0.1)
    assert difference_table(cells, tmp_path, "pearson", "Pearson").table.rows == [["StarGAN [8]", "+0.100\n+0.100 to +0.100"]]
    assert "above that of every passive localizer on 1 (StarGAN), below every one on none" in verdict(cells, tmp_path)


def test_a_difference_has_a_sign_where_its_interval_excludes_zero():
    signs = [Difference("mine", "ffd", Estimate(0.0, *ends)).sign for ends in ((0.1, 0.3), (-0.3, -0.1), (-0.1, 0.3), (0.0, 0.1), (None, None))]
    assert signs == [1, -1, 0, 0, 0]


def test_a_worse_proactive_localizer_is_called_worse(tmp_path):
    assert "on none, below every one on 1 (StarGAN)" in verdict(compared(tmp_path, [0.1, 0.2, 0.3], [0.4, 0.6, 0.8]), tmp_path)
    assert "can't be compared" in verdict(Cells([line("StarGAN")]), tmp_path)


def test_a_passive_localizer_without_numbers_on_a_generator_is_neither_better_nor_worse_there(tmp_path):
    cells = compared(tmp_path, [0.5, 0.7, 0.9], [0.4, 0.6, 0.8])
    lines = [*cells.lines, replace(line("StarGAN", "mine"), gap="too small", scores={}), line("STGAN", "mine", trained_on=True, cell="mine")]
    assert "above that of every passive localizer on none, below every one on none" in verdict(Cells(lines), tmp_path)


def test_seeds_are_paired_by_number_and_those_of_one_side_are_left_out_and_named(tmp_path):
    """The second localizer has no numbers for seed 0: by place, 1 would be paired with 0 and 2 with 1, and the differences be -0.2 and -0.2. The first has none for seed 3."""
    scores = {"malp": {0: 0.2, 1: 0.5, 2: 0.8}, "ffd": {1: 0.4, 2: 0.7, 3: 0.1}}
    lines = [line("StarGAN", name, seed=seed, cell=f"{name}{seed}") for name, seeds in scores.items() for seed in seeds]
    for name, seeds in scores.items():
        for seed, value in seeds.items():
            write_cell(tmp_path, f"{name}{seed}", ImageScores({"pearson": [value, value + 0.1]}, {}))
    cells = Cells(lines)
    _, (difference,) = differences(cells, tmp_path, "pearson")
    assert difference.estimate.value == pytest.approx(0.1) and difference.unpaired == (0, 3)
    assert "only one of the two was measured with are left out: ffd on StarGAN (seed 0, 3)" in difference_table(cells, tmp_path, "pearson", "Pearson").text
    paired = Cells(lines[1:-1])
    _, (even,) = differences(paired, tmp_path, "pearson")
    assert even.unpaired == () and "left out" not in difference_table(paired, tmp_path, "pearson", "Pearson").text


def test_the_markdown_has_every_table_and_every_gap():
    contents = Contents("title", "sentence", {}, paper_tables(Cells(LINES)), {}, [("SEAN", "no file sean.pth")], "command", "{}")
    text = render_markdown(contents)
    assert all(f"## {table.title}" in text for table in contents.tables)
    assert "- SEAN: no file sean.pth" in text and "0.800<br>0.700 to 0.900<br>paper 0.8718" in text

"""The paper's numbers: complete, consistent with the averages that it prints, and by names that exist."""

import pytest

from generators import list_generators
from malp_disc.benchmark.printed import TABLES, paper_generators, paper_name, printed_rows, printed_value


def test_table_4_has_22_generators_that_the_zoo_knows():
    assert len(paper_generators()) == 22
    assert {about.zoo for about in paper_generators().values()} <= set(list_generators())


@pytest.mark.parametrize("row", printed_rows("4"), ids=lambda row: f"{row.method} {row.scale}")
def test_the_average_that_the_paper_prints_is_that_of_its_22_numbers(row):
    """The paper cuts the fifth digit off or rounds it."""
    values = [row.values[name] for name in paper_generators()]
    assert len(row.values) == 23
    assert sum(values) / 22 == pytest.approx(row.values["Average"], abs=1.01e-4)


def test_tables_3_and_7_print_the_same_numbers_for_the_same_cells():
    for column in ("AttGAN Bald", "AttGAN Black_Hair", "AttGAN Eyeglasses"):
        for method in ("malp", "fakelocator"):
            assert printed_value("7", method, column) == printed_value("3", method, column)


def test_a_number_is_found_by_method_column_and_scale():
    assert printed_value("4", "malp", "StarGAN", "sc.") == 0.8718
    assert printed_value("4", "malp", "ILVR", "no sc.") == 0.8359
    assert printed_value("4", "ffd", "SEAN", "no sc.") == printed_value("4", "ffd", "SEAN", "sc.") == 0.7961
    assert printed_value("2", "malp", "psnr") == 23.02
    assert printed_value("6", "cw", "StarGAN") is None


def test_all_scores_but_psnr_are_shares():
    values = [value for table in TABLES for row in printed_rows(table) for name, value in row.values.items() if name != "psnr"]
    assert all(0 <= value <= 1 for value in values) and len(values) > 150


def test_networks_have_the_papers_names():
    assert [paper_name(zoo) for zoo in ("spade", "stgan", "cyclegan_compressed", "fast_srgan")] == ["GauGAN", "STGAN", "CycleGAN", None]


def test_an_unknown_table_is_refused():
    with pytest.raises(ValueError, match="expected a table out of 2 3 4 6 7"):
        printed_rows("5")

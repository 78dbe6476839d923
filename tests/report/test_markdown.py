from __future__ import annotations

import math
from dataclasses import replace

import pytest

from malp_disc.report import build_record, render_markdown
from malp_disc.report.cells import delta_text
from malp_disc.report.numbers import interval, number, signed
from malp_disc.report.sections import making, sections
from malp_disc.report.seeds import Interval
from malp_disc.report.tables import differences_table, edit_differences_table, leverage_table, spectrum_table, views_table
from malp_disc.run_folder.measurement import Distance, Spectrum


@pytest.fixture
def record(make_run):
    return build_record(make_run(), resamples=20)


def rows(page: str, first: str) -> list[list[str]]:
    """Cells of the table rows whose first cell is `first`."""
    lines = [line for line in page.splitlines() if line.startswith(f"| {first} |")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_verdict_stands_first(record):
    page = render_markdown(record)
    assert page.splitlines()[2] == f"**{record.verdict}**"


def test_an_arms_row_has_its_numbers_with_interval_and_n(record):
    page = render_markdown(record)
    row = rows(page, "cotrain")[0]
    delta, kid = record.delta("cotrain"), record.delta("cotrain", score="kid")
    assert row[1] == "76.25"
    assert row[2] == f"{signed(delta.value)} ({interval(delta)})"
    assert row[4:] == ["–", "0.0762 ± 0.002", f"{signed(kid.value)} ({interval(kid)})", "120", "0", "250", "61.25"]
    assert "| generator | FD-faces, n = 120 ↓ |" in page
    assert rows(page, "cotrain")[1] == ["cotrain", "0.9500", "0.9711", "–", "0.1200", "–", "–", "–"]


def cells(table, first: str) -> dict[str, str]:
    """The row of a table by its headings."""
    (row,) = (row for row in table.rows if row[0] == first)
    return dict(zip(table.header, row))


def test_every_score_stands_in_its_own_column(record):
    further = {"second": Distance(label="FD-other", value=7.0), "frechet_4x": Distance(label="FD-small", value=3.0)}
    spectrum = Spectrum(fine=1.5, nyquist=2.5)
    arms = {arm: replace(measured, spectrum=spectrum, **further) for arm, measured in record.arms.items()}
    delta = record.delta("cotrain")
    deltas = {score: replace(delta, value=value) for score, value in {"second": -1.0, "frechet_4x": -2.0, "kid": -3.0, "content": -4.0, "edit_accuracy": -5.0}.items()}
    record = replace(record, arms=arms, views={score: {"cotrain": {"delta_vs_control": found}} for score, found in deltas.items()})
    assert list(cells(views_table(record), "cotrain").values()) == ["cotrain", "76.25", "7.000", "3.000"]
    shown = [delta_text(found) for found in (delta, *deltas.values())]
    assert len(set(shown)) == 6
    assert list(cells(differences_table(record), "cotrain").values())[1:] == shown[:4]
    assert [cells(edit_differences_table(record), "cotrain")[name] for name in ("content kept ↑", "edit accuracy ↑")] == shown[4:]
    assert list(cells(spectrum_table(record), "cotrain").values()) == ["cotrain", "1.500", "2.500"]


def test_leverage_is_shown_as_a_ratio_with_its_interval(record):
    """It is measured as a logarithm."""
    delta = record.delta("cotrain")
    found = replace(delta, value=math.log(2), images=replace(delta.images, low=math.log(1.5), high=math.log(3)))
    record = replace(record, views={"leverage": {arm: {"delta_vs_control": found} for arm in record.arms}})
    table = leverage_table(record)
    assert list(cells(table, "cotrain").values())[1:] == ["2.000", "1.500 to 3.000"]
    assert {"before", "control"}.isdisjoint(row[0] for row in table.rows)


def test_attributes_and_perfect_edits_are_mentioned_only_where_there_are_some(make_run, arms):
    about = ("independent classifier", "leakage", "edit accuracy", "drawn with the requested attributes")
    assert all(words in render_markdown(build_record(make_run(), resamples=20)) for words in about[:3])
    for measured in arms.values():
        measured |= {"attributes": 0, "edit_accuracy": None, "edit_accuracy_per_attribute": {}, "kept_accuracy": None}
    record = build_record(make_run(), resamples=20)
    edits, how = (next(section for section in sections(record) if section.key == key) for key in ("edits", "reading"))
    said = " ".join([edits.text, *(caption for caption, _ in edits.tables), *(" ".join(table.header) for _, table in edits.tables), *how.items])
    assert not [words for words in about if words in said]
    assert rows(render_markdown(record), "cotrain")[1] == ["cotrain", "0.1200", "–", "–", "–"]
    drawn = replace(record, views=record.views | {"perfect_edit": record.comparison})
    assert about[3] in render_markdown(drawn)


def test_kernels_that_are_deterministic_on_a_cpu_anyway_are_not_taken_for_the_flag(record):
    text = making(replace(record, environment={"malp_disc": "0.1.0", "deterministic": True})).text
    assert text == "Made with malp_disc 0.1.0, only deterministic kernels (any CPU run, or --deterministic) True."


def test_the_reference_points_stand_in_the_same_table(record):
    page = render_markdown(record)
    assert rows(page, "*unedited inputs*")[0][1] == "41.31"
    assert rows(page, "*real-vs-real split*")[0][1] == "2.840"


def test_every_distance_is_named_with_extractor_resize_reference_and_n(record):
    page = render_markdown(record)
    described = "FD-faces, n = 120: AttributeNet faces (96 features); resize: bilinear to 64; reference: drawn faces, n = 150"
    assert f"- before, control, frozen, cotrain, unedited inputs: {described}" in page
    assert "- real-vs-real split: FD-faces, n = 75: " in page


def test_each_cosine_stands_beside_its_constant_map(record):
    page = render_markdown(record)
    assert ["frozen", "0.8580", "0.8040", "0.6660", "0.9760", "0.4930", "–", "21.50", "0.6100"] in rows(page, "frozen")
    assert rows(page, "frozen")[-1] == ["frozen", "0.9910", "0.0125", "0.9987", "0.9989"]


def test_attributes_have_their_rows_and_a_bar_in_a_name_does_not_break_the_table(record):
    page = render_markdown(record)
    assert rows(page, "Smiling")[0][1:] == ["0.9625"] * 4
    assert rows(page, "Pale\\|Skin")[0][1:] == ["–"] * 4


def test_only_figures_that_exist_are_shown(record):
    assert "![" not in render_markdown(record)
    page = render_markdown(record, figures=["samples.png"])
    assert "](samples.png)" in page
    assert "](curves.png)" not in page


def test_fd_faces_is_said_not_to_be_fid_and_fid_is_not(record):
    assert "It is not FID" in render_markdown(record)
    arms = {arm: replace(measured, frechet=replace(measured.frechet, label="FID")) for arm, measured in record.arms.items()}
    assert "It is not FID" not in render_markdown(replace(record, arms=arms))


def test_a_run_with_next_to_nothing_measured_still_renders(make_run):
    folder = make_run()
    (folder / "measurements.jsonl").write_text('{"seed": 0, "arm": "before"}\n')
    for name in ("reference_points.json", "config.json"):
        (folder / name).unlink()
    page = render_markdown(build_record(folder, resamples=20))
    assert "No verdict: no generator was fine-tuned" in page
    assert "Not measured." in page
    assert "None" not in page


def test_configuration_and_versions_are_told(record):
    page = render_markdown(record)
    assert '"seed": 3' in page
    assert f"torch {record.environment['torch']}" in page


def test_numbers_have_about_four_digits_and_an_interval_as_many_decimals_at_both_ends():
    values = (132.44, 76.251, 2.84, 0.95, 0.00212, 0.0, 12345.6, 3e7, 250, None)
    assert [number(v) for v in values] == ["132.4", "76.25", "2.840", "0.9500", "0.00212", "0", "12346", "3e+07", "250", "not measured"]
    assert (signed(1.5), signed(-1.5)) == ("+1.500", "-1.500")
    assert interval(Interval(-0.1234, 12.5)) == "-0.12 to +12.50"

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from malp_disc.report import write_report
from malp_disc.serialization.typed_json import to_json
from tests.charts import without_charts


def refuse(constant: str):
    raise AssertionError(f"{constant} in report.json")


def test_the_folder_gets_json_markdown_and_figures(make_run):
    folder = make_run()
    Image.new("RGB", (8, 8)).save(folder / "samples.png")
    record = write_report(folder, resamples=20)
    assert json.loads((folder / "report.json").read_text()) == to_json(record)
    page = (folder / "report.md").read_text()
    assert record.verdict in page
    for name in ("comparison.png", "curves.png", "samples.png"):
        assert f"]({name})" in page
        with Image.open(folder / name) as image:
            image.verify()
    assert "fakeness.png" not in page


def test_nan_is_never_written(make_run, arms):
    """json.dumps writes NaN by default, and a diverged generator has plenty."""
    arms["cotrain"]["localization"] = dict.fromkeys(arms["cotrain"]["localization"], float("nan"))
    arms["cotrain"]["kid"]["std"] = float("inf")
    arms["frozen"]["frechet"]["value"] = float("nan")
    folder = make_run()
    assert "NaN" in (folder / "measurements.jsonl").read_text()
    with open(folder / "curves" / "0" / "cotrain.jsonl", "a") as file:
        file.write('{"step": 500, "G/adversarial": NaN, "MaLP/map": Infinity}\n')
    record = write_report(folder, resamples=20)
    json.loads((folder / "report.json").read_text(), parse_constant=refuse)
    assert record.arms["frozen"].frechet.value is None
    assert "nan" not in (folder / "report.md").read_text()


def test_the_report_is_made_again_from_the_folder_alone_wherever_it_lies(make_run, tmp_path):
    folder = make_run()
    write_report(folder, resamples=20)
    copy = tmp_path / "elsewhere" / "run"
    shutil.copytree(folder, copy)
    for name in ("report.json", "report.md", "comparison.png", "curves.png"):
        (copy / name).unlink()
    write_report(copy, resamples=20)
    for name in ("report.json", "report.md", "comparison.png", "curves.png"):
        assert (copy / name).read_bytes() == (folder / name).read_bytes(), name


def test_no_folder_of_this_machine_gets_into_the_report(make_run, tmp_path):
    folder = make_run()
    write_report(folder, resamples=20)
    for name in ("report.json", "report.md"):
        text = (folder / name).read_text()
        assert str(tmp_path) not in text
        assert "/somewhere" not in text


def test_a_run_without_curves_has_a_report_without_that_figure(make_run):
    folder = make_run()
    shutil.rmtree(folder / "curves")
    with without_charts(but=["curves_figure"]):
        write_report(folder, resamples=20)
    assert not (folder / "curves.png").exists()
    assert "curves.png" not in (folder / "report.md").read_text()


@pytest.mark.parametrize("logged", ['"G/adversarial": NaN, "MaLP/map": Infinity', '"G/adversarial": null', '"note": "warm-up"'])
def test_a_run_that_logged_no_finite_number_has_a_report_without_curves(make_run, logged):
    folder = make_run()
    for path in (folder / "curves").rglob("*.jsonl"):
        path.write_text("".join(f'{{"step": {step}, {logged}}}\n' for step in (10, 20)))
    with without_charts(but=["curves_figure"]):
        record = write_report(folder, resamples=20)
    assert record.verdict in (folder / "report.md").read_text()
    assert not (folder / "curves.png").exists() and "curves.png" not in (folder / "report.md").read_text()


def test_a_damaged_line_stops_the_report_before_anything_is_written(make_run):
    folder = make_run()
    with open(folder / "measurements.jsonl", "a") as file:
        file.write('{"arm": "cotrain", "frec')
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(ValueError, match="measurements.jsonl, line 5: not JSON"):
        write_report(folder, resamples=20)
    assert sorted(path.name for path in folder.iterdir()) == before

"""Seeds measured apart become one run: the same report as if they had been one, and a refusal where they don't belong together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from malp_disc.commands.report import Report, report
from malp_disc.report.writing import write_report
from malp_disc.run_folder.join import join_runs
from malp_disc.run_folder.schema import read_measurements
from malp_disc.serialization.files import write_text
from malp_disc.serialization.typed_json import to_json
from tests.charts import without_charts


def part_of(whole: Path, folder: Path, seeds: tuple[int, ...]) -> Path:
    """A run with some of the seeds of `whole`, and the generator before."""
    shutil.copytree(whole, folder)
    for name in ("measurements.jsonl", "gallery.jsonl"):
        lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        kept = [line for line in lines if line["seed"] in seeds or line["arm"] == "before"]
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in kept))
    for seed in {0, 1, 2} - set(seeds):
        shutil.rmtree(folder / "curves" / str(seed))
        for path in [*(folder / "features" / str(seed)).iterdir(), *(folder / "gallery" / str(seed)).iterdir()]:
            if not path.name.startswith("before"):
                path.unlink()
    return folder


@pytest.fixture
def parts(make_full_run, tmp_path) -> tuple[Path, Path, Path]:
    whole = make_full_run()
    return whole, part_of(whole, tmp_path / "first", (0,)), part_of(whole, tmp_path / "others", (1, 2))


def test_the_joined_report_is_that_of_one_run(parts, capsys):
    whole, first, others = parts
    with without_charts(but=["samples_figure"]):
        expected = to_json(write_report(whole, resamples=20))
        report(Report(run=first, join=(others,), resamples=20))
    assert expected["verdict"] in capsys.readouterr().out
    joined = json.loads((first / "report.json").read_text())
    for key in ("arms", "verdict", "comparison", "views", "reference_points"):
        assert expected[key] == joined[key], key
    assert (first / "samples.png").read_bytes() == (whole / "samples.png").read_bytes()
    assert {path.name for path in (first / "curves" / "2").iterdir()} == {path.name for path in (whole / "curves" / "2").iterdir()}


@pytest.mark.parametrize("deleted", [("first", "others"), ("others",), ("first",)], ids=" and ".join)
def test_the_joined_report_is_the_same_after_features_were_deleted(parts, deleted):
    """A folder with a report needs its features no more, whichever of the two they are missing in."""
    whole, first, others = parts
    with without_charts():
        expected = to_json(write_report(whole, resamples=20))
        for folder in (first, others):
            if folder.name in deleted:
                write_report(folder, resamples=20)
                shutil.rmtree(folder / "features")
        join_runs(first, [others])
        joined = to_json(write_report(first, resamples=20))
    for key in ("verdict", "comparison", "views"):
        assert expected[key] == joined[key], key


def test_measurements_come_last_so_a_join_that_stops_earlier_is_made_again(parts, monkeypatch):
    _, first, others = parts
    with without_charts():
        write_report(others, resamples=20)
    shutil.rmtree(others / "features")
    written = []
    monkeypatch.setattr("malp_disc.run_folder.join.write_text", lambda path, text: (written.append(path.name), write_text(path, text)))
    join_runs(first, [others])
    assert "bootstrap.jsonl" in written and written[-1] == "measurements.jsonl"
    complete = (first / "bootstrap.jsonl").read_bytes()
    join_runs(first, [others])
    assert (first / "bootstrap.jsonl").read_bytes() == complete


@pytest.mark.parametrize("name", ["bootstrap.jsonl", "gallery.jsonl", "quality.jsonl"])
def test_a_damaged_line_stops_a_join_before_anything_is_written(parts, name):
    _, first, others = parts
    with open(others / name, "a") as file:
        file.write('{"arm": "cotrain"}\n')
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    with pytest.raises(ValueError, match=f"others/{name}, line"):
        join_runs(first, [others])
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before


def test_a_join_that_was_stopped_can_be_made_again(parts):
    whole, first, others = parts
    join_runs(first, [others])
    assert len((first / "measurements.jsonl").read_text().splitlines()) == len((whole / "measurements.jsonl").read_text().splitlines())
    complete = {path.relative_to(first): path.read_bytes() for path in first.rglob("*") if path.is_file()}
    lines = (first / "measurements.jsonl").read_text().splitlines(keepends=True)
    (first / "measurements.jsonl").write_text("".join(line for line in lines if json.loads(line)["seed"] == 0))
    join_runs(first, [others])
    assert {path.relative_to(first): path.read_bytes() for path in first.rglob("*") if path.is_file()} == complete


def test_a_join_can_be_made_again_with_further_runs(parts, tmp_path):
    """Also one that was stopped after the first of two runs. What two of them share counts once."""
    whole, first, others = parts
    one, two = part_of(whole, tmp_path / "one", (1,)), part_of(whole, tmp_path / "two", (2,))
    again = shutil.copytree(first, tmp_path / "again")
    join_runs(first, [one])
    join_runs(first, [one, two])
    join_runs(again, [one, two, others, one])
    for name in ("measurements.jsonl", "gallery.jsonl"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
        assert sorted((first / name).read_text().splitlines()) == sorted((whole / name).read_text().splitlines())


def test_a_line_that_a_later_one_replaced_does_not_count_as_another_measurement(parts):
    _, first, others = parts
    lines = (others / "measurements.jsonl").read_text().splitlines(keepends=True)
    (others / "measurements.jsonl").write_text("".join([lines[-1].replace('"steps": 250', '"steps": 10'), *lines]))
    join_runs(first, [others])
    assert to_json(read_measurements(first)[2]) == to_json(read_measurements(others)[2])


def test_the_generator_before_is_kept_once_if_only_the_others_have_it(parts, tmp_path):
    whole, first, _ = parts
    one, two = part_of(whole, tmp_path / "one", (1,)), part_of(whole, tmp_path / "two", (2,))
    lines = [line for line in (first / "measurements.jsonl").read_text().splitlines(keepends=True) if json.loads(line)["arm"] != "before"]
    (first / "measurements.jsonl").write_text("".join(lines))
    join_runs(first, [one, two])
    assert [seed for seed, arms in read_measurements(first).items() if "before" in arms] == [0]


def test_what_does_not_belong_together_is_refused_and_nothing_is_written(parts, tmp_path):
    whole, first, others = parts
    before = (first / "measurements.jsonl").read_bytes()
    reference_points = json.loads((others / "reference_points.json").read_text())
    again = part_of(whole, tmp_path / "again", (0, 1))
    (again / "measurements.jsonl").write_text((again / "measurements.jsonl").read_text().replace('"seconds": 61.25', '"seconds": 61.5'))
    with pytest.raises(ValueError, match="control, seed 0 is in .*first and in .*again, with different measurements; leave one out"):
        join_runs(first, [again])
    lines = (again / "measurements.jsonl").read_text().splitlines(keepends=True)
    (again / "measurements.jsonl").write_text("".join(line for line in lines if json.loads(line)["seed"] == 1))
    with pytest.raises(ValueError, match="control, seed 1 is in .*others and in .*again, with different measurements; leave one out"):
        join_runs(first, [others, again])
    for key in ("inputs_sha256", "reference_sha256", "key_fingerprint"):
        (others / "reference_points.json").write_text(json.dumps(reference_points | {key: "ffff"}))
        with pytest.raises(ValueError, match=f"{key} differs"):
            join_runs(first, [others])
    (others / "reference_points.json").write_text(json.dumps(reference_points))
    lines = [json.loads(line) for line in (others / "measurements.jsonl").read_text().splitlines()]
    for line in lines:
        if line["arm"] == "before":
            line["frechet"]["value"] += 1
    (others / "measurements.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match="generators before fine-tuning differ"):
        join_runs(first, [others])
    with pytest.raises(FileNotFoundError, match="give its path"):
        join_runs(first, [tmp_path / "nowhere"])
    assert (first / "measurements.jsonl").read_bytes() == before

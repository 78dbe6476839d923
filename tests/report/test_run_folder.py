"""A run's folder that is missing, empty or damaged: which file, which line, what to do."""

from __future__ import annotations

import json

import numpy as np
import pytest

from malp_disc.run_folder.schema import read_curves, read_features, read_lines, read_measurements


def append(folder, line: str) -> None:
    with open(folder / "measurements.jsonl", "a") as file:
        file.write(line)


def test_the_arms_come_in_table_order_whatever_the_files_order(make_run):
    folder = make_run()
    lines = (folder / "measurements.jsonl").read_text().splitlines()
    (folder / "measurements.jsonl").write_text("\n".join(reversed(lines)))
    assert list(read_measurements(folder)[0]) == ["before", "control", "frozen", "cotrain"]


def test_a_later_line_of_an_arm_replaces_the_earlier_one_whole(make_run):
    folder = make_run()
    append(folder, json.dumps({"seed": 0, "arm": "cotrain", "identity_l1": 0.5}))
    measured = read_measurements(folder)[0]["cotrain"]
    assert measured.identity_l1 == 0.5
    assert measured.frechet.value is None


@pytest.mark.parametrize(("line", "key"), [({"images_seen": 2000}, "images_seen"), ({"localization": {"iou": 0.25}}, "iou")])
def test_a_key_that_is_no_field_is_refused_by_name(make_run, line, key):
    folder = make_run()
    append(folder, json.dumps({"seed": 0, "arm": "cotrain", **line}))
    with pytest.raises(ValueError, match=f"measurements.jsonl, line 5.*: unknown {key}; expected "):
        read_measurements(folder)


def test_lines_are_by_seed_and_then_by_arm(make_run):
    folder = make_run()
    for seed in (10, 2):
        append(folder, json.dumps({"seed": seed, "arm": "cotrain", "identity_l1": seed / 100}) + "\n")
    runs = read_measurements(folder)
    assert list(runs) == [0, 2, 10]
    assert [runs[seed]["cotrain"].identity_l1 for seed in runs] == [0.12, 0.02, 0.1]


def test_features_lie_by_seed_and_view(tmp_path):
    for path, value in (("features/cotrain.npy", 1), ("features/3/cotrain.npy", 2), ("features/3/cotrain.second.npy", 3)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / path, np.full((4, 2), value))
    found = [
        read_features(tmp_path, "cotrain", seed=seed, view=view)
        for seed, view in ((None, "frechet"), (3, "frechet"), (3, "second"), (0, "frechet"), (0, "second"))
    ]
    assert [None if features is None else features[0, 0] for features in found] == [1, 2, 3, None, None]
    np.save(tmp_path / "features" / "reference.second.npy", np.full((4, 2), 4))
    assert read_features(tmp_path, "reference", view="second")[0, 0] == 4


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_not_finite_is_not_measured(make_run, text):
    folder = make_run()
    append(folder, f'{{"seed": 0, "arm": "cotrain", "identity_l1": {text}, "edit_accuracy_per_attribute": {{"Smiling": {text}}}}}')
    measured = read_measurements(folder)[0]["cotrain"]
    assert measured.identity_l1 is None
    assert measured.edit_accuracy_per_attribute == {"Smiling": None}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"arm": "cotrain", "frechet": {"val', "not JSON"),
        ("[1, 2]", "expected a JSON object, got \\[1, 2\\]"),
        ('{"arm": "contorl"}', "expected an arm out of before, control, control_2xD, random, frozen, cotrain, no_template, .*, joint, got 'contorl'"),
        ('{"identity_l1": 1}', "expected an arm out of .* got None"),
        ('{"arm": "frozen", "seed": -1}', "expected a seed, a whole number of 0 or more, got -1"),
        ('{"arm": "frozen"}', "expected a seed, a whole number of 0 or more, got None"),
        ('{"arm": "frozen", "seed": true}', "expected a seed, a whole number of 0 or more, got True"),
        ('{"arm": "frozen", "seed": "0"}', "expected a seed, a whole number of 0 or more, got '0'"),
        ('{"seed": 0, "arm": "frozen", "spectrum": {"ratio": [1, "x"]}}', "spectrum, ratio: expected a number or null, got 'x'"),
        ('{"seed": 0, "arm": "frozen", "identity_l1": "0.1"}', "identity_l1: expected a number or null, got '0.1'"),
        ('{"seed": 0, "arm": "frozen", "frechet": 3.5}', "frechet: expected an object, got 3.5"),
        ('{"seed": 0, "arm": "frozen", "frechet": {"label": 3}}', "frechet, label: expected text or null, got 3"),
        ('{"seed": 0, "arm": "frozen", "edit_accuracy_per_attribute": {"Smiling": "all"}}', "edit_accuracy_per_attribute, Smiling: expected a number"),
    ],
)
def test_a_damaged_line_is_named_by_its_number(make_run, line, message):
    folder = make_run()
    append(folder, "\n" + line + "\n")  # four arms, a blank line, then the damage
    with pytest.raises(ValueError, match=f"measurements.jsonl, line 6.*{message}"):
        read_measurements(folder)


def test_bytes_that_are_no_text_are_a_damaged_line(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'{"step": 1}\n\xff\xfe\xfd\n')
    with pytest.raises(ValueError, match="x.jsonl, line 2: not JSON"):
        read_lines(tmp_path / "x.jsonl")


def test_no_measurements_and_empty_ones_are_different_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="measurements.jsonl; a report is made from the folder of a finished run"):
        read_measurements(tmp_path)
    (tmp_path / "measurements.jsonl").write_text("\n\n")
    with pytest.raises(ValueError, match="is empty: no generator was measured"):
        read_measurements(tmp_path)


def test_features_that_are_pickled_cut_off_or_not_finite_are_refused(tmp_path):
    (tmp_path / "features").mkdir()
    path = tmp_path / "features" / "control.npy"
    assert read_features(tmp_path, "control") is None
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="control.npy can't be read as an array"):
        read_features(tmp_path, "control")
    np.save(path, np.zeros((9, 4)))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="control.npy can't be read as an array"):
        read_features(tmp_path, "control")
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match="control.npy can't be read as an array \\(it is a git-lfs pointer") as caught:
        read_features(tmp_path, "control")
    assert "allow_pickle" not in str(caught.value)
    np.save(path, np.full((9, 4), np.nan))
    with pytest.raises(ValueError, match="control.npy has 9 rows"):
        read_features(tmp_path, "control")


def test_curves_come_arms_first_and_quality_joins_its_arm(make_run):
    folder = make_run()
    quality = [
        {"seed": 0, "arm": "cotrain", "step": 100, "frechet": 90.5},
        {"seed": 0, "arm": "cotrain", "step": 200, "frechet": None},
    ]
    (folder / "quality.jsonl").write_text("".join(json.dumps(line) + "\n" for line in quality))
    curves = read_curves(folder, distance="FD")
    assert list(curves) == ["control", "frozen", "cotrain", "malp"]
    assert curves["cotrain"][-2:] == [{"step": 100, "FD": 90.5, "seed": 0}, {"step": 200, "FD": None, "seed": 0}]
    (folder / "curves" / "4").mkdir()
    (folder / "curves" / "4" / "cotrain.jsonl").write_text('{"step": 7, "G/malp": 1.0}\n{"step": 8, "G/m')
    assert read_curves(folder)["cotrain"].count({"step": 7, "G/malp": 1.0, "seed": 4}) == 1, "the run is going on, and the next line not whole yet"
    (folder / "quality.jsonl").write_text('{"arm": "cotrain"}')
    with pytest.raises(ValueError, match="quality.jsonl, line 1: seed, step, frechet missing"):
        read_curves(folder)

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import make_dataclass
from pathlib import Path

import numpy as np
import pytest

from malp_disc.benchmark.page import write_pages
from malp_disc.metrics.frechet import frechet_distance
from malp_disc.report import build_record, write_report
from malp_disc.report.folders import without_folders
from malp_disc.run_folder.environment import collect_environment, git_commit
from malp_disc.serialization.typed_json import to_json
from malp_disc.training.launch import describe_run
from tests.charts import without_charts

PATHS = """
verdict verdict_rule reference_points.unedited.value reference_points.real_split.n reference_points.encrypted_psnr config.seed
environment.python environment.torch environment.torchvision environment.accelerate environment.numpy environment.scipy environment.timm
environment.platform environment.cpu_count environment.malp_disc
comparison.before.delta_vs_control.value comparison.frozen.delta_vs_control.low comparison.cotrain.delta_vs_control.high
comparison.frozen.delta_vs_before.value comparison.cotrain.delta_vs_before.high
"""
PER_ARM = """
frechet.label frechet.value frechet.n frechet.extractor frechet.resize frechet.reference kid.value kid.std edit_accuracy identity_l1
localization.cs localization.cs_official localization.cs_constant localization.cs_official_constant localization.pearson localization.psnr
localization.ssim detection.accuracy detection.eer detection.auc detection.average_precision steps seconds
"""


def at(record, path: str):
    for key in path.split("."):
        record = record[key]
    return record


def quick(folder: Path, **options):
    return to_json(build_record(folder, resamples=20, **options))


def test_every_promised_path_is_there_and_filled(make_run):
    record = quick(make_run())
    paths = PATHS.split() + [f"arms.{arm}.{path}" for arm in ("before", "control", "frozen", "cotrain") for path in PER_ARM.split()]
    assert [path for path in paths if at(record, path) is None] == []
    assert record["arms"]["cotrain"]["frechet"]["value"] == 76.25


def test_the_control_is_not_compared_with_itself(make_run):
    record = quick(make_run())
    assert list(record["comparison"]) == ["before", "frozen", "cotrain"]
    assert record["comparison"]["before"]["delta_vs_before"] is None


def test_the_difference_is_that_of_the_distances_and_lies_in_its_interval(make_run):
    folder = make_run()
    reference, control, cotrain = (np.load(folder / "features" / f"{name}.npy") for name in ("reference", "0/control", "0/cotrain"))
    delta = quick(folder)["comparison"]["cotrain"]["delta_vs_control"]
    assert delta["value"] == pytest.approx(frechet_distance(reference, cotrain) - frechet_distance(reference, control), rel=1e-6)
    assert delta["low"] < delta["value"] < delta["high"] < 0


def test_a_translation_before_fine_tuning_is_compared_with_the_unedited_inputs_where_their_features_are(make_run, arms):
    """4 from the reference's mean in each of 6 features, against 2.2; the verdict on a translation needs the interval. It is kept without features."""
    folder = make_run()
    np.save(folder / "features" / "unedited.npy", np.load(folder / "features" / "0" / "before.npy"))
    assert quick(folder)["comparison"]["before"]["delta_vs_unedited"] is None, "with attributes nothing reads it"
    for arm in arms.values():
        arm["attributes"] = 0
    folder = make_run()
    (folder / "features" / "unedited.npy").unlink()
    assert quick(folder)["comparison"]["before"]["delta_vs_unedited"] is None
    reference, before = (np.load(folder / "features" / f"{name}.npy") for name in ("reference", "0/before"))
    unedited = (before + 1.8).astype(np.float32)
    np.save(folder / "features" / "unedited.npy", unedited)
    with without_charts():
        record = write_report(folder, resamples=20)
    delta = to_json(record)["comparison"]["before"]["delta_vs_unedited"]
    assert delta["value"] == pytest.approx(frechet_distance(reference, before) - frechet_distance(reference, unedited), rel=1e-6)
    assert delta["low"] < delta["value"] < delta["high"] < 0
    shutil.rmtree(folder / "features")
    assert quick(folder)["comparison"]["before"]["delta_vs_unedited"] == delta


def test_the_verdict_follows_the_features(make_run):
    """Means shifted by 2, 2 and 1 from the reference's: cotrain is nearer by 6·(4 - 1) = 18, frozen by nothing."""
    record = quick(make_run())
    assert {arm: verdict["outcome"] for arm, verdict in record["verdicts"].items()} == {"frozen": "no difference", "cotrain": "improved"}
    assert record["comparison"]["cotrain"]["delta_vs_control"]["value"] == pytest.approx(-18, abs=2)
    swapped = quick(make_run(shifts={"before": 2.2, "control": 1.0, "frozen": 1.0, "cotrain": 2.0}))
    assert swapped["verdicts"]["cotrain"]["outcome"] == "worse"
    assert swapped["verdict"].startswith("No improvement shown")


def test_the_same_folder_gives_the_same_record_and_another_seed_another_interval(make_run):
    folder = make_run()
    assert json.dumps(quick(folder)) == json.dumps(quick(folder))
    lows = {quick(folder, seed=seed)["comparison"]["cotrain"]["delta_vs_control"]["low"] for seed in (0, 1)}
    assert len(lows) == 2


def test_a_run_without_control_says_so_and_still_compares_with_before(make_run):
    record = quick(make_run(without=("control",)))
    assert record["verdict"].startswith("No verdict: there is no control arm")
    assert record["comparison"]["cotrain"]["delta_vs_control"] is None
    assert record["comparison"]["cotrain"]["delta_vs_before"]["high"] < 0


def test_missing_features_leave_the_comparison_open(make_run):
    folder = make_run()
    (folder / "features" / "0" / "cotrain.npy").unlink()
    record = quick(folder)
    assert record["comparison"]["cotrain"] == {"delta_vs_control": None, "delta_vs_before": None}
    assert record["verdicts"]["cotrain"]["outcome"] == "not decided"


def test_features_of_other_images_are_refused_by_name(make_run):
    folder = make_run()
    np.save(folder / "features" / "0" / "cotrain.npy", np.random.default_rng(0).normal(size=(80, 6)))
    with pytest.raises(
        ValueError,
        match=r"features/0/control.npy, .*features/0/cotrain.npy and features/reference.npy don't fit together: .*paired row by row",
    ):
        quick(folder)


def test_features_that_contradict_the_measurement_are_noted(make_run, arms):
    folder = make_run()
    assert any(note.startswith("cotrain: the saved features give") for note in quick(folder)["notes"])
    reference = np.load(folder / "features" / "reference.npy")
    for arm, measured in arms.items():
        measured["frechet"]["value"] = frechet_distance(reference, np.load(folder / "features" / "0" / f"{arm}.npy"))
    assert not any("the saved features give" in note for note in quick(make_run())["notes"])


def test_a_single_seed_is_cautioned(make_run):
    assert any(note.startswith("one seed: the intervals cover the choice of images") for note in quick(make_run())["notes"])


def test_a_kernel_distance_that_says_the_opposite_is_noted(make_run, arms):
    assert not any("KID" in note for note in quick(make_run())["notes"])
    arms["cotrain"]["kid"]["value"] = arms["control"]["kid"]["value"] + 0.1
    assert any(note.startswith("cotrain: KID shows the opposite") for note in quick(make_run())["notes"])


def test_what_is_not_measured_is_none_at_every_path(make_run, arms):
    for key in ("kid", "edit_accuracy", "edit_accuracy_per_attribute", "kept_accuracy", "localization", "detection", "identity_l1"):
        arms["cotrain"][key] = None
    measured = quick(make_run())["arms"]["cotrain"]
    assert [at(measured, path) for path in PER_ARM.split()[6:-2]] == [None] * len(PER_ARM.split()[6:-2])


def test_absolute_paths_in_the_config_are_cut(make_run):
    folder = make_run()
    command = "accelerate launch recipes/x.py --output-dir=/home/me/runs/a --data-root /home/me/faces --lr 1e-4"
    config = {"output_dir": "/home/me/runs/a", "nested": ["C:\\Users\\me\\b"], "relative": "runs/a", "lr": 1e-4, "command": command}
    (folder / "config.json").write_text(json.dumps(config))
    got = quick(folder)["config"]
    assert got["command"] == "accelerate launch recipes/x.py --output-dir=a --data-root faces --lr 1e-4"
    assert (got["output_dir"], got["nested"], got["relative"], got["lr"]) == ("a", ["b"], "runs/a", 1e-4)


@pytest.mark.parametrize(
    ("value", "cut"),
    [
        ("/home/anna mueller/secret project/faces", "faces"),
        ("C:\\Users\\Anna Mueller\\faces", "faces"),
        ("C:/Users/Anna Mueller/my faces", "my faces"),
        ("\\\\server\\Anna Mueller\\faces", "faces"),
        ("stgan=/home/anna mueller/G.safetensors", "stgan=G.safetensors"),
        ("mine=malp=/home/anna mueller/malp", "mine=malp=malp"),
        ("/home/anna=mueller/gen.py:make", "gen.py:make"),
        ("see /home/anna/faces", "see faces"),
        ("runs/my faces", "runs/my faces"),
        ("https://example.org/faces", "https://example.org/faces"),
    ],
)
def test_a_path_is_cut_whole_whatever_letters_it_has(value, cut):
    """Also in the command, as the run writes it (quoted for a shell)."""
    command = shlex.join(["malp-disc", "finetune", "--data-root", value, f"--reference={value}", "--note", "it's"])
    got = without_folders({"data_root": value, "nested": [{"a": value}], "command": command})
    assert got["data_root"] == cut and got["nested"] == [{"a": cut}]
    assert shlex.split(got["command"])[2:5] == ["--data-root", cut, f"--reference={cut}"]
    assert "nna" not in json.dumps(got)


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_a_path_with_spaces_is_cut_in_a_command_however_it_is_quoted(quote):
    command = f"recipes/x.py --data-root {quote}/home/anna mueller/faces{quote} --out {quote}C:\\Users\\Anna Mueller\\out{quote} --note it's --lr 1e-4"
    got = without_folders({"data_root": "/home/anna mueller/faces", "out": "C:\\Users\\Anna Mueller\\out", "command": command})["command"]
    assert "mueller" not in got.lower() and "--data-root faces --out out" in got.replace("'", "").replace('"', "")


def test_the_command_that_a_run_writes_can_be_pasted_into_a_shell(monkeypatch, tmp_path):
    arguments = ["--data-root", str(tmp_path / "anna mueller" / "my faces"), "--note", "it's <b>"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/malp-disc", *arguments])
    describe_run(tmp_path, make_dataclass("Options", ["data_root"])(Path(arguments[1])))
    config = json.loads((tmp_path / "config.json").read_text())
    assert shlex.split(config["command"]) == ["malp-disc", *arguments]
    assert without_folders(config) == {"command": shlex.join(["malp-disc", "--data-root", "my faces", *arguments[2:]]), "data_root": "my faces"}


def test_no_folder_of_this_machine_gets_into_a_benchmarks_page(monkeypatch, tmp_path):
    for name in ("samples_figure", "robustness_figure"):
        monkeypatch.setattr(f"malp_disc.benchmark.page.{name}", lambda *_: False)
    write_pages(tmp_path, [], {}, {"command": "malp-disc benchmark '/home/anna mueller/out'", "generators": ["stgan=/home/anna mueller/G.pt"]})
    for name in ("benchmark.html", "benchmark.md"):
        text = (tmp_path / name).read_text()
        assert "malp-disc benchmark out" in text and "anna" not in text and "mueller" not in text


def test_a_command_without_absolute_paths_stays_as_it_is():
    command = 'recipes/x.py --data-root runs/a  --note "<b> $HOME" --glob *.png'
    assert without_folders({"command": command, "root": "/"})["command"] == command


def test_the_environment_saved_with_the_run_is_kept(make_run):
    folder = make_run()
    (folder / "environment.json").write_text('{"python": "3.10.0"}')
    assert quick(folder)["environment"] == {"python": "3.10.0"}


def test_the_environment_names_neither_host_nor_folder_nor_user(monkeypatch, tmp_path):
    for name in ("platform.node", "socket.gethostname", "socket.getfqdn"):
        monkeypatch.setattr(name, lambda: "my-host")
    for name in ("USER", "LOGNAME", "USERNAME", "HOME", "USERPROFILE", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, str(tmp_path / "me"))
    monkeypatch.chdir(tmp_path)
    text = json.dumps(collect_environment())
    assert "my-host" not in text and str(tmp_path) not in text and sys.prefix not in text and str(Path(__file__).parents[2]) not in text


def test_a_wheel_inside_somebody_elses_repository_reports_no_commit(tmp_path):
    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@y", *arguments], check=True, capture_output=True
        )

    package = tmp_path / "malp_disc"
    buried = tmp_path / "site-packages" / "malp_disc"
    for folder in (package, buried):
        folder.mkdir(parents=True)
    (package / "a.py").write_text("1")
    try:
        git("init")
    except FileNotFoundError:
        pytest.skip("git is not installed")
    assert git_commit(package) is None  # no commit yet
    git("add", "malp_disc/a.py")
    git("commit", "-m", "x")
    assert len(git_commit(package)) == 40
    assert git_commit(buried) is None
    (package / "a.py").write_text("2")
    assert git_commit(package).endswith("-dirty")

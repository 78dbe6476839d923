"""The ablation and the probe as users run them, at toy size: every row trains, what is done isn't done again, and the probe reads what was saved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from malp_disc import MaLP
from recipes.research import ablate_malp, probe_malp
from recipes.research.ablation_rows import ROWS
from tests.recipes.conftest import TINY
from tests.recipes.test_bad_input import run as message_of
from tests.tiny import coloured_share

SMALL = [*TINY, "--malp-width", 4, "--test-size", 16, "--eval-size", 16, "--max-train-steps", 2]


@pytest.fixture(scope="module")
def ablation(launch, stargan, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    launch("ablate_malp.py", *SMALL, "--seeds", 0, "--output-dir", folder, "--generator-checkpoint", stargan / "G.safetensors")
    return folder


def test_every_row_leaves_its_scores_and_a_line_in_the_table(ablation):
    assert {path.stem for path in (ablation / "runs").glob("*.json")} == {f"{name}-0" for name in ROWS}
    table = (ablation / "table.md").read_text()
    assert all(f"| {row.text} | 1 |" in table for row in ROWS.values())
    assert len((ablation / "results.jsonl").read_text().splitlines()) == len(ROWS)
    for image in ("fakeness.png", "strength.png", "set_size.png"):
        assert coloured_share(ablation / image) > 0.001, image


def test_rows_differ_in_what_they_say(ablation):
    malps = {name: MaLP.from_pretrained(ablation / "malp" / f"{name}-0") for name in ("default", "passive", "cnn-only", "set-3", "strength-10")}
    assert malps["passive"].passive and malps["cnn-only"].branch is None and malps["set-3"].encryption.set_size == 3
    assert malps["strength-10"].encryption.strength == 0.1 and malps["default"].branch is not None
    scores = {name: json.loads((ablation / "runs" / f"{name}-0.json").read_text()) for name in ROWS}
    assert scores["passive"]["template"] is None and scores["set-3"]["template"]["between"] is not None
    pearson = [scores[name]["localization"]["pearson"] for name in ("default", "transformer-only", "authors-head", "without-j-l", "authors-rates", "passive")]
    assert len(set(pearson)) == len(pearson), "a row that scores as another did what the other did"
    assert scores["fixed-template"]["encrypted_psnr"] != scores["default"]["encrypted_psnr"], "one step moves a template that learns"
    moved = {scores[name]["encrypted_psnr"] for name in ("default", "gradient-map", "gradient-truth", "gradient-truth-free")}
    assert len(moved) == 4, "another gradient moves it otherwise"


def test_what_is_there_is_not_run_again_and_other_settings_are_refused(launch, monkeypatch, ablation, stargan):
    before = {path: path.stat().st_mtime_ns for path in (ablation / "runs").iterdir()}
    generator = ["--generator-checkpoint", stargan / "G.safetensors"]
    launch("ablate_malp.py", *SMALL, "--rows", "default", "passive", "--seeds", 0, "--output-dir", ablation, *generator)
    assert {path: path.stat().st_mtime_ns for path in (ablation / "runs").iterdir()} == before
    message = message_of(monkeypatch, ablate_malp, *SMALL[:-1], 3, "--rows", "default", "--seeds", 0, "--output-dir", ablation, *generator)
    assert "other settings: --max-train-steps was 2, is 3" in message and "choose another --output-dir" in message


def test_an_unknown_row_is_named(monkeypatch, tmp_path):
    assert "unknown rows ['defaults']" in message_of(monkeypatch, ablate_malp, "--rows", "defaults", "--output-dir", tmp_path)


def test_the_preset_without_learned_templates_is_refused(monkeypatch, tmp_path):
    message = message_of(monkeypatch, ablate_malp, "--preset", "survive", "--output-dir", tmp_path / "run")
    assert "variants of the paper's MaLP with learned templates, and --preset survive has none" in message and not (tmp_path / "run").exists()


def test_the_probe_scores_every_part_and_goes_on_where_it_stopped(launch, monkeypatch, ablation, stargan, tmp_path):
    pairs = tmp_path / "pairs"
    for side, colour in (("real", (90, 120, 60)), ("manipulated", (200, 30, 60))):
        (pairs / side).mkdir(parents=True)
        for i in range(3):
            image = Image.new("RGB", (40, 40), (90, 120, 60 + 20 * i))
            image.paste(colour, (10, 10, 30, 30))
            image.save(pairs / side / f"{i}.png")
    malps = [f"MaLP={ablation}/malp/default-0", f"MaLP={ablation}/malp/set-3-0", f"passive={ablation}/malp/passive-0"]
    common = ["--image-size", 32, "--train-size", 40, "--test-size", 16, "--eval-size", 16, "--generator-checkpoint", stargan / "G.safetensors",
              "--output-dir", tmp_path / "probe", "--malps", *malps, "--overlays", pairs, "--other-generators", "cartoongan="]  # fmt: skip
    launch("probe_malp.py", *common, "--parts", "files", "attributes")
    first = (tmp_path / "probe" / "probe.jsonl").read_text().splitlines()
    launch("probe_malp.py", *common, "--parts", "files", "attributes", "generators", "resolution", "robustness", "scale", "leak")
    lines = (tmp_path / "probe" / "probe.jsonl").read_text().splitlines()
    assert lines[: len(first)] == first
    found = [json.loads(line) for line in lines]
    assert {(line["name"], line["seed"]) for line in found} == {("MaLP", 0), ("MaLP", 1), ("passive", 0)}
    assert {line["case"] for line in found if line["part"] == "generators"} == {"stargan (trained on)", "cartoongan", "pasted masks"}
    assert {line["case"] for line in found if line["part"] == "resolution"} == {"64x64, no sc.", "scaled to 32x32, sc."}
    pasted = next(line for line in found if line["case"] == "pasted masks")
    assert pasted["n"] == 3 and pasted["localization"]["cs_constant"] < 0.95, "a quarter of each image was changed"
    assert not any(line["name"] == "passive" for line in found if line["part"] == "leak")
    ceilings = [line["scale"]["ceiling"] for line in found if line["part"] == "scale" and line["name"] == "passive"]
    assert ceilings[0] == pytest.approx(1, abs=1e-5) and ceilings == sorted(ceilings, reverse=True), "the coarser a map, the less it can say"
    other = [*common, "--parts", "files", "--malps", f"MaLP={ablation}/malp/strength-10-0"]  # another detector under the same name
    assert "has files of MaLP under other settings" in message_of(monkeypatch, probe_malp, *other)
    assert (tmp_path / "probe" / "probe.jsonl").read_text().splitlines() == lines, "and nothing is lost"
    report = (tmp_path / "probe" / "probe.md").read_text()
    assert all(name in report for name in ("MaLP", "passive", "cartoongan", "pasted masks"))
    assert all(coloured_share(tmp_path / "probe" / name) > 0.001 for name in ("robustness.png", "leak.png"))


def test_a_probe_without_names_or_pairs_says_so(monkeypatch, ablation, tmp_path):
    assert "NAME=FOLDER" in message_of(monkeypatch, probe_malp, "--malps", "runs/malp", "--output-dir", tmp_path)
    message = message_of(monkeypatch, probe_malp, "--image-size", 32, "--test-size", 8, "--eval-size", 8, "--parts", "generators", "--overlays", tmp_path / "none",
                         "--malps", f"MaLP={ablation}/malp/default-0", "--output-dir", tmp_path)  # fmt: skip
    assert "no folder at" in message

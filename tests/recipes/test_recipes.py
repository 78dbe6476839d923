"""The recipes at toy size, run from another folder: a few steps of a tiny network. (As scripts and under a launcher: test_launch_configurations.py.)"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from malp_disc import MaLP
from malp_disc.training.pretrain_options import PretrainOptions, build_malp
from malp_disc.training.pretrain_step import learning_rates
from recipes import train_stargan
from tests.recipes.conftest import TINY
from tests.recipes.test_bad_input import run as message_of
from tests.tiny import coloured_share

EVALUATION = ["--test-size", 24, "--eval-size", 24, "--reference-size", 48]


@pytest.fixture(scope="module")
def finetuned(launch, stargan, malp, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finetune")
    launch("finetune_stargan.py", *TINY, *EVALUATION, "--output-dir", folder, "--max-train-steps", 2, "--arms", "control", "frozen", "cotrain",
           "--generator-checkpoint", stargan / "G.safetensors", "--discriminator-checkpoint", stargan / "D.safetensors",
           "--malp", malp / "malp", "--checkpointing-steps", 1, "--eval-steps", 1, "--report-to", "tensorboard")  # fmt: skip
    return folder


def test_training_leaves_the_two_networks_a_curve_and_a_grid(stargan):
    curves = [json.loads(line) for line in (stargan / "curves.jsonl").read_text().splitlines()]
    assert [line["step"] for line in curves] == [1, 2, 3, 4, 5, 6]
    assert "G/copying" in curves[0] and "G/reconstruction" in curves[-1] and "D/penalty" in curves[-1]
    columns = 2 + 5  # the image, its copy, five edits
    assert Image.open(stargan / "samples.png").size == (columns * 33 + 1, 8 * 33 + 1)
    assert (stargan / "samples" / "000000.png").exists(), "the first grid is drawn before the first step"


def test_training_goes_on_from_a_trained_pair(launch, monkeypatch, stargan, tmp_path):
    common = [*TINY, "--max-train-steps", 1, "--warmup-steps", 0, "--learning-rate", 1e-6, "--n-critic", 1, "--conv-dim", 6, "--sample-steps", 1]
    pair = ["--generator-checkpoint", stargan / "G.safetensors", "--discriminator-checkpoint", stargan / "D.safetensors"]
    launch("train_stargan.py", *common, *pair, "--output-dir", tmp_path)
    before, after = (load_file(folder / "G.safetensors") for folder in (stargan, tmp_path))
    assert {name: value.shape for name, value in after.items()} == {name: value.shape for name, value in before.items()}, "widths are the file's"
    moved = [(after[name] - before[name]).abs().max().item() for name in before]
    assert 0 < max(moved) < 1e-4, "one step of a small rate away from where it began"
    launch("train_stargan.py", *common, *pair, "--attention", "--output-dir", tmp_path / "attention")
    masked = load_file(tmp_path / "attention" / "G.safetensors")
    assert set(masked) - set(before) == {"attention.weight", "attention.bias"} and masked["attention.bias"].item() > 1
    message = message_of(monkeypatch, train_stargan, *common, *pair[:2], "--output-dir", tmp_path / "half")
    assert "--generator-checkpoint and --discriminator-checkpoint, or neither" in message


def test_pretraining_leaves_a_malp_with_its_scores(malp):
    loaded = MaLP.from_pretrained(malp / "malp")
    assert loaded.config.width == 4 and loaded.config.image_size == 32
    metrics = json.loads((malp / "metrics.json").read_text())
    assert metrics["n"] == 16
    assert set(metrics["localization"]) >= {"cs", "cs_constant", "cs_official", "cs_official_constant", "pearson", "psnr", "ssim"}


def test_templates_begin_after_their_delay_and_both_rates_fall_to_zero():
    config = PretrainOptions(max_train_steps=100, malp_template_delay=0.25)
    rates = [learning_rates(config, (1e-3, 5e-3), step) for step in (0, 24, 25, 50, 75, 99)]
    assert rates == [(1e-3, 0), (1e-3, 0), (1e-3, 5e-3), (1e-3, 5e-3), (5e-4, 2.5e-3), (pytest.approx(2e-5), pytest.approx(1e-4))]
    with pytest.raises(ValueError, match=r"--malp-template-delay in \[0, 1\), got 1"):
        build_malp(PretrainOptions(malp_template_delay=1.0))


def test_finetuning_reports_every_arm(finetuned):
    report = json.loads((finetuned / "report.json").read_text())
    assert set(report["arms"]) == {"before", "control", "frozen", "cotrain"}
    for arm in report["arms"].values():
        assert set(arm["frechet"]) >= {"label", "value", "n", "extractor", "resize", "reference"}
        assert arm["frechet"]["label"] == "FD-SqueezeNet-128" and arm["frechet"]["n"] == 24
        assert 0 <= arm["edit_accuracy"] <= 1 and arm["identity_l1"] > 0
        assert 0 <= arm["detection"]["auc"] <= 1
    for arm in ("frozen", "cotrain"):
        delta = report["comparison"][arm]["delta_vs_control"]
        assert delta["low"] <= delta["value"] <= delta["high"] or delta["low"] <= delta["high"]
    assert report["verdict"] and report["environment"] and report["config"]["max_train_steps"] == 2
    assert "FD-SqueezeNet-128" in (finetuned / "report.md").read_text()
    for image in ("samples.png", "fakeness.png", "curves.png"):
        assert coloured_share(finetuned / image) > 0.001, image


def test_every_arm_moves_the_generator_and_to_another_place(finetuned, stargan):
    before = load_file(stargan / "G.safetensors")["main.0.weight"]
    after = {arm: load_file(finetuned / f"G-{arm}.safetensors")["main.0.weight"] for arm in ("control", "frozen", "cotrain")}
    for weights in after.values():
        assert not weights.equal(before)
    assert not after["control"].equal(after["frozen"]) and not after["control"].equal(after["cotrain"])


def test_only_the_cotrained_malp_moves(finetuned, malp):
    pretrained = load_file(malp / "malp" / "model.safetensors")["cnn.map_head.weight"]
    kept = {arm: load_file(finetuned / "arms" / arm / "checkpoint-2" / "malp.safetensors")["malp.cnn.map_head.weight"] for arm in ("frozen", "cotrain")}
    assert kept["frozen"].equal(pretrained)
    assert not kept["cotrain"].equal(pretrained)


def test_trackers_get_the_curves(finetuned):
    assert list(finetuned.rglob("events.out.tfevents.*"))


def test_evaluating_the_saved_generators_gives_the_reported_numbers(launch, finetuned, stargan, malp, tmp_path):
    launch("evaluate.py", "--image-size", 32, "--train-size", 64, *EVALUATION, "--output-dir", tmp_path, "--before", stargan / "G.safetensors",
           "--control", finetuned / "G-control.safetensors", "--cotrain", finetuned / "G-cotrain.safetensors", "--malp", malp / "malp", charts=False)  # fmt: skip
    again, reported = (json.loads((folder / "report.json").read_text())["arms"] for folder in (tmp_path, finetuned))
    for arm in ("before", "control", "cotrain"):
        assert again[arm]["frechet"]["value"] == pytest.approx(reported[arm]["frechet"]["value"], rel=1e-4)
        assert again[arm]["edit_accuracy"] == reported[arm]["edit_accuracy"]
    points, again = tmp_path / "reference_points.json", ("evaluate.py", "--image-size", 32, "--train-size", 64, *EVALUATION, "--output-dir", tmp_path, "--before", stargan / "G.safetensors",
                                                         "--frozen", finetuned / "G-frozen.safetensors", "--malp", malp / "malp")  # fmt: skip
    assert "--reference-split was auto, is training" in launch(*again, "--reference-split", "training", check=False).stderr
    other = json.loads(points.read_text()) | {"reference_sha256": "0" * 16}
    points.write_text(json.dumps(other))
    assert "was measured on other real images than there are now" in launch(*again, check=False).stderr and json.loads(points.read_text()) == other


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(launch, stargan, tmp_path):
    for name, seed, starter in (("same", 0, ()), ("other", 1, None)):  # a process of its own shows that nothing depends on what ran before
        launch("train_stargan.py", *TINY, "--output-dir", tmp_path / name, "--max-train-steps", 6, "--conv-dim", 4, "--warmup-steps", 2,
               "--identity-share", 0.25, "--checkpointing-steps", 6, "--sample-steps", 6, "--seed", seed, starter=starter)  # fmt: skip
    first = (stargan / "checkpoint-6" / "G_raw.safetensors").read_bytes()
    assert (tmp_path / "same" / "checkpoint-6" / "G_raw.safetensors").read_bytes() == first
    assert (tmp_path / "other" / "checkpoint-6" / "G_raw.safetensors").read_bytes() != first


def test_a_cotrained_malp_is_a_malp(finetuned):
    loaded = MaLP.from_pretrained(finetuned / "cotrained" / "cotrain")
    kept = load_file(finetuned / "arms" / "cotrain" / "checkpoint-2" / "malp.safetensors")
    assert torch.equal(loaded.state_dict()["cnn.map_head.weight"], kept["malp.cnn.map_head.weight"])
    assert not loaded.config.branch and not (finetuned / "cotrained" / "frozen").exists()
    out = loaded(torch.zeros(1, 3, 32, 32))
    assert out.map.shape == (1, 1, 32, 32)

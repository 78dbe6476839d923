"""Generators that were tuned on an extractor, and the count of those that the alarm finds."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from malp_disc.metrics.frechet import frechet_distance
from recipes.research import metric_alarm
from recipes.research.alarm_generators import Trainer
from recipes.research.feature_losses import FrechetLoss
from tests.tiny import sample_images


def features(images: torch.Tensor) -> torch.Tensor:
    """Mean and deviation of each channel, (B, 6)."""
    return torch.cat([images.mean(dim=(2, 3)), images.std(dim=(2, 3))], dim=1)


@pytest.mark.parametrize("queue", [5, 40])
def test_the_loss_is_the_frechet_distance_relative_to_that_before_training(queue):
    reference, start, fake = features(sample_images(60)), features(sample_images(queue, seed=1) * 0.8), sample_images(2, seed=2)
    loss = FrechetLoss(features, reference, start)
    rows = torch.cat([start[2:], features(fake)])
    expected = frechet_distance(reference, rows) / frechet_distance(reference, start)
    assert loss(fake).item() * 2 / queue == pytest.approx(expected, rel=1e-3)
    torch.testing.assert_close(loss.queue, rows)


def test_following_its_gradient_brings_a_set_of_images_nearer():
    reference, images = features(sample_images(60)), (sample_images(4, seed=1) * 0.5).requires_grad_()
    loss = FrechetLoss(features, reference, features(images))
    first = loss(images)
    first.backward()
    moved = (images - 0.2 * images.grad / images.grad.abs().max()).detach()
    assert loss.distance(features(moved)) < loss.distance(features(images))


def test_the_same_seed_makes_the_same_generator_and_each_kind_another():
    labels = torch.eye(5)[[0, 1, 2, 3]]
    trainer = Trainer(sample_images(4, 64, 64), labels, steps=1, batch=1)
    made = {name: torch.cat([p.flatten() for p in trainer.train(kind, seed).parameters()]) for name, kind, seed in (("a", "control", 0), ("b", "control", 0), ("c", "control", 1))}
    assert torch.equal(made["a"], made["b"]) and not torch.equal(made["a"], made["c"])


def test_alarms_are_counted_by_extractors_and_kind(tmp_path):
    before = sample_images(6, 64, 64)
    made = {"before": before, "reference": sample_images(6, 64, 64, seed=1), "perfect": before, "control-0": before * 0.9, "control-1": before * 0.95, "honest-0": before * 0.8}
    for name, images in made.items():
        metric_alarm.save(tmp_path / "images" / f"{name}.npy", images)
    (tmp_path / "images" / ".honest-1.npy.abcdefgh.partial.npy").write_bytes(b"")  # that another command is writing
    lines = metric_alarm.results(tmp_path / "images")
    assert [(line["kind"], line["seed"]) for line in lines[:: len(metric_alarm.PAIRS)]] == [("control", 0), ("control", 1), ("honest", 0)]
    by_pair = {(line["kind"], line["seed"], line["judge"], line["witness"]): line for line in lines}
    one, other = by_pair["control", 0, "faces", "squeezenet-128"], by_pair["control", 0, "squeezenet-128", "faces"]
    assert one["leverage"] == pytest.approx(-other["leverage"])
    assert one["leverage"] == pytest.approx(-by_pair["control", 1, "faces", "squeezenet-128"]["leverage"])
    assert one["by_judge"] == other["by_witness"]
    assert one["by_judge"]["minus_control"]["value"] == pytest.approx(-by_pair["control", 1, "faces", "random"]["by_judge"]["minus_control"]["value"])
    distance = one["by_judge"]["control"] + one["by_judge"]["minus_control"]["value"]
    assert one["by_judge"]["minus_before"]["value"] == pytest.approx(distance - one["by_judge"]["before"])
    farther = one["perfect_edit"]
    assert farther["minus_control"]["value"] == pytest.approx(0.05 * before.abs().mean().item(), abs=2e-3)  # 0.9 against 0.95 of the perfect edit
    assert farther["minus_before"]["value"] == pytest.approx(0.1 * before.abs().mean().item(), abs=2e-3)
    assert json.dumps(lines) and np.isfinite([line["high"] for line in lines]).all()
    assert lines == metric_alarm.results(tmp_path / "images"), "from the kept features"


def test_a_single_control_is_not_compared_with_itself_and_a_missing_one_is_named(tmp_path, capsys):
    """Its differences from itself would be counted as a control that didn't gain."""
    before = sample_images(4, 64, 64)
    for name, images in {"before": before, "reference": sample_images(6, 64, 64, seed=1), "perfect": before, "control-3": before * 0.9, "honest-3": before * 0.8}.items():
        metric_alarm.save(tmp_path / "images" / f"{name}.npy", images)
    assert [(line["kind"], line["seed"]) for line in metric_alarm.results(tmp_path / "images")] == [("honest", 3)] * len(metric_alarm.PAIRS)
    assert "the control of seed 3 is the only one and isn't compared; give --seeds a second one" in capsys.readouterr().out
    metric_alarm.save(tmp_path / "images" / "honest-5.npy", before)
    with pytest.raises(ValueError, match="without a control of the same seed to compare them with; make it with --kinds control --seeds 5, and all others are kept"):
        metric_alarm.results(tmp_path / "images")


def test_generators_of_other_settings_do_not_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(metric_alarm, "results", lambda folder: [])
    metric_alarm.main(metric_alarm.Config(output_dir=tmp_path, seeds=(), steps=1))
    metric_alarm.main(metric_alarm.Config(output_dir=tmp_path, seeds=(), steps=1, kinds=("control",)))
    with pytest.raises(ValueError, match="other settings: --steps was 1, is 60; --eval-size was 200, is 100; choose another --output-dir"):
        metric_alarm.main(metric_alarm.Config(output_dir=tmp_path, seeds=(), eval_size=100))


LOWER, SAME, HIGHER = ({"value": sign, "low": sign - 0.5, "high": sign + 0.5} for sign in (-1.0, 0.0, 1.0))


def line(extractor=(LOWER, LOWER), reference=(SAME, SAME), perfect=(SAME, SAME), low=0.0):
    found = ({"minus_control": control, "minus_before": before, "control": 10.0, "before": 10.0} for control, before in (extractor, reference, perfect))
    return {"kind": "honest", "judge": "faces", "witness": "random", "leverage": low, "low": low} | dict(zip(("by_judge", "by_witness", "perfect_edit"), found))


@pytest.mark.parametrize(
    ("generator", "counts"),  # gained, opposite, by leverage, farther, gained and refused by the reference extractor, … or by the perfect edits
    [
        (line(), "100000"),
        (line(extractor=(SAME, LOWER)), "000000"),
        (line(extractor=(LOWER, HIGHER)), "000000"),
        (line(reference=(HIGHER, SAME)), "110011"),
        (line(reference=(LOWER, HIGHER)), "110011"),
        (line(extractor=(SAME, LOWER), reference=(HIGHER, SAME)), "010000"),
        (line(low=0.2), "101011"),
        (line(low=0.2, reference=(LOWER, SAME)), "100000"),
        (line(perfect=(LOWER, HIGHER)), "100101"),
        (line(extractor=(SAME, LOWER), perfect=(HIGHER, SAME)), "000100"),
    ],
)
def test_the_counts_follow_the_rule_of_the_verdict(generator, counts):
    assert metric_alarm.alarms([generator]).rstrip().endswith(" ".join(f"| {count} of 1" for count in counts) + " |")

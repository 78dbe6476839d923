"""The search as a user runs it, at toy size: every row gives its own scores, what is done isn't done again, other settings are refused."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from PIL import Image
from torchvision.models import squeezenet1_0

from malp_disc.data import PlainFolder, WithReferences
from recipes.research import search_finetuning
from recipes.research.search_rows import ROWS
from tests.recipes.conftest import TINY
from tests.recipes.test_bad_input import run as message_of
from tests.tiny import coloured_share

TRIED = ("control", "control-average", "frozen", "frozen-classifier", "cotrain", "pretraining", "pretraining-both", "pretraining-r1", "vision-aided", "feature-map", "joint")


@pytest.fixture(scope="module")
def flags(stargan, malp, tmp_path_factory) -> list:
    folder = tmp_path_factory.mktemp("search")
    torch.manual_seed(0)
    torch.save(squeezenet1_0(weights=None).state_dict(), folder / "squeezenet.pth")
    return [*TINY, "--test-size", 16, "--eval-size", 16, "--reference-size", 40, "--max-train-steps", 2, "--malp", malp / "malp", "--generator-checkpoint",
            stargan / "G.safetensors", "--discriminator-checkpoint", stargan / "D.safetensors", "--backbone", "squeezenet1_0", "--backbone-weights", folder / "squeezenet.pth",
            "--output-dir", folder / "run"]  # fmt: skip


@pytest.fixture(scope="module")
def found(launch, flags) -> dict:
    launch("search_finetuning.py", *flags, "--save-generators", "--rows", *TRIED)
    return {path.stem: json.loads(path.read_text()) for path in (flags[-1] / "runs").glob("*.json")}


def test_every_row_has_scores_of_its_own(found, flags):
    assert set(found) == {"before-0", *(f"{name}-0" for name in TRIED)}
    values = [run["frechet"]["value"] for run in found.values()]
    assert len(set(values)) == len(values), "a row that scores as another did what the other did"
    for name in TRIED:
        assert coloured_share(flags[-1] / "samples" / f"{name}-0.png") > 0.01, name
        assert (flags[-1] / "G" / f"{name}-0.safetensors").exists()
        assert not (flags[-1] / "training" / f"{name}-0" / "arms").exists(), "checkpoints go when the scores are safe"
    assert (flags[-1] / "table.md").read_text().count("| cotrain") == sum(ROWS[name].arm == "cotrain" for name in TRIED)


def test_what_is_there_is_not_run_again_and_other_settings_are_refused(launch, monkeypatch, found, flags):
    before = {path: path.stat().st_mtime_ns for path in (flags[-1] / "runs").iterdir()}
    launch("search_finetuning.py", *flags, "--rows", "control", "frozen")
    assert {path: path.stat().st_mtime_ns for path in (flags[-1] / "runs").iterdir()} == before
    message = message_of(monkeypatch, search_finetuning, *flags, "--rows", "control", "--learning-rate", 1e-3)
    assert "other settings: --learning-rate was 0.0001, is 0.001" in message and "choose another --output-dir" in message


def test_images_that_choose_are_not_among_those_compared_with(monkeypatch, flags):
    message = message_of(monkeypatch, search_finetuning, *flags, "--eval-size", 30)
    assert "at least 70 training images" in message and "got 64" in message


def test_a_dry_run_names_the_rows_and_writes_nothing(launch, tmp_path):
    said = launch("search_finetuning.py", "--rows", "control", "pretraining-r1", "--seeds", 3, 4, "--dry-run", "--output-dir", tmp_path / "run").stdout
    assert "2 rows, seeds 3 4, 150 steps each" in said
    assert "pretraining-r1: cotrain: cotrain losses pretraining, gradient share 0.3, r1 weight 1.0" in said
    assert not (tmp_path / "run").exists()


def test_an_unknown_row_is_named(monkeypatch, tmp_path):
    assert "unknown rows ['controls']" in message_of(monkeypatch, search_finetuning, "--rows", "controls", "--output-dir", tmp_path)


def test_a_translation_is_compared_with_the_training_images_of_its_target_domain(tmp_path):
    for domain, count in (("horses", 6), ("zebras", 5)):
        (tmp_path / domain).mkdir()
        for index in range(count):
            Image.new("RGB", (16, 16), (40 * index, 0, 0)).save(tmp_path / domain / f"{domain}{index}.png")
    horses, zebras = PlainFolder(tmp_path / "horses", test_size=1, image_size=16), tmp_path / "zebras"
    dataset, held_out = WithReferences(horses, zebras, test_size=2), PlainFolder(zebras, split="test", test_size=2, image_size=16)
    config = search_finetuning.Config(eval_size=4, reference_size=3, reference_root=zebras)
    edited, compared_with = search_finetuning.measured_images(dataset, config)
    assert len(edited) == 4 and torch.equal(edited[0][0], horses[0][0]) and len(edited[0]) == 2
    assert len(compared_with) == 3 and not set(compared_with.paths) & set(held_out.paths) and "zebras" in compared_with.description
    for changed, words in (({"eval_size": 6}, "6 training images for --eval-size, got 5"), ({"reference_size": 4}, "4 training images for --reference-size, got 3")):
        with pytest.raises(ValueError, match=words):
            search_finetuning.measured_images(dataset, dataclasses.replace(config, **changed))

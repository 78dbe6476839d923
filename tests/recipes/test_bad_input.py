"""What a user gets wrong ends before any long work, in one message that names cause and cure, without a traceback."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from malp_disc.training.launch import run_recipe
from recipes import evaluate, finetune_stargan, pretrain_malp, train_attribute_classifier, train_attribute_gan, train_stargan
from recipes.research import probe_malp
from tests.recipes.conftest import TINY
from tests.recipes.in_process import forget_accelerator


def run(monkeypatch, recipe, *arguments) -> str:
    """The message a recipe ends with."""
    forget_accelerator()
    monkeypatch.setattr(sys, "argv", ["recipe", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        run_recipe(recipe.main, recipe.Config, recipe.__doc__)
    assert isinstance(stopped.value.code, str), "expected a message, not a status"
    return stopped.value.code


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "folder"], ["--data-root"]),
        (["--data", "celeba", "--data-root", "/nowhere/celeba"], ["/nowhere/celeba"]),
        (["--selected-attributes", "Smilling"], ["Smilling", "Smiling"]),
        (["--image-size", "50"], ["50", "4"]),
        (["--train-batch-size", "0"], ["--train-batch-size"]),
        (["--train-size", "4", "--train-batch-size", "8"], ["8", "4", "--train-batch-size"]),
    ],
)
def test_data_mistakes(monkeypatch, tmp_path, arguments, words):
    message = run(monkeypatch, train_stargan, "--output-dir", tmp_path, "--max-train-steps", 2, *arguments)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--residual-blocks", -1, "of at least 1, got -1"),
        ("--conv-dim", 0, "of at least 1, got 0"),
        ("--discriminator-conv-dim", 0, "of at least 1, got 0"),
        ("--n-critic", 0, "of at least 1, got 0"),
        ("--warmup-steps", -1, "of 0 or more, got -1"),
        ("--reconstruction-weight", -5, "of 0 or more, got -5"),
        ("--learning-rate", 0, "above 0, got 0"),
        ("--identity-share", 3, "in [0, 1], got 3"),
        ("--ema-decay", 1, "in [0, 1), got 1"),
    ],
)
def test_numbers_that_no_stargan_can_be_trained_with(monkeypatch, tmp_path, flag, value, words):
    assert f"expected {flag} {words}" in run(monkeypatch, train_stargan, "--output-dir", tmp_path / "run", "--max-train-steps", 1, "--train-size", 16, flag, value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("recipe", "output", "words"),
    [
        (train_stargan, ["--output-dir", "run"], "StarGAN edits attributes, and --data images has none; use --data celeba or folder, or"),
        (train_attribute_gan, ["--output-dir", "run"], "attgan edits attributes, and --data images has none; use --data celeba or folder, or --method cyclegan"),
        (train_attribute_classifier, ["--output", "run/classifier.safetensors"], "the network learns attributes, and --data images has none"),
    ],
)
def test_images_without_attributes_are_refused(monkeypatch, tmp_path, recipe, output, words):
    monkeypatch.chdir(tmp_path)
    for i in range(3):
        Image.new("RGB", (20, 20)).save(tmp_path / f"{i}.png")
    assert words in run(monkeypatch, recipe, "--data", "images", "--data-root", tmp_path, "--test-size", 1, "--train-batch-size", 1, *output)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("recipe", [evaluate, probe_malp])
@pytest.mark.parametrize("device", ["gpu", "meta"])
def test_a_device_that_is_not_there(monkeypatch, tmp_path, recipe, device):
    assert f"can't compute on --device {device} " in run(monkeypatch, recipe, "--device", device, "--output-dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_classifier_is_not_trained_on_drawn_faces_where_images_are_given(monkeypatch, tmp_path):
    flags = ("--data-root", tmp_path, "--steps", 1, "--train-batch-size", 2, "--test-size", 2, "--output", tmp_path / "run" / "classifier.safetensors")
    assert "--data-root has no effect on drawn faces; add --data folder or --data celeba" in run(monkeypatch, train_attribute_classifier, *flags)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    assert "--output-dir" in run(monkeypatch, train_stargan, "--output-dir", tmp_path / "file" / "run")


def test_a_checkpoint_of_another_network_names_the_first_keys(monkeypatch, tmp_path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "other.ckpt")
    message = run(monkeypatch, pretrain_malp, *TINY, "--output-dir", tmp_path, "--generator-checkpoint", tmp_path / "other.ckpt")
    assert "StarGAN" in message and "weight" in message


def test_a_generator_for_other_attributes(monkeypatch, stargan, tmp_path):
    message = run(monkeypatch, finetune_stargan, *TINY, "--output-dir", tmp_path, "--selected-attributes", "Smiling", "Bangs",
                  "--generator-checkpoint", stargan / "G.safetensors", "--discriminator-checkpoint", stargan / "D.safetensors")  # fmt: skip
    assert "5 attributes" in message and "--selected-attributes" in message


def test_a_generator_without_its_discriminator(monkeypatch, stargan, tmp_path):
    message = run(monkeypatch, finetune_stargan, *TINY, "--output-dir", tmp_path, "--generator-checkpoint", stargan / "G.safetensors")
    assert "--discriminator-checkpoint" in message


def test_a_folder_that_holds_no_malp(monkeypatch, stargan, tmp_path):
    message = run(monkeypatch, finetune_stargan, *TINY, "--output-dir", tmp_path / "run", "--malp", tmp_path,
                  "--generator-checkpoint", stargan / "G.safetensors", "--discriminator-checkpoint", stargan / "D.safetensors")  # fmt: skip
    assert "config.json" in message


def test_no_internet_for_inception_says_which_file_to_put_where(monkeypatch, stargan, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rows = ["file,Smiling,Bangs,Young,Male,Pale"]
    for i in range(12):
        Image.new("RGB", (40, 40), (20 * i, 100, 50)).save(folder / f"{i}.png")
        rows.append(f"{i}.png,{i % 2},1,0,1,0")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    monkeypatch.setenv("MALP_DISC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: (_ for _ in ()).throw(OSError("no network")))
    message = run(monkeypatch, evaluate, "--data", "folder", "--data-root", folder, "--attributes", tmp_path / "table.csv", "--image-size", 32,
                  "--test-size", 4, "--before", stargan / "G.safetensors", "--output-dir", tmp_path / "run")  # fmt: skip
    assert "--fid-weights" in message and "cache" in message and "--extractor squeezenet" in message


@pytest.mark.parametrize("allocate", [lambda: torch.empty(2**50), lambda: np.empty(2**60, np.uint8), lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory."))])
def test_too_little_memory_for_a_training_names_the_flags_that_need_less(monkeypatch, allocate):
    monkeypatch.setattr(train_stargan, "main", lambda config: allocate())
    message = run(monkeypatch, train_stargan, "--train-batch-size", 9)
    assert message.startswith("error: too little memory for this run with --train-batch-size 9; give a smaller --train-batch-size and more --gradient-accumulation-steps")


def test_another_runtime_error_of_a_training_stays_a_defect(monkeypatch):
    monkeypatch.setattr(train_stargan, "main", lambda config: torch.zeros(2) @ torch.zeros(3))
    monkeypatch.setattr(sys, "argv", ["recipe"])
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        run_recipe(train_stargan.main, train_stargan.Config, train_stargan.__doc__)

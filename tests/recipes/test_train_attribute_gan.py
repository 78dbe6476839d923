"""Training StarGAN, AttGAN, STGAN and CycleGAN from scratch: whose weights a step moves, resuming, and files that the zoo loads."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn

from generators import create_generator
from malp_disc.data.faces import ProceduralFaces
from malp_disc.training.attribute_gan_step import AttributeGANStep
from malp_disc.training.batches import steps
from malp_disc.training.moving_average import moving_average
from recipes import train_attribute_gan
from tests.recipes.conftest import TINY
from tests.recipes.in_process import forget_accelerator
from tests.recipes.test_bad_input import run
from tests.tiny import Snapshot

CANCELLED = {"discriminator.fc_adv.1.layers.0.bias", "discriminator.fc_adv.2.bias"}
"""Weights that a Wasserstein critic's loss doesn't depend on: the bias of its value, which real and fake images share."""
SMALL = ["--conv-dim", 4, "--max-train-steps", 4, "--checkpointing-steps", 2, "--sample-steps", 2]
EDITOR = [*TINY, *SMALL, "--n-critic", 2, "--layers", 3]


def config(**changed) -> train_attribute_gan.Config:
    small = {"output_dir": Path("x"), "image_size": 16, "max_train_steps": 8, "train_batch_size": 2, "n_critic": 2, "conv_dim": 4, "layers": 2, "residual_blocks": 1}
    return train_attribute_gan.Config(**{**small, **changed})


@pytest.mark.parametrize("method", ["stargan", "attgan", "stgan"])
def test_the_discriminator_moves_in_every_step_and_the_generator_in_every_second(method):
    options = config(method=method)
    torch.manual_seed(0)
    generator, objective = train_attribute_gan.networks(options, attributes=5)
    optimizers = {name: torch.optim.Adam(network.parameters(), lr=1e-3) for name, network in (("G", generator), ("D", objective))}
    forget_accelerator()
    step = AttributeGANStep(generator, objective, moving_average(generator, 0.9, warmup=True), optimizers, options, Accelerator(cpu=True))
    for number, batches in steps(ProceduralFaces(16, image_size=16), config(max_train_steps=2), step.accelerator, start=0):
        before = Snapshot(generator), Snapshot(objective)
        terms = step(number, batches)
        assert before[1].names - before[1].moved() <= CANCELLED
        assert before[0].moved() == (before[0].names if number == 2 else set())
        assert ("G/reconstruction" in terms) == (number == 2) and {"D/adversarial", "D/classification", "D/penalty"} <= terms.keys()
    assert all(parameter.requires_grad and (parameter.grad is None or not parameter.grad.any()) for parameter in objective.parameters())


@pytest.fixture(scope="module")
def runs(launch, tmp_path_factory):
    """Folders of finished runs of four steps, by method."""
    folder = tmp_path_factory.mktemp("attribute-gan")
    for name in ("a", "b"):
        (folder / name).mkdir()
        for i in range(6):
            Image.effect_noise((32, 32), 60).convert("RGB").save(folder / name / f"{i}.png")
    domains = ["--data", "images", "--data-root", folder / "a", "--reference-root", folder / "b", "--test-size", 2, "--image-size", 28, "--random-crop", 24]
    flags = {"attgan": EDITOR, "stgan": EDITOR, "cyclegan": [*domains, *SMALL, "--residual-blocks", 1, "--train-batch-size", 2, "--pool-size", 3, "--log-steps", 1]}
    for method, arguments in flags.items():
        launch("train_attribute_gan.py", "--method", method, *arguments, "--output-dir", folder / method)
    return folder, flags


@pytest.mark.parametrize("method", ["attgan", "stgan", "cyclegan"])
def test_four_steps_are_two_and_two_by_bytes(launch, runs, tmp_path, method):
    folder, flags = runs
    shutil.copytree(folder / method / "checkpoint-2", tmp_path / "checkpoint-2")
    shutil.copy(folder / method / "curves.jsonl", tmp_path / "curves.jsonl")
    launch("train_attribute_gan.py", "--method", method, *flags[method], "--output-dir", tmp_path, "--resume-from-checkpoint", "latest")
    files = sorted(path.name for path in (folder / method / "checkpoint-4").glob("*.safetensors"))
    assert len(files) >= 3 and ("pools.safetensors" in files) == (method == "cyclegan")
    for name in (*(f"checkpoint-4/{file}" for file in files), "curves.jsonl", "samples.png"):
        assert (tmp_path / name).read_bytes() == (folder / method / name).read_bytes(), name


@pytest.mark.parametrize(("method", "file"), [("attgan", "G"), ("stgan", "G"), ("cyclegan", "G_A"), ("cyclegan", "G_B")])
def test_the_zoo_loads_the_result_and_it_edits(runs, method, file):
    generator = create_generator(method, runs[0] / method / f"{file}.safetensors").eval()
    images, target = torch.rand(2, 3, 16, 16) * 2 - 1, torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0, 1.0]])
    with torch.no_grad():
        edited = generator.manipulate(images, target)
    assert edited.shape == images.shape and edited.abs().max() <= 1 and not torch.equal(edited, images)


def test_a_short_training_outweighs_the_weights_it_starts_from():
    """With a decay of 0.999 throughout, nine tenths of the average would be the first weights."""
    network = nn.Linear(1, 1)
    average = moving_average(network, 0.999, warmup=True)
    with torch.no_grad():
        for value in (0.0, *[1.0] * 99):
            network.weight.fill_(value)
            average.update_parameters(network)
        assert average.module.weight.item() > 0.99
        for _ in range(20_000):
            average.update_parameters(network)
        network.weight.fill_(2.0)
        average.update_parameters(network)
    assert average.module.weight.item() == pytest.approx(1.001, abs=1e-4)


def test_the_moving_average_is_saved_not_the_last_weights(runs):
    saved = create_generator("attgan", runs[0] / "attgan" / "G.safetensors")
    last = create_generator("attgan", runs[0] / "attgan" / "checkpoint-4" / "G_raw.safetensors")
    assert not all(torch.equal(x, y) for x, y in zip(saved.parameters(), last.parameters()))


def test_the_papers_settings_are_the_defaults():
    weights = {name: train_attribute_gan.networks(config(method=name), attributes=5)[1].weights for name in ("stargan", "attgan", "stgan")}
    assert [(w.rec, w.cls, w.gp) for w in weights.values()] == [(10, 1, 10), (100, 10, 10), (100, 10, 10)]
    assert [config(method=name, n_critic=None).critic_updates for name in ("stargan", "attgan", "stgan", "cyclegan")] == [5, 5, 5, 1]
    assert [config(method=name).rates for name in ("stargan", "attgan")] == [(1e-4, 1e-4), (2e-4, 2e-4)]


def test_cyclegan_starts_from_small_weights():
    layer = nn.Conv2d(64, 64, 3)
    train_attribute_gan.small_weights(layer)
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05) and not layer.bias.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "cyclegan", "--data", "images", "--data-root", "x"], "--reference-root"),
        (["--method", "cyclegan", "--reference-root", "x", "--random-crop", 16], "at least 24 pixels"),
        (["--method", "attgan", "--reference-root", "x"], "no effect with --method attgan"),
        (["--method", "attgan", "--layers", 6, "--image-size", 32], "divisible by 64"),
        (["--method", "stgan", "--conv-dim", 2], "--conv-dim of at least 4"),
        (["--method", "attgan", "--random-crop", 16], "--random-crop has no place"),
        (["--method", "stgan", "--pool-size", 5], "--pool-size has no effect"),
        (["--method", "stargan", "--n-critic", 0], "--n-critic of at least 1"),
        (["--method", "stargan", "--residual-blocks", -1], "--residual-blocks of at least 1, got -1"),
        (["--method", "cyclegan", "--reference-root", "x", "--residual-blocks", 0], "--residual-blocks of at least 1, got 0"),
        (["--method", "stgan", "--shortcut-layers", -1], "--shortcut-layers of at least 0, got -1"),
        (["--method", "attgan", "--discriminator-conv-dim", 0], "--discriminator-conv-dim of at least 1, got 0"),
        (["--method", "attgan", "--ema-decay", 1.0], "--ema-decay in"),
        (["--method", "attgan", "--learning-rate", 0.0], "learning rates above 0"),
    ],
)
def test_flags_that_contradict_each_other_are_refused_before_any_work(monkeypatch, tmp_path, arguments, message):
    assert message in run(monkeypatch, train_attribute_gan, "--output-dir", tmp_path / "run", *arguments)
    assert not (tmp_path / "run").exists()

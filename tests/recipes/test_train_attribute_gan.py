"""Training StarGAN, AttGAN, STGAN and CycleGAN from scratch: whose weights a step moves, resuming, and files that the zoo loads."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn

from generators import create_generator
from generators.cyclegan_losses import CycleGANObjective, CycleGenerators, ImagePool
from malp_disc.data.faces import ProceduralFaces
from malp_disc.data.sampling import StepRandom
from malp_disc.training.attribute_gan_step import AttributeGANStep
from malp_disc.training.batches import Batch, steps
from malp_disc.training.cyclegan_step import CycleGANStep
from malp_disc.training.moving_average import moving_average
from recipes import train_attribute_gan
from tests.recipes.conftest import TINY
from tests.recipes.engine import ToyGenerator, ToyLosses
from tests.recipes.in_process import forget_accelerator
from tests.recipes.test_bad_input import run
from tests.tiny import Snapshot, sample_images

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


def batch_of(count: int, *, number: int = 0, of: int = 1) -> Batch:
    """Images of two domains; micro-batch `number` of so many."""
    part = slice(number * count, (number + 1) * count)
    images, reference = (sample_images(of * count, 8, 8, seed=seed)[part] for seed in (0, 1))
    labels, target = (torch.rand(of * count, 5, generator=torch.Generator().manual_seed(seed)).round()[part] for seed in (2, 3))
    return Batch(images, labels, target, reference, StepRandom(0, 0, batch_size=count, number=number, accumulation=of))


def descended(network: nn.Module, loss: torch.Tensor, rate: float) -> None:
    """One step of gradient descent by hand."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True)):
        parameter.data -= 0 if gradient is None else rate * gradient


def tiny_cyclegan() -> tuple[CycleGenerators, CycleGANObjective]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CycleGenerators(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)), CycleGANObjective(nn.Conv2d(3, 1, 1), nn.Conv2d(3, 1, 1))


def cyclegan_step(options, *, pool_size: int = 0) -> CycleGANStep:
    networks = tiny_cyclegan()
    optimizers = {name: torch.optim.SGD(network.parameters(), lr=1.0) for name, network in zip("GD", networks)}
    pools = nn.ModuleDict({name: ImagePool(8, size=pool_size) for name in "ab"})
    forget_accelerator()
    return CycleGANStep(*networks, pools, moving_average(networks[0], 0.9, warmup=True), optimizers, options, Accelerator(cpu=True))


@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_of_cyclegan_descends_on_the_generators_loss_and_then_on_that_of_the_discriminators_of_what_they_had_made(parts):
    """At half of the rates, since three quarters of the steps are over; with several micro-batches as with one."""
    step = cyclegan_step(config(method="cyclegan", n_critic=None, learning_rate=0.1, discriminator_learning_rate=0.4))
    terms = step(7, [batch_of(4 // parts, number=number, of=parts) for number in range(parts)])
    (generators, objective), batch = tiny_cyclegan(), batch_of(4)
    images = generators(batch.images, batch.reference)
    expected = objective.generator_loss(images, batch.images, batch.reference)
    descended(generators, sum(expected.values()), 0.05)
    losses_of_d = objective(batch.images, images.fake_a.detach(), batch.reference, images.fake_b.detach())
    descended(objective, sum(losses_of_d.values()), 0.2)
    for network, by_hand in ((step.generators, generators), (step.objective, objective), (step.average.module, generators)):
        torch.testing.assert_close(dict(network.state_dict()), dict(by_hand.state_dict()))
    wanted = {f"G/{name}": value for name, value in expected.items()} | {f"D/{name}": value for name, value in losses_of_d.items()}
    torch.testing.assert_close(terms, {name: value.detach() for name, value in wanted.items()})
    assert all(parameter.grad is None for network in (step.generators, step.objective) for parameter in network.parameters())


def test_each_discriminator_of_cyclegan_sees_its_own_domains_images_after_its_own_pool():
    step, seen = cyclegan_step(config(method="cyclegan", n_critic=None), pool_size=2), []
    batch = batch_of(2)
    images = step.generators(batch.images, batch.reference)
    step.objective.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    step(1, [batch])
    assert torch.equal(step.pools["a"].images, images.fake_a) and torch.equal(step.pools["b"].images, images.fake_b)
    step.exchange = lambda domain, fakes, _: torch.full_like(fakes, {"a": 0.25, "b": 0.75}[domain])
    step(2, [batch])
    a, fake_a, b, fake_b = seen[-1]
    assert torch.equal(a, batch.images) and torch.equal(b, batch.reference) and (fake_a == 0.25).all() and (fake_b == 0.75).all()


@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_of_an_attribute_editor_descends_on_the_discriminators_loss_and_then_on_the_generators(parts):
    torch.manual_seed(0)
    generator, losses = ToyGenerator(), ToyLosses()
    by_hand = copy.deepcopy((generator, losses))
    optimizers = {name: torch.optim.SGD(network.parameters(), lr=1.0) for name, network in (("G", generator), ("D", losses))}
    forget_accelerator()
    options = config(n_critic=2, learning_rate=0.1, discriminator_learning_rate=0.4)
    step = AttributeGANStep(generator, losses, moving_average(generator, 0.9, warmup=True), optimizers, options, Accelerator(cpu=True))
    batches = [batch_of(4 // parts, number=number, of=parts) for number in range(parts)]
    for batch in batches:
        batch.noise.uniform()  # so that the whole batch draws the same numbers
    step(6, batches)
    (generator, losses), batch = by_hand, batch_of(4)
    batch.noise.uniform()
    with torch.no_grad():
        fake = generator.manipulate(batch.images, batch.target)
    descended(losses, sum(losses(fake, batch).values()), 0.3)
    fake = generator.manipulate(batch.images, batch.target)
    descended(generator, sum(losses.generator_loss(fake, batch, generator.manipulate).values()), 0.075)
    for network, expected in ((step.generator, generator), (step.objective, losses), (step.average.module, generator)):
        torch.testing.assert_close(dict(network.state_dict()), dict(expected.state_dict()))
    assert all(parameter.requires_grad and parameter.grad is None for parameter in step.objective.parameters())


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

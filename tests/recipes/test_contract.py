"""Every recipe looks a foreign generator and its losses over before it begins, and takes what can be taken."""

from __future__ import annotations

import threading

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn

import generators
from malp_disc import MaLP, MaLPConfig
from malp_disc.data.faces import ProceduralFaces
from malp_disc.training.finetune import ArmSetup, FineTuning
from malp_disc.training.generator_contract import check_contract
from recipes import finetune, finetune_stargan, pretrain_malp
from recipes.research import ablate_malp
from tests.recipes.engine import Config, ToyGenerator, ToyLosses
from tests.recipes.test_bad_input import run

MODULE = """
import torch
from torch import nn

class Painter(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 3, 3, padding=1))
    def manipulate(self, images, target):
        return (images + 0.3 * self.net(images)).clamp(-1, 1)

class Rounded(Painter):
    def manipulate(self, images, target):
        return (super().manipulate(images, target) * 127.5).round() / 127.5

class InUnitRange(Painter):
    def manipulate(self, images, target):
        return super().manipulate(images, target) / 2 + 0.5

class WithStream(Painter):
    def __init__(self):
        super().__init__()
        self.numbers = iter(i for i in range(9))

class Losses(nn.Module):
    def generator_loss(self, fake, batch, edit):
        return {"content": (fake.detach() - batch.images).abs().mean()}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contract")
    (folder / "photos").mkdir()
    for i in range(12):
        Image.effect_noise((36, 36), 90 + i).convert("RGB").save(folder / "photos" / f"{i}.png")
    (folder / "foreign_painters.py").write_text(MODULE)
    return folder


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["Rounded"], ["foreign_painters:Rounded: no gradient reaches its weights", "all 4 gradients are zero", "rounded to 8 bits"]),
        (["InUnitRange"], ["that looks like [0, 1]"]),
        (["WithStream"], ["its attribute numbers is a generator"]),
        (["Painter", "Losses"], ["foreign_painters:Losses: the terms of generator_loss have no gradient"]),
    ],
)
def test_finetune_refuses_before_any_work(monkeypatch, folder, tmp_path, dry, names, words):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("malp_disc.commands.finetune.run_arms", lambda *_, **__: pytest.fail("it went to work"))
    flags = [flag for pair in zip(("--generator", "--losses"), (f"foreign_painters:{name}" for name in names)) for flag in pair]
    message = run(monkeypatch, finetune, *flags, "--data", "images", "--data-root", folder / "photos", "--image-size", 32, "--train-batch-size", 2,
                  "--test-size", 4, "--output-dir", tmp_path / "run", *dry)  # fmt: skip
    assert all(word in message for word in words), message


@pytest.mark.parametrize("recipe", [finetune_stargan, pretrain_malp, ablate_malp])
def test_the_recipes_of_stargan_look_it_over_too(monkeypatch, tmp_path, recipe):
    def broken(*arguments, **config):
        network = create(*arguments, **config)
        with torch.no_grad():
            next(network.parameters()).fill_(torch.nan)
        return network

    create = generators.create_generator
    monkeypatch.setattr(generators, "create_generator", broken)
    message = run(monkeypatch, recipe, "--train-size", 16, "--test-size", 4, "--output-dir", tmp_path)
    assert "the shipped generator: its images hold NaN or infinity" in message


def test_a_tuned_generator_that_diverged_is_measured_all_the_same():
    network = ToyGenerator()
    with torch.no_grad():
        network.last.weight.fill_(torch.nan)
    faces, told = ProceduralFaces(4, image_size=16), []
    check_contract(network, faces, "cpu", source="tuned", tolerated=("edit", "range"), tell=told.append)
    assert len(told) == 1 and "NaN" in told[0]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_old_norms_and_locks_are_fine_tuned_after_a_forward_pass(tmp_path):
    torch.manual_seed(0)
    generator, own = ToyGenerator(), ToyLosses()
    generator.last, generator.lock = torch.nn.utils.weight_norm(generator.last), threading.Lock()
    own.discriminator[0] = torch.nn.utils.spectral_norm(own.discriminator[0])
    generator.manipulate(torch.zeros(1, 3, 16, 16), torch.zeros(1, 5)), own.discriminator(torch.zeros(1, 3, 16, 16))
    config = Config(output_dir=tmp_path, max_train_steps=1, train_batch_size=2, mixed_precision="no", eval_steps=0)
    malp = MaLP(MaLPConfig(image_size=16, width=8, branch=None))
    tuned = FineTuning("frozen", ArmSetup(malp, weight=0.2), generator, own, ProceduralFaces(8, image_size=16), config, Accelerator(cpu=True)).run()
    assert not torch.equal(tuned.last.weight_v, generator.last.weight_v) and all(p.grad is None for p in generator.parameters())


def test_losses_that_write_into_the_batch_change_nothing(tmp_path):
    """Trained with and without the writing, the generator is the same."""

    class Writing(nn.Module):
        def generator_loss(self, fake, batch, edit):
            terms = {"content": (fake - batch.images).abs().mean()}
            if self.write:
                fake.detach().zero_(), batch.images.fill_(9), batch.shown.fill_(9), batch.target.zero_()
            return terms

    tuned = []
    for write in (False, True):
        torch.manual_seed(0)
        generator, own = ToyGenerator(), Writing()
        own.write = write
        config = Config(output_dir=tmp_path / str(write), max_train_steps=2, train_batch_size=2, mixed_precision="no", eval_steps=0, keep_weight=1.0)
        tuned.append(FineTuning("control", ArmSetup(), generator, own, ProceduralFaces(8, image_size=16), config, Accelerator(cpu=True)).run())
    assert all(torch.equal(a, b) for a, b in zip(*(network.state_dict().values() for network in tuned)))


@pytest.mark.parametrize(("asked", "watched"), [("map_weight", True), ("classifier_weight", False)])
def test_a_faint_map_is_warned_of_only_where_the_generator_is_asked_for_it(tmp_path, monkeypatch, asked, watched):
    torch.manual_seed(0)
    malp, seen = MaLP(MaLPConfig(image_size=16, width=8, branch=None)), []
    setup = ArmSetup(malp, trainable=True, weight=0.1, template_dropout=1.0, **{"map_weight": 0.0, asked: 1.0})
    config = Config(output_dir=tmp_path, max_train_steps=1, train_batch_size=2, mixed_precision="no", eval_steps=0, log_steps=1)
    training = FineTuning("cotrain", setup, ToyGenerator(), ToyLosses(), ProceduralFaces(8, image_size=16), config, Accelerator(cpu=True))
    monkeypatch.setattr(training.monitor, "check", lambda step, values: seen.append(values) or [])
    training.run()
    assert len(seen) == 1 and ("map" in seen[0]) == watched and {"edit_strength", "map_peak"} <= set(seen[0])

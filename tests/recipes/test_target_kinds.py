"""A generator that takes the change of the labels is given desired − current wherever a command calls it; any other is given the desired labels as they are."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from malp_disc.data.faces import ProceduralFaces
from malp_disc.generator_objective import call_generator_loss
from malp_disc.manipulate import Editor
from malp_disc.training.attribute_gan_step import AttributeGANStep
from malp_disc.training.batches import steps
from malp_disc.training.finetune_step import FinetuneStep, Networks
from malp_disc.training.generator_contract import check_contract, check_objective
from malp_disc.training.guards import FiniteSteps
from malp_disc.training.moving_average import moving_average
from malp_disc.training.options import FinetuneOptions, make_optimizer
from malp_disc.training.preflight import check_forward_pass, freeze_unused
from recipes import train_attribute_gan
from tests.recipes.in_process import ROOT, forget_accelerator
from tests.recipes.noting import GIVEN, Cycle, Noting, NotingChange, check, fresh
from tests.recipes.test_pretrain_step import make_step as pretrain_step
from tests.recipes.test_train_localizer import make_step as localizer_step


@pytest.fixture(params=[Noting, NotingChange], ids=["labels", "change"])
def generator(request) -> nn.Module:
    return fresh(request.param)


@pytest.mark.parametrize("attribute", [None, "Smiling"])
def test_pretraining(tmp_path, generator, attribute):
    step, (batch,) = pretrain_step(tmp_path, malp_attribute=attribute)
    step.generator = generator
    step.losses(batch)
    check(generator, (with_smiling_flipped(batch.labels) if attribute else batch.target, batch.labels))


@pytest.mark.parametrize("attribute", [None, "Smiling"])
def test_training_of_a_localizer(tmp_path, generator, attribute):
    step, (batch,) = localizer_step(tmp_path, edit_attribute=attribute)
    step.generator = generator
    step.losses(batch)
    wanted = with_smiling_flipped(batch.labels) if attribute else batch.target
    check(generator, (wanted, batch.labels))
    GIVEN.clear()
    rows = torch.tensor([3, 1, 0])
    step.edit(batch.images[rows], batch, rows)
    check(generator, (wanted[rows], batch.labels[rows]))


def with_smiling_flipped(labels: Tensor) -> Tensor:
    wanted = labels.clone()
    wanted[:, 3] = 1 - wanted[:, 3]
    return wanted


def finetune_step(generator: nn.Module, folder) -> tuple[FinetuneStep, list]:
    config = FinetuneOptions(
        output_dir=folder, train_batch_size=4, gradient_accumulation_steps=1, max_train_steps=3, mixed_precision="no", keep_weight=1.0
    )
    networks = Networks(Editor(generator), copy.deepcopy(generator).requires_grad_(False), Cycle(), None)
    optimizers = {name: make_optimizer(name, network, config) for name, network in networks.trained.items()}
    accelerator = Accelerator(cpu=True)
    step = FinetuneStep(networks, optimizers, config, accelerator, guard=FiniteSteps(0))
    _, batches = next(steps(ProceduralFaces(16, image_size=16), config, accelerator, start=0))
    return step, step.present(batches)


def test_fine_tuning_with_the_generator_before_and_a_cycle(tmp_path, generator):
    step, (batch,) = finetune_step(generator, tmp_path)
    edited, back = (batch.target, batch.labels), (batch.labels, batch.target)
    fakes = step.generate([batch], keep_graph=False)
    check(generator, edited)
    GIVEN.clear()
    step.update_generator(1, [batch], fakes, malp_weight=0.0)
    check(generator, edited, back, edited)  # G again, for the gradient; the cycle; the generator before


def test_checks_before_a_fine_tuning(tmp_path, generator):
    faces, config = ProceduralFaces(16, image_size=16), FinetuneOptions(output_dir=tmp_path, mixed_precision="no")
    labels = torch.stack([faces[0][1], faces[1][1]])
    edited, back = (labels.flip(0), labels), (labels, labels.flip(0))
    check_forward_pass(generator, Cycle(), [], faces, config, torch.device("cpu"))
    check(generator, edited, back)
    GIVEN.clear()
    freeze_unused(Editor(generator), Cycle(), None, faces, config, Accelerator(cpu=True))
    check(generator, edited, edited, back)


def test_checks_of_every_command(generator):
    faces = ProceduralFaces(16, image_size=16)
    labels = torch.stack([faces[i][1] for i in range(4)])
    check_contract(generator, faces, "cpu", source="mine", training=True)
    desired = labels.roll(1, 0)
    expected = desired - labels if isinstance(generator, NotingChange) else desired
    assert GIVEN and all(torch.equal(given, expected[: len(given)]) for given in GIVEN)
    GIVEN.clear()
    check_objective(Cycle(), generator, faces, "cpu", source="mine")
    check(generator, (labels, desired))


def test_losses_that_leave_out_the_current_labels_are_refused_for_a_change_alone(generator):
    class Forgetful(nn.Module):
        def generator_loss(self, fake, batch, edit):
            return {"cycle": edit(fake, batch.labels).abs().mean()}

    if isinstance(generator, NotingChange):
        with pytest.raises(
            ValueError,
            match=r"mine: generator_loss failed: ValueError: .*pass the current ones.*edit\(fake, batch.labels, batch.target\).*line \d+",
        ):
            check_objective(Forgetful(), generator, ProceduralFaces(16, image_size=16), "cpu", source="mine")
    else:
        check_objective(Forgetful(), generator, ProceduralFaces(16, image_size=16), "cpu", source="mine")


@pytest.mark.parametrize("method", ["stargan", "attgan", "stgan"])
def test_training_of_an_attribute_editor(monkeypatch, method):
    """STGAN's reconstruction asks for no change; StarGAN goes back from the edit, and AttGAN asks for the image's own labels."""
    options = train_attribute_gan.Config(
        output_dir=ROOT,
        method=method,
        image_size=16,
        max_train_steps=2,
        train_batch_size=4,
        n_critic=1,
        conv_dim=4,
        layers=2,
        residual_blocks=1,
    )
    torch.manual_seed(0)
    generator, objective = train_attribute_gan.networks(options, attributes=5)
    optimizers = {name: torch.optim.Adam(network.parameters(), lr=1e-3) for name, network in (("G", generator), ("D", objective))}
    GIVEN.clear()
    forward = type(generator).manipulate
    monkeypatch.setattr(
        type(generator), "manipulate", lambda self, images, target: GIVEN.append(target.clone()) or forward(self, images, target)
    )
    forget_accelerator()
    step = AttributeGANStep(generator, objective, moving_average(generator, 0.9, warmup=True), optimizers, options, Accelerator(cpu=True))
    _, (batch,) = next(steps(ProceduralFaces(16, image_size=16), options, step.accelerator, start=0))
    step(1, [batch])
    edited = batch.target - batch.labels if method == "stgan" else batch.target
    again = torch.zeros_like(batch.labels) if method == "stgan" else batch.labels
    assert [given.tolist() for given in GIVEN] == [edited.tolist(), edited.tolist(), again.tolist()]


def test_cycle_is_called_with_the_labels_of_the_edit(generator):
    batch = SimpleNamespace(images=torch.zeros(2, 3, 16, 16), labels=torch.eye(5)[:2], target=torch.eye(5)[[1, 2]])
    call_generator_loss(Cycle(), batch.images, batch, Editor(generator))
    check(generator, (batch.labels, batch.target))

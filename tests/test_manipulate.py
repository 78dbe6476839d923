"""A generator's and its losses' code gets copies: nothing it does to them reaches our tensors, and what it returns is its own."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from malp_disc.data.faces import ProceduralFaces
from malp_disc.evaluation.eval_set import EvalSet, edit
from malp_disc.evaluation.localize import malp_gallery, score_unprotected, through_generator
from malp_disc.generator_objective import call_discriminator_loss, call_generator_loss
from malp_disc.manipulate import Editor, ResultError, run_manipulate
from tests.tiny import sample_images, tiny_malp


def in_place(images, target):
    target.zero_()
    return images.mul_(0.5).add_(0.5)


def targets(count: int):
    return torch.ones(count, 2)


@pytest.mark.parametrize("manipulate", [in_place, lambda images, target: images, lambda images, target: images[:]])
def test_nothing_of_ours_is_written_to_or_handed_out(manipulate):
    images, target = sample_images(2), targets(2)
    kept = images.clone()
    result = run_manipulate(manipulate, images, target)
    result.zero_()
    assert torch.equal(images, kept) and torch.equal(target, targets(2))


def test_a_buffer_that_the_generator_uses_again_is_copied():
    buffer = torch.zeros(1, 3, 8, 8)
    first = run_manipulate(lambda images, target: buffer.copy_(images), torch.ones(1, 3, 8, 8), None)
    run_manipulate(lambda images, target: buffer.copy_(images), -torch.ones(1, 3, 8, 8), None)
    assert (first == 1).all()


def test_gradients_pass_an_edit_in_place_to_images_and_weights():
    weight, images = torch.tensor(2.0, requires_grad=True), sample_images(1).requires_grad_(True)
    run_manipulate(lambda x, target: x.mul_(weight), images, None).sum().backward()
    assert (images.grad == 2).all() and weight.grad == pytest.approx(images.sum().item(), rel=1e-5)


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad])
def test_results_made_without_gradients_can_be_computed_with(context):
    def manipulate(images, target):
        with context():
            return images * 0.5

    weight = torch.ones((), requires_grad=True)
    (weight * run_manipulate(manipulate, sample_images(1), None)).sum().backward()
    assert weight.grad is not None


def test_half_precision_is_measured_in_float32_and_the_gradient_mode_is_restored():
    def manipulate(images, target):
        torch.set_grad_enabled(False)
        return images.half()

    assert run_manipulate(manipulate, sample_images(1), None).dtype == torch.float32 and torch.is_grad_enabled()


def test_every_measurement_leaves_the_inputs_as_they_are():
    images, labels = sample_images(3), targets(3)
    inputs = EvalSet(images.clone(), labels, labels.clone(), torch.zeros(3, dtype=torch.long), ("a", "b"))
    malp = tiny_malp().eval()
    edit(in_place, inputs.images, inputs.targets, current=inputs.labels)
    through_generator(in_place, inputs, malp)
    score_unprotected(in_place, inputs, malp)
    assert len(malp_gallery(in_place, inputs, malp, count=30)["real"]) == len(inputs.images), "there are no more"
    shown = malp_gallery(in_place, inputs, malp, count=3)
    assert torch.equal(inputs.images, images) and torch.equal(inputs.targets, labels)
    assert torch.equal(shown["real"], images) and not torch.equal(shown["encrypted"], shown["manipulated"])


def test_the_training_loop_edits_copies():
    generator = nn.Conv2d(3, 3, 1)
    generator.manipulate = lambda images, target: generator(images.mul_(0.5))
    images = sample_images(2)
    Editor(generator)(images, targets(2)).sum().backward()
    assert torch.equal(images, sample_images(2)) and generator.weight.grad is not None


@dataclass
class Output:
    sample: torch.Tensor
    loss: float = 0.0


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda x: (x, x[:, :1]), ["a tuple (a tensor (2, 3, 32, 32) of float32, a tensor", "`return result[0]`"]),
        (lambda x: [x], ["a list", "`return result[0]`"]),
        (lambda x: {"image": x, "mask": x[:, :1]}, ["a dict with image, mask", "`return result['image']`"]),
        (lambda x: Output(x), ["an Output with sample, loss", "`return result.sample`"]),
        (lambda x: None, ["None", "is a `return` missing"]),
        (lambda x: x.numpy(), ["ndarray", "gradients end"]),
        (lambda x: [np.zeros(3)], ["a list", "gradients end"]),
        (lambda x: x[0], ["(3, 32, 32) out", "squeeze"]),
        (lambda x: x[:1], ["(1, 3, 32, 32) out", "as many images"]),
        (lambda x: x[:, :1], ["(2, 1, 32, 32) out", "expand"]),
        (lambda x: torch.cat([x, x[:, :1]], 1), ["(2, 4, 32, 32) out", "alpha"]),
        (lambda x: x[..., ::2, ::2], ["(2, 3, 16, 16) out", "resize"]),
        (lambda x: x.permute(0, 2, 3, 1), ["(2, 32, 32, 3) out", "permute(0, 3, 1, 2)"]),
        (lambda x: (127 * x).byte(), ["uint8", "rounding"]),
        (lambda x: x.to("meta"), ["cpu", "meta", "images.device"]),
    ],
)
def test_other_results_are_told_with_what_to_return(result, words):
    with pytest.raises(ResultError) as raised:
        run_manipulate(lambda images, target: result(images), sample_images(2), None)
    assert all(word in str(raised.value) for word in words), raised.value


class InPlaceLosses(nn.Module):
    """Augments in place, as a loss written for a loop of its own may."""

    def __init__(self, result=None) -> None:
        super().__init__()
        self.weight, self.result = nn.Parameter(torch.ones(())), result

    def generator_loss(self, fake, batch, edit):
        fake.mul_(2)
        return {"own": fake.mean()} if self.result is None else self.result(fake)

    def forward(self, fake, batch):
        assert not fake.requires_grad
        batch.images.zero_(), batch.target.zero_(), batch.labels.fill_(7), fake.zero_(), batch.shown.zero_()
        return {"own": self.weight * batch.images.mean()}


def batch_of(images):
    return SimpleNamespace(images=images, labels=targets(2), target=targets(2), reference=None, noise=ProceduralFaces, shown=images)


def test_losses_write_into_copies_that_keep_gradients():
    images, fake = sample_images(2), sample_images(2, seed=1).requires_grad_(True)
    batch = batch_of(images)
    call_discriminator_loss(InPlaceLosses(), fake, batch)
    loss = call_generator_loss(InPlaceLosses(), fake, batch, None)["own"]
    assert torch.equal(images, sample_images(2)) and (batch.target == 1).all() and (batch.labels == 1).all()
    assert torch.equal(fake, sample_images(2, seed=1)) and loss.item() == pytest.approx(2 * fake.mean().item(), rel=1e-4)
    loss.backward()
    assert (fake.grad > 0).all()


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda fake: fake.mean(), ["InPlaceLosses.generator_loss returns a tensor ()", "{'adversarial': loss}"]),
        (lambda fake: {}, ["an empty dict"]),
        (lambda fake: {"own": fake.mean().item()}, ["a float as 'own'", "item()"]),
        (lambda fake: {"own": fake}, ["a tensor (2, 3, 32, 32) of float32 as 'own'", ".mean()"]),
        (lambda fake: {"keep": fake.mean()}, ["'keep'", "another name"]),
    ],
)
def test_losses_that_return_something_else_are_told(result, words):
    with pytest.raises(ValueError) as raised:
        call_generator_loss(InPlaceLosses(result), sample_images(2).requires_grad_(True), batch_of(sample_images(2)), None)
    assert all(word in str(raised.value) for word in words), raised.value

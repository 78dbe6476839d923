"""torch.compile of MaLP: the same losses and gradients, and a sentence where a second derivative is needed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from generators.attgan_losses import AttGANObjective, AttGANWeights
from generators.stargan_losses import StarGANObjective, StarGANWeights, gradient_penalty
from malp_disc import MaLPDiscriminator
from malp_disc.runtime.second_derivative import differentiable_gradient
from tests.tiny import sample_images, tiny_malp, with_rectangles

BACKEND = "aot_eager"  # dynamo and aot_autograd as for every backend, without generated code; their first use takes seconds


def losses(compiled: bool, **options: float) -> list[torch.Tensor]:
    """Generator's loss, discriminator's loss, and the gradient of the first to the images."""
    disc = MaLPDiscriminator(tiny_malp(), trainable=True, **options)
    if compiled:
        disc.malp.cnn.compile(backend=BACKEND)
    images = sample_images(2)
    encrypted, index = disc.encrypt(images)
    fake = with_rectangles(encrypted).requires_grad_()
    generator = disc.generator_loss(fake, index).total
    generator.backward()
    total = disc.discriminator_loss(images, encrypted, fake.detach(), index).total
    total.backward()
    return [generator.detach(), total.detach(), fake.grad, disc.malp.cnn.map_head.weight.grad]


@pytest.mark.slow
def test_compiled_networks_give_the_same_losses_and_gradients():
    for own, other in zip(losses(compiled=True), losses(compiled=False)):
        torch.testing.assert_close(own, other)


@pytest.mark.slow
def test_r1_of_a_compiled_malp_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="R1 differentiates MaLP twice: set r1_weight=0; or leave the network uncompiled"):
        losses(compiled=True, r1_weight=0.1)


class D(nn.Module):
    """A discriminator with two logits an image."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(), nn.Conv2d(4, 2, 3))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.layers(images)
        return found, found.mean((2, 3))


def test_the_gradient_penalty_of_a_compiled_discriminator_is_refused_in_a_sentence():
    images, alpha = sample_images(2), torch.rand(2)
    assert gradient_penalty(D(), images, -images, alpha).requires_grad
    with pytest.raises(ValueError, match="WGAN-GP penalty differentiates D twice: set its weight gp to 0; or leave"):
        gradient_penalty(torch.compile(D(), backend=BACKEND), images, -images, alpha)


@pytest.mark.parametrize(("objective", "weights"), [(StarGANObjective, StarGANWeights(gp=0)), (AttGANObjective, AttGANWeights(gp=0))], ids=["StarGAN", "AttGAN"])
def test_a_compiled_discriminator_trains_without_the_penalty(objective, weights):
    images, labels = sample_images(2), torch.ones(2, 2)
    losses = objective(torch.compile(D(), backend=BACKEND), weights)
    terms = losses(-images, SimpleNamespace(images=images, labels=labels, noise=SimpleNamespace(uniform=lambda: torch.rand(2))))
    assert terms["penalty"] == 0
    sum(terms.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in losses.parameters())


def test_other_errors_of_autograd_stay_what_they_are():
    with pytest.raises(RuntimeError, match="does not require grad"):
        differentiable_gradient(torch.zeros(()), torch.zeros(1, requires_grad=True), "R1")

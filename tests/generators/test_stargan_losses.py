"""StarGAN's own losses by hand: WGAN-GP with attribute classification and reconstruction."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from generators.stargan_losses import StarGANCritic, StarGANObjective, StarGANWeights, attribute_loss, generator_losses, gradient_penalty
from tests.tiny import sample_images


class Plane(nn.Module):
    """D(x) = a · mean(x), with one logit b per attribute: its gradient is a / numel everywhere."""

    def __init__(self, a: float, b: float = 0.0) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(a)), nn.Parameter(torch.tensor(b))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (self.a * x.flatten(1).mean(1)).view(-1, 1, 1, 1), self.b.expand(len(x), 2)


def test_the_attribute_loss_sums_over_attributes_and_averages_over_images():
    """Logit 0 costs ln 2 each: 3 attributes, 3 ln 2, at any batch size."""
    for count in (1, 4):
        assert attribute_loss(torch.zeros(count, 3), torch.ones(count, 3)).item() == pytest.approx(3 * math.log(2))
    assert attribute_loss(torch.tensor([[30.0, -30.0]]), torch.tensor([[1, 0]])).item() == pytest.approx(0, abs=1e-6)


def test_the_gradient_penalty_in_closed_form():
    """‖∇D‖ = a / √n for n numbers an image: 0 where a = √n, 1 where a = 0, 4 where a = 3 √n."""
    real, fake, alpha = sample_images(2, 4, 4), sample_images(2, 4, 4, seed=1), torch.tensor([0.2, 0.9])
    root = math.sqrt(48)
    for a, expected in ((root, 0.0), (0.0, 1.0), (3 * root, 4.0)):
        assert gradient_penalty(Plane(a), real, fake, alpha).item() == pytest.approx(expected, abs=1e-4)


def test_the_gradient_penalty_looks_between_real_and_fake():
    """D(x) = ½‖x‖² has the gradient x̂ = α real + (1 - α) fake."""
    real, fake, alpha = sample_images(2, 4, 4), sample_images(2, 4, 4, seed=1), torch.tensor([0.25, 1.0])
    between = alpha.view(-1, 1, 1, 1) * real + (1 - alpha).view(-1, 1, 1, 1) * fake
    expected = (between.flatten(1).norm(dim=1) - 1).square().mean()
    penalty = gradient_penalty(lambda x: (0.5 * x.square().flatten(1).sum(1), None), real, fake, alpha)
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_critics_step_by_hand():
    """D(fake) - D(real), labels of the real half only, and the penalty; every parameter takes part."""
    real, fake, labels = sample_images(2, 4, 4), sample_images(2, 4, 4, seed=1), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    critic = StarGANCritic(Plane(2.0, 0.5), StarGANWeights(cls=3.0, gp=5.0))
    losses = critic(real, fake, labels, torch.tensor([0.5, 0.5]))
    penalty = (2 / math.sqrt(48) - 1) ** 2
    classification = (3 * math.log1p(math.exp(-0.5)) + math.log1p(math.exp(0.5))) / 2
    assert losses.adversarial.item() == pytest.approx(2 * (fake.mean() - real.mean()).item(), rel=1e-4)
    assert losses.classification.item() == pytest.approx(classification, rel=1e-5)
    assert losses.penalty.item() == pytest.approx(penalty, rel=1e-4)
    assert losses.total.item() == pytest.approx((losses.adversarial + 3 * classification + 5 * penalty).item(), rel=1e-4)
    losses.total.backward()
    assert all(parameter.grad.abs() > 0 for parameter in critic.parameters())


def test_the_generators_step_by_hand():
    """-D(fake), the target's labels, and the mean absolute difference of the way back."""
    real, target = sample_images(2, 4, 4), torch.zeros(2, 2)
    fake, reconstructed = sample_images(2, 4, 4, seed=1).requires_grad_(True), (real + 0.25).requires_grad_(True)
    losses = generator_losses(Plane(2.0), real, fake, reconstructed, target, StarGANWeights(cls=3.0, rec=7.0))
    assert losses.adversarial.item() == pytest.approx(-2 * fake.mean().item(), rel=1e-4)
    assert losses.reconstruction.item() == pytest.approx(0.25, rel=1e-5)
    assert losses.total.item() == pytest.approx((losses.adversarial + 3 * 2 * math.log(2) + 7 * 0.25).item(), rel=1e-4)
    losses.total.backward()
    assert fake.grad.any() and reconstructed.grad.any() and losses.penalty.item() == 0


@pytest.mark.parametrize("adv", [0.0, 0.25, 1.0])
def test_the_terms_of_the_objective_are_weighted_and_add_up_to_the_totals(adv):
    real, fake, alpha = sample_images(2, 4, 4), sample_images(2, 4, 4, seed=1), torch.tensor([0.5, 0.2])
    labels, target = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    batch = SimpleNamespace(images=real, labels=labels, target=target, noise=SimpleNamespace(uniform=lambda: alpha))
    discriminator, weights = Plane(2.0, 0.5), StarGANWeights(cls=3.0, rec=7.0, gp=5.0, adv=adv)
    objective, critic = StarGANObjective(discriminator, weights), StarGANCritic(discriminator, weights)
    own, total = objective(fake, batch), critic(real, fake, labels, alpha).total
    assert sum(own.values()).item() == pytest.approx(total.item(), rel=1e-5)
    edited = objective.generator_loss(fake, batch, lambda images, *_: images + 0.25)
    total = generator_losses(discriminator, real, fake, fake + 0.25, target, weights).total
    assert sum(edited.values()).item() == pytest.approx(total.item(), rel=1e-5)

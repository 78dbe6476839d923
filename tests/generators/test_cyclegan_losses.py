"""CycleGAN's losses by hand, and its pool of past images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from generators.cyclegan_losses import CycleGANObjective, CycleGANWeights, CycleGenerators, ImagePool
from tests.tiny import sample_images


class Times(nn.Module):
    """x ↦ a x, as a generator and, on means, as a discriminator."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, x: Tensor) -> Tensor:
        return self.a * x


A, B = torch.full((2, 3, 4, 4), 0.5), torch.full((2, 3, 4, 4), -0.2)


def test_the_generators_go_forth_and_back():
    images = CycleGenerators(Times(0.5), Times(3.0))(A, B)
    values = [part.unique().item() for part in images]
    assert values == pytest.approx([0.25, 0.75, -0.6, -0.3, -0.1, 1.5])  # fake_b, back_a, fake_a, back_b, same_b, same_a
    assert CycleGenerators(Times(0.5), Times(3.0), identity=False)(A, B)[4:] == (None, None)


def test_the_generators_loss_by_hand():
    """D_B = 2x, D_A = x. Adversarial: (2 · 0.25 - 1)² + (-0.6 - 1)²; cycle: |0.75 - 0.5| + |-0.3 + 0.2|; identity: |-0.1 + 0.2| + |1.5 - 0.5|."""
    generators, losses = CycleGenerators(Times(0.5), Times(3.0)), CycleGANObjective(Times(1.0), Times(2.0), CycleGANWeights(cycle=10.0, identity=5.0))
    terms = losses.generator_loss(generators(A, B), A, B)
    assert {name: value.item() for name, value in terms.items()} == pytest.approx({"adversarial": 0.25 + 2.56, "cycle": 3.5, "identity": 5.5}, rel=1e-5)
    sum(terms.values()).backward()
    assert all(parameter.grad is not None for parameter in generators.parameters())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in losses.parameters())


def test_the_discriminators_loss_by_hand():
    """½ (D(real) - 1)² + ½ D(fake)², each domain's images to its own discriminator."""
    losses = CycleGANObjective(Times(1.0), Times(2.0))
    terms = losses(A, torch.full_like(A, 0.1), B, torch.full_like(B, 0.3))
    assert {name: value.item() for name, value in terms.items()} == pytest.approx({"of_a": (0.25 + 0.01) / 2, "of_b": (1.96 + 0.36) / 2}, rel=1e-5)
    sum(terms.values()).backward()
    assert all(parameter.grad.abs() > 0 for parameter in losses.parameters())


def test_the_pool_first_fills_and_then_exchanges_half():
    pool, old, new = ImagePool(4, size=2), sample_images(2, 4, 4), sample_images(2, 4, 4, seed=1)
    assert torch.equal(pool.exchange(old, torch.zeros(2, 2)), old)
    out = pool.exchange(new, torch.tensor([[0.9, 0.0], [0.1, 0.99]]))  # the first passes, the second takes the second place
    assert torch.equal(out, torch.stack([new[0], old[1]]))
    assert torch.equal(pool.images, torch.stack([old[0], new[1]]))


def test_the_pool_is_part_of_a_checkpoint_and_may_be_empty():
    pool, fakes = ImagePool(4, size=3), sample_images(2, 4, 4)
    pool.exchange(fakes, torch.zeros(2, 2))
    other = ImagePool(4, size=3)
    other.load_state_dict(pool.state_dict())
    assert int(other.filled) == 2 and torch.equal(other.images[:2], fakes)
    assert torch.equal(ImagePool(4, size=0).exchange(fakes, torch.zeros(2, 2)), fakes)

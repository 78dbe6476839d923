"""Gradients of Eq. 7-9 against finite differences, and at the points where gradients tend to break."""

from __future__ import annotations

import pytest
import torch

from malp_disc.encryption import NO_TEMPLATE
from malp_disc.losses import (
    LossWeights,
    localization_loss_encrypted,
    localization_loss_manipulated,
    recovery_loss,
    template_loss,
)
from tests.reference_losses import rand, randn


def losses_of(maps: torch.Tensor, truth: torch.Tensor, recovered: torch.Tensor, templates: torch.Tensor) -> torch.Tensor:
    """All of Eq. 7-9 together."""
    index = torch.tensor([0, NO_TEMPLATE])
    return (
        template_loss(templates[:, 0], LossWeights())
        + localization_loss_encrypted(maps, truth, LossWeights())
        + localization_loss_manipulated(maps, truth, LossWeights())
        + recovery_loss(recovered, recovered, templates, index, LossWeights())
    )


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("truth", [0.0, 0.3])
def test_gradients_are_finite_and_moderate_at_zero_and_constant_inputs(value, truth):
    maps = torch.full((2, 1, 12, 12), value, requires_grad=True)
    recovered = torch.full((2, 1, 12, 12), value, requires_grad=True)
    templates = torch.full((2, 1, 12, 12), value, requires_grad=True)
    losses_of(maps, torch.full((2, 1, 12, 12), truth), recovered, templates).backward()
    for leaf in (maps, recovered, templates):
        assert leaf.grad.isfinite().all() and leaf.grad.abs().max() < 1e4  # a cosine without its epsilon gives 4e7


def test_gradients_agree_with_finite_differences():
    """The directional derivative (f(x + hv) - f(x - hv)) / 2h. The losses compute in float32, hence h = 1e-2 and 1 %."""
    leaves = [0.3 + 0.4 * rand(2, 1, 12, 13, seed=1), 0.1 + rand(2, 1, 12, 13, seed=2), randn(2, 1, 12, 13, seed=3), randn(2, 1, 12, 13, seed=4)]
    for which in (0, 2, 3):
        direction = randn(*leaves[which].shape, seed=9)
        direction = direction / direction.norm()
        x = leaves[which].clone().requires_grad_(True)
        arguments = [x if i == which else leaf for i, leaf in enumerate(leaves)]
        (gradient,) = torch.autograd.grad(losses_of(*arguments), x)
        ahead, behind = (losses_of(*[leaf + s * 1e-2 * direction if i == which else leaf for i, leaf in enumerate(leaves)]) for s in (1, -1))
        numeric = (ahead - behind).item() / 2e-2
        assert (gradient * direction).sum().item() == pytest.approx(numeric, rel=1e-2, abs=2e-4)

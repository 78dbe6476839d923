"""What `MaLPDiscriminator` minimises in its own update: Eq. 11 over several scales, or the second branch's part alone, and the gradient penalty R1."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from malp_disc.fakeness import average_pool, fakeness_map
from malp_disc.generator_terms import image_terms
from malp_disc.losses import LossWeights, MaLPLosses
from malp_disc.malp import MaLP

Degradation = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) in [-1, 1] -> images of the same shape and range."""


def losses_over_scales(
    malp: MaLP,
    encrypted: Tensor,
    fake: Tensor,
    images: Tensor,
    changed: Tensor,
    index: Tensor,
    *,
    scales: Sequence[int],
    weights: LossWeights,
    real: Tensor | None = None,
) -> MaLPLosses:
    """Eq. 11, the mean over the scales, with M_GT = fakeness_map(images, changed)."""
    found = []
    for scale in scales:
        truth = fakeness_map(average_pool(images, scale), average_pool(changed, scale))
        found.append(malp.losses(average_pool(encrypted, scale), average_pool(fake, scale), truth, index, weights, real=real))
    if len(found) == 1:
        return found[0]
    names = [field.name for field in dataclasses.fields(MaLPLosses)]
    return MaLPLosses(**{name: torch.stack([getattr(losses, name) for losses in found]).mean() for name in names})


def branch_losses(malp: MaLP, encrypted: Tensor, fake: Tensor, truth: Tensor, weights: LossWeights, real: Tensor | None = None) -> MaLPLosses:
    """The part of Eq. 11 that belongs to a pretrained second branch: J_L of its map, and its J_C."""
    localization, realness = malp.branch.losses(encrypted, fake, truth, weights, real)
    zero = torch.zeros_like(realness)
    return MaLPLosses(localization + realness, zero, localization, zero, zero, penalty=zero, realness=realness)


def squared_gradient_norm(malp: MaLP, real: Tensor, weights: Tensor, *, scales: Sequence[int]) -> Tensor:
    """E‖∇ₓ Σ_k w_k v_k(x)‖² of the generator's terms k in (map, classifier) on images that count as real; `weights` (2,). A scalar, for R1."""
    real = real.detach().requires_grad_(True)
    terms = torch.stack([image_terms(malp(average_pool(real, scale))) for scale in scales]).mean(0)  # (2, B)
    (gradient,) = torch.autograd.grad((weights[:, None] * terms).sum(), real, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def degraded_straight_through(images: Tensor, degradation: Degradation | None) -> Tensor:
    """The degraded images, with the gradient of the identity (a straight-through estimator)."""
    return images if degradation is None else images + (degradation(images.detach()) - images).detach()

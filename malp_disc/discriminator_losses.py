"""What `MaLPDiscriminator` minimises in its own update: the second branch's part of Eq. 11, and the gradient penalty R1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from malp_disc.generator_terms import image_terms
from malp_disc.losses import LossWeights, MaLPLosses
from malp_disc.malp import MaLP
from malp_disc.runtime.second_derivative import differentiable_gradient

Degradation = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) in [-1, 1] -> images of the same shape and range."""


def branch_losses(
    malp: MaLP,
    encrypted: Tensor,
    fake: Tensor,
    truth: Tensor,
    weights: LossWeights,
    real: Tensor | None = None,
    features: Sequence[Tensor] = (),
    labels: Tensor | None = None,
    target: Tensor | None = None,
    branch_map: bool = True,
) -> MaLPLosses:
    """The part of Eq. 11 that belongs to a pretrained second branch (`malp_disc.feature_branch.FeatureBranch.losses`): J_L of its map, and its J_C."""
    localization, realness = malp.branch.losses(encrypted, fake, truth, weights, real, features, labels, target, map=branch_map)
    zero = torch.zeros_like(realness)
    return MaLPLosses(localization + realness, zero, localization, zero, zero, penalty=zero, realness=realness)


def squared_gradient_norm(malp: MaLP, real: Tensor, weights: Tensor) -> Tensor:
    """E‖∇ₓ Σ_k w_k v_k(x)‖² of the generator's terms k in (map, classifier) on images that count as real; `weights` (2,). A scalar, for R1."""
    real = real.detach().requires_grad_(True)
    out = malp(real)
    gradient = differentiable_gradient((weights[:, None] * image_terms(out.map, out.logit)).sum(), real, "R1 differentiates MaLP twice: set r1_weight=0")
    return gradient.square().flatten(1).sum(1).mean()

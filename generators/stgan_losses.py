"""STGAN's training losses (Liu et al., CVPR 2019, Eq. 9-14): AttGAN's, with the same weights, for a generator that gets the change of the labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from generators.attgan_losses import AttGANObjective


class STGANObjective(AttGANObjective):
    """STGAN's losses: λ1 = 1 and λ2 = 10 of the classifications, λ3 = 100 of the reconstruction, which is G(x, 0) (Eq. 9)."""

    def unchanged(self, batch: Any) -> Tensor:
        """The generator's target that asks for no change: a difference vector of zeros."""
        return torch.zeros_like(batch.labels)


def change(labels: Tensor, target: Tensor) -> Tensor:
    """STGAN's condition, the difference attribute vector (section 3.1): labels and desired labels (B, A) in {0, 1} -> (B, A) in {-1, 0, 1}."""
    return target - labels

"""AttGAN's training losses (He, Zuo, Kan, Shan and Chen, IEEE TIP 2019, Eq. 10 and 11), with the WGAN-GP critic of the paper's section 3.2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.stargan_losses import gradient_penalty
from malp_disc.runtime.freezing import gradients_to_inputs_only
from malp_disc.runtime.input_checks import check_loss_weights


@dataclass(frozen=True)
class AttGANWeights:
    """λ of the paper, section 4: `rec` is λ1, `cls` λ2 and `cls_d` λ3. `gp` is that of WGAN-GP, whose penalty isn't computed with 0. STGAN's are the same four."""

    rec: float = 100.0
    cls: float = 10.0
    cls_d: float = 1.0
    gp: float = 10.0

    def __post_init__(self) -> None:
        check_loss_weights(self)


class AttGANObjective(nn.Module):
    """AttGAN's losses in the interface of `malp_disc.generator_objective`: D's from `forward`, G's from `generator_loss`; weighted terms by name.

    Both expect a batch with `images`, `labels`, `target` and the random numbers `noise`; ``edit(images, desired, current)`` runs the generator once more.

    Args:
        discriminator: D(x) -> values (B, 1), logits (B, A), such as `generators.attgan.AttGANDiscriminators`.

    Note:
        The attribute loss is the mean over images *and* attributes, as in the authors' code, to which λ2 and λ3 belong; the paper's Eq. 5 sums over the attributes.
    """

    def __init__(self, discriminator: nn.Module, weights: AttGANWeights | None = None) -> None:
        super().__init__()
        self.discriminator, self.weights = discriminator, weights or AttGANWeights()

    def forward(self, fake: Tensor, batch: Any) -> dict[str, Tensor]:
        """Eq. 11: Wasserstein critic with gradient penalty, and the classification of real images."""
        values, logits = self.discriminator(torch.cat([batch.images, fake]))
        on_real, on_fake = values.float().chunk(2)
        adversarial, alpha = on_fake.mean() - on_real.mean(), batch.noise.uniform()
        penalty = gradient_penalty(self.discriminator, batch.images, fake, alpha) if self.weights.gp else torch.zeros_like(adversarial)
        return {
            "adversarial": adversarial,
            "classification": self.weights.cls_d * mean_attribute_loss(logits[: len(fake)], batch.labels),
            "penalty": self.weights.gp * penalty,
        }

    def generator_loss(self, fake: Tensor, batch: Any, edit: Callable[..., Tensor]) -> dict[str, Tensor]:
        """Eq. 10: adversarial, classification of the edit as the desired labels, L1 reconstruction with the image's own labels."""
        with gradients_to_inputs_only(self.discriminator):
            values, logits = self.discriminator(fake)
        same = edit(batch.images, batch.labels, batch.labels)
        return {
            "adversarial": -values.float().mean(),
            "classification": self.weights.cls * mean_attribute_loss(logits, batch.target),
            "reconstruction": self.weights.rec * (batch.images - same).float().abs().mean(),
        }


def mean_attribute_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy, averaged over images and attributes (Eq. 5 and 7 divided by the number of attributes)."""
    return F.binary_cross_entropy_with_logits(logits.float(), labels.float())

"""The alternative to MaLP that needs no training of its own: a discriminator on the features of a frozen, pretrained network.

In the style of vision-aided GANs (Kumari et al., CVPR 2022) and projected GANs (Sauer et al., NeurIPS 2021): small heads on several depths of a network
that never changes; only the heads learn. It stands beside a generator's own losses in the arm ``aided``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from malp_disc.augmentation import Augmentation, augment
from malp_disc.fakeness import fakeness_map
from malp_disc.metrics.squeezenet import SqueezeNetExtractor
from recipes.stepping import Batch

Target = Literal["realness", "map"]
_DEPTHS = {5: 256, 10: 512, 12: 512}
"""Layers of SqueezeNet 1.0 that are looked at, and their channels: strides 4, 8 and 16."""
_SIDE = 128  # of the picture as the network sees it: twice the 64 pixels of this project's generators, and as dear per step as MaLP
_WIDTH = 64


class FeatureDiscriminator(nn.Module):
    """Manipulated or not, per patch and depth: (B, 3, H, W) in [-1, 1] -> a list of logits (B, 1, h, w).

    Args:
        weights: a state dict of torchvision's ``squeezenet1_0``.
    """

    def __init__(self, weights: str | Path) -> None:
        super().__init__()
        self.network = SqueezeNetExtractor(weights)
        self.heads = nn.ModuleDict(
            {
                str(depth): nn.Sequential(
                    nn.Conv2d(channels, _WIDTH, 3, padding=1), nn.GroupNorm(8, _WIDTH), nn.LeakyReLU(0.2), nn.Conv2d(_WIDTH, 1, 1)
                )
                for depth, channels in _DEPTHS.items()
            }
        )

    def train(self, mode: bool = True) -> FeatureDiscriminator:
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.network.prepared(255 * (images.float() + 1) / 2, side=_SIDE)
        logits = []
        for number, layer in enumerate(self.network.net):
            maps = layer(maps)
            if number in _DEPTHS:
                logits.append(self.heads[str(number)](maps))
        return logits


class AidedLosses(nn.Module):
    """A generator's own losses (`recipes.finetuning.OwnLosses`) and those of a `FeatureDiscriminator`: cross-entropies, the mean over depths.

    Args:
        own: None for a generator without.
        weight: of the feature discriminator's loss on G, -log P(not manipulated).
        target: what it learns of G's pictures. "realness": that they are manipulated, everywhere alike, as discriminators do. "map": how much each place
            was, M_GT of Eq. 2, as MaLP does; of real pictures nothing, and that is what G has to reach.
        augmentation: what happens to all pictures before it sees them.
    """

    def __init__(
        self,
        own: nn.Module | None,
        discriminator: FeatureDiscriminator,
        weight: float,
        target: Target = "realness",
        augmentation: Sequence[Augmentation] = (),
    ) -> None:
        super().__init__()
        self.own, self.discriminator, self.weight = own, discriminator, weight
        self.target, self.augmentation = target, tuple(augmentation)
        self._own_learns = own is not None and any(p.requires_grad for p in own.parameters())

    def generator_loss(self, fake: Tensor, batch: Batch, edit: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
        terms = dict(self.own.generator_loss(fake, batch, edit)) if self.own is not None else {}
        return terms | {"aided": self.weight * self._entropy(fake, batch, torch.zeros_like(fake[:, :1]))}

    def forward(self, fake: Tensor, batch: Batch) -> dict[str, Tensor]:
        terms = dict(self.own(fake, batch)) if self._own_learns else {}
        real = batch.images if batch.reference is None else batch.reference
        manipulated = torch.ones_like(fake[:, :1]) if self.target == "realness" else fakeness_map(batch.images, fake)
        return terms | {
            "aided": self._entropy(real, batch, torch.zeros_like(manipulated)) + self._entropy(fake, batch, manipulated),
        }

    def _entropy(self, images: Tensor, batch: Batch, truth: Tensor) -> Tensor:
        """Cross-entropy of what is said of each place with `truth` (B, 1, H, W) in [0, 1]."""
        logits = self.discriminator(augment(images, batch.numbers, self.augmentation))
        truths = [F.adaptive_avg_pool2d(truth, values.shape[2:]) for values in logits]
        return torch.stack([F.binary_cross_entropy_with_logits(values.float(), at) for values, at in zip(logits, truths)]).mean()

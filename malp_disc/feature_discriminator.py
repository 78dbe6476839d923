"""MaLP's question asked of better eyes: a discriminator on the features of a frozen, pretrained network.

MaLP's own network sees pixels, and what a generator learns from it is fine texture (docs/results/real-faces.md). Here small heads stand on several depths of a
SqueezeNet that never changes; only the heads learn. They are asked how much each place was changed (M_GT, Eq. 2), as MaLP's map is, or whether the image is real,
as in vision-aided GANs (Kumari et al., CVPR 2022) and projected GANs (Sauer et al., NeurIPS 2021).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from malp_disc.fakeness import check_batches, check_images, fakeness_map
from malp_disc.freezing import Float32Module, called_on_copies, freeze
from malp_disc.metrics.squeezenet import SqueezeNetExtractor
from malp_disc.precision import full_precision

FeatureTarget = Literal["map", "realness"]
_DEPTHS = {5: 256, 10: 512, 12: 512}
"""Layers of SqueezeNet 1.0 that are looked at, and their channels: strides 4, 8 and 16."""
_WIDTH = 64


class FeatureDiscriminator(Float32Module):
    """A discriminator beside a generator's own losses. In a training loop, with images in [-1, 1]:

        loss = loss + weight * disc.generator_loss(fake)          # G's step; gradients reach fake
        disc.discriminator_loss(images, fake).backward()          # its own step; only the heads learn

    in any order, also with the heads' optimizer step between G's loss and its ``backward``. It always computes in float32; ``.half()`` and the like leave its weights as
    they are, and images of any floating-point dtype are converted. The backbone is frozen, whatever a parent's ``requires_grad_(True)`` asks for.

    Args:
        weights: a state dict of torchvision's ``squeezenet1_0``.
        target: what it learns of manipulated images. "map": how much each place was changed, M_GT of Eq. 2; weigh it with 200 or so, its gradients are
            small. "realness": that they are manipulated, everywhere alike; weigh it with 1.
        side: of the square that SqueezeNet sees the images as. 128 for images of 64, with which a step takes a quarter longer than with MaLP
            of width 16 (one CPU core).

    Raises:
        ValueError: an unknown target, or another network's weights.
        FileNotFoundError: no such file.
    """

    def __init__(self, weights: str | Path, *, target: FeatureTarget = "map", side: int = 128) -> None:
        super().__init__()
        if target not in get_args(FeatureTarget):
            raise ValueError(f"expected a target out of {get_args(FeatureTarget)}, got {target!r}")
        self.target, self.side = target, side
        self.network = freeze(SqueezeNetExtractor(weights))
        self.heads = nn.ModuleDict({str(depth): _head(channels) for depth, channels in _DEPTHS.items()})
        self.float()  # also under another torch.set_default_dtype

    def parameter_groups(self, *, lr: float) -> list[dict[str, Any]]:
        """For the optimizer: the heads at `lr`."""
        return [{"params": list(self.heads.parameters()), "lr": lr}]

    @full_precision
    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits per place and depth, positive for "changed": (B, 3, H, W) in [-1, 1] -> a list of (B, 1, h, w), the finest first.

        Raises:
            ValueError: images of another shape, range or type, or not finite.
        """
        self._check({"images": images})
        return [self.heads[depth](maps) for depth, maps in self._features(images.float()).items()]

    def _check(self, batches: dict[str, Tensor]) -> None:
        self.check_weights()
        check_batches(batches, device=next(self.heads.parameters()).device, nonempty=True)
        for name, images in batches.items():
            check_images(images, name)

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        """Maps of the backbone by depth; gradients reach the images alone."""
        maps, features = self.network.prepared(255 * (images + 1) / 2, side=self.side), {}
        for number, layer in enumerate(self.network.net):
            maps = layer(maps)
            if number in _DEPTHS:
                features[str(number)] = maps
        return features

    @full_precision
    def generator_loss(self, fake: Tensor) -> Tensor:
        """-log P(unchanged), the mean over places and depths: what G has to lower. Gradients reach `fake` alone, and nothing is left in the heads.

        Raises:
            ValueError: no images, images of another shape, range, type or device, or not finite.
        """
        self._check({"fake": fake})
        logits = [called_on_copies(self.heads[depth], maps) for depth, maps in self._features(fake.float()).items()]
        return _entropy(logits, torch.zeros_like(fake[:, :1]))

    @full_precision
    def discriminator_loss(self, images: Tensor, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """Cross-entropy of real images with "unchanged" and of `fake` with the target.

        Args:
            images: what G was given, (B, 3, H, W).
            fake: what it made of them, of the same shape; its gradient isn't needed.
            real: images of the domain that G leads to, where that isn't the images' own; of any number and size.

        None of them gets a gradient.

        Raises:
            ValueError: no images, images of another shape, range, type or device, or not finite.
        """
        self._check({"images": images, "fake": fake})
        images, fake = images.detach(), fake.detach()
        untouched = images if real is None else real.detach()
        changed = torch.ones_like(fake[:, :1]) if self.target == "realness" else fakeness_map(images, fake)
        if real is not None:
            self._check({"real": real})
        return _entropy(self(untouched), torch.zeros_like(untouched[:, :1])) + _entropy(self(fake), changed)


def _entropy(logits: list[Tensor], truth: Tensor) -> Tensor:
    """Cross-entropy of what is said of each place with `truth` (B, 1, H, W) in [0, 1], the mean over places and depths."""
    entropies = [F.binary_cross_entropy_with_logits(said, F.adaptive_avg_pool2d(truth.float(), said.shape[2:])) for said in logits]
    return torch.stack(entropies).mean()


def _head(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, _WIDTH, 3, padding=1), nn.GroupNorm(8, _WIDTH), nn.LeakyReLU(0.2), nn.Conv2d(_WIDTH, 1, 1)
    )

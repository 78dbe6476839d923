"""MaLP's question asked of better eyes: a discriminator on the features of a frozen, pretrained network.

MaLP's own network sees pixels, and what a generator learns from it is fine texture (docs/results/real-faces.md). Here small heads stand on several depths of a
SqueezeNet that never changes; only the heads learn. They are asked how much each place was changed (M_GT, Eq. 2), as MaLP's map is, or whether the picture is real,
as in vision-aided GANs (Kumari et al., CVPR 2022) and projected GANs (Sauer et al., NeurIPS 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from malp_disc.fakeness import check_image_pair, check_images, fakeness_map
from malp_disc.freezing import gradients_to_inputs_only
from malp_disc.metrics.squeezenet import SqueezeNetExtractor

FeatureTarget = Literal["map", "realness"]
_DEPTHS = {5: 256, 10: 512, 12: 512}
"""Layers of SqueezeNet 1.0 that are looked at, and their channels: strides 4, 8 and 16."""
_WIDTH = 64


class FeatureDiscriminator(nn.Module):
    """A discriminator beside a generator's own losses. In a training loop, with pictures in [-1, 1]:

        loss = loss + weight * disc.generator_loss(fake)          # G's step; gradients reach fake
        disc.discriminator_loss(images, fake).backward()          # its own step; only the heads learn

    Args:
        weights: a state dict of torchvision's ``squeezenet1_0``.
        target: what it learns of manipulated pictures. "map": how much each place was changed, M_GT of Eq. 2; weigh it with 200 or so, its gradients are
            small. "realness": that they are manipulated, everywhere alike; weigh it with 1.
        side: of the square that SqueezeNet sees the pictures as. 128 for pictures of 64, with which a step takes a quarter longer than with MaLP
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
        self.network = SqueezeNetExtractor(weights)
        self.heads = nn.ModuleDict({str(depth): _head(channels) for depth, channels in _DEPTHS.items()})

    def train(self, mode: bool = True) -> FeatureDiscriminator:
        super().train(mode)
        self.network.eval()
        return self

    def requires_grad_(self, requires_grad: bool = True) -> FeatureDiscriminator:
        """As torch's, of the heads: the backbone never learns. (One that a parent's ``requires_grad_(True)`` reaches gets no gradient all the same.)"""
        self.heads.requires_grad_(requires_grad)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FeatureDiscriminator:
        """``.to(device)`` and the like; the weights stay in float32 whatever dtype is asked for, as all arithmetic does."""

        def in_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if tensor.is_floating_point() and moved.dtype != tensor.dtype else moved

        return super()._apply(in_float32, recurse)

    def parameter_groups(self, *, lr: float) -> list[dict[str, Any]]:
        """For the optimizer: the heads at `lr`."""
        return [{"params": list(self.heads.parameters()), "lr": lr}]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits per place and depth, positive for "changed": (B, 3, H, W) in [-1, 1] -> a list of (B, 1, h, w), the finest first.

        Raises:
            ValueError: images of another shape, range or type, or not finite.
        """
        check_images(images)
        with torch.autocast(images.device.type, enabled=False):
            with gradients_to_inputs_only(self.network):
                features = self._features(images.float())
            return [self.heads[depth](maps) for depth, maps in features.items()]

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        """Maps of the backbone by depth; gradients reach the images alone."""
        maps, features = self.network.prepared(255 * (images + 1) / 2, side=self.side), {}
        for number, layer in enumerate(self.network.net):
            maps = layer(maps)
            if number in _DEPTHS:
                features[str(number)] = maps
        return features

    def generator_loss(self, fake: Tensor) -> Tensor:
        """-log P(unchanged), the mean over places and depths: what G has to lower. Gradients reach `fake` alone, and nothing is left in the heads.

        Raises:
            ValueError: images of another shape, range or type, or not finite.
        """
        check_images(fake, "fake")
        with gradients_to_inputs_only(self.heads):
            return self._entropy(fake, torch.zeros_like(fake[:, :1]))

    def discriminator_loss(self, images: Tensor, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """Cross-entropy of real pictures with "unchanged" and of `fake` with the target.

        Args:
            images: what G was given, (B, 3, H, W).
            fake: what it made of them, of the same shape; its gradient isn't needed.
            real: pictures of the domain that G leads to, where that isn't the images' own.

        Raises:
            ValueError: images of another shape, range or type, or not finite.
        """
        fake = fake.detach()
        check_image_pair(images, fake)
        if real is not None:
            check_images(real, "real")
        changed = torch.ones_like(fake[:, :1]) if self.target == "realness" else fakeness_map(images, fake)
        return self._entropy(images if real is None else real, torch.zeros_like(changed)) + self._entropy(fake, changed)

    def _entropy(self, images: Tensor, truth: Tensor) -> Tensor:
        """Cross-entropy of what is said of each place with `truth` (B, 1, H, W) in [0, 1]."""
        entropies = []
        for logits in self(images):
            at = F.adaptive_avg_pool2d(truth.float(), logits.shape[2:])
            entropies.append(F.binary_cross_entropy_with_logits(logits.float(), at))
        return torch.stack(entropies).mean()


def _head(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, _WIDTH, 3, padding=1), nn.GroupNorm(8, _WIDTH), nn.LeakyReLU(0.2), nn.Conv2d(_WIDTH, 1, 1)
    )

"""A discriminator on a frozen, pretrained backbone, as in vision-aided GANs (Kumari et al., CVPR 2022) and projected GANs (Sauer et al., NeurIPS 2021).

MaLP's own network works on pixels, and a generator learns only fine texture from it (docs/results/real-faces.md). Here small trainable heads take the
features of a SqueezeNet at several depths. They predict MaLP's target, how much each location was changed (M_GT, Eq. 2), or whether the image is real.
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
"""Layers of SqueezeNet 1.0 with a head, and their channels; strides 4, 8 and 16."""
_WIDTH = 64
_SMALLEST_SIDE = 32  # below about 20 a pooling layer has nothing left to pool


class FeatureDiscriminator(Float32Module):
    """A discriminator that is used in addition to a generator's own losses. In a training loop, with images in [-1, 1]:

        loss = loss + weight * disc.generator_loss(fake)          # generator update; gradients reach fake
        disc.discriminator_loss(images, fake).backward()          # discriminator update; only the heads are trained

    The order doesn't matter: the heads' optimizer step may also lie between the generator's loss and its ``backward``. All arithmetic is float32: ``.half()`` and
    the like don't change the weights, and images of any floating-point dtype are converted. The backbone stays frozen even if a parent calls
    ``requires_grad_(True)``.

    Args:
        weights: a state dict of torchvision's ``squeezenet1_0``.
        target: what it predicts for manipulated images. "map": how much each location was changed, M_GT of Eq. 2; use a weight of about 200, since its
            gradients are small. "realness": 1 everywhere; use a weight of about 1.
        side: images are resized to a square of this side for SqueezeNet. With 128, a step takes a quarter longer than with MaLP of width 16 (images of
            64x64, one CPU core).

    Raises:
        ValueError: an unknown target, a side that is too small, or another network's weights.
        FileNotFoundError: no such file.
    """

    def __init__(self, weights: str | Path, *, target: FeatureTarget = "map", side: int = 128) -> None:
        super().__init__()
        if target not in get_args(FeatureTarget):
            raise ValueError(f"expected a target out of {get_args(FeatureTarget)}, got {target!r}")
        if not isinstance(side, int) or side < _SMALLEST_SIDE:
            raise ValueError(f"expected a side of at least {_SMALLEST_SIDE} pixels, got {side!r}")
        self.target, self.side = target, side
        self.network = freeze(SqueezeNetExtractor(weights))
        self.heads = nn.ModuleDict({str(depth): _head(channels) for depth, channels in _DEPTHS.items()})
        self.float()  # also under another torch.set_default_dtype

    def parameter_groups(self, *, lr: float) -> list[dict[str, Any]]:
        """Parameter groups for the optimizer: the heads at `lr`."""
        return [{"params": list(self.heads.parameters()), "lr": lr}]

    @full_precision
    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits of "changed" per location and depth: (B, 3, H, W) in [-1, 1] -> a list of (B, 1, h, w), the finest first.

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
        """Feature maps of the backbone by depth; gradients reach the images alone."""
        maps, features = self.network.prepared(255 * (images + 1) / 2, side=self.side), {}
        for number, layer in enumerate(self.network.net):
            maps = layer(maps)
            if number in _DEPTHS:
                features[str(number)] = maps
        return features

    @full_precision
    def generator_loss(self, fake: Tensor) -> Tensor:
        """-log P(unchanged), the mean over locations and depths, for the generator to minimise. Gradients reach `fake` alone.

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
            images: the generator's inputs, (B, 3, H, W).
            fake: its outputs, of the same shape.
            real: images of the generator's target domain if it isn't that of the inputs; of any number and size.

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
    """Cross-entropy of the logits (B, 1, h, w) with `truth` (B, 1, H, W) in [0, 1], the mean over locations and depths."""
    entropies = [F.binary_cross_entropy_with_logits(values, F.adaptive_avg_pool2d(truth.float(), values.shape[2:])) for values in logits]
    return torch.stack(entropies).mean()


def _head(channels: int) -> nn.Sequential:
    """Features (B, channels, h, w) -> logits (B, 1, h, w)."""
    return nn.Sequential(
        nn.Conv2d(channels, _WIDTH, 3, padding=1), nn.GroupNorm(8, _WIDTH), nn.LeakyReLU(0.2), nn.Conv2d(_WIDTH, 1, 1)
    )

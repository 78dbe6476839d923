"""Shared code of the super-resolution generators: downsampling of their input, and the range [0, 1] of the ESRGANs."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from generators.images import check_input


def shrink(images: Tensor, scale: int = 4) -> Tensor:
    """Downsample by `scale` with antialiased bicubic interpolation, clamped to [-1, 1], as the networks' training images were made.

    Those were rounded to 8 bits as well, which is omitted here, since it has no gradient.

    Shape: (B, 3, H, W) -> (B, 3, H / scale, W / scale).

    Raises:
        ValueError: sides that `scale` doesn't divide, or below 2 · scale.
    """
    check_input(images, f"super-resolution ×{scale}", divisor=scale, least=2 * scale)
    height, width = images.shape[2:]
    return F.interpolate(images, (height // scale, width // scale), mode="bicubic", antialias=True).clamp(-1, 1)


class SuperResolution:
    """`manipulate` and `upscale` for a network whose forward pass upsamples an image in [0, 1] by `scale`.

    As in the published code, the output is clamped to [0, 1]; clamped pixels have no gradient.
    """

    scale: int

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Downsample and restore the images: (B, 3, H, W) in [-1, 1] -> the same. `target` is ignored."""
        check_input(images, f"super-resolution ×{self.scale}", divisor=self.scale, least=4 * self.scale)
        return self.upscale(shrink(images, self.scale))

    def upscale(self, images: Tensor) -> Tensor:
        """Super-resolution: (B, 3, h, w) -> (B, 3, scale · h, scale · w), both in [-1, 1]; any sides of 4 and more.

        Raises:
            ValueError: for other shapes.
        """
        check_input(images, f"super-resolution ×{self.scale}", least=4)
        return 2 * self((images + 1) / 2).clamp(0, 1) - 1

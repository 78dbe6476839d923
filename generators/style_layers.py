"""Layers shared by the two PyTorch ports of StyleGAN (Karras et al., CVPR 2019) and by ALAE.

The ports name and scale their weights differently, so the shared functions take the weight as an argument.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def equalised(weight: Tensor, gain: float = math.sqrt(2)) -> Tensor:
    """Equalized learning rate: a weight stored with unit variance, scaled by He's constant, weight · gain / √fan_in.

    Shape: (out, in, …) -> the same.
    """
    return weight * (gain / math.sqrt(weight[0].numel()))


def pixel_norm(x: Tensor) -> Tensor:
    """x / √(mean of x² over dimension 1)."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


def stylise(x: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-8) -> Tensor:
    """Adaptive instance norm: scale · (x - mean) / std + shift, with mean and standard deviation of every channel of every image.

    Shape: x (B, C, H, W), scale and shift (B, C).
    """
    return scale[:, :, None, None] * F.instance_norm(x, eps=eps) + shift[:, :, None, None]


def spread(weight: Tensor) -> Tensor:
    """A 3×3 kernel convolved with a 2×2 box, as one 4×4 kernel, which fuses convolution and resampling by 2.

    Shape: (…, 3, 3) -> (…, 4, 4); the sum of the kernel grows by 4.
    """
    return sum(F.pad(weight, (left, 1 - left, top, 1 - top)) for left in (0, 1) for top in (0, 1))


class Blur(nn.Module):
    """Blur of every channel with the binomial kernel [1 2 1] × [1 2 1] / 16, zero padding.

    The kernel is a constant, which the checkpoints contain once per channel.

    Args:
        names: the kernel's names in the state dict.
    """

    def __init__(self, channels: int, *names: str) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        self._name = names[0]
        for name in names:
            self.register_buffer(name, (row[:, None] * row / 16).expand(channels, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, getattr(self, self._name), padding=1, groups=x.shape[1])


def fixed_noise(index: int, height: int, width: int, like: Tensor) -> Tensor:
    """Noise for the `index`-th noise input of a network, the same in every call and for every image: (1, 1, height, width).

    The result of `manipulate` must be a function of image and target, otherwise runs couldn't be compared.
    """
    drawn = torch.randn(1, 1, height, width, generator=torch.Generator().manual_seed(index))
    return drawn.to(like.device, like.dtype)


def check_latents(images: Tensor, target: Tensor | None, *, resolution: int, layers: int, size: int) -> None:
    """Check the arguments of `manipulate` of a generator without an encoder.

    Raises:
        ValueError: other images than (B, 3, resolution, resolution), or a target that isn't (B, size) or (B, layers, size).
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"expected images (B, 3, H, W), got {tuple(images.shape)}")
    if images.shape[2:] != (resolution, resolution):
        raise ValueError(
            f"this generator draws {resolution}x{resolution}: expected images (B, 3, {resolution}, {resolution}), "
            f"got {images.shape[2]}x{images.shape[3]}; resize, or make the generator with another resolution"
        )
    count = len(images)
    expected = f"({count}, {size}) codes of Z, or ({count}, {layers}, {size}) styles, one per layer"
    if target is None:
        raise ValueError(f"StyleGAN has no encoder, the image alone can't say what to draw: give latents as the target, {expected}")
    if target.shape not in ((count, size), (count, layers, size)):
        raise ValueError(f"expected latents as the target, {expected}; got {tuple(target.shape)}")

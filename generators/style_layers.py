"""Parts that StyleGAN (Karras et al., CVPR 2019), its two PyTorch ports here and ALAE share.

Not one of them is a network of its own. The ports differ in how they name and scale their weights, so what is shared takes the weight as an
argument; what has weights of its own stays with its port.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def equalised(weight: Tensor, gain: float = math.sqrt(2)) -> Tensor:
    """A weight stored at unit variance, at the size that He et al. start from: weight · gain / √(inputs of one output).

    Shape: (out, in, …), the first dimension counts the outputs.
    """
    return weight * (gain / math.sqrt(weight[0].numel()))


def pixel_norm(x: Tensor) -> Tensor:
    """x over the root of its mean square along dimension 1."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


def stylise(x: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-8) -> Tensor:
    """Adaptive instance norm: every map of x at mean 0 and variance 1, then scale · x + shift.

    Shape: x (B, C, H, W), scale and shift (B, C).
    """
    return scale[:, :, None, None] * F.instance_norm(x, eps=eps) + shift[:, :, None, None]


def spread(weight: Tensor) -> Tensor:
    """A 3×3 kernel followed by a 2×2 box, as one 4×4 kernel: convolving and resampling by 2 become one step.

    Shape: (…, 3, 3) -> (…, 4, 4); the sum of the kernel grows by 4.
    """
    return sum(F.pad(weight, (left, 1 - left, top, 1 - top)) for left in (0, 1) for top in (0, 1))


class Blur(nn.Module):
    """Each map under the binomial kernel [1 2 1] × [1 2 1] / 16, zeros beyond the border.

    The kernel is a constant that the authors keep in their files, once per channel.

    Args:
        names: under which it is kept.
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
    """Noise for the `index`-th place of a network that wants some, the same in every call and for every image: (1, 1, height, width).

    A manipulation has to be a function of the image, or no two runs could be compared.
    """
    drawn = torch.randn(1, 1, height, width, generator=torch.Generator().manual_seed(index))
    return drawn.to(like.device, like.dtype)


def check_latents(images: Tensor, target: Tensor | None, *, resolution: int, layers: int, size: int) -> None:
    """What `manipulate` of a generator without an encoder takes.

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

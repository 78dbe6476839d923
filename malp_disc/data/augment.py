"""What happens to a batch of images on its way into training: mirroring and dequantisation.

Both take their random numbers as arguments (`malp_disc.data.sampling.StepRandom` draws them), so that step t's images are a function of
(seed, t) whatever the number of loader workers and processes: an exact resume needs that.
"""

from __future__ import annotations

import torch
from torch import Tensor

HALF_LEVEL = 1 / 255  # half the distance of two 8-bit levels, which lie 2/255 apart in [-1, 1]


def random_flip(images: Tensor, coins: Tensor) -> Tensor:
    """Mirror each image whose coin is below 1/2 left to right, as StarGAN's training does.

    Args:
        images: (B, C, H, W).
        coins: (B,), uniform in [0, 1).

    Returns:
        (B, C, H, W), a new tensor.

    Raises:
        ValueError: not a batch, or another number of coins.
    """
    _check_batch(images)
    if coins.shape != (len(images),):
        raise ValueError(f"expected one coin per image, ({len(images)},), got {tuple(coins.shape)}")
    return torch.where((coins < 0.5).view(-1, 1, 1, 1), images.flip(-1), images)


def dequantize(images: Tensor, noise: Tensor) -> Tensor:
    """Spread 8-bit levels evenly: x + U(-1/255, 1/255), clamped to [-1, 1].

    Real images lie on 256 levels and a generator's don't; left so, a detector learns that instead of manipulation.
    Rounding the result to 8 bits gives the image back.

    Args:
        images: (B, C, H, W), floating point, in [-1, 1].
        noise: of the shape of `images`, uniform in [0, 1).

    Returns:
        (B, C, H, W), same dtype.

    Raises:
        ValueError: not a batch, not floating point, outside [-1, 1], or noise of another shape.
    """
    _check_batch(images)
    if not images.is_floating_point():
        raise ValueError(f"expected floating-point images in [-1, 1], got {images.dtype}; divide 8-bit values by 127.5 and subtract 1")
    if images.numel() and not images.abs().amax() <= 1 + 1e-4:  # written so that NaN is refused too
        raise ValueError(f"expected images in [-1, 1], got min {images.amin():.4g} max {images.amax():.4g}; divide by 127.5 and subtract 1")
    if noise.shape != images.shape:
        raise ValueError(f"expected noise of the images' shape {tuple(images.shape)}, got {tuple(noise.shape)}")
    return (images.float() + (2 * noise - 1) * HALF_LEVEL).clamp(-1, 1).to(images.dtype)


def _check_batch(images: Tensor) -> None:
    if images.ndim != 4:
        raise ValueError(f"expected a batch (B, C, H, W), got shape {tuple(images.shape)}; add the batch dimension with images[None]")

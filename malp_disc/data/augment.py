"""Random horizontal flips and dequantization of training batches.

Both take their random numbers as arguments (drawn by `malp_disc.data.sampling.StepRandom`), so the images of step t are a function of
(seed, t) for any number of loader workers and processes, as exact resuming requires.
"""

from __future__ import annotations

import torch
from torch import Tensor

HALF_LEVEL = 1 / 255  # half the distance between adjacent 8-bit levels, which is 2/255 in [-1, 1]


def random_flip(images: Tensor, coins: Tensor) -> Tensor:
    """Flip each image whose coin is below 1/2 horizontally, as in StarGAN's training.

    Args:
        images: (B, C, H, W).
        coins: (B,), uniform in [0, 1).

    Returns:
        (B, C, H, W), a new tensor.

    Raises:
        ValueError: `images` isn't a batch, or the number of coins differs from B.
    """
    _check_batch(images)
    if coins.shape != (len(images),):
        raise ValueError(f"expected one coin per image, ({len(images)},), got {tuple(coins.shape)}")
    return torch.where((coins < 0.5).view(-1, 1, 1, 1), images.flip(-1), images)


def dequantize(images: Tensor, noise: Tensor) -> Tensor:
    """Uniform dequantization: x + U(-1/255, 1/255), clamped to [-1, 1].

    Real images have 256 levels and generated ones are continuous; without dequantization a detector learns this difference instead of
    manipulation. Rounding the result to 8 bits restores the image.

    Args:
        images: (B, C, H, W), floating point, in [-1, 1].
        noise: of the shape of `images`, uniform in [0, 1).

    Returns:
        (B, C, H, W), same dtype.

    Raises:
        ValueError: `images` isn't a floating-point batch in [-1, 1], or the noise has another shape.
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

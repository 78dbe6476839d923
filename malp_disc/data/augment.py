"""Random crops, horizontal flips and dequantization of training batches.

All take their random numbers as arguments (drawn by `malp_disc.data.sampling.StepRandom`), so the images of step t are a function of
(seed, t) for any number of loader workers and processes, as exact resuming requires.
"""

from __future__ import annotations

import torch
from torch import Tensor

from malp_disc.runtime.input_checks import looks_at_values

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


def random_crop(images: Tensor, side: int, places: Tensor) -> Tensor:
    """A square of `side` pixels cut from each image, at a whole pixel chosen by its two numbers; every place is equally likely.

    Args:
        images: (B, C, H, W).
        side: at most H and W.
        places: (B, 2), uniform in [0, 1), on the CPU: the square's top and left edge as shares of the room that there is.

    Returns:
        (B, C, side, side), a new tensor.

    Raises:
        ValueError: `images` isn't a batch, the square is larger than an image, or `places` has another shape.
    """
    _check_batch(images)
    height, width = images.shape[2:]
    if not 1 <= side <= min(height, width):
        raise ValueError(f"expected a crop between 1 and {min(height, width)} pixels, the shorter side of the images, got {side}")
    if places.shape != (len(images), 2):
        raise ValueError(f"expected two numbers per image, ({len(images)}, 2), got {tuple(places.shape)}")
    room = torch.tensor([height - side + 1, width - side + 1], device=places.device)
    corners = (places * room).long()  # below the room: numbers below 1 are so by more than the product is rounded by
    return torch.stack([image[:, top : top + side, left : left + side] for image, (top, left) in zip(images, corners.tolist())])


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
    check_normalized(images)
    if noise.shape != images.shape:
        raise ValueError(f"expected noise of the images' shape {tuple(images.shape)}, got {tuple(noise.shape)}")
    return (images.float() + (2 * noise - 1) * HALF_LEVEL).clamp(-1, 1).to(images.dtype)


def check_normalized(images: Tensor) -> None:
    """Raise ValueError unless these are images that were read from files: a floating-point batch (B, C, H, W) in [-1, 1]."""
    _check_batch(images)
    if not images.is_floating_point():
        raise ValueError(f"expected floating-point images in [-1, 1], got {images.dtype}; divide 8-bit values by 127.5 and subtract 1")
    if looks_at_values(images) and not images.abs().amax() <= 1 + 1e-4:  # written so that NaN is refused too
        raise ValueError(f"expected images in [-1, 1], got min {images.amin():.4g} max {images.amax():.4g}; divide by 127.5 and subtract 1")


def _check_batch(images: Tensor) -> None:
    if images.ndim != 4:
        raise ValueError(f"expected a batch (B, C, H, W), got shape {tuple(images.shape)}; add the batch dimension with images[None]")

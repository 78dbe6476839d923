"""Structural similarity (Wang, Bovik, Sheikh, Simoncelli, 2004), differentiable, in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from malp_disc.runtime.precision import full_precision

SSIM_WINDOW = 11  # side of the Gaussian window; reflection padding needs images larger than half of it
_SIGMA = 1.5
_K1, _K2 = 0.01, 0.03


@full_precision
def structural_similarity(images: Tensor, reference: Tensor, *, data_range: float) -> Tensor:
    """SSIM of each image and its reference, averaged over channels and pixels; 1 for equal images. Equal to torchmetrics up to rounding.

    SSIM = (2 μx μy + c1)(2 σxy + c2) / ((μx² + μy² + c1)(σx² + σy² + c2)), with c1 = (0.01 L)² and c2 = (0.03 L)²; means, variances and
    covariance are weighted by a Gaussian window of 11×11 pixels, σ = 1.5, with reflection padding.

    Shapes: images and reference (B, C, H, W) in floating point -> (B,); float64 stays float64, half precision becomes float32.

    Args:
        data_range: L, the difference of the largest and smallest possible value: 2 for images in [-1, 1], 1 for maps in [0, 1].

    Raises:
        ValueError: shapes that differ or aren't (B, C, H, W), integer tensors, or images too small for the window.
    """
    if images.ndim != 4 or images.shape != reference.shape:
        raise ValueError(f"expected two batches of one shape (B, C, H, W), got {tuple(images.shape)} and {tuple(reference.shape)}")
    if not (images.is_floating_point() and reference.is_floating_point()):
        raise ValueError(f"expected two batches in floating point, got {images.dtype} and {reference.dtype}; convert with .float()")
    pad = SSIM_WINDOW // 2
    if min(images.shape[2:]) <= pad:
        raise ValueError(f"SSIM needs images of at least {pad + 1}x{pad + 1} pixels, got {images.shape[2]}x{images.shape[3]}")
    reference = reference.to(images.dtype)
    channels = images.shape[1]
    images, reference = (F.pad(values, (pad, pad, pad, pad), mode="reflect") for values in (images, reference))
    moments = torch.cat([images, reference, images * images, reference * reference, images * reference])
    moments = moments.contiguous(memory_format=torch.channels_last)  # same results, 15 % less time on a CPU
    window = _window(images).expand(channels, 1, 1, SSIM_WINDOW)
    moments = F.conv2d(F.conv2d(moments, window, groups=channels), window.transpose(2, 3), groups=channels)  # 22 products per pixel instead of 121
    mean_x, mean_y, square_x, square_y, product = moments.chunk(5)
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    mean_product = mean_x * mean_y
    mean_x, mean_y = mean_x.pow(2), mean_y.pow(2)
    variance_x, variance_y = (square_x - mean_x).clamp(min=0), (square_y - mean_y).clamp(min=0)
    covariance = product - mean_product
    similarity = (2 * mean_product + c1) * (2 * covariance + c2) / ((mean_x + mean_y + c1) * (variance_x + variance_y + c2))
    return similarity.flatten(1).mean(1)


def _window(like: Tensor) -> Tensor:
    """The Gaussian window in one direction (11,), with sum 1; that of SSIM is its product with itself."""
    distance = torch.arange(SSIM_WINDOW, dtype=like.dtype, device=like.device) - SSIM_WINDOW // 2
    weights = torch.exp(-torch.pow(distance / _SIGMA, 2) / 2)
    return weights / weights.sum()

"""Peak signal-to-noise ratio of changed images in [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def psnr_of_error(error: Tensor) -> Tensor:
    """PSNR in dB of mean squared errors of images in [-1, 1], 10 log10(2² / error); infinite for an error of 0."""
    return 10 * torch.log10(4 / error)


def mean_psnr(images: Tensor, originals: Tensor) -> float:
    """Mean PSNR of changed images in dB; an unchanged one counts as 100 dB, unless all are. Shapes: (N, 3, H, W) in [-1, 1]."""
    error = (images - originals).square().flatten(1).mean(1)
    if error.any():
        error = error.clamp(min=4e-10)
    return psnr_of_error(error).mean().item()

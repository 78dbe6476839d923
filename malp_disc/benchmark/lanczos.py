"""Lanczos resampling of image tensors, as Pillow's."""

from __future__ import annotations

import torch
from torch import Tensor

_LOBES = 3


def lanczos_resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, C, H, W) resampled to `size` with a Lanczos kernel of three lobes, which is widened where they shrink, as `PIL.Image.resize` does.

    Differentiable. Values aren't rounded, and may exceed those of the images a little, as the kernel has negative lobes.
    """
    if tuple(images.shape[2:]) == tuple(size):
        return images
    rows, columns = (lanczos_weights(old, new).to(images.device, images.dtype) for old, new in zip(images.shape[2:], size))
    return rows @ images @ columns.T


def lanczos_weights(old: int, new: int) -> Tensor:
    """The matrix (new, old), rows of sum 1, that resamples `old` values to `new`; float64."""
    scale = old / new
    wider = max(scale, 1.0)
    centres = (torch.arange(new, dtype=torch.float64) + 0.5) * scale
    distance = (torch.arange(old, dtype=torch.float64) + 0.5 - centres[:, None]) / wider
    weights = torch.sinc(distance) * torch.sinc(distance / _LOBES) * (distance.abs() < _LOBES)
    return weights / weights.sum(1, keepdim=True)

"""Band filters and resampling on the reference grid, on which templates are made and looked for."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

_Parameters, _Result = ParamSpec("_Parameters"), TypeVar("_Result")
PAD = 16  # pixels of reflection around an image, against the wrap-around of the discrete Fourier transform


def remembered(maxsize: int) -> Callable[[Callable[_Parameters, _Result]], Callable[_Parameters, _Result]]:
    """`functools.lru_cache` for functions that return tensors: none is made in inference mode, since a later call that needs gradients couldn't use it."""

    def decorate(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
        return functools.lru_cache(maxsize=maxsize)(torch.inference_mode(False)(function))

    return decorate


@remembered(maxsize=64)
def frequency(height: int, width: int) -> Tensor:
    """Magnitude of the frequency in cycles per pixel for each entry of ``torch.fft.rfft2``, (height, width // 2 + 1)."""
    return (torch.fft.fftfreq(height)[:, None].square() + torch.fft.rfftfreq(width)[None].square()).sqrt()


def band(height: int, width: int, low: float, high: float) -> Tensor:
    """Transfer function of a band-pass between `low` and `high` cycles per pixel, with soft edges; a low-pass for low = 0."""
    radius = frequency(height, width)
    rising = torch.sigmoid((radius - low) / (0.1 * low)) if low else 1.0
    return rising * torch.sigmoid((high - radius) / (0.05 * high))


def filtered(images: Tensor, low: float, high: float, *, whiten: float = 0.0) -> Tensor:
    """Images (B, C, H, W) limited to a band. `whiten` = 1 also multiplies the spectrum by the frequency, which makes that of natural images flat."""
    padded, pad = _reflected(images)
    height, width = padded.shape[2:]
    transfer = band(height, width, low, high)
    if whiten:
        transfer = transfer * (frequency(height, width) / high) ** whiten
    result = torch.fft.irfft2(torch.fft.rfft2(padded) * transfer.to(images.device), s=(height, width))
    return result[:, :, pad : height - pad, pad : width - pad]


def moved(images: Tensor, down: float, right: float) -> Tensor:
    """Images (B, C, H, W) moved by a fraction of a pixel, by their Fourier series."""
    if abs(down) < 1e-6 and abs(right) < 1e-6:
        return images
    padded, pad = _reflected(images)
    height, width = padded.shape[2:]
    turn = torch.fft.fftfreq(height)[:, None] * down + torch.fft.rfftfreq(width)[None] * right
    transfer = torch.polar(torch.ones_like(turn), -2 * torch.pi * turn)
    result = torch.fft.irfft2(torch.fft.rfft2(padded) * transfer.to(images.device), s=(height, width))
    return result[:, :, pad : height - pad, pad : width - pad]


def _reflected(images: Tensor) -> tuple[Tensor, int]:
    """The images with reflected borders, and their width."""
    pad = min(PAD, *(side - 1 for side in images.shape[2:]))
    return F.pad(images, (pad, pad, pad, pad), mode="reflect"), pad


def smoothed(images: Tensor, sigma: float) -> Tensor:
    """Gaussian window of `sigma` pixels over (B, C, H, W), with replicated borders."""
    reach = math.ceil(3 * sigma)
    kernel = torch.exp(-torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype).square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, -1)
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel[:, :, :, None], groups=images.shape[1]), kernel[:, :, None, :], groups=images.shape[1])


def reference_size(height: int, width: int, size: int) -> tuple[int, int]:
    """The reference grid's sides for an image: its aspect, and the area of size × size."""
    scale = size / math.sqrt(height * width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resampled(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) at `size`: antialiased bilinear to a smaller one, bicubic to a larger one."""
    if tuple(images.shape[2:]) == tuple(size):
        return images
    smaller = size[0] * size[1] < images.shape[2] * images.shape[3]
    return F.interpolate(images, size=size, mode="bilinear" if smaller else "bicubic", align_corners=False, antialias=smaller)

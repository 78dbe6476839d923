"""Conversion between images in [-1, 1] and the 256 levels that image files store.

Note:
    Three places convert in a way of their own. The drawn faces (`malp_disc.data.faces`) divide in NumPy, and their pixels must stay what they are; grids of training samples are
    rounded by torchvision's ``save_image``; colours of maps and overlays are looked up by a truncated index.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def quantize(images: Tensor) -> Tensor:
    """Images in [-1, 1] -> uint8 (same shape), rounded as when saved to PNG.

    Real images have 8 bits and generated ones are continuous; without rounding, this difference would affect features and detectors.
    """
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def quantize_maps(maps: Tensor) -> Tensor:
    """Maps in [0, 1] -> uint8 (same shape), rounded."""
    return maps.float().mul(255).round().clamp(0, 255).to(torch.uint8)


def as_images(levels: Tensor) -> Tensor:
    """Levels of 0 … 255, as of `quantize`, as images in [-1, 1], float32."""
    return levels.float() / 127.5 - 1


def to_pixels(images: Tensor) -> np.ndarray:
    """Images (B, 3, H, W) in [-1, 1] -> (B, H, W, 3) uint8, as Pillow and matplotlib take them."""
    return quantize(images).permute(0, 2, 3, 1).cpu().numpy()


def from_pixels(levels: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """One image (H, W, 3) uint8 -> (1, 3, H, W) in [-1, 1]."""
    return as_images(torch.from_numpy(levels.astype(np.float32)).permute(2, 0, 1)[None].to(device))

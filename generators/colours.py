"""Differentiable conversion between sRGB and CIE L*a*b*, the colour space of the colorization networks.

Constants as in https://github.com/ImagingLab/Colorizing-with-GANs (and OpenCV): sRGB's transfer curve, its primaries, white D65 with
X 0.950456 and Z 1.088754, and CIE's ε = 6/29.
"""

from __future__ import annotations

import torch
from torch import Tensor

RGB_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
XYZ_TO_RGB = ((3.2404542, -1.5371385, -0.4985314), (-0.9692660, 1.8760108, 0.0415560), (0.0556434, -0.2040259, 1.0572252))
WHITE = (0.950456, 1.0, 1.088754)
EPSILON = 6 / 29


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """(B, 3, H, W) sRGB in [0, 1] -> L in [0, 100], a and b within ±128 or so."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)
    xyz = [value / white for value, white in zip(_mix(RGB_TO_XYZ, linear), WHITE)]
    x, y, z = (torch.where(v <= EPSILON**3, v / (3 * EPSILON**2) + 4 / 29, v.clamp_min(EPSILON**3) ** (1 / 3)) for v in xyz)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """(B, 3, H, W) L in [0, 100], a, b -> sRGB in [0, 1]; colours outside the gamut are clipped in linear RGB."""
    lightness, a, b = lab.unbind(1)
    y = (lightness + 16) / 116
    xyz = [torch.where(v <= EPSILON, 3 * EPSILON**2 * (v - 4 / 29), v**3) * white for v, white in zip((y + a / 500, y, y - b / 200), WHITE)]
    linear = torch.stack(_mix(XYZ_TO_RGB, torch.stack(xyz, dim=1)), dim=1).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)


def _mix(matrix: tuple[tuple[float, ...], ...], colours: Tensor) -> list[Tensor]:
    """A matrix times each pixel, as sums, since a matrix product would be bf16 under autocast."""
    return [sum(factor * colour for factor, colour in zip(row, colours.unbind(1))) for row in matrix]

"""Is the content of an image still there after an edit? The agreement of edge orientations, which other colours and textures leave alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from malp_disc.runtime.input_checks import check_image_pair
from malp_disc.runtime.precision import full_precision

_LUMINANCE = (0.299, 0.587, 0.114)
_SIGMA = 1.5  # pixels, of the Gaussian whose derivatives find the edges
_FLAT = (0.5 / 255) ** 2  # squared gradient of a quarter of an 8-bit level per pixel, below which an edited place has no orientation


@full_precision
def edge_agreement(images: Tensor, edited: Tensor) -> Tensor:
    """Σ |∇x|² cos 2θ / Σ |∇x|² of each image x and its edit, θ the angle between both gradients: are the image's edges found again?

    1 (0.999) for the image itself, 0 on average for an unrelated image or noise. Turning by 180° makes no difference (cos 2θ), and the strength of
    the edit's edges none either, so brightness, contrast, an inversion and most colours change little (edges are those of luminance);
    nor do new edges where the image had none, such as stripes on a smooth coat. Moved, bent, erased or replaced objects lower it.

    Gradients are derivatives of a Gaussian, σ = 1.5 pixels. Where the edit is flat, the cosine goes to 0. The orientation of gradients as a
    similarity that ignores illumination: Fitch, Kadyrov, Christmas and Kittler, "Orientation correlation", BMVC 2002.

    Shapes: images and edited (B, 3, H, W) in [-1, 1], sides above 5 -> (B,) in [-1, 1]; 0 for an image without any edge.

    Raises:
        ValueError: different shapes, another scale, or images too small for the filter.
    """
    check_image_pair(images, edited)
    if min(images.shape[2:]) <= _radius():
        raise ValueError(f"expected images of at least {_radius() + 1} pixels, got {images.shape[2]}x{images.shape[3]}")
    g_x, g_y = _gradient(images)
    h_x, h_y = _gradient(edited)
    strength, other = g_x.square() + g_y.square(), h_x.square() + h_y.square()
    # Doubled angles: (gx² - gy², 2 gx gy) has length |g|² and twice the angle
    doubled = (g_x.square() - g_y.square()) * (h_x.square() - h_y.square()) + 4 * g_x * g_y * h_x * h_y
    return (doubled / (other + _FLAT)).flatten(1).sum(1) / strength.flatten(1).sum(1).clamp(min=torch.finfo(strength.dtype).tiny)


def _gradient(images: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical derivative of the luminance, (B, 3, H, W) -> two of (B, 1, H, W), per pixel."""
    images = images.float() if images.dtype != torch.float64 else images
    luminance = (images * images.new_tensor(_LUMINANCE).view(3, 1, 1)).sum(1, keepdim=True)
    distance = torch.arange(-_radius(), _radius() + 1, dtype=images.dtype, device=images.device)
    smooth = torch.exp(-distance.square() / (2 * _SIGMA**2))
    smooth = smooth / smooth.sum()
    slope = distance * smooth
    slope = slope / (slope * distance).sum()  # 1 on a ramp of slope 1
    padded = F.pad(luminance, [_radius()] * 4, mode="reflect")

    def filtered(rows: Tensor, columns: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(padded, rows.view(1, 1, -1, 1)), columns.view(1, 1, 1, -1))

    return filtered(smooth, slope), filtered(slope, smooth)


def _radius() -> int:
    return round(3 * _SIGMA)

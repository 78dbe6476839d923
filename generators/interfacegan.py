"""Latent edits of InterFaceGAN: interpreting the latent space of GANs for semantic face editing (Shen et al., CVPR 2020).

Official code: https://github.com/genforce/interfacegan (MIT), whose folder ``boundaries`` has the attributes' hyperplanes for StyleGAN. The edited
latents are the target of `generators.stylegan`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def edit(codes: Tensor, boundary: Tensor, distance: float | Tensor) -> Tensor:
    """InterFaceGAN's edit: latents moved along the normal n of the hyperplane that separates faces with an attribute from faces without it.

    A code of Z or W is moved to the signed `distance` from the hyperplane: code + (distance - code · n) n. Styles per layer are moved by
    `distance`: style + distance · n.

    Args:
        codes: (B, D), or styles (B, L, D). Normalize codes of Z with `to_sphere` first; pass edited codes of W through ``truncation`` afterwards.
        boundary: the unit normal, (D,) or (1, D), such as the authors' ``boundaries/stylegan_ffhq_smile_boundary.npy`` (for W: "_w").
        distance: one number, or one per code (B,).

    Raises:
        ValueError: codes and boundary differ in dimension, or the boundary isn't a unit vector.
    """
    normal = boundary.flatten().to(codes)
    if codes.ndim not in (2, 3) or len(normal) != codes.shape[-1]:
        raise ValueError(f"expected codes (B, {len(normal)}) or (B, L, {len(normal)}), as long as the boundary, got {tuple(codes.shape)}")
    if abs(float(normal.norm()) - 1) > 1e-3:
        raise ValueError(f"expected a boundary of norm 1, got {float(normal.norm()):.4g}; divide it by its norm")
    distances = torch.as_tensor(distance, dtype=codes.dtype, device=codes.device).expand(len(codes))
    if codes.ndim == 3:
        return codes + distances[:, None, None] * normal
    return codes + (distances - codes @ normal)[:, None] * normal


def to_sphere(z: Tensor) -> Tensor:
    """Codes of Z scaled to the norm √D, which samples of N(0, I) have approximately: (B, D) -> (B, D)."""
    return F.normalize(z, dim=1) * math.sqrt(z.shape[1])

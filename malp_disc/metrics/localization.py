"""Localization metrics: agreement of predicted and true fakeness maps, computed per image and averaged.

The cosine of non-negative maps is high for any map: for a *constant* one, it is about 0.8 by Eq. 5 and above 0.95 in the authors' code.
Therefore each cosine is reported with that of a constant map, and with Pearson's correlation, which is 0 for a constant map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from malp_disc.fakeness import fakeness_map, signed_fakeness_map_official
from malp_disc.runtime.input_checks import check_image_pair
from malp_disc.ssim import SSIM_WINDOW, structural_similarity

_CHUNK = 64  # images at a time, since SSIM needs memory for about twenty maps per image
_PERFECT_MSE = 1e-10  # limits PSNR to 100 dB, since one perfect map would make the mean infinite


@dataclass(frozen=True)
class LocalizationScores:
    """Means over images. A cosine or correlation is None when no image has one (nothing was changed anywhere)."""

    images: int
    unchanged: int  # number of images with M_GT = 0, excluded from the cosines and from Pearson's correlation
    cs: float | None  # cosine of M̂ and M_GT, Eq. 5
    cs_constant: float | None  # the same for a constant map
    cs_official: float | None  # as in the authors' code: signed M_GT, both maps min-max normalized
    cs_official_constant: float | None
    pearson: float | None
    psnr: float  # dB, maps in [0, 1], at most 100
    ssim: float


def localization_scores(predicted: Tensor, real: Tensor, manipulated: Tensor) -> LocalizationScores:
    """Scores of predicted maps with M_GT = `fakeness_map`(real, manipulated), Eq. 5.

    Shapes: predicted (B, 1, H, W) in [0, 1]; real and manipulated (B, 3, H, W) in [-1, 1].

    Special cases:
        * M_GT zero everywhere: cosines and Pearson's correlation are undefined; the image is excluded from them and counted in `unchanged`.
        * M_GT constant: excluded from Pearson's correlation. Signed M_GT constant: excluded from the official cosine.
        * M̂ zero everywhere: `cs` is 0. M̂ constant: `pearson` is 0, and `cs_official` is that of the constant map
          (in the authors' code, min-max normalization then divides by zero, and the mean is NaN).

    Raises:
        ValueError: no images, shapes that don't fit together, smaller than SSIM's window of 11, or values outside the ranges.
    """
    scores = localization_scores_per_image(predicted, real, manipulated)
    changed = scores.pop("changed").bool()
    return LocalizationScores(
        images=len(changed), unchanged=int((~changed).sum()), **{name: _mean_of_defined(values) for name, values in scores.items()}
    )


def localization_scores_per_image(predicted: Tensor, real: Tensor, manipulated: Tensor) -> dict[str, Tensor]:
    """The scores of `LocalizationScores` for every image, (B,) float64 each, NaN where an image has none; and ``changed``, 1 where M_GT isn't zero, else 0.

    Shapes, special cases and errors as for `localization_scores`.
    """
    _check(predicted, real, manipulated)
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(predicted), _CHUNK):
        map_, before, after = (images[start : start + _CHUNK].detach().cpu() for images in (predicted, real, manipulated))  # some devices have no float64
        truth = fakeness_map(before, after)
        mse = (map_.double() - truth.double()).square().flatten(1).mean(dim=1).clamp(min=_PERFECT_MSE)
        constant = agreement_per_image(torch.ones_like(truth), before, after)
        scores = {
            "changed": (truth.flatten(1).amax(dim=1) > 0).double(),
            **agreement_per_image(map_, before, after),
            "cs_constant": constant["cs"],
            "cs_official_constant": constant["cs_official"],
            "psnr": -10 * mse.log10(),
            "ssim": structural_similarity(map_.float(), truth, data_range=1.0).double(),
        }
        for name, values in scores.items():
            parts.setdefault(name, []).append(values)
    return {name: torch.cat(values) for name, values in parts.items()}


def agreement_per_image(predicted: Tensor, real: Tensor, manipulated: Tensor) -> dict[str, Tensor]:
    """``cs``, ``cs_official`` and ``pearson`` of maps on the CPU with M_GT, (B,) float64 each; NaN if undefined."""
    truth = fakeness_map(real, manipulated)
    map_, gt = predicted.double().flatten(1), truth.double().flatten(1)  # (B, H*W)
    signed = signed_fakeness_map_official(real, manipulated).double().flatten(1)
    changed = gt.amax(dim=1) > 0
    return {
        "cs": _where(changed, map_cosine(map_, gt)),
        "cs_official": _where(changed & (_range(signed) > 0), _cosine_official(map_, signed)),
        "pearson": _where(_range(gt) > 0, map_correlation(map_, gt)),
    }


def map_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of every two maps in float64, (B, …) × (B, …) -> (B,); 0 if one of them is zero. The epsilon is negligible for 8-bit images."""
    return F.cosine_similarity(a.double().flatten(1), b.double().flatten(1), dim=1, eps=1e-30)


def map_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of every two maps in float64, (B, …) × (B, …) -> (B,); 0 if one of them is constant."""
    return map_cosine(_centred(a.double().flatten(1)), _centred(b.double().flatten(1)))


def _cosine_official(map_: Tensor, signed: Tensor) -> Tensor:
    """The authors' metric: cosine, epsilon 1e-4, of the min-max normalized maps, in which zero change is mid-grey."""
    return F.cosine_similarity(_min_max(map_), _min_max(signed), dim=1, eps=1e-4)


def _min_max(rows: Tensor) -> Tensor:
    """Rows min-max normalized to [0, 1]; a constant row becomes ones."""
    spread = _range(rows).unsqueeze(1)
    return torch.where(spread > 0, (rows - rows.amin(dim=1, keepdim=True)) / spread, torch.ones_like(rows))


def _centred(rows: Tensor) -> Tensor:
    """Rows minus their means; a constant row becomes exactly zero, without rounding error of the mean."""
    return torch.where(_range(rows).unsqueeze(1) > 0, rows - rows.mean(dim=1, keepdim=True), torch.zeros_like(rows))


def _range(rows: Tensor) -> Tensor:
    return rows.amax(dim=1) - rows.amin(dim=1)


def _where(defined: Tensor, values: Tensor) -> Tensor:
    return torch.where(defined, values, torch.full_like(values, torch.nan))


def _mean_of_defined(values: Tensor) -> float | None:
    defined = values[~values.isnan()]
    return defined.mean().item() if len(defined) else None


def _check(predicted: Tensor, real: Tensor, manipulated: Tensor) -> None:
    check_image_pair(real, manipulated)
    expected = (len(real), 1, *real.shape[-2:])
    if tuple(predicted.shape) != expected or len(real) == 0:
        raise ValueError(f"expected at least one predicted map, of shape {expected} like the images, got {tuple(predicted.shape)}")
    if min(predicted.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"expected maps of at least {SSIM_WINDOW}x{SSIM_WINDOW} (SSIM's window), got {tuple(predicted.shape[-2:])}")
    low, high = (bound.item() for bound in torch.aminmax(predicted.detach().float()))
    if not (low >= 0 and high <= 1):  # written so that NaN fails
        raise ValueError(f"expected predicted maps in [0, 1], got min {low:.4g} max {high:.4g}; clamp them, or divide by 255")

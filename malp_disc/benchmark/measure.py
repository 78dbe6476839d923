"""What one localizer finds in one generator's edits: scores of every image.

For each image three versions are given, all in 8 bits as in files: the original, the published one (encrypted by a proactive method, otherwise the original), and
the generator's edit of the published one. M_GT is the change from the original to the edit (Eq. 2 and 5). The localizer gets the published and the edited image,
both perhaps scaled ("sc.") or degraded (Figure 5), and never the original.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from malp_disc.benchmark.inputs import BATCH
from malp_disc.benchmark.localizer import Localizer, predict
from malp_disc.degradations import to_8bit
from malp_disc.fakeness import fakeness_map
from malp_disc.levels import as_images
from malp_disc.metrics.localization import agreement_per_image, localization_scores_per_image
from malp_disc.metrics.pixels import best_threshold, pixel_scores

Change = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) in [-1, 1] -> the same, degraded."""


@dataclass(frozen=True)
class ImageScores:
    """Scores of every image by name, and numbers of the whole set.

    Attributes:
        values: N numbers each, NaN where an image has none.
        numbers: the thresholds that were best for the set, ``f1_best_threshold`` and ``iou_best_threshold``.
    """

    values: dict[str, list[float]]
    numbers: dict[str, float]


@torch.no_grad()
def measure(
    localizer: Localizer,
    real: Tensor,
    published: Tensor,
    edited: Tensor,
    *,
    side: int | None = None,
    degradation: Change | None = None,
    threshold: float = 0.5,
    device: torch.device | str = "cpu",
) -> ImageScores:
    """Scores of a localizer's maps and of its detection.

    ``values`` has ``score`` and ``score_untouched`` (of the edited and the published image) and, for a localizer with maps: those of
    `malp_disc.metrics.localization.localization_scores_per_image`; ``cs_mean_map``, ``cs_official_mean_map`` and ``pearson_mean_map``, of a baseline that predicts
    the mean M_GT of all other images; those of `malp_disc.metrics.pixels.pixel_scores`, the ROC curve's as ``pixel_auc``; ``f1_best`` and ``iou_best``, at
    the best threshold for the set; ``f1_all`` and ``iou_all``, of a baseline that marks all pixels; and ``false_pixels``, the share of the published image that is
    marked.

    Shapes: real, published, edited (N, 3, H, W) uint8.

    Args:
        side: scale images to side×side before the localizer gets them; M_GT is that of the scaled images.
        degradation: applied to every image that the localizer gets; M_GT is that of the images before.
        threshold: fixed threshold of the map.

    Raises:
        ValueError: no images, or a localizer that can't take them.
    """
    maps, truths, parts = [], [], []
    for start in range(0, len(real), BATCH):
        original, untouched, changed = (scaled(levels[start : start + BATCH], side) for levels in (real, published, edited))
        seen = torch.cat([untouched, changed])
        seen = (to_8bit(seen) if degradation is None else degradation(seen)).to(device)
        found = predict(localizer, seen)
        count = len(original)
        values = {"score": found.score[count:].cpu().double(), "score_untouched": found.score[:count].cpu().double()}
        if found.map is not None:
            map_, on_untouched = found.map[count:].cpu(), found.map[:count].cpu()
            values |= localization_scores_per_image(map_, original, changed)
            values["false_pixels"] = (on_untouched >= threshold).double().flatten(1).mean(1)
            values["mean_untouched"] = on_untouched.double().flatten(1).mean(1)
            maps.append(map_)
            truths.append(fakeness_map(original, changed))
        parts.append(values)
    values = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    numbers: dict[str, float] = {}
    if maps:
        truth = torch.cat(truths)
        values |= _pixels(torch.cat(maps), truth, threshold, numbers)
        values |= _mean_map(truth, real, edited, side)
    return ImageScores({name: column.tolist() for name, column in values.items()}, numbers)


def scaled(levels: Tensor, side: int | None) -> Tensor:
    """uint8 levels as images in [-1, 1], resampled to side×side (bilinear, antialiased) and rounded to 8 bits; None keeps their size."""
    images = as_images(levels)
    if side is None or tuple(images.shape[2:]) == (side, side):
        return images
    return to_8bit(F.interpolate(images, (side, side), mode="bilinear", antialias=True).clamp(-1, 1))


def _pixels(maps: Tensor, truth: Tensor, threshold: float, numbers: dict[str, float]) -> dict[str, Tensor]:
    """Pixel metrics per image; adds the best thresholds to `numbers`."""
    scores = pixel_scores(maps, truth, threshold=threshold)
    values = {name: getattr(scores, name) for name in ("f1", "iou", "f1_best_per_image", "iou_best_per_image", "marked")}
    share = torch.where(scores.changed > 0, scores.changed, torch.nan)
    values |= {"pixel_auc": scores.auc, "changed_share": scores.changed, "f1_all": 2 * share / (1 + share), "iou_all": share}
    for name, by_threshold in (("f1", scores.f1_by_threshold), ("iou", scores.iou_by_threshold)):
        best, values[f"{name}_best"] = best_threshold(by_threshold)
        if not math.isnan(best):
            numbers[f"{name}_best_threshold"] = best
    return values


def _mean_map(truth: Tensor, real: Tensor, edited: Tensor, side: int | None) -> dict[str, Tensor]:
    """The agreement with M_GT of the mean M_GT of all other images, per image; NaN for a single image."""
    total, count = truth.double().sum(0), len(truth)
    parts = []
    for start in range(0, count, BATCH):
        original, changed = (scaled(levels[start : start + BATCH], side) for levels in (real, edited))
        others = ((total - truth[start : start + BATCH]) / max(1, count - 1)).clamp(0, 1)
        agreement = agreement_per_image(others, original, changed)
        parts.append(
            {f"{name}_mean_map": values if count > 1 else torch.full_like(values, torch.nan) for name, values in agreement.items()}
        )
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

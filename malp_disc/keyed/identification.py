"""Which of the templates that were issued an image has, if any: every one is tried, first on the whole image, then on it as a crop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from malp_disc.keyed.alignment import LEAST_SHARE, TRIMMED, Alignment, blocks, find_alignment, grid_size, whitened_and_turned
from malp_disc.keyed.carrier import carrier_phases, on_circle
from malp_disc.keyed.evidence import evidence
from malp_disc.keyed.spectrum import resampled
from malp_disc.keyed.template import SETS, which_set

_PLACES = 50_000 / 128**2  # offsets and shares that `find_alignment` tries for each template, per pixel of the grid
LIKELY_ABOVE = 3.5
"""Presence above which an image counts as protected that resembles the template's original: by chance in one of 4,000. What an edit of the whole image leaves is no more."""
_SURE = 10.0  # presence of an image that is certainly whole
_BETTER = 1.1
"""Ratio of presences above which an alignment replaces that of the whole image. It was at most 1.09 in 1,000 whole images, degraded or edited."""


@dataclass(frozen=True)
class Identification:
    """Attributes:
    number: of the template that fits best.
    alignment: where the image lies on the original that got this template.
    presence: `malp_disc.keyed.evidence.Evidence.presence` of it there.
    threshold: presence above which the image counts as protected; it rises with the number of templates that were tried.
    """

    number: int
    alignment: Alignment
    presence: float
    threshold: float

    @property
    def protected(self) -> bool:
        return self.presence > self.threshold


def raised_threshold(above: float, trials: float) -> float:
    """The threshold that the largest of `trials` standard normal numbers exceeds as rarely as a single one exceeds `above` (Bonferroni's bound).

    From 5.0 for one it rises to 6.2 for a thousand and 7.2 for a million.
    """
    return -NormalDist().inv_cdf(0.5 * math.erfc(above / math.sqrt(2)) / max(trials, 1))


def identify(
    image: Tensor, secret: bytes, numbers: Sequence[int], size: int, *, present_above: float, trials: int | None = None, crops: bool = True
) -> Identification:
    """The template of one image (1, 3, H, W) in [-1, 1], out of those of `numbers`.

    Where the whole image matches already, only shares near 1 are tried: trimmed by one pixel of the grid, an image keeps its presence, but no longer its local evidence.

    Args:
        present_above: presence above which an image counts as protected, if a single template is tried.
        trials: number of templates that count as tried; by default, that of `numbers`.
        crops: where the image doesn't match as a whole, look for crops of all the originals; this takes the most time by far.
    """
    trials = len(numbers) if trials is None else trials

    def presence(number: int, alignment: Alignment) -> float:
        seen = resampled(image, grid_size(*image.shape[2:], size, alignment.share))
        return evidence(seen, secret, (number,), size, alignment.offset).presence.item()

    threshold = raised_threshold(present_above, trials)
    number = best_whole(image, secret, numbers, size)
    whole = presence(number, Alignment())
    if whole <= threshold and not crops:
        return Identification(number, Alignment(), whole, threshold)
    tried, count = ((number,), 1) if whole > threshold else (numbers, trials)
    found, other = find_alignment(image, secret, tried, size, least_share=TRIMMED if whole > max(threshold, _SURE) else LEAST_SHARE)
    if found.strength > raised_threshold(present_above, _PLACES * size**2 * count) and (aligned := presence(other, found)) > max(_BETTER * whole, threshold):
        return Identification(other, found, aligned, threshold)
    return Identification(number, Alignment(), whole, threshold)


def best_whole(image: Tensor, secret: bytes, numbers: Sequence[int], size: int) -> int:
    """The number of the template that correlates best with the image as a whole one; ValueError for none."""
    if not len(numbers):
        raise ValueError("expected the numbers of the templates that the image may have, got none")
    if len(numbers) == 1:
        return int(numbers[0])
    turned = whitened_and_turned(image, secret, size, 1.0).residual
    residual = sum(turned[k] * (which_set(tuple(turned.shape[2:])) == k).to(turned) for k in range(SETS))  # (2, h, w)
    residual = residual[:, : 2 * size, : 2 * size]
    height, width = residual.shape[1:]
    scores = [
        torch.tensordot(on_circle(carrier_phases(secret, block, size)[:, :height, :width]).to(residual), residual, 3) for block in blocks(numbers, size)
    ]
    return int(numbers[int(torch.cat(scores).argmax())])

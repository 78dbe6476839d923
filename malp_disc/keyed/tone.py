"""Changes of an image's whole tone: found by its template, and undone.

More brightness, contrast or colour turn φ at every pixel by an angle that depends on the levels there, by the sets of weights that the key has (`malp_disc.keyed.template`). So the tone that an image had is the one with which its template correlates best.
Whoever edits a region changes the tone of that region: of the whole image, the tone of most of its template counts, and the region is seen as before.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from malp_disc.keyed.carrier import carrier
from malp_disc.keyed.evidence import whole_image
from malp_disc.keyed.spectrum import smoothed
from malp_disc.keyed.template import LEVEL, SETS, Parts, level_weights, which_set

TRIED = 100_000
"""Independent tones that count as tried, for the presence that one has to reach (`malp_disc.keyed.identification.raised_threshold`)."""
_STARTS = 6  # of the coarse tones, from which the best is looked for: those that correlate best may lie beside each other
_BINS = 10  # of each colour, between its least and its greatest level: at half the contrast, undoing it takes bins of half the width
_AT_ONCE, _ROWS = 200_000, 256  # levels, and rows of an image, of which tones are undone at once
_LEAST, _BETTER = 4.0, 1.08  # correlation that a coarse tone needs for a finer one to be looked for, and its ratio to that of the image as it is; without a template, it is 3.0 on average
_SMALL = 0.02  # presence that a tone of the size of `_SCALES` costs: of tones that do the same, the smallest
_LEAST_SEEN = 2 / 127.5  # contrast or colour, of which less is none
_BOUNDS = ((-0.7, 0.7), (-0.8, 0.8), (-0.7, 0.7), (-0.8, 1.2), (-0.25, 0.25), (-0.12, 0.12))
_BRIGHTER = 0.1 * np.arange(-5, 6)  # the coarse tones: brightness, then contrast, gamma, saturation, warmth and tint
_COARSE = ((-0.45, -0.22, 0.0, 0.22, 0.45, 0.7), (-0.35, 0.0, 0.35), (-0.6, -0.3, 0.0, 0.35, 0.7), (-0.12, 0.0, 0.12), (0.0,))
_SCALES = np.array([0.3, 0.3, 0.3, 0.5, 0.15, 0.1])


@dataclass(frozen=True)
class Tone:
    """What undoes a change of tone, in the order of use; the defaults change nothing.

    Attributes:
        gamma: natural logarithm of the exponent of the levels in [0, 1].
        warmth: logarithm of the gain of red, and minus that of blue.
        tint: logarithm of the gain of red and blue, and minus half of that of green.
        saturation: logarithm of the gain of what sets a colour apart from its grey.
        contrast: logarithm of the gain of the levels in [-1, 1].
        brightness: added to the levels in [-1, 1].
    """

    brightness: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0
    saturation: float = 0.0
    warmth: float = 0.0
    tint: float = 0.0

    def undone(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] as they were before the change, clamped."""
        if self == Tone():
            return images
        return torch.cat([self._undone(rows) for rows in images.split(_ROWS, 2)], 2)

    def _undone(self, images: Tensor) -> Tensor:
        levels = images.permute(0, 2, 3, 1).cpu().double().numpy()
        before = _undone(levels, np.array([dataclasses.astuple(self)]))[0]
        return torch.from_numpy(before).to(images).permute(0, 3, 1, 2).clamp(-1, 1)


def find_tone(seen: Tensor, secret: bytes, numbers: Sequence[int], size: int, offset: tuple[float, float] = (0.0, 0.0)) -> tuple[int, Tone]:
    """Which of the templates correlates best with one image on the reference grid, (1, 3, h, w), whose tone was changed, and what undoes the change: `Tone()` where no tone is clearly better than that of the image.

    Args:
        offset: as for `malp_disc.keyed.template.template`.
    """
    from scipy.optimize import minimize  # late: takes a while to import

    levels, sums = _by_levels(seen, secret, numbers, size, offset)
    weights = level_weights(secret).double().numpy()
    coarse, reached = _coarse_correlations(levels, sums, weights)
    which = int(reached.max(0).argmax())
    own, reached = sums[which : which + 1], reached[:, which]
    if reached.max() < max(_LEAST, _BETTER * _correlation(np.zeros((1, 6)), levels, own, weights).item()):
        return numbers[which], Tone()

    def cost_and_gradient(tone: np.ndarray) -> tuple[float, np.ndarray]:
        presence, gradient = _presence_and_gradient(tone, levels, own[0], weights)
        return _SMALL * np.square(tone / _SCALES).sum() - presence, 2 * _SMALL * tone / _SCALES**2 - gradient

    best = min((minimize(cost_and_gradient, coarse[row], jac=True, method="L-BFGS-B", bounds=_BOUNDS) for row in reached.argsort()[-_STARTS:]), key=lambda found: found.fun)
    return numbers[which], Tone(*best.x.tolist())


def describe_tone(before: Tensor, now: Tensor) -> dict[str, float]:
    """How images (B, 3, H, W) in [-1, 1] differ in tone: mean changes of red, green and blue in grey levels, and ratios of contrast (standard deviation of the grey levels) and saturation (root mean square of what sets colours apart from grey).

    A ratio is 1 where there was nothing before that could have changed: less than two grey levels of contrast or of colour, as in a greyscale image.
    """
    change = (now - before).mean((0, 2, 3)) * 127.5
    grey = [images.mean(1, keepdim=True) for images in (before, now)]
    contrast = [images.std(correction=0).item() for images in grey]
    colour = [(images - own).square().mean().sqrt().item() for images, own in zip((before, now), grey)]
    ratios = {name: there[1] / there[0] if there[0] > _LEAST_SEEN else 1.0 for name, there in (("contrast", contrast), ("saturation", colour))}
    return {name: round(value, 1) for name, value in zip(("red", "green", "blue"), change.tolist())} | {name: round(value, 2) for name, value in ratios.items()}


def _undone(levels: np.ndarray, tones: np.ndarray) -> np.ndarray:
    """Levels (…, 3) with each of the tones (T, 6) undone, (T, …, 3)."""
    brightness, contrast, gamma, saturation, warmth, tint = (part.reshape(-1, *[1] * levels.ndim) for part in tones.T)
    now = 2 * _unit(levels) ** np.exp(gamma) * np.exp(np.concatenate([warmth + tint, -2 * tint, tint - warmth], -1)) - 1
    grey = now.mean(-1, keepdims=True)
    return (grey + (now - grey) * np.exp(saturation)) * np.exp(contrast) + brightness


def _unit(levels: np.ndarray) -> np.ndarray:
    """Levels of [-1, 1] in (0, 1]."""
    return ((levels + 1) / 2).clip(1e-3, 1)


def _coarse_correlations(levels: np.ndarray, sums: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tones, (T, 6), of which one is near enough to any for the correlation to rise from there, and the presence of each template with each of them undone, (T, N).

    Brightness turns φ by the same angle at all pixels of a set, so it takes a product with the sum over the pixels, instead of a sum for each brightness.
    """
    tones = np.array(list(itertools.product((0.0,), *_COARSE)))
    agreeing = np.concatenate([_agreement(part, levels, sums, weights) for part in np.array_split(tones, max(1, len(tones) * len(levels) // _AT_ONCE))])  # (tones, N, sets)
    brighter = np.exp(-1j * np.outer(_BRIGHTER, weights.sum(1)))  # (brightnesses, sets)
    reached = np.einsum("tns,bs->btn", agreeing, brighter).real
    coarse = np.tile(tones, (len(_BRIGHTER), 1))
    coarse[:, 0] = np.repeat(_BRIGHTER, len(tones))
    return coarse, reached.reshape(len(coarse), -1)


def _by_levels(seen: Tensor, secret: bytes, numbers: Sequence[int], size: int, offset: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels with nearly the same local levels put together: their levels (P, 3), and for each template, by set of weights, the sums of what is left of image and template, (N, P, `SETS`) complex, in standard deviations."""
    parts = Parts.of(seen, secret, numbers[:1], size, offset)
    turned = parts.turned_back(whole_image(seen))[0]
    turned = turned / turned.square().sum().div(2).sqrt().clamp(min=1e-12)
    levels = smoothed(parts.images, LEVEL)[0].permute(1, 2, 0).reshape(-1, 3)
    low, high = levels.amin(0), levels.amax(0)
    red, green, blue = ((levels - low) / (high - low).clamp(min=1e-3) * _BINS).long().clamp(max=_BINS - 1).unbind(1)
    own_bin = (red * _BINS + green) * _BINS + blue  # as a product with a vector, CUDA doesn't compute it in integers
    bins, place = own_bin.unique(return_inverse=True)
    place_and_set = place * SETS + which_set(tuple(seen.shape[2:]), parts.corner).reshape(-1).to(place)
    sums = []
    for number in numbers:
        pattern = carrier(secret, (number,), size, tuple(seen.shape[2:]), parts.corner)[0].to(turned)
        agreeing = torch.complex(*turned) * torch.complex(*pattern).conj()
        sums.append(torch.zeros(len(bins) * SETS, dtype=torch.complex64, device=levels.device).index_add_(0, place_and_set, agreeing.reshape(-1)))
    mean = torch.zeros(len(bins), 3, device=levels.device).index_add_(0, place, levels) / torch.bincount(place)[:, None]
    return mean.cpu().double().numpy(), torch.stack(sums).view(len(numbers), -1, SETS).cpu().numpy()


def _presence_and_gradient(tone: np.ndarray, levels: np.ndarray, sums: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Presence of one template, whose sums (P, sets) are those of `_by_levels`, with a tone (6,) undone, and its gradient with respect to the tone."""
    turn = _turns(tone[None], levels, weights)[0]
    cosine, sine = np.cos(turn), np.sin(turn)
    presence = (cosine * sums.real + sine * sums.imag).sum()
    by_level = (cosine * sums.imag - sine * sums.real) @ weights  # (P, 3)
    _, contrast, gamma, saturation, warmth, tint = tone
    unit = _unit(levels)
    light = 2 * unit ** np.exp(gamma) * np.exp([warmth + tint, -2 * tint, tint - warmth])
    colour = light - light.mean(-1, keepdims=True)
    mean = by_level.mean(-1, keepdims=True)
    by_light = (mean + (by_level - mean) * np.exp(saturation)) * np.exp(contrast) * light
    red, green, blue = by_light.sum(0)
    by_colour = (by_level * colour).sum() * np.exp(saturation + contrast)
    by_contrast = (by_level * (light.mean(-1, keepdims=True) - 1)).sum() * np.exp(contrast) + by_colour
    by_gamma = (by_light * np.log(unit)).sum() * np.exp(gamma)
    return presence, np.array([by_level.sum(), by_contrast, by_gamma, by_colour, red - blue, red - 2 * green + blue])


def _correlation(tones: np.ndarray, levels: np.ndarray, sums: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Presence of each template with each of the tones (T, 6) undone, (T, N), of the sums of `_by_levels`."""
    return _agreement(tones, levels, sums, weights).real.sum(-1)


def _agreement(tones: np.ndarray, levels: np.ndarray, sums: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`_correlation` before its real part is taken, and by set of weights: complex (T, N, sets)."""
    turn = np.moveaxis(_turns(tones, levels, weights), 2, 0)
    return np.moveaxis((np.cos(turn) - 1j * np.sin(turn)) @ sums.transpose(2, 1, 0), 0, 2)


def _turns(tones: np.ndarray, levels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The angles by which undoing the tones (T, 6) turns φ at levels (P, 3) by each set of weights, (T, P, sets)."""
    return (_undone(levels, tones) - levels) @ weights.T

"""Template leakage: how well attacks estimate the template from published encrypted images alone (`malp_disc.metrics.template_attacks`).

The template is common to all images of its owner, so it can be estimated from enough of them, and then removed from them or added to other
images. Neither a set of templates nor random shifts prevent the stronger attacks; the strongest attack is the relevant one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from malp_disc.encryption import NO_TEMPLATE, Encryption
from malp_disc.metrics.template_attacks import (
    Published,
    aligned_average,
    average,
    clustered_average,
    residual_average,
    rolled,
    weighted_average,
)
from malp_disc.runtime.input_checks import check_images

COUNTS = (1, 3, 10, 30, 100, 300, 1000)
"""Default numbers of published images."""


@dataclass(frozen=True)
class Leak:
    """Result of one attack on a number of images.

    Attributes:
        attacker: name of the attack, see `malp_disc.metrics.template_attacks`.
        images: N, number of images.
        cosine: |CS| of the estimate and the true template, mean over disjoint groups of N images. The maximum over all templates,
            estimates and shifts counts.
        error: standard error of the mean; None for one group.
        chance: the same for the estimates and templates of the same spectrum that weren't added, as a baseline.
        groups: number of groups.
    """

    attacker: str
    images: int
    cosine: float
    error: float | None
    chance: float
    groups: int


@torch.no_grad()
def template_leak(
    encrypted: Tensor,
    templates: Tensor,
    *,
    originals_mean: Tensor | None = None,
    shifted: bool = False,
    counts: Sequence[int] = COUNTS,
    groups: int = 10,
    seed: int = 0,
) -> list[Leak]:
    """Cosine of estimated and true templates for every attack and number of images.

    Args:
        encrypted: (P, 3, H, W) in [-1, 1], the published images; each has one of the templates.
        templates: the true set at the images' size, (n, 1, H, W), from `Encryption.at`.
        originals_mean: (3, H, W), mean of other, unencrypted images of the same kind; None skips the attack that needs it.
        shifted: whether the templates were shifted per image (`randomly_shifted`). If so, the aligning attack is included, and |CS| is the
            maximum over all shifts, for the baseline too.
        counts: values of N, each at most P.
        groups: maximum number of disjoint groups of N images.
        seed: seed of the groups, of k-means and of the baseline templates.

    Returns:
        One result per attack and number of images, grouped by attack.

    Raises:
        ValueError: shapes that don't fit together, or a count above P.
    """
    check_images(encrypted, "encrypted")
    size = tuple(encrypted.shape[2:])
    if templates.ndim != 4 or templates.shape[1:] != (1, *size) or len(templates) < 1:
        raise ValueError(f"expected templates (n, 1, {size[0]}, {size[1]}) like the images, got {tuple(templates.shape)}; use Encryption.at")
    if originals_mean is not None and originals_mean.shape != (3, *size):
        raise ValueError(f"expected a mean image (3, {size[0]}, {size[1]}) like the images, got {tuple(originals_mean.shape)}")
    if not counts or min(counts) < 1 or max(counts) > len(encrypted) or groups < 1:
        raise ValueError(f"expected counts of 1 … {len(encrypted)} images, all there are, in at least one group, got {tuple(counts)} in {groups}")
    published, true = Published.of(encrypted.cpu()), templates.detach().cpu().float()[:, 0]
    stand_ins = _same_spectrum(true, seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(encrypted)))

    attackers: dict[str, Callable[[Published], Tensor]] = {}
    if originals_mean is not None:
        attackers["average"] = lambda part: average(part, originals_mean.cpu())
    attackers |= {"residuals": residual_average, "weighted residuals": weighted_average}
    if len(true) > 1:
        attackers["clustered residuals"] = lambda part: clustered_average(part, len(true), seed)
    if shifted:
        attackers["aligned residuals"] = lambda part: aligned_average(part, len(true))

    leaks = []
    for name, attack in attackers.items():
        for count in counts:
            estimates = [attack(published.take(rows)) for rows in order.split(count)[: min(groups, len(order) // count)]]
            cosines = np.array([_best_cosine(estimate, true, shifted) for estimate in estimates])
            chance = float(np.mean([_best_cosine(estimate, stand_ins, shifted) for estimate in estimates]))
            error = float(cosines.std(ddof=1) / len(cosines) ** 0.5) if len(cosines) > 1 else None
            leaks.append(Leak(name, count, float(cosines.mean()), error, chance, len(cosines)))
    return leaks


def randomly_shifted(encryption: Encryption, images: Tensor, index: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """T(I) = I + m·roll(S_i), Eq. 6 with the template shifted circularly by a random (dy, dx) per image, clamped: a defence against averaging.

    Shapes: images (B, 3, H, W) in [-1, 1]; index (B,) long, a template's number or `NO_TEMPLATE` -> (B, 3, H, W) in [-1, 1].

    Raises:
        ValueError: as for `Encryption`.
    """
    check_images(images)
    index = encryption.check_index(index, len(images))
    where = "cpu" if generator is None else generator.device
    size = torch.tensor(images.shape[2:])
    shifts = (torch.rand(len(images), 2, generator=generator, device=where).cpu() * size).long()
    chosen = encryption.at(images.shape[2:])[index.clamp(min=0)] * (index != NO_TEMPLATE).view(-1, 1, 1, 1)
    return (images.float() + encryption.strength * rolled(chosen, shifts)).clamp(-1, 1)


def _best_cosine(estimates: Tensor, templates: Tensor, shifted: bool) -> float:
    """Largest |CS| of (K, H, W) with (n, H, W), if `shifted` also over circular shifts; 0 for an estimate of zero."""
    estimates, templates = estimates.double(), templates.double()
    norms = estimates.flatten(1).norm(dim=1)[:, None] * templates.flatten(1).norm(dim=1)  # (K, n)
    if shifted:
        product = torch.fft.rfft2(estimates)[:, None] * torch.fft.rfft2(templates).conj()
        inner = torch.fft.irfft2(product, s=estimates.shape[1:]).abs().amax(dim=(2, 3))
    else:
        inner = (estimates.flatten(1) @ templates.flatten(1).T).abs()
    return (inner / norms.clamp(min=1e-30)).max().item()


def _same_spectrum(templates: Tensor, seed: int) -> Tensor:
    """Templates with the same spectral magnitudes and the phases of noise. From NumPy, since torch's noise of this seed may be the templates."""
    noise = torch.fft.rfft2(torch.from_numpy(np.random.default_rng([seed, 1]).standard_normal(templates.shape, dtype=np.float32)))
    return torch.fft.irfft2(torch.fft.rfft2(templates).abs() * noise / noise.abs(), s=templates.shape[1:])

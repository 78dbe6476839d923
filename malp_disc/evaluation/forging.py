"""Attacks on keyed templates: what published images give away of the key, and whether it suffices to forge or to remove a template.

An estimate of a template is added to unprotected images (forging), or subtracted from protected ones (removal), at the strength of the protection. The attackers
have published images and know the method, but have neither key nor detector. "key search" (`malp_disc.evaluation.key_search`) is by far the strongest; `exact` adds the true
template of another image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from malp_disc.detection import cosine
from malp_disc.evaluation.key_search import search_key
from malp_disc.keyed import KeyedMaLP
from malp_disc.keyed.spectrum import reference_size
from malp_disc.keyed.template import carrier, masked_template
from malp_disc.metrics.degradations import to_8bit
from malp_disc.metrics.template_attacks import Published, residual_average, weighted_average
from malp_disc.metrics.template_leakage import template_leak

BATCH = 16


@torch.no_grad()
def leak(malp: KeyedMaLP, published: Tensor, others_mean: Tensor, counts: tuple[int, ...], seed: int) -> Iterator[dict[str, Any]]:
    """Cosine of the attackers' estimates with the secret carrier, the larger one of its two parts.

    Args:
        published: protected images of the size that they have on the reference grid.
        others_mean: mean of other, unprotected images.

    Raises:
        ValueError: images of another size, whose pixels aren't the carrier's.
    """
    height, width = published.shape[2:]
    if (expected := reference_size(height, width, malp.config.image_size)) != (height, width):
        raise ValueError(
            f"expected images of the size that they have on the reference grid, {expected[0]}x{expected[1]}, got {height}x{width}: the attackers estimate the carrier pixel by pixel"
        )
    parts = [carrier(malp.secret, malp.config.image_size)[i, :height, :width][None, None] for i in range(2)]
    by_part = [template_leak(published, part, originals_mean=others_mean, counts=counts, seed=seed) for part in parts]
    for found in zip(*by_part):
        best = max(found, key=lambda one: one.cosine)
        yield {"attacker": best.attacker, "images": best.images, "cosine": best.cosine, "chance": best.chance, "groups": best.groups}


@torch.no_grad()
def forging(malp: KeyedMaLP, published: Tensor, added: Tensor, victims: Tensor, counts: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Shares of forged images that pass as protected and untouched (`forged`), or as protected at all (`claimed`), and of protected images whose template is gone
    after removal (`removed`); and the cosine of the estimate with the victims' own templates. Images that resemble each other, such as aligned faces, have similar
    phases, so that the mean of their templates resembles each of them a little.

    Args:
        published: protected images, (P, 3, H, W).
        added: what protection added to them, (P, 1, H, W).
        victims: unprotected images, (V, 3, H, W) of the same size.
    """
    protected = to_8bit(malp.encrypt(victims)[0])
    for count in counts:
        known = Published.of(published[:count])
        for name, attack in (("residuals", residual_average), ("weighted residuals", weighted_average)):
            yield {"attacker": name, "images": count, **_with(malp, _constant(malp, attack(known)[None]), victims, protected)}
        if count > 1:
            key = search_key(published[:count])
            yield {"attacker": "key search", "images": count, **_with(malp, lambda images, key=key: key.template(images, malp.config.psnr), victims, protected)}
    yield {"attacker": "exact", "images": 1, **_with(malp, _constant(malp, added[:1]), victims, protected)}


def _constant(malp: KeyedMaLP, estimate: Tensor) -> Callable[[Tensor], Tensor]:
    """The same estimate for all images, at the strength of the protection."""
    wanted = 2 * 10 ** (-malp.config.psnr / 20)
    estimate = estimate * (wanted / estimate.square().mean().sqrt().clamp(min=1e-12))
    return lambda images: estimate.expand(len(images), -1, -1, -1)


def _with(malp: KeyedMaLP, attack: Callable[[Tensor], Tensor], victims: Tensor, protected: Tensor) -> dict[str, float]:
    """What becomes of images with the template that the attack makes for them, and of protected ones without it."""
    own = torch.cat([masked_template(part, malp.secret, malp.config.image_size, malp.config.psnr) for part in victims.split(BATCH)])
    threshold = malp.threshold
    estimates = torch.cat([attack(part) for part in victims.split(BATCH)])
    forged = [malp(to_8bit((part + attack(part)).clamp(-1, 1))) for part in victims.split(BATCH)]
    cleaned = [malp(to_8bit((part - attack(part)).clamp(-1, 1))) for part in protected.split(BATCH)]
    presence, score = (torch.cat([getattr(out, name) for out in forged]).cpu().numpy() for name in ("presence", "score"))
    left = torch.cat([out.presence for out in cleaned]).cpu().numpy()
    return {
        "cosine": cosine(own, estimates).mean().item(),
        "forged": float(np.mean((presence > malp.config.present_above) & (score <= threshold))),
        "claimed": float(np.mean(presence > malp.config.present_above)),
        "removed": float(np.mean(left <= malp.config.present_above)),
        "n": len(victims),
    }

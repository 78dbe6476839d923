"""Attacks on keyed templates: whether published images suffice to have others taken for protected and untouched ones, or to hide an edit.

The attackers have published images, each with a template number of its own, and know the method; they have neither key nor detector. What they add has the strength of the protection, but for the attackers who steer φ. An image is forged
if any of the templates that were issued is found in it, and it counts as untouched.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from malp_disc.data.local_edits import local_edit, random_masks
from malp_disc.degradations import to_8bit
from malp_disc.detection import cosine
from malp_disc.evaluation.key_search import at_strength, search_key, whitened
from malp_disc.evaluation.survival import BATCH, claims, issued_to, protected, traced
from malp_disc.evaluation.template_copy import agreement, most_similar, steered
from malp_disc.keyed import KeyedMaLP
from malp_disc.keyed.issued import Issued
from malp_disc.keyed.spectrum import reference_size
from malp_disc.keyed.template import level_weights, masked_template
from malp_disc.metrics.pixels import pixel_scores
from malp_disc.metrics.template_attacks import Published, residual_average, weighted_average

STEERED, STRONGER = 28.0, 34.0
"""PSNR of the change of low frequencies, and of the template, of the attackers who steer φ: visible, to give them every chance."""
FEW = 24  # victims of the attackers who steer, which takes a while
Attack = Callable[[Tensor], Tensor]  # images (B, 3, H, W) -> what is added to them, (B, 1 or 3, H, W)


@torch.no_grad()
def forging(malp: KeyedMaLP, originals: Tensor, victims: Tensor, counts: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Shares of forged images that count as protected and untouched (`forged`), or as protected (`claimed`), and the cosine of what was added with the template that is found best.

    Args:
        originals: of the images that are published, (P, 3, H, W).
        victims: unprotected images, (V, 3, H, W) of the same size.
        counts: of published images that an attacker has.

    Raises:
        ValueError: images that don't have the size of the reference grid.
    """
    size = malp.config.image_size
    height, width = originals.shape[2:]
    if (expected := reference_size(height, width, size)) != (height, width):
        raise ValueError(f"expected images of the size that they have on the reference grid, {expected[0]}x{expected[1]}, got {height}x{width}: the attackers work pixel by pixel")
    published, issued = protected(malp, originals), issued_to(originals)
    exact = torch.cat(
        [masked_template(part, malp.secret, index.tolist(), size, malp.config.psnr) for part, index in zip(originals.split(BATCH), torch.arange(len(originals)).split(BATCH))]
    )

    def constant(pattern: Tensor) -> Attack:
        return lambda images: at_strength(pattern.expand(len(images), 1, -1, -1), images, malp.config.psnr)

    def copy(known: Tensor, template: Tensor, steer: bool = False) -> Attack:
        def attack(images: Tensor) -> Tensor:
            rows = most_similar(images, known)
            change = steered(images, known[rows], STEERED) if steer else torch.zeros_like(images)
            images = (images + change).clamp(-1, 1)
            return change + at_strength(template[rows] * agreement(images, known[rows]), images, STRONGER if steer else malp.config.psnr)

        return attack

    def searched(known: Tensor) -> Attack:
        key = functools.cache(lambda: search_key(known, level_weights(malp.secret)))  # takes a while: not before its turn
        return lambda images: key().template(images, malp.config.psnr)

    for count in counts:
        known = published[:count]
        averages = Published.of(known)
        attacks: dict[str, Attack] = {
            "residuals": constant(residual_average(averages)),
            "weighted residuals": constant(weighted_average(averages)),
            "copy of the most similar": copy(known, whitened(known)),
            "copy, its original known": copy(known, exact[:count]),
        }
        if count > 1:
            attacks["search for the key"] = searched(known)
        if count == max(counts):
            attacks["steered copy"] = copy(known, whitened(known), steer=True)
            attacks["steered copy, its original known"] = copy(known, exact[:count], steer=True)
        for name, attack in attacks.items():
            yield {"attacker": name, "images": count, **_forged(malp, attack, victims[:FEW] if name.startswith("steered") else victims, issued)}


def _forged(malp: KeyedMaLP, attack: Attack, victims: Tensor, issued: Issued) -> dict[str, float]:
    """What becomes of images with the template that the attack makes for them."""
    forged, cosines, held = [], [], []
    for part in victims.split(BATCH):
        added = attack(part)
        seen = to_8bit((part + added).clamp(-1, 1))
        traces = claims(malp, seen, issued)
        held += [trace.found.protected for trace in traces]
        best = [trace.found.number for trace in traces]
        cosines.append(cosine(masked_template(part, malp.secret, best, malp.config.image_size, malp.config.psnr), added.mean(1, keepdim=True)))
        forged += [malp(trace.image, trace.found.number) for trace in traces]
    presence, score = (torch.cat([getattr(out, name) for out in forged]).cpu() for name in ("presence", "score"))
    present = torch.tensor(held)
    return {
        "n": len(victims),
        "cosine": torch.cat(cosines).mean().item(),
        "presence": presence.mean().item(),
        "claimed": present.double().mean().item(),
        "forged": (present & (score <= malp.threshold)).double().mean().item(),
    }


@torch.no_grad()
def hiding(malp: KeyedMaLP, images: Tensor, seed: int) -> Iterator[dict[str, Any]]:
    """F1 and AUC of spliced regions into which the editor copies the template of what was there before: not at all, its residual as it is, or turned as well as can be without the key, and
    the same with the original known.
    """
    published, index, issued = protected(malp, images), torch.arange(len(images)), issued_to(images)
    regions = random_masks(images, [[seed, 17, i] for i in range(len(images))])
    spliced = local_edit(published, regions, "splice", sources=images.roll(1, 0), seed=seed)
    residual, turned = whitened(published), agreement(spliced, published)
    exact = masked_template(images, malp.secret, index.tolist(), malp.config.image_size, malp.config.psnr)
    for name, pattern in {"nothing": None, "residual": residual, "residual, turned": residual * turned, "template, turned": exact * turned}.items():
        added = 0 if pattern is None else at_strength(pattern, spliced, malp.config.psnr) * regions
        seen = to_8bit((spliced + added).clamp(-1, 1))
        found = torch.cat([out.edited for _, out in traced(malp, seen, issued)])
        measured = pixel_scores(found.cpu(), regions.float().cpu(), threshold=malp.config.edited_above, changed=0.5)
        yield {"copied": name, "n": len(images), "f1": measured.f1.mean().item(), "auc": measured.auc.mean().item()}

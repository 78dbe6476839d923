"""What of a `KeyedMaLP` survives: detection after degradations and at other sizes, localization of local edits, false alarms, and what attackers get.

Every function takes images (N, 3, H, W) in [-1, 1] on the MaLP's device, and yields or returns plain dictionaries, one line of a result file each.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from malp_disc.benchmark.pixels import pixel_scores
from malp_disc.data.local_edits import LOCAL_EDITS, local_edit, random_masks
from malp_disc.keyed import KeyedMaLP
from malp_disc.metrics.degradations import cropped, gaussian_blur, gaussian_noise, jpeg, resized, resized_and_back, to_8bit, webp
from malp_disc.metrics.detection import detection_scores

Change = Callable[[Tensor], Tensor]
BATCH = 16
SAME_SIZE: dict[str, Callable[[int], Change]] = {
    "none": lambda seed: to_8bit,
    "JPEG 75": lambda seed: partial(jpeg, quality=75),
    "JPEG 50": lambda seed: partial(jpeg, quality=50),
    "WebP 75": lambda seed: partial(webp, quality=75),
    "resize 0.5 and back": lambda seed: partial(resized_and_back, scale=0.5),
    "resize 2 and back": lambda seed: partial(resized_and_back, scale=2.0),
    "blur 1 pixel": lambda seed: partial(gaussian_blur, sigma=1.0),
    "noise 0.02": lambda seed: lambda images: gaussian_noise(images, 0.02 * 255, torch.Generator().manual_seed(seed)),
}
"""Degradations before the edit or after it; the argument is the seed of the noise, whose deviation 0.02 is a share of the range 0 … 1."""
SIZES = (0.5, 1.5, 2.0, 4.0)
CROP = 2 / 3


@torch.no_grad()
def scores(malp: KeyedMaLP, images: Tensor, *, align: bool = False) -> dict[str, np.ndarray]:
    """P(manipulated) and the presence of the template of each image, (N,) each. `align` looks for the place of each on its original."""
    parts = images.split(1 if align else BATCH)
    found = [malp(part, malp.align(part) if align else None) for part in parts]
    return {name: torch.cat([getattr(out, name) for out in found]).cpu().numpy() for name in ("score", "presence")}


def detection(malp: KeyedMaLP, untouched: Tensor, edited: Tensor, unprotected: Tensor, *, align: bool = False) -> dict[str, Any]:
    """Two tests of images that went the same way: edited or not, among the protected ones; and protected or not, among the untouched ones.

    `alarms` and `found` are the shares above the calibrated threshold of the score (0.5 if there is none), `called` the share of the edited ones that
    `malp-disc detect` calls manipulated, which also asks whether the template is present anywhere, and `claimed` the share of the unprotected images that are taken for protected
    ones.
    """
    threshold = malp.threshold
    kinds = [scores(malp, images, align=align) for images in (untouched, edited, unprotected)]
    auc = [
        detection_scores(np.repeat([0, 1], [len(low), len(high)]), np.concatenate([low, high]), threshold=0.5).auc
        for low, high in ((kinds[0]["score"], kinds[1]["score"]), (kinds[2]["presence"], kinds[0]["presence"]))
    ]
    return {
        "n": len(untouched),
        "auc": auc[0],
        "auc_presence": auc[1],
        "alarms": float((kinds[0]["score"] > threshold).mean()),
        "found": float((kinds[1]["score"] > threshold).mean()),
        "called": float(((kinds[1]["score"] > threshold) & (kinds[1]["presence"] > malp.config.present_above)).mean()),
        "present": float((kinds[0]["presence"] > malp.config.present_above).mean()),
        "claimed": float((kinds[2]["presence"] > malp.config.present_above).mean()),
    }


def survival(malp: KeyedMaLP, images: Tensor, edit: Change, seed: int) -> Iterator[dict[str, Any]]:
    """`detection` under every condition of the module; `edit` is the generator's, of whole images."""
    protected = to_8bit(malp.encrypt(images)[0])
    edited = to_8bit(edit(protected))
    for name, make in SAME_SIZE.items():
        change = make(seed)
        degraded, plain = change(protected), change(images)
        yield {"condition": name, "when": "after the edit", **detection(malp, degraded, change(edited), plain)}
        if name != "none":
            yield {"condition": name, "when": "before the edit", **detection(malp, degraded, to_8bit(edit(degraded)), plain)}
    for scale in SIZES:
        change = partial(resized, size=tuple(round(scale * side) for side in images.shape[2:]))
        yield {
            "condition": f"{scale:g} times the size",
            "when": "after the edit",
            **detection(malp, *(change(part) for part in (protected, edited, images))),
        }
    wide = images[:, :, : images.shape[2] * 5 // 8]
    protected_wide = to_8bit(malp.encrypt(wide)[0])
    side = images.shape[2] - wide.shape[2]
    edited_wide = to_8bit(edit(torch.nn.functional.pad(protected_wide, (0, 0, 0, side), mode="reflect"))[:, :, : wide.shape[2]])
    yield {"condition": "aspect 8:5", "when": "before the edit", **detection(malp, protected_wide, edited_wide, to_8bit(wide))}
    place = tuple(np.random.default_rng([seed, 7]).random(2))
    change = partial(cropped, share=CROP, place=place)
    yield {
        "condition": "crop to 2/3",
        "when": "after the edit",
        **detection(malp, *(change(part) for part in (protected, edited, images)), align=True),
    }


@torch.no_grad()
def local_edits(malp: KeyedMaLP, images: Tensor, generated: Change, seed: int, degradations: dict[str, Change]) -> Iterator[dict[str, Any]]:
    """F1, IoU and AUC of edited regions, each image's own; beside the F1 of marking all pixels, none, and each with probability one half."""
    protected = to_8bit(malp.encrypt(images)[0])
    regions = random_masks(images, [[seed, 11, i] for i in range(len(images))])
    sources = {"splice": images.roll(1, 0), "generated": generated(protected)}
    by_kind = {kind: to_8bit(local_edit(protected, regions, kind, sources=sources.get(kind), seed=seed)) for kind in LOCAL_EDITS}
    if importlib.util.find_spec("cv2") is not None:
        by_kind["inpaint (OpenCV, Telea)"] = inpainted_by_opencv(protected, regions)
    for kind, edited in by_kind.items():
        for name, change in degradations.items():
            found = torch.cat([malp(part).edited for part in change(edited).split(BATCH)])
            yield {"edit": kind, "degradation": name, "n": len(images), **region_scores(found, regions, malp.config.edited_above)}


def inpainted_by_opencv(images: Tensor, regions: Tensor) -> Tensor:
    """Telea's inpainting with a radius of 3 pixels; needs the package opencv-python-headless, which training doesn't."""
    import cv2

    levels = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    masks = regions[:, 0].byte().cpu().numpy()
    filled = np.stack([cv2.inpaint(np.ascontiguousarray(image), mask, 3, cv2.INPAINT_TELEA) for image, mask in zip(levels, masks)])
    return torch.from_numpy(filled).permute(0, 3, 1, 2).to(images.device).float() / 127.5 - 1


def region_scores(found: Tensor, regions: Tensor, threshold: float) -> dict[str, float]:
    """Mean scores of predicted regions (B, 1, H, W) in [0, 1] against true ones of bool."""
    truth = regions.float().cpu()
    measured = pixel_scores(found.cpu(), truth, threshold=threshold, changed=0.5)
    share = truth.mean((1, 2, 3)).double()
    return {
        "f1": measured.f1.mean().item(),
        "iou": measured.iou.mean().item(),
        "auc": measured.auc.mean().item(),
        "f1_all": (2 * share / (1 + share)).mean().item(),
        "f1_none": 0.0,
        "f1_random": (share / (share + 0.5)).mean().item(),
    }

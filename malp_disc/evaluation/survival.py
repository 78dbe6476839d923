"""What of a `KeyedMaLP` survives: detection after degradations and at other sizes, localization of local edits, false alarms, and what attackers get.

Every function takes images (N, 3, H, W) in [-1, 1] on the MaLP's device, and yields or returns plain dictionaries, one line of a result file each. The images have the templates
0 … N - 1; others may have been issued besides, among which an image's own must be found.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from malp_disc.data.local_edits import LOCAL_EDITS, local_edit, random_masks
from malp_disc.degradations import cropped, gaussian_blur, gaussian_noise, jpeg, resized, resized_and_back, to_8bit, webp
from malp_disc.keyed import KeyedMaLP, KeyedOutput
from malp_disc.keyed.issued import Issued
from malp_disc.keyed.looks import look
from malp_disc.keyed.trace import Trace
from malp_disc.levels import as_images, to_pixels
from malp_disc.metrics.detection import detection_scores
from malp_disc.metrics.pixels import pixel_scores

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
FAINT: dict[str, Change] = {
    "red and blue exchanged": lambda images: images.flip(1),
    "colour removed": lambda images: images.mean(1, keepdim=True).expand_as(images),
    "20 levels brighter": lambda images: images + 20 / 127.5,
    "half the contrast": lambda images: images.mean((2, 3), keepdim=True) + 0.5 * (images - images.mean((2, 3), keepdim=True)),
    "coloured stripes, 4 pixels": lambda images: images + stripes(images, 4),
}
TONES: dict[str, Change] = {
    "none": lambda images: images,
    "5 levels brighter": lambda images: images + 5 / 127.5,
    "10 levels brighter": lambda images: images + 10 / 127.5,
    "20 levels brighter": lambda images: images + 20 / 127.5,
    "40 levels brighter": lambda images: images + 40 / 127.5,
    "40 levels darker": lambda images: images - 40 / 127.5,
    "0.8 times the contrast": lambda images: 0.8 * images,
    "half the contrast": lambda images: 0.5 * images,
    "1.3 times the contrast": lambda images: 1.3 * images,
    "gamma 0.8": lambda images: 2 * ((images + 1) / 2) ** 0.8 - 1,
    "gamma 1.25": lambda images: 2 * ((images + 1) / 2) ** 1.25 - 1,
    "gamma 0.8, then JPEG 75": lambda images: jpeg(to_8bit(2 * ((images + 1) / 2) ** 0.8 - 1), quality=75),
    "half the saturation": lambda images: (images + images.mean(1, keepdim=True)) / 2,
    "colour removed": lambda images: images.mean(1, keepdim=True).expand_as(images),
    "red 5 % stronger, blue 5 % weaker": lambda images: (images + 1) * torch.tensor([1.05, 1.0, 0.95], device=images.device).view(3, 1, 1) - 1,
    "red 10 % stronger, blue 10 % weaker": lambda images: (images + 1) * torch.tensor([1.1, 1.0, 0.9], device=images.device).view(3, 1, 1) - 1,
}
"""Changes of the whole image that leave its details, which an editor or a camera's software makes."""
SHAPES: dict[str, Change] = {
    "mirrored": lambda images: images.flip(3),
    "mirrored, 20 levels brighter": lambda images: images.flip(3) + (20 / 127.5 if images.shape[1] == 3 else 0),
    "stretched to 0.8 times the width": lambda images: torch.nn.functional.interpolate(images, (images.shape[2], round(0.8 * images.shape[3])), mode="bilinear", antialias=True, align_corners=False),
}
"""Changes that move pixels, of images (B, 3, H, W) and of masks (B, 1, H, W)."""
SQUARES = (0.03, 0.06, 0.12)
CROP = 2 / 3


def protected(malp: KeyedMaLP, images: Tensor) -> Tensor:
    """The images with the first N templates, rounded to 8 bits."""
    return torch.cat([to_8bit(malp.encrypt(part, index)[0]) for part, index in zip(images.split(BATCH), torch.arange(len(images)).split(BATCH))])


@dataclass(frozen=True)
class Scores:
    """What `malp-disc detect` finds out of N images, of which the i-th has the template i, if any.

    Attributes:
        score: P(manipulated), (N,).
        presence: of that template, (N,).
        present: whether it counts as present, (N,) of bool.
        resembling: whether the image is known to resemble the original of it, (N,) of bool.
    """

    score: np.ndarray
    presence: np.ndarray
    present: np.ndarray
    resembling: np.ndarray


def traced(malp: KeyedMaLP, images: Tensor, issued: Issued, *, crops: bool = False) -> Iterator[tuple[Trace, KeyedOutput]]:
    """Trace and predictions of each image, whose own template alone is looked for, as one of all that were issued; crops of originals only if asked for, since that takes a while."""
    for number, image in enumerate(images.split(1)):
        trace = malp.trace(image, issued, among=[number], crops=crops)
        yield trace, malp(trace.image, trace.found.number, trace.found.alignment)


@torch.no_grad()
def scores(malp: KeyedMaLP, images: Tensor, issued: Issued, *, crops: bool = False) -> Scores:
    """Scores of images; arguments as for `traced`."""
    rows = [
        (out.score.item(), trace.found.presence, trace.found.protected, trace.resembles == number)
        for number, (trace, out) in enumerate(traced(malp, images, issued, crops=crops))
    ]
    return Scores(*(np.array(column) for column in zip(*rows)))


def issued_to(images: Tensor) -> Issued:
    """The templates 0 … N - 1, as they are recorded for images (N, 3, H, W)."""
    count = range(len(images))
    return Issued(tuple(count), looks=dict(enumerate(look(images.cpu()))), shapes={number: tuple(images.shape[2:]) for number in count})


@torch.no_grad()
def claims(malp: KeyedMaLP, images: Tensor, issued: Issued) -> list[Trace]:
    """The trace of each image, as a whole one, to any of the issued templates: its `found.protected` says whether it counts as protected."""
    return [malp.trace(image, issued, crops=False) for image in images.split(1)]


def claimed(malp: KeyedMaLP, images: Tensor, issued: Issued) -> np.ndarray:
    """Whether each image counts as protected, as a whole one, (N,) of bool."""
    return np.array([trace.found.protected for trace in claims(malp, images, issued)])


def detection(malp: KeyedMaLP, untouched: Tensor, edited: Tensor, unprotected: Tensor, issued: Issued, *, crops: bool = False) -> dict[str, Any]:
    """Two tests of images that went the same way: edited or not, among the protected ones; and protected or not, among the untouched ones.

    `alarms` and `found` are the shares of the untouched and of the edited images that `malp-disc detect` calls manipulated: their score is above the calibrated threshold (0.5 if there
    is none), and their template is present. `gone` is the share of the edited ones that it calls not protected, `resembling` that of the edited ones whose original it names nevertheless, `present` that
    of the untouched ones that have their template, and `claimed` that of the unprotected ones, as whole images, that have any.
    """
    kinds = [scores(malp, images, issued, crops=crops) for images in (untouched, edited, unprotected)]
    auc = [
        detection_scores(np.repeat([0, 1], [len(low), len(high)]), np.concatenate([low, high]), threshold=0.5).auc
        for low, high in ((kinds[0].score, kinds[1].score), (kinds[2].presence, kinds[0].presence))
    ]
    alarms, found = (float(((kind.score > malp.threshold) & kind.present).mean()) for kind in kinds[:2])
    return {
        "n": len(untouched),
        "issued": len(issued.numbers),
        "auc": auc[0],
        "auc_presence": auc[1],
        "alarms": alarms,
        "found": found,
        "gone": float(1 - kinds[1].present.mean()),
        "resembling": float(kinds[1].resembling.mean()),
        "present": float(kinds[0].present.mean()),
        "claimed": float(claimed(malp, unprotected, issued).mean()),
    }


def survival(malp: KeyedMaLP, images: Tensor, edit: Change, seed: int, others: Tensor) -> Iterator[dict[str, Any]]:
    """`detection` under every condition of the module; `edit` is the generator's, of whole images, and `others` are images that got further templates."""
    issued = issued_to(torch.cat([images, others]))
    published = protected(malp, images)
    edited = to_8bit(edit(published))
    for name, make in SAME_SIZE.items():
        change = make(seed)
        degraded, plain = change(published), change(images)
        yield {"condition": name, "when": "after the edit", **detection(malp, degraded, change(edited), plain, issued)}
        if name != "none":
            yield {"condition": name, "when": "before the edit", **detection(malp, degraded, to_8bit(edit(degraded)), plain, issued)}
    for scale in SIZES:
        change = partial(resized, size=tuple(round(scale * side) for side in images.shape[2:]))
        yield {
            "condition": f"{scale:g} times the size",
            "when": "after the edit",
            **detection(malp, *(change(part) for part in (published, edited, images)), issued),
        }
    wide = images[:, :, : images.shape[2] * 5 // 8]
    published_wide, issued_to_wide = protected(malp, wide), issued_to(torch.cat([wide, others[:, :, : wide.shape[2]]]))
    side = images.shape[2] - wide.shape[2]
    edited_wide = to_8bit(edit(torch.nn.functional.pad(published_wide, (0, 0, 0, side), mode="reflect"))[:, :, : wide.shape[2]])
    yield {"condition": "aspect 8:5", "when": "before the edit", **detection(malp, published_wide, edited_wide, to_8bit(wide), issued_to_wide)}
    place = tuple(np.random.default_rng([seed, 7]).random(2))
    change = partial(cropped, share=CROP, place=place)
    yield {
        "condition": "crop to 2/3",
        "when": "after the edit",
        **detection(malp, *(change(part) for part in (published, edited, images)), issued, crops=True),
    }


@torch.no_grad()
def local_edits(malp: KeyedMaLP, images: Tensor, generated: Change, seed: int, degradations: dict[str, Change]) -> Iterator[dict[str, Any]]:
    """F1, IoU and AUC of edited regions, each image's own; beside the F1 of marking all pixels, none, and each with probability one half."""
    published, issued = protected(malp, images), issued_to(images)
    regions = random_masks(images, [[seed, 11, i] for i in range(len(images))])
    sources = {"splice": images.roll(1, 0), "generated": generated(published)}
    by_kind = {kind: to_8bit(local_edit(published, regions, kind, sources=sources.get(kind), seed=seed)) for kind in LOCAL_EDITS}
    if importlib.util.find_spec("cv2") is not None:
        by_kind["inpaint (OpenCV, Telea)"] = inpainted_by_opencv(published, regions)
    for kind, edited in by_kind.items():
        for name, change in degradations.items():
            found = torch.cat([out.edited for _, out in traced(malp, change(edited), issued)])
            yield {"edit": kind, "degradation": name, "n": len(images), **region_scores(found, regions, malp.config.edited_above)}


def stripes(images: Tensor, period: int) -> Tensor:
    """Vertical stripes of this period in pixels that keep R + G + B: red 40 levels up and down, green and blue 20 the other way; (1, 3, 1, W)."""
    wave = torch.cos(2 * torch.pi * torch.arange(images.shape[3], device=images.device) / period)
    return 40 / 127.5 * torch.tensor([1.0, -0.5, -0.5], device=images.device).view(1, 3, 1, 1) * wave


@torch.no_grad()
def whole_changes(malp: KeyedMaLP, images: Tensor, others: Tensor, seed: int) -> Iterator[dict[str, Any]]:
    """What `malp-disc detect` says of protected images that were changed as a whole, in brightness, contrast or colours, mirrored, or stretched: shares of `kept` ones, which count as protected and untouched, `manipulated` ones, and
    `gone` ones, whose template isn't found; `resembling` is the share of all whose original it names nevertheless. `f1` is that of spliced regions, in images that were changed so afterwards. `others` are images that got further templates.
    """
    published, issued = protected(malp, images), issued_to(torch.cat([images, others]))
    regions = random_masks(images, [[seed, 11, i] for i in range(len(images))])
    spliced = local_edit(published, regions, "splice", sources=images.roll(1, 0), seed=seed)
    for name, change in (TONES | SHAPES).items():
        found = scores(malp, _published(change, published), issued)
        seen = _published(change, spliced)
        maps = torch.cat([trace.as_given(out.edited, tuple(seen.shape[2:])) for trace, out in traced(malp, seen, issued)])
        where = change(regions.float()) > 0.5 if name in SHAPES else regions
        high = found.score > malp.threshold
        yield {
            "change": name,
            "n": len(images),
            "presence": float(found.presence.mean()),
            "kept": float((found.present & ~high).mean()),
            "manipulated": float((found.present & high).mean()),
            "gone": float((~found.present).mean()),
            "resembling": float(found.resembling.mean()),
            "f1": region_scores(maps, where, malp.config.edited_above)["f1"],
        }


def _published(change: Change, images: Tensor) -> Tensor:
    return to_8bit(change(images).clamp(-1, 1))


@torch.no_grad()
def faint_edits(malp: KeyedMaLP, images: Tensor, seed: int) -> Iterator[dict[str, Any]]:
    """Edits that a detector of details misses, of colours, brightness and contrast, in the regions of `local_edits`, fine coloured stripes, and small black squares in the middle.

    `untouched` is the share of edited images that count as present and untouched.
    """
    published, issued = protected(malp, images), issued_to(images)
    regions = random_masks(images, [[seed, 11, i] for i in range(len(images))])
    cases = {name: (change(published), regions) for name, change in FAINT.items()}
    for share in SQUARES:
        square, side = torch.zeros_like(regions), [max(1, round(share * length)) for length in images.shape[2:]]
        place = [slice((length - own) // 2, (length - own) // 2 + own) for length, own in zip(images.shape[2:], side)]
        square[:, :, place[0], place[1]] = True
        cases[f"black square, {share:.0%} of the side"] = torch.full_like(published, -0.9), square
    for name, (source, where) in cases.items():
        seen = to_8bit(torch.where(where, source, published).clamp(-1, 1))
        found = list(traced(malp, seen, issued))
        untouched = float(np.mean([out.score.item() <= malp.threshold and trace.found.protected for trace, out in found]))
        edited = torch.cat([out.edited for _, out in found])
        yield {"edit": name, "n": len(images), "f1": region_scores(edited, where, malp.config.edited_above)["f1"], "untouched": untouched}


def inpainted_by_opencv(images: Tensor, regions: Tensor) -> Tensor:
    """Telea's inpainting with a radius of 3 pixels; needs the package opencv-python-headless, which training doesn't."""
    import cv2

    levels = to_pixels(images)
    masks = regions[:, 0].byte().cpu().numpy()
    filled = np.stack([cv2.inpaint(np.ascontiguousarray(image), mask, 3, cv2.INPAINT_TELEA) for image, mask in zip(levels, masks)])
    return as_images(torch.from_numpy(filled).permute(0, 3, 1, 2).to(images.device))


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

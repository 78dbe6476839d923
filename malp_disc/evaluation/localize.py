"""Measure one MaLP: does it find what a generator changed, on images as a detector gets them?

Two things can happen to an image besides the generator. It is *published*: an encrypted image is saved, as PNG or JPEG, before anybody
manipulates it. And it is *sent*: whatever the detector sees, untouched or manipulated, has been saved, scaled or blurred on its way
(paper, section 4.5). Both are functions that the caller may give; the truth M_GT is always that of what the generator did.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from malp_disc.detection import correlation, cosine, template_similarity
from malp_disc.evaluation.eval_set import BATCH, EvalSet, edit
from malp_disc.fakeness import fakeness_map
from malp_disc.malp import MaLP
from malp_disc.manipulate import Manipulate, call_manipulate
from malp_disc.metrics.degradations import to_8bit
from malp_disc.metrics.detection import detection_scores
from malp_disc.metrics.localization import localization_scores

LOCALIZED = 512  # images whose maps are scored; a map's score settles long before FID does
Change = Callable[[Tensor], Tensor]


@dataclass
class Seen:
    """What one MaLP's images became: originals (N, 3, H, W), the published encrypted ones, what the generator made of these, and whose
    template."""

    images: Tensor
    published: Tensor
    manipulated: Tensor
    index: Tensor


@torch.no_grad()
def through_generator(
    manipulate: Manipulate, inputs: EvalSet, malp: MaLP, *, publish: Change | None = None, device: torch.device | str = "cpu"
) -> Seen:
    """Encrypt the first 512 images of `inputs`, the templates in turn, publish them, and let the generator edit what was published."""
    images = inputs.images[:LOCALIZED]
    index = torch.arange(len(images), device=device) % malp.encryption.set_size
    encrypted = torch.cat([malp.encrypt(part.to(device), i)[0].cpu() for part, i in zip(images.split(BATCH), index.split(BATCH))])
    published = encrypted if publish is None else publish(encrypted)
    return Seen(images, published, edit(manipulate, published, inputs.targets[: len(images)], device=device), index)


@dataclass
class Looked:
    """What a MaLP said of images: maps (N, 1, H, W), scores (N,), and CS (N,) of the recovered template with the image's own."""

    map: Tensor
    score: Tensor
    own: Tensor


@torch.no_grad()
def look(malp: MaLP, pictures: Tensor, index: Tensor, *, device: torch.device | str = "cpu") -> Looked:
    """A MaLP on images (N, 3, H, W) that carry or carried template `index` (N,); the answer is on the CPU."""
    templates = malp.encryption.at(pictures.shape[2:])
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for part, i in zip(pictures.split(BATCH), index.split(BATCH)):
        out = malp(part.to(device))
        parts.append((out.map.cpu(), out.score.cpu(), template_similarity(out.template, templates).gather(1, i[:, None])[:, 0].cpu()))
    return Looked(*(torch.cat(values) for values in zip(*parts)))


def score_malp(seen: Seen, malp: MaLP, *, send: Change = to_8bit, device: torch.device | str = "cpu") -> dict[str, Any]:
    """How well a MaLP localizes and detects in `seen`, after every image was sent; see `score_looks` for what comes back.

    Args:
        send: what happens to every image before MaLP gets it. A detector reads files, so the least is 8 bits; without that it could tell
            the classes apart by who lies on the 8-bit grid.
    """
    untouched, changed = (look(malp, send(pictures), seen.index, device=device) for pictures in (seen.published, seen.manipulated))
    return score_looks(seen, malp, untouched, changed)


def score_looks(seen: Seen, malp: MaLP, untouched: Looked, changed: Looked) -> dict[str, Any]:
    """Scores of what a MaLP said of the published images and of the manipulated ones.

    Returns:
        ``localization`` (`LocalizationScores` of the manipulated images; ``cs_encrypted``: CS of the encrypted image's map with M_GT,
        which Eq. 8 wants to be 0; ``mean_encrypted``, ``mean_manipulated``: the maps' brightness; ``spread``: standard deviation of the
        manipulated images' maps over all pixels, near 0 for a dead head; ``cs_mean_map``, ``pearson_mean_map``: what the mean M_GT of
        all *other* images scores, a guess that knows where this generator changes faces and never looks at the image), ``detection``
        (`DetectionScores`), ``template`` (CS of recovered and added one on either kind, and ``between`` the templates of the set; None
        for a passive MaLP), ``encrypted_psnr`` in dB (None likewise).
    """
    truth = fakeness_map(seen.images, seen.manipulated)
    labels = np.repeat([0, 1], len(seen.images))
    localization = _plain(localization_scores(changed.map, seen.images, seen.manipulated))
    localization |= {
        "cs_encrypted": cosine(untouched.map, truth).mean().item(),
        "mean_encrypted": untouched.map.mean().item(),
        "mean_manipulated": changed.map.mean().item(),
        "spread": changed.map.std().item(),
    }
    if len(truth) > 1:
        others = (truth.sum(0) - truth) / (len(truth) - 1)
        localization |= {"cs_mean_map": cosine(others, truth).mean().item(), "pearson_mean_map": correlation(others, truth).mean().item()}
    return {
        "localization": localization,
        "detection": _plain(detection_scores(labels, torch.cat([untouched.score, changed.score]).numpy())),
        "template": None
        if malp.passive
        else {"encrypted": untouched.own.mean().item(), "manipulated": changed.own.mean().item(), "between": _between(malp)},
        "encrypted_psnr": None if malp.passive else psnr(seen.published, seen.images),
    }


def measure_malp(manipulate: Manipulate, inputs: EvalSet, malp: MaLP, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """`score_malp` on images that nothing happened to but the generator and 8 bits."""
    return score_malp(through_generator(manipulate, inputs, malp, device=device), malp, device=device)


@torch.no_grad()
def score_clean(manipulate: Manipulate, inputs: EvalSet, malp: MaLP, *, device: torch.device | str = "cpu") -> dict[str, float]:
    """What a MaLP says where no template is: can it tell x from G(x) by looking, as a discriminator has to?

    One that was only ever shown templates takes a missing one for manipulation, and says the same of both.

    Returns:
        ``auc`` of the classifier alone, real against manipulated; ``pearson`` of the manipulated images' maps with M_GT; ``mean_real`` and
        ``mean_manipulated``, the maps' brightness. Of the first 512 images, in 8 bits.
    """
    images = inputs.images[:LOCALIZED]
    manipulated = edit(manipulate, images, inputs.targets[: len(images)], device=device)
    outputs = [[malp(part.to(device)) for part in to_8bit(pictures).split(BATCH)] for pictures in (images, manipulated)]
    logits = torch.cat([out.logit.cpu() for side in outputs for out in side])
    maps = [torch.cat([out.map.cpu() for out in side]) for side in outputs]
    scores = detection_scores(np.repeat([0, 1], len(images)), logits.numpy())  # not sigmoids: they would tie at 1
    return {
        "auc": scores.auc,
        "pearson": correlation(maps[1], fakeness_map(images, manipulated)).mean().item(),
        "mean_real": maps[0].mean().item(),
        "mean_manipulated": maps[1].mean().item(),
    }


@torch.no_grad()
def malp_gallery(
    manipulate: Manipulate, inputs: EvalSet, malp: MaLP, *, count: int = 6, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """The columns of the paper's Figure 3 for the first images, as `malp_disc.plotting.image_grids.fakeness_grid` takes them."""
    real = inputs.images[:count].to(device)
    encrypted, _ = malp.encrypt(real, torch.zeros(count, dtype=torch.long, device=device))
    manipulated = call_manipulate(manipulate, encrypted, inputs.targets[:count].to(device))
    columns = {
        "real": real,
        "encrypted": encrypted,
        "manipulated": manipulated,
        "truth": fakeness_map(real, manipulated),
        "predicted_encrypted": malp(encrypted).map,
        "predicted_manipulated": malp(manipulated).map,
    }
    return {name: column.cpu() for name, column in columns.items()}


def psnr(encrypted: Tensor, images: Tensor) -> float:
    """Of encrypted images against the originals, in dB over the range of 2, the mean over images. Shapes: (N, 3, H, W) in [-1, 1]."""
    error = (encrypted - images).square().flatten(1).mean(1)
    return (10 * torch.log10(4 / error)).mean().item()


def _between(malp: MaLP) -> float | None:
    """Mean CS of two different templates of the set."""
    count = malp.encryption.set_size
    if count < 2:
        return None
    rows = malp.encryption.templates.flatten(1)
    table = template_similarity(rows, rows)
    return ((table.sum() - table.diagonal().sum()) / (count * (count - 1))).item()


def _plain(scores: Any) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(scores).items() if key not in ("images", "unchanged")}

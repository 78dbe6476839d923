"""Localization and detection scores of a MaLP on the edits of one generator.

Besides the edit, an image may be changed twice: when it is *published*, which means saved as PNG or JPEG before the generator gets it, and by a
*degradation* before MaLP gets it, edited or not (paper, section 4.5). The caller may pass a function for each. M_GT is always the change by the generator alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from malp_disc.degradations import to_8bit
from malp_disc.detection import template_similarity
from malp_disc.evaluation.eval_set import BATCH, EvalSet, edit
from malp_disc.fakeness import fakeness_map
from malp_disc.malp import MaLP
from malp_disc.manipulate import Manipulate
from malp_disc.metrics.detection import detection_scores
from malp_disc.metrics.localization import localization_scores, map_correlation, map_cosine
from malp_disc.metrics.psnr import mean_psnr
from malp_disc.run_folder.measurement import Detection, Localization, MalpScores, TemplateSimilarity
from malp_disc.runtime.threaded import map_batches

LOCALIZED = 512  # images whose maps are scored; localization scores need far fewer images than FID
Change = Callable[[Tensor], Tensor]


@dataclass
class ManipulatedImages:
    """Images before and after the edit, on the CPU.

    Attributes:
        images: the originals, (N, 3, H, W) in [-1, 1].
        published: their encrypted versions, as published.
        manipulated: the generator's edits of `published`.
        index: of each image's template, (N,).
    """

    images: Tensor
    published: Tensor
    manipulated: Tensor
    index: Tensor


@torch.no_grad()
def through_generator(
    manipulate: Manipulate, inputs: EvalSet, malp: MaLP, *, publish: Change | None = None, device: torch.device | str = "cpu"
) -> ManipulatedImages:
    """Encrypt the first 512 images of `inputs`, cycling through the templates, publish them, and edit the published ones with the generator."""
    images = inputs.images[:LOCALIZED]
    index = torch.arange(len(images), device=device) % malp.encryption.set_size
    encrypted = torch.cat([malp.encrypt(part.to(device), i)[0].cpu() for part, i in zip(images.split(BATCH), index.split(BATCH))])
    published = encrypted if publish is None else publish(encrypted)
    few = inputs.first(len(images))
    return ManipulatedImages(images, published, edit(manipulate, published, few.targets, current=few.labels, device=device), index)


@dataclass
class Predictions:
    """MaLP's outputs for N images, on the CPU.

    Attributes:
        map: fakeness maps (N, 1, H, W) in [0, 1].
        score: P(manipulated), (N,).
        similarity: CS of the recovered template with the image's own, (N,).
    """

    map: Tensor
    score: Tensor
    similarity: Tensor


def predict(malp: MaLP, images: Tensor, index: Tensor, *, device: torch.device | str = "cpu") -> Predictions:
    """MaLP's outputs for images (N, 3, H, W) that were encrypted with the templates `index` (N,), in batches."""
    templates = malp.encryption.at(images.shape[2:])

    def of_batch(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        part, i = batch
        out = malp(part.to(device))
        return out.map.cpu(), out.score.cpu(), malp.similarities(out.template, templates).gather(1, i[:, None])[:, 0].cpu()

    parts = map_batches(of_batch, zip(images.split(BATCH), index.split(BATCH)), device=device)
    return Predictions(*(torch.cat(values) for values in zip(*parts)))


def score_malp(images: ManipulatedImages, malp: MaLP, *, degradation: Change = to_8bit, device: torch.device | str = "cpu") -> MalpScores:
    """Localization and detection scores on degraded images.

    Args:
        degradation: applied to every image, edited or not, before MaLP gets it. The default rounds to 8 bits, as any image file does; otherwise MaLP
            could tell the two classes apart by which of them lies on the 8-bit grid.
    """
    published, manipulated = (predict(malp, degradation(batch), images.index, device=device) for batch in (images.published, images.manipulated))
    return score_predictions(images, malp, published, manipulated)


def score_predictions(images: ManipulatedImages, malp: MaLP, published: Predictions, manipulated: Predictions) -> MalpScores:
    """Localization and detection scores from MaLP's outputs for the published images and for the manipulated ones."""
    truth = fakeness_map(images.images, images.manipulated)
    labels = np.repeat([0, 1], len(images.images))
    changed = truth.flatten(1).amax(1) > 0  # scores of the others' maps aren't defined, and left out by `localization_scores`
    localization = Localization(
        **_scores(localization_scores(manipulated.map, images.images, images.manipulated)),
        cs_encrypted=_mean(map_cosine(published.map, truth)[changed]),
        mean_encrypted=published.map.mean().item(),
        mean_manipulated=manipulated.map.mean().item(),
        spread=manipulated.map.std().item(),
    )
    if len(truth) > 1:
        others = (truth.sum(0) - truth) / (len(truth) - 1)
        baseline = {"cs_mean_map": _mean(map_cosine(others, truth)[changed]), "pearson_mean_map": _mean(map_correlation(others, truth)[changed])}
        localization = dataclasses.replace(localization, **baseline)
    detection = Detection(**_scores(detection_scores(labels, torch.cat([published.score, manipulated.score]).numpy())))
    if malp.passive:
        return MalpScores(localization, detection, None, None)
    similarity = TemplateSimilarity(
        published.similarity.mean().item(), manipulated.similarity.mean().item(), _similarity_between_templates(malp)
    )
    return MalpScores(localization, detection, similarity, mean_psnr(images.published, images.images))


def _mean(values: Tensor) -> float | None:
    return values.mean().item() if len(values) else None


def measure_malp(manipulate: Manipulate, inputs: EvalSet, malp: MaLP, *, device: torch.device | str = "cpu") -> MalpScores:
    """`score_malp` without publishing, and with no degradation but 8 bits."""
    return score_malp(through_generator(manipulate, inputs, malp, device=device), malp, device=device)


@torch.no_grad()
def score_unprotected(manipulate: Manipulate, inputs: EvalSet, malp: MaLP, *, device: torch.device | str = "cpu") -> dict[str, float]:
    """Scores on unprotected images: can MaLP tell x from G(x) by their content alone, as a discriminator has to?

    A MaLP that was trained with templates only takes a missing one for manipulation, and gives both the same score.

    Returns:
        ``auc`` of the classifier alone, real against manipulated; ``pearson`` of the manipulated images' maps with M_GT; ``mean_real`` and
        ``mean_manipulated``, the mean of the maps. From the first 512 images, in 8 bits.
    """
    few = inputs.first(LOCALIZED)
    images, manipulated = few.images, edit(manipulate, few.images, few.targets, current=few.labels, device=device)
    outputs = [[malp(part.to(device)) for part in to_8bit(group).split(BATCH)] for group in (images, manipulated)]
    logits = torch.cat([out.logit.cpu() for group in outputs for out in group])
    maps = [torch.cat([out.map.cpu() for out in group]) for group in outputs]
    scores = detection_scores(np.repeat([0, 1], len(images)), logits.numpy())  # not sigmoids: they would tie at 1
    return {
        "auc": scores.auc,
        "pearson": map_correlation(maps[1], fakeness_map(images, manipulated)).mean().item(),
        "mean_real": maps[0].mean().item(),
        "mean_manipulated": maps[1].mean().item(),
    }


@torch.no_grad()
def malp_gallery(
    manipulate: Manipulate, inputs: EvalSet, malp: MaLP, *, count: int = 6, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """The columns of the paper's Figure 3 for the first images, as `malp_disc.plotting.image_grids.fakeness_grid` takes them."""
    few = inputs.first(count)
    real = few.images.to(device)
    encrypted, _ = malp.encrypt(real, torch.zeros(len(real), dtype=torch.long, device=device))
    manipulated = edit(manipulate, encrypted, few.targets, current=few.labels, device=device).to(device)
    columns = {
        "real": real,
        "encrypted": encrypted,
        "manipulated": manipulated,
        "truth": fakeness_map(real, manipulated),
        "predicted_encrypted": malp(encrypted).map,
        "predicted_manipulated": malp(manipulated).map,
    }
    return {name: column.cpu() for name, column in columns.items()}


def _similarity_between_templates(malp: MaLP) -> float | None:
    """Mean CS of two different templates of the set."""
    count = malp.encryption.set_size
    if count < 2:
        return None
    rows = malp.encryption.templates.flatten(1)
    table = template_similarity(rows, rows)
    return ((table.sum() - table.diagonal().sum()) / (count * (count - 1))).item()


def _scores(scores: Any) -> dict[str, Any]:
    """The fields of a dataclass of scores, without those that are counts."""
    return {key: value for key, value in dataclasses.asdict(scores).items() if key not in ("images", "unchanged")}

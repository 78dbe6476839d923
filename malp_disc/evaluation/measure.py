"""Measure one generator: how its images look, whether they were edited as asked, and whether MaLP finds the edits.

Every arm of a comparison sees the same images with the same targets, so the rows of its features are paired with every other arm's.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from malp_disc.evaluation.eval_set import BATCH, EvalSet, Manipulate, edit
from malp_disc.evaluation.feature_views import (
    EvaluationModels,
    FeatureCache,
    describe,
    extract_views,
    load_feature_cache,
    save_feature_cache,
)
from malp_disc.evaluation.localize import (
    LOCALIZED,
    ManipulatedImages,
    Predictions,
    measure_malp,
    predict,
    score_predictions,
    through_generator,
    to_8bit,
)
from malp_disc.malp import MaLP
from malp_disc.metrics.attribute_leakage import leakage
from malp_disc.metrics.content import edge_agreement
from malp_disc.metrics.editing import edit_accuracy, identity_l1
from malp_disc.metrics.face_embedding import identity_similarity
from malp_disc.metrics.features import FeatureExtractor, extract_features
from malp_disc.metrics.frechet import frechet_distance
from malp_disc.metrics.kid import kernel_distance
from malp_disc.metrics.psnr import mean_psnr
from malp_disc.metrics.random_features import RandomExtractor
from malp_disc.metrics.spectrum import spectrum_ratio
from malp_disc.run_folder.arms import CONTENT, EDIT_ACCURACY, FURTHER, PERFECT_EDIT
from malp_disc.run_folder.measurement import (
    Content,
    Identity,
    KernelDistance,
    KernelPoints,
    MalpScores,
    Measurement,
    Points,
    ReferencePoints,
    Spectrum,
    TemplateSimilarity,
)
from malp_disc.runtime.threaded import map_batches
from malp_disc.ssim import SSIM_WINDOW, structural_similarity

__all__ = ["Evidence", "EvaluationModels", "Reference", "measure_reference_points", "measure_arm", "measure_frechet", "measure_reference", "with_fresh"]

Reference = FeatureCache
"""Features and spectrum of the real images that generators are compared with; ``text`` describes them."""

_CHUNK = 64  # images at a time: SSIM holds some twenty maps per image


@dataclass
class Evidence:
    """The images and features that an arm's measurements were computed from.

    Attributes:
        edited: the generator's images of the unprotected inputs, (N, 3, H, W).
        features: of these, by view.
        manipulated: its images of encrypted inputs; None without a MaLP, or if the generator diverged.
        predictions: MaLP's outputs for the latter, or None.
        scores: of every single image, (N, 1) each, by the names of `malp_disc.run_folder.arms.OF_IMAGES`.
    """

    edited: Tensor
    features: dict[str, np.ndarray]
    manipulated: ManipulatedImages | None = None
    predictions: Predictions | None = None
    scores: dict[str, np.ndarray] = field(default_factory=dict)


def measure_reference(
    dataset: Dataset, count: int, models: EvaluationModels, *, device: torch.device | str = "cpu", cache: Path | None = None
) -> Reference:
    """Features and spectrum of the first `count` real images. A second or third extractor that has to be fitted to real images is fitted to these.

    Args:
        cache: an .npz file for the features, reused where images and extractors are the same to the last byte.
    """
    count = min(count, len(dataset))
    loader = DataLoader(Subset(dataset, range(count)), batch_size=BATCH)
    extracted = load_feature_cache(models, loader, cache)
    if extracted is None:
        extracted = extract_views(models, (images for images, _ in loader), device=device, label="features of the reference", count=count)
        if cache is not None:
            save_feature_cache(models, extracted, cache)
    for view in FURTHER:
        if isinstance(extractor := models.of(view), RandomExtractor):
            extracted.features[view] = extractor.fit(extracted.features[view])
    return dataclasses.replace(extracted, text=f"{dataset.description}, n = {count}")


def measure_reference_points(
    inputs: EvalSet, reference: Reference, models: EvaluationModels, *, device: torch.device | str = "cpu"
) -> tuple[ReferencePoints, dict[str, np.ndarray]]:
    """Reference points for every metric, and the features of the unedited inputs by view.

    The points: the unedited inputs, one half of the reference against the other, the classifier on unedited images, and the PSNR of encryption.
    """
    unedited = extract_views(models, inputs.images.split(BATCH), device=device, label="features of the inputs", count=len(inputs.images))
    halves = [
        FeatureCache({view: np.array_split(features, 2)[i] for view, features in reference.features.items()}, reference.power, "")
        for i in (0, 1)
    ]
    other = dataclasses.replace(halves[1], text="the other half of the reference")
    points = {
        view: Points(
            describe(view, unedited.features[view], reference, models.of(view)),
            describe(view, halves[0].features[view], other, models.of(view)),
        )
        for view in reference.features
    }
    full_size = points.pop("frechet")
    found = ReferencePoints(
        unedited=full_size.unedited,
        real_split=full_size.real_split,
        **points,
        kid=KernelPoints(_kid(unedited.features["frechet"], reference), _kid(halves[0].features["frechet"], other)),
        spectrum=_spectrum(unedited, reference),
        inputs_sha256=unedited.sha256,
        reference_sha256=reference.sha256,
    )
    if models.classifier is not None:
        scores = edit_accuracy(_logits_of_inputs(models, inputs, device), inputs.targets, inputs.targets != inputs.labels)
        found = dataclasses.replace(found, edit_accuracy=scores.edited, kept_accuracy=scores.kept)
    if inputs.perfect is not None:
        found = dataclasses.replace(found, perfect_edit=_distance_to_perfect(inputs.images, inputs.perfect).mean().item())
    if models.malp is not None and not models.malp.passive:
        encrypted = torch.cat(
            [models.malp.encrypt(images.to(device))[0].detach().cpu() for images in inputs.images[:LOCALIZED].split(BATCH)]
        )
        shown = mean_psnr(encrypted, inputs.images[:LOCALIZED])
        found = dataclasses.replace(found, encrypted_psnr=shown, key_fingerprint=models.malp.key_fingerprint)
    return found, unedited.features


@torch.no_grad()
def measure_arm(
    manipulate: Manipulate,
    inputs: EvalSet,
    reference: Reference,
    models: EvaluationModels,
    *,
    fresh: MaLP | None = None,
    device: torch.device | str = "cpu",
    label: str = "measure",
) -> tuple[Measurement, Evidence]:
    """All measurements of one generator that the report needs.

    Args:
        manipulate: (images (B, 3, H, W) in [-1, 1], target of its `target_kind`) -> images of the same shape and range.
        fresh: a MaLP that was trained from scratch against this very generator, see `with_fresh`.

    Returns:
        The measurement, without what the recipe adds (steps, seconds, weights), and the evidence. For a generator whose images are not finite, it
        has ``diverged`` alone.

    Note:
        Image quality, edit accuracy and identity are measured on unprotected inputs, which a deployed generator gets; localization and
        detection on encrypted ones, which MaLP is made for.
    """
    edited = edit(manipulate, inputs.images, inputs.targets, current=inputs.labels, device=device, label=label)
    if not edited.isfinite().all():
        return Measurement(diverged=True), Evidence(edited, {})
    extracted = extract_views(models, edited.split(BATCH), device=device, label=f"{label}: features", count=len(edited))
    found: dict[str, Any] = {view: describe(view, features, reference, models.of(view)) for view, features in extracted.features.items()}
    found |= {"kid": _kid(extracted.features["frechet"], reference), "spectrum": _spectrum(extracted, reference)}
    edits, of_images = _edits(edited, inputs, models, device)
    found |= edits
    evidence = Evidence(edited, extracted.features, scores={score: values.double()[:, None].numpy() for score, values in of_images.items()})
    if models.malp is not None:
        images = evidence.manipulated = through_generator(manipulate, inputs, models.malp, device=device)
        if not images.manipulated.isfinite().all():  # only its edits of encrypted images aren't
            return Measurement(diverged=True), Evidence(edited, {})
        published, manipulated = (
            predict(models.malp, to_8bit(batch), images.index, device=device) for batch in (images.published, images.manipulated)
        )
        scores = score_predictions(images, models.malp, published, manipulated)
        found |= {"localization": scores.localization, "detection": scores.detection}
        found |= {"template": scores.template or TemplateSimilarity(), "encrypted_psnr": scores.encrypted_psnr}
        evidence.predictions = manipulated
    measured = Measurement(**found)
    return measured if fresh is None else with_fresh(measured, measure_malp(manipulate, inputs, fresh, device=device)), evidence


def with_fresh(measured: Measurement, scores: MalpScores) -> Measurement:
    """A measurement with the scores of a MaLP that was trained from scratch against its generator.

    If the generator only learned to fool the MaLP that it was tuned against, a new one localizes its edits as well as before.
    """
    return dataclasses.replace(measured, localization_fresh=scores.localization, detection_fresh=scores.detection)


def measure_frechet(
    manipulate: Manipulate,
    inputs: EvalSet,
    reference: Reference,
    extractor: FeatureExtractor,
    *,
    device: torch.device | str = "cpu",
    label: str = "measure",
) -> float | None:
    """The Fréchet distance alone, for use during training; None if the images are not finite."""
    edited = edit(manipulate, inputs.images, inputs.targets, current=inputs.labels, device=device, label=label)
    if not edited.isfinite().all():
        return None
    return frechet_distance(reference.features["frechet"], extract_features(extractor, edited.split(BATCH), device=device))


def _kid(features: np.ndarray, reference: Reference) -> KernelDistance:
    return KernelDistance(*kernel_distance(reference.features["frechet"], features))


def _spectrum(extracted: FeatureCache, reference: Reference) -> Spectrum:
    found = spectrum_ratio(extracted.power, reference.power)
    return Spectrum(tuple(found.frequency), tuple(found.ratio), found.fine, found.nyquist)


def _edits(edited: Tensor, inputs: EvalSet, models: EvaluationModels, device: torch.device | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """How well the edits match the request: distance to the input, edit accuracy, leakage to other attributes, identity, distance to the perfect edit.

    Returns:
        The measurements, and the scores `OF_IMAGES` of every image, (N,) each.
    """
    content = _content(inputs.images, edited)
    of_images = {CONTENT: content}
    found: dict[str, Any] = {
        "attributes": len(inputs.attribute_names),
        "identity_l1": identity_l1(inputs.images, edited),
        "content": Content(content.mean().item(), content.std().item()),
        "ssim_to_input": _ssim(inputs.images, edited),
        "psnr_to_input": None if torch.equal(inputs.images, edited) else mean_psnr(edited, inputs.images),
    }
    if models.classifier is not None:
        requested, names = inputs.targets != inputs.labels, inputs.attribute_names
        after = _attribute_logits(models, edited, device)
        scores = edit_accuracy(after, inputs.targets, requested, attribute_names=names)
        leaked = leakage(_logits_of_inputs(models, inputs, device), after, requested, attribute_names=names)
        found |= {"edit_accuracy": scores.edited, "edit_accuracy_per_attribute": scores.per_attribute, "kept_accuracy": scores.kept}
        of_images |= {EDIT_ACCURACY: scores.each} if len(scores.each) else {}
        found |= {"leakage": leaked.share, "leakage_per_attribute": leaked.per_attribute}
    if models.embedding is not None:
        found["identity"] = Identity(models.embedding.name, identity_similarity(models.embedding, inputs.images, edited, device=device))
    if inputs.perfect is not None:
        of_images[PERFECT_EDIT] = _distance_to_perfect(edited, inputs.perfect)
        found["perfect_edit"] = of_images[PERFECT_EDIT].mean().item()
    return found, of_images


def _distance_to_perfect(edited: Tensor, perfect: Tensor) -> Tensor:
    """Mean absolute difference of every image from the perfect edit, (N,)."""
    return (edited - perfect).abs().mean((1, 2, 3)).double()


def _attribute_logits(models: EvaluationModels, images: Tensor, device: torch.device | str) -> Tensor:
    """Logits of the attribute classifier, (N, 3, H, W) -> (N, A), on the CPU."""
    return torch.cat(list(map_batches(lambda part: models.classifier(part.to(device)).cpu(), images.split(BATCH), device=device)))


def _logits_of_inputs(models: EvaluationModels, inputs: EvalSet, device: torch.device | str) -> Tensor:
    """`_attribute_logits` of the unedited inputs, which are the same for every arm and computed once."""
    if inputs.logits is None or inputs.logits[0] is not models.classifier:
        inputs.logits = models.classifier, _attribute_logits(models, inputs.images, device)
    return inputs.logits[1]


def _content(images: Tensor, edited: Tensor) -> Tensor:
    """`edge_agreement` of every image and its edit, (N,)."""
    pairs = zip(images.split(_CHUNK), edited.split(_CHUNK))
    return torch.cat(list(map_batches(lambda pair: edge_agreement(*pair), pairs))).double()


def _ssim(images: Tensor, edited: Tensor) -> float | None:
    """Mean structural similarity of images and their edits, both in [-1, 1]; None for images smaller than its window."""
    if min(images.shape[2:]) < SSIM_WINDOW:
        return None
    pairs = zip(images.split(_CHUNK), edited.split(_CHUNK))
    values = map_batches(lambda pair: structural_similarity(pair[1].float(), pair[0].float(), data_range=2.0), pairs)
    return torch.cat(list(values)).double().mean().item()

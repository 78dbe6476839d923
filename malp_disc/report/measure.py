"""Measure one generator: how its pictures look, whether they were edited as asked, and whether MaLP finds the edits.

Every arm of a comparison sees the same pictures with the same targets, so the rows of its features are paired with every other arm's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm

from malp_disc.malp import MaLP
from malp_disc.metrics.editing import edit_accuracy, identity_l1
from malp_disc.metrics.features import FeatureExtractor, extract_features
from malp_disc.metrics.frechet import frechet_distance
from malp_disc.metrics.kid import kernel_distance
from malp_disc.report.inputs import BATCH, Inputs, Manipulate, edit
from malp_disc.report.localizing import LOCALIZED, measure_malp, psnr


@dataclass
class Reference:
    """Features (N, D) of real pictures, and what they are in words."""

    features: np.ndarray
    text: str


@dataclass
class Judges:
    """Who judges: the feature extractor of FID, an independent attribute classifier, the MaLP that looks for edits (each may be absent)."""

    extractor: FeatureExtractor
    classifier: nn.Module | None
    malp: MaLP | None


def measure_reference(dataset: Dataset, count: int, extractor: FeatureExtractor, *, device: torch.device | str = "cpu") -> Reference:
    """Features of the first `count` real pictures."""
    count = min(count, len(dataset))
    batches = (images for images, _ in DataLoader(Subset(dataset, range(count)), batch_size=BATCH))
    bar = tqdm(total=count, desc="features of the reference", unit="picture", leave=False)
    return Reference(extract_features(extractor, batches, device=device, progress=bar.update), f"{dataset.description}, n = {count}")


def measure_anchors(inputs: Inputs, reference: Reference, judges: Judges, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What frames the scale: the distance of the unedited inputs, of one half of the reference to the other, and the PSNR of encryption."""
    unedited = extract_features(judges.extractor, inputs.images.split(BATCH), device=device)
    first, second = np.array_split(reference.features, 2)
    anchors: dict[str, Any] = {
        "unedited": describe_frechet(unedited, reference, judges.extractor),
        "halves": describe_frechet(first, Reference(second, "the other half of the reference"), judges.extractor),
    }
    if judges.malp is not None and not judges.malp.passive:
        encrypted = torch.cat([judges.malp.encrypt(images.to(device))[0].detach().cpu() for images in inputs.images[:LOCALIZED].split(BATCH)])
        anchors["encrypted_psnr"] = psnr(encrypted, inputs.images[:LOCALIZED])
    return anchors


@torch.no_grad()
def measure_arm(
    manipulate: Manipulate,
    inputs: Inputs,
    reference: Reference,
    judges: Judges,
    *,
    device: torch.device | str = "cpu",
    label: str = "measure",
) -> tuple[dict[str, Any], np.ndarray]:
    """Everything about one generator that the report needs.

    Args:
        manipulate: (images (B, 3, H, W) in [-1, 1], targets (B, A)) -> images of the same shape and range.

    Returns:
        A JSON-ready dict (see `malp_disc.report.record` for its shape), and the features (N, D) of the edited pictures.

    Note:
        Quality, edit accuracy and identity are measured on clean inputs, which is what a deployed generator gets; localization and detection
        on encrypted ones, which is what MaLP is for.
    """
    edited = edit(manipulate, inputs.images, inputs.targets, device=device, label=label)
    features = extract_features(judges.extractor, edited.split(BATCH), device=device)
    kid, spread = kernel_distance(reference.features, features)
    measured: dict[str, Any] = {
        "frechet": describe_frechet(features, reference, judges.extractor),
        "kid": {"value": kid, "std": spread},
        "identity_l1": identity_l1(inputs.images, edited),
        "edit_accuracy": None,
        "edit_accuracy_per_attribute": None,
        "kept_accuracy": None,
        "localization": None,
        "detection": None,
    }
    if judges.classifier is not None:
        logits = torch.cat([judges.classifier(images.to(device)).cpu() for images in edited.split(BATCH)])
        scores = edit_accuracy(logits, inputs.targets, inputs.targets != inputs.labels, attribute_names=inputs.attribute_names)
        measured |= {"edit_accuracy": scores.edited, "edit_accuracy_per_attribute": scores.per_attribute, "kept_accuracy": scores.kept}
    if judges.malp is not None:
        measured |= measure_malp(manipulate, inputs, judges.malp, device=device)
    return measured, features


def describe_frechet(features: np.ndarray, reference: Reference, extractor: FeatureExtractor) -> dict[str, Any]:
    """A Fréchet distance with all that a reader needs to compare it with another one."""
    return {
        "label": extractor.label,
        "value": frechet_distance(reference.features, features),
        "n": len(features),
        "extractor": extractor.name,
        "resize": extractor.resize,
        "reference": reference.text,
    }

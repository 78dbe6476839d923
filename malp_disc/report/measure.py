"""Measure one generator: how its pictures look, whether they were edited as asked, and whether MaLP finds the edits.

Every arm of a comparison sees the same pictures with the same targets, so the rows of its features are paired with every other arm's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm

from malp_disc.fakeness import fakeness_map
from malp_disc.malp import MaLP
from malp_disc.metrics.detection import detection_scores
from malp_disc.metrics.editing import edit_accuracy, identity_l1, single_attribute_targets
from malp_disc.metrics.features import FeatureExtractor, extract_features, quantize
from malp_disc.metrics.frechet import frechet_distance
from malp_disc.metrics.kid import kernel_distance
from malp_disc.metrics.localization import localization_scores

_BATCH = 32
_LOCALIZED = 512  # pictures whose maps are scored; a map's score settles long before FID does


@dataclass
class Inputs:
    """The pictures every arm edits: images (N, 3, H, W) in [-1, 1], labels and targets (N, A), the attribute asked for (N,)."""

    images: Tensor
    labels: Tensor
    targets: Tensor
    edited: Tensor
    attribute_names: tuple[str, ...]

    @classmethod
    def take(cls, dataset: Dataset, count: int, *, exclusive: tuple[str, ...] | None = None) -> Inputs:
        """The first `count` pictures of a data set, each with one attribute to edit (`single_attribute_targets`)."""
        images, labels = load_all(dataset, count, "inputs")
        targets, edited = single_attribute_targets(labels, dataset.attribute_names, exclusive=exclusive)
        return cls(images, labels, targets, edited, tuple(dataset.attribute_names))


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


def load_all(dataset: Dataset, count: int, label: str) -> tuple[Tensor, Tensor]:
    """The first `count` pictures and labels of a data set in memory, with a progress bar where it takes long."""
    count = min(count, len(dataset))
    loader = DataLoader(Subset(dataset, range(count)), batch_size=_BATCH)
    images, labels = zip(*tqdm(loader, desc=f"load {label}", leave=False, disable=count < 500))
    return torch.cat(images), torch.cat(labels)


def measure_reference(dataset: Dataset, count: int, extractor: FeatureExtractor, *, device: torch.device | str = "cpu") -> Reference:
    """Features of the first `count` real pictures."""
    count = min(count, len(dataset))
    batches = (images for images, _ in DataLoader(Subset(dataset, range(count)), batch_size=_BATCH))
    bar = tqdm(total=count, desc="features of the reference", unit="picture", leave=False)
    return Reference(extract_features(extractor, batches, device=device, progress=bar.update), f"{dataset.description}, n = {count}")


def measure_anchors(inputs: Inputs, reference: Reference, judges: Judges, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What frames the scale: the distance of the unedited inputs, of one half of the reference to the other, and the PSNR of encryption."""
    unedited = extract_features(judges.extractor, inputs.images.split(_BATCH), device=device)
    first, second = np.array_split(reference.features, 2)
    anchors: dict[str, Any] = {
        "unedited": describe_frechet(unedited, reference, judges.extractor),
        "halves": describe_frechet(first, Reference(second, "the other half of the reference"), judges.extractor),
    }
    if judges.malp is not None and not judges.malp.passive:
        encrypted = torch.cat([judges.malp.encrypt(images.to(device))[0].detach().cpu() for images in inputs.images[:_LOCALIZED].split(_BATCH)])
        error = (encrypted - inputs.images[:_LOCALIZED]).square().flatten(1).mean(1)
        anchors["encrypted_psnr"] = (10 * torch.log10(4 / error)).mean().item()
    return anchors


@torch.no_grad()
def measure_arm(
    manipulate: Callable[[Tensor, Tensor], Tensor],
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
    edited = _edit(manipulate, inputs.images, inputs.targets, device, label)
    features = extract_features(judges.extractor, edited.split(_BATCH), device=device)
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
        logits = torch.cat([judges.classifier(images.to(device)).cpu() for images in edited.split(_BATCH)])
        scores = edit_accuracy(logits, inputs.targets, inputs.targets != inputs.labels, attribute_names=inputs.attribute_names)
        measured |= {"edit_accuracy": scores.edited, "edit_accuracy_per_attribute": scores.per_attribute, "kept_accuracy": scores.kept}
    if judges.malp is not None:
        measured |= measure_malp(manipulate, inputs, judges.malp, device=device)
    return measured, features


@torch.no_grad()
def measure_malp(manipulate: Callable[[Tensor, Tensor], Tensor], inputs: Inputs, malp: MaLP, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Does MaLP find what `manipulate` changes in encrypted pictures? ``{"localization": …, "detection": …}``."""
    images = inputs.images[:_LOCALIZED]
    index = torch.arange(len(images), device=device) % malp.encryption.set_size
    encrypted = torch.cat([malp.encrypt(part.to(device), i)[0].cpu() for part, i in zip(images.split(_BATCH), index.split(_BATCH))])
    manipulated = _edit(manipulate, encrypted, inputs.targets[:_LOCALIZED], device, None)
    # As a detector would get them: from 8-bit files, the real ones and the manipulated ones alike.
    on_encrypted, on_manipulated = (_look(malp, quantize(pictures).float() / 127.5 - 1, device) for pictures in (encrypted, manipulated))
    labels = np.repeat([0, 1], len(images))
    return {
        "localization": _plain(localization_scores(on_manipulated[0], images, manipulated)),
        "detection": _plain(detection_scores(labels, torch.cat([on_encrypted[1], on_manipulated[1]]).numpy())),
    }


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


@torch.no_grad()
def malp_gallery(manipulate: Callable[[Tensor, Tensor], Tensor], inputs: Inputs, malp: MaLP, *, count: int = 6, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The columns of the paper's Figure 3 for the first pictures, as `malp_disc.report.figures.fakeness_grid` takes them."""
    real = inputs.images[:count].to(device)
    encrypted, _ = malp.encrypt(real, torch.zeros(count, dtype=torch.long, device=device))
    manipulated = manipulate(encrypted, inputs.targets[:count].to(device)).float()
    columns = {
        "real": real,
        "encrypted": encrypted,
        "manipulated": manipulated,
        "truth": fakeness_map(real, manipulated),
        "predicted_encrypted": malp(encrypted).map,
        "predicted_manipulated": malp(manipulated).map,
    }
    return {name: column.cpu() for name, column in columns.items()}


def _edit(manipulate: Callable[[Tensor, Tensor], Tensor], images: Tensor, targets: Tensor, device: torch.device | str, label: str | None) -> Tensor:
    pairs = list(zip(images.split(_BATCH), targets.split(_BATCH)))
    bar = tqdm(pairs, desc=label, leave=False, disable=label is None)
    return torch.cat([manipulate(part.to(device), target.to(device)).float().clamp(-1, 1).cpu() for part, target in bar])


def _look(malp: MaLP, images: Tensor, device: torch.device | str) -> tuple[Tensor, Tensor]:
    outputs = [malp(part.to(device)) for part in images.split(_BATCH)]
    return torch.cat([out.map.cpu() for out in outputs]), torch.cat([out.score.cpu() for out in outputs])


def _plain(scores: Any) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(scores).items() if key not in ("images", "unchanged")}

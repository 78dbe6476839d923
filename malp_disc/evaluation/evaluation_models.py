"""The flags of an evaluation, and the models that they name."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from malp_disc.data import DataOptions
from malp_disc.evaluation.feature_views import EvaluationModels
from malp_disc.metrics.attribute_net import AttributeNet, shipped_weights
from malp_disc.metrics.face_embedding import MobileFaceNet
from malp_disc.metrics.features import FeatureExtractor, create_extractor
from malp_disc.metrics.random_features import RandomExtractor
from malp_disc.run_folder.experiment import evaluation
from malp_disc.run_folder.teachers import is_same_network

logger = logging.getLogger("malp_disc")
Inception = Literal[
    "clean", "clean-64", "clean-192", "clean-768", "clean-2048", "inception-64", "inception-192", "inception-768", "inception-2048"
]


@dataclass(kw_only=True)
class EvaluationOptions:
    """Evaluation models, and the number of images."""

    extractor: Literal["auto", "faces", "squeezenet", "squeezenet-128"] | Inception = evaluation("auto")
    """Feature extractor of the Fréchet distance.
    auto: squeezenet-128 on drawn faces, which is included; inception-2048 (FID) on real images."""
    fid_weights: Path | None = evaluation(None)
    """File of the extractor's weights, for machines without internet access.
    For Inception, pytorch-fid's state dict as .pth or .safetensors."""
    second_extractor: Literal["auto", "none", "random", "faces", "squeezenet", "squeezenet-128"] | Inception = evaluation("auto")
    """A second feature extractor, to check that a result doesn't depend on the first.
    auto: squeezenet if --second-weights is given, else random, untrained convolutions that need no file."""
    second_weights: Path | None = evaluation(None)
    """File of the second extractor's weights."""
    third_extractor: Literal["auto", "none", "random", "faces", "squeezenet", "squeezenet-128"] | Inception = evaluation("auto")
    """A third feature extractor, a trained one: it shows that a generator was tuned on the first one's features, which an untrained one can't.
    auto: faces on drawn faces, squeezenet on real images, both included; none where it is one of the others, or an arm's backbone."""
    third_weights: Path | None = evaluation(None)
    """File of the third extractor's weights."""
    smaller_views: tuple[Literal[2, 4], ...] = evaluation((2,))
    """Also measure images that are reduced by these factors, which shows whether a gain is in texture or in structure.
    Each takes as long as the full size. The flag without numbers measures the full size only."""
    attribute_classifier: Path | None = evaluation(None)
    """Attribute classifier that measures edit accuracy, made by recipes/train_attribute_classifier.py.
    By default, the included one on drawn faces. On real images with attributes and without one, there is no edit accuracy and no verdict."""
    face_embedding: Path | None = evaluation(None)
    """MobileFaceNet checkpoint that measures whether an edit preserves the identity.
    Without one, SSIM to the input takes its place."""
    eval_size: int = evaluation(1000)
    """Number of held-out images that every generator edits, at least 2."""
    reference_size: int = evaluation(2000)
    """Number of real images that they are compared with, at least 4."""
    reference_split: Literal["auto", "training", "held-out"] = evaluation("auto", later=True)
    """Which real images they are compared with.
    training: training images, which discriminators saw. held-out: images of --test-size, or of the data set's test split, that no generator edits.
    auto: held-out if there are enough (--eval-size and --reference-size together), else training; drawn faces are always held out."""


@dataclass(kw_only=True)
class EvaluationConfig(EvaluationOptions, DataOptions):
    """The flags of an evaluation, and of the images that it is on."""


def make_evaluation_models(config: EvaluationConfig, attribute_names: tuple[str, ...], device: torch.device) -> EvaluationModels:
    """All evaluation models except MaLP, loaded before any long work, so that a missing file is reported at once."""
    name = config.extractor
    if name == "auto":
        name = "squeezenet-128" if config.data == "faces" else "inception-2048"
    extractor = create_extractor(name, weights=config.fid_weights, device=device)
    second = _further_extractor("--second", config.second_extractor, config.second_weights, device, auto="random")
    included = "faces" if config.data == "faces" else "squeezenet"
    third = _further_extractor("--third", config.third_extractor, config.third_weights, device, auto=included)
    if (config.third_extractor, config.third_weights) == ("auto", None) and third.backbone in {extractor.backbone, getattr(second, "backbone", None)}:
        third = None
    _check_different({"--extractor": extractor, "--second-extractor": second, "--third-extractor": third})
    embedding = None if config.face_embedding is None else MobileFaceNet.load(config.face_embedding).to(device)
    classifier = _attribute_classifier(config, attribute_names, device)
    return EvaluationModels(extractor, classifier, None, second, third, embedding, config.smaller_views)


def _check_different(extractors: Mapping[str, FeatureExtractor | None]) -> None:
    """Raise ValueError for two extractors, by flag, that are one network: a second look by the same network confirms nothing."""
    for (flag, one), (other_flag, other) in itertools.combinations(((flag, one) for flag, one in extractors.items() if one is not None), 2):
        if is_same_network(one, other):
            raise ValueError(
                f"{other_flag} is the network of {flag}, {other.backbone}: what it shows is no second opinion. Choose another network, or none"
            )


def _attribute_classifier(config: EvaluationConfig, attribute_names: tuple[str, ...], device: torch.device) -> SelectedAttributes | None:
    """The classifier that measures edit accuracy; None for images without attributes, or, with a warning, where there is none."""
    if not attribute_names:
        if config.attribute_classifier is not None:
            raise ValueError("--attribute-classifier has no effect on images without attributes; leave it out, or use --data folder with --attributes")
        return None
    path = config.attribute_classifier or (shipped_weights("faces_classifier") if config.data == "faces" else None)
    if path is None:
        logger.warning(
            "no --attribute-classifier: edit accuracy isn't measured, and without it no verdict is given "
            "(see recipes/train_attribute_classifier.py)"
        )
        return None
    classifier = AttributeNet.load(path).to(device).eval()
    missing = [attribute for attribute in attribute_names if attribute not in classifier.attribute_names]
    if missing:
        raise ValueError(f"the attribute classifier {path} doesn't know {missing}; it reads {list(classifier.attribute_names)}")
    return SelectedAttributes(classifier, attribute_names)


def _further_extractor(flag: str, name: str, weights: Path | None, device: torch.device, *, auto: str) -> FeatureExtractor | None:
    """A second or third extractor; `auto` is what "auto" means without a file of weights, `flag` what its flags begin with.

    Raises:
        ValueError: weights for an extractor that takes none; or as `create_extractor`.
    """
    if name in ("none", "random") and weights is not None:
        raise ValueError(f"{flag}-weights {weights} has no effect with {flag}-extractor {name}; leave it out, or choose another extractor")
    if name == "auto":
        name = auto if weights is None else "squeezenet"
    if name == "none":
        return None
    if name == "random":
        return RandomExtractor().to(device).eval()
    return create_extractor(name, weights=weights, device=device)


class SelectedAttributes(torch.nn.Module):
    """A classifier's logits in the order of a run's attributes."""

    def __init__(self, classifier: AttributeNet, attribute_names: tuple[str, ...]) -> None:
        super().__init__()
        self.classifier = classifier
        self.columns = [classifier.attribute_names.index(name) for name in attribute_names]

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(images)[:, self.columns]

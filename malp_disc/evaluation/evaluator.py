"""The evaluation of a run: evaluation models, inputs and reference images, on which every generator is measured in the same way."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from malp_disc import MaLP
from malp_disc.data import DataOptions, DomainFolder, build_dataset
from malp_disc.evaluation.eval_set import EvalSet, Manipulate, edit
from malp_disc.evaluation.gallery import captions_of, draw_arm, rows_of
from malp_disc.evaluation.measure import (
    EvaluationModels,
    Reference,
    measure_arm,
    measure_frechet,
    measure_fresh,
    measure_reference,
    measure_reference_points,
)
from malp_disc.metrics.attribute_net import AttributeNet, shipped_weights
from malp_disc.metrics.face_embedding import MobileFaceNet
from malp_disc.metrics.features import FeatureExtractor, create_extractor
from malp_disc.metrics.random_features import RandomExtractor
from malp_disc.plotting.image_grids import sample_grid
from malp_disc.run_folder.experiment import evaluation
from malp_disc.run_folder.schema import features_path, read_lines
from malp_disc.run_folder.strips import write_strips
from malp_disc.serialization.files import atomic_path, file_sha256, write_json, write_text

logger = logging.getLogger("malp_disc")
Inception = Literal[
    "clean", "clean-64", "clean-192", "clean-768", "clean-2048", "inception-64", "inception-192", "inception-768", "inception-2048"
]
_SELECTION = 500  # training images on which the best step is chosen, so that the held-back ones are only reported on


@dataclass(kw_only=True)
class EvaluationOptions:
    """Evaluation models, and the number of images."""

    extractor: Literal["auto", "faces", "squeezenet", "squeezenet-128"] | Inception = evaluation("auto")
    """Feature extractor of the Fréchet distance.
    auto: the included small network on drawn faces (FD-faces), inception-2048 (FID) on real images."""
    fid_weights: Path | None = evaluation(None)
    """File of the extractor's weights, for machines without internet access.
    For Inception, pytorch-fid's state dict as .pth or .safetensors."""
    second_extractor: Literal["auto", "none", "random", "faces", "squeezenet", "squeezenet-128"] | Inception = evaluation("auto")
    """A second feature extractor, to check that a result doesn't depend on the first.
    auto: squeezenet if --second-weights is given, else random, untrained convolutions that need no file."""
    second_weights: Path | None = evaluation(None)
    """File of the second extractor's weights."""
    smaller_views: tuple[Literal[2, 4], ...] = evaluation((2, 4))
    """Also measure images that are reduced by these factors, which shows whether a gain is in texture or in structure.
    Each takes as long as the full size. The flag without numbers measures the full size only."""
    attribute_classifier: Path | None = evaluation(None)
    """Attribute classifier that measures edit accuracy, made by recipes/train_attribute_classifier.py.
    By default, the included one on drawn faces. On real images with attributes and without one, there is no edit accuracy and no verdict."""
    face_embedding: Path | None = evaluation(None)
    """MobileFaceNet checkpoint that measures whether an edit preserves the identity.
    Without one, SSIM to the input takes its place."""
    eval_size: int = evaluation(1000)
    """Number of held-back images that every generator edits, at least 2."""
    reference_size: int = evaluation(2000)
    """Number of real images that they are compared with, at least 4."""


@dataclass
class Evaluator:
    """Measures every arm and seed on the same inputs, targets and reference, with the same evaluation models, and writes the results to the run's folder."""

    folder: Path
    inputs: EvalSet
    reference: Reference
    models: EvaluationModels
    device: torch.device
    selection: EvalSet | None = None
    """Inputs for the Fréchet distance during training. They differ from `inputs` because the best step is chosen on them."""

    def measure(
        self, arm: str, manipulate: Manipulate, *, seed: int = 0, weights: Path | None = None, fresh: MaLP | None = None, **more: Any
    ) -> dict[str, Any]:
        """Measure one arm of one seed: a line of ``measurements.jsonl``, its features, and the images that the report shows.

        Args:
            arm: out of `malp_disc.run_folder.arms.ARMS`. "before" is the same for all seeds: measure it once.
            weights: the generator's file, whose hash goes into the report.
            fresh: a MaLP trained from scratch against this generator, or later `measure_fresh`.
            more: further entries of the line (steps, seconds, teachers).
        """
        label = f"measure {arm}" if seed == 0 else f"measure {arm}, seed {seed}"
        malp = self.models.malp
        measured, evidence = measure_arm(manipulate, self.inputs, self.reference, self.models, fresh=fresh, device=self.device, label=label)
        for view, features in evidence.features.items():
            save_features(features_path(self.folder, arm, seed=seed, view=view), features)
        if measured.get("diverged"):
            logger.warning(f"{arm}, seed {seed}: the images are not finite, nothing was measured")
        else:
            write_strips(self.folder, arm, draw_arm(manipulate, self.inputs, malp, evidence=evidence, device=self.device), seed=seed)
            _log_summary(arm, measured)
        if weights is not None:
            measured["weights"] = {"file": weights.name, "sha256": file_sha256(weights)}
        self._write("measurements.jsonl", {"seed": seed, "arm": arm}, {**measured, **more})
        return measured

    def measure_fresh(self, arm: str, manipulate: Manipulate, fresh: MaLP, *, seed: int = 0) -> dict[str, Any]:
        """Add the scores of a fresh MaLP to the line of an arm that was measured.

        Raises:
            ValueError: the arm wasn't measured.
        """
        own = [line for line in self._lines("measurements.jsonl") if (line.get("seed", 0), line["arm"]) == (seed, arm)]
        if not own:
            raise ValueError(f"{arm}, seed {seed} has no line in {self.folder / 'measurements.jsonl'}; measure it first")
        found = measure_fresh(manipulate, self.inputs, fresh, device=self.device)
        self._write("measurements.jsonl", {"seed": seed, "arm": arm}, {**own[-1], **found})
        return found

    def quick_fid(self, arm: str, step: int, manipulate: Manipulate, *, seed: int = 0) -> float:
        """The Fréchet distance during training, on the `selection`, also written to ``quality.jsonl``; infinity for images that are not finite."""
        value = measure_frechet(
            manipulate, self.selection or self.inputs, self.reference, self.models.extractor, device=self.device, label="quick_fid"
        )
        self._write("quality.jsonl", {"seed": seed, "arm": arm, "step": step}, {"frechet": value})
        return math.inf if value is None else value

    @torch.no_grad()
    def grid(self, arm: str, step: int, manipulate: Manipulate, *, seed: int = 0) -> None:
        """Save the current edits of the gallery's images as ``samples/<arm>/<step>.png``, for seeds other than 0 below ``samples/<seed>``."""
        shown = self.inputs.first(rows_of(self.inputs))
        edited = edit(manipulate, shown.images, shown.targets, device=self.device)
        if edited.isfinite().all():
            folder = self.folder / "samples" / (str(seed) if seed else "") / arm
            sample_grid({"real": shown.images, arm: edited}, folder / f"{step:06d}.png", captions=captions_of(shown))

    def measure_reference_points(self) -> None:
        """Reference points for every metric, ``reference_points.json``, and the features of the reference and of the unedited inputs; once for all seeds."""
        reference_points, unedited = measure_reference_points(self.inputs, self.reference, self.models, device=self.device)
        write_json(self.folder / "reference_points.json", reference_points)
        for name, features in (("reference", self.reference.features), ("unedited", unedited)):
            for view, values in features.items():
                save_features(features_path(self.folder, name, view=view), values)

    def measured(self, *, seed: int = 0) -> list[str]:
        """Arms of a seed that this run or an interrupted try of it has measured; "before" counts for all seeds."""
        return [line["arm"] for line in self._lines("measurements.jsonl") if line.get("seed", 0) == seed or line["arm"] == "before"]

    def draw(self, arms: Mapping[str, Manipulate], *, seed: int = 0) -> None:
        """Draw the gallery's images of arms that have none, as in a run that an earlier version began; `measure` draws its own."""
        drawn = {line["arm"] for line in self._lines("gallery.jsonl") if line["seed"] == seed}
        for arm, manipulate in arms.items():
            if arm not in drawn:
                write_strips(self.folder, arm, draw_arm(manipulate, self.inputs, self.models.malp, device=self.device), seed=seed)

    def _lines(self, name: str) -> list[dict[str, Any]]:
        return [line for _, line in read_lines(self.folder / name)] if (self.folder / name).exists() else []

    def _write(self, name: str, key: dict[str, Any], values: dict[str, Any]) -> None:
        """Replace the line with the same key, or add one. Values that are not finite become None, not measured."""
        lines = [
            line
            for line in self._lines(name)
            if key != {"seed": line.get("seed", 0), **{part: line.get(part) for part in key if part != "seed"}}
        ]
        lines.append(finite({**key, **values}))
        write_text(self.folder / name, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))


def make_evaluation_models(options: EvaluationOptions, data: DataOptions, attribute_names: tuple[str, ...], device: torch.device) -> EvaluationModels:
    """All evaluation models except MaLP, loaded before any long work, so that a missing file is reported at once."""
    name = options.extractor
    if name == "auto":
        name = "faces" if data.data == "faces" else "inception-2048"
    extractor = create_extractor(name, weights=options.fid_weights, device=device)
    second = _second_extractor(options, device)
    embedding = None if options.face_embedding is None else MobileFaceNet.load(options.face_embedding).to(device)
    classifier = _attribute_classifier(options, data, attribute_names, device)
    return EvaluationModels(extractor, classifier, None, second, embedding, options.smaller_views)


def _attribute_classifier(
    options: EvaluationOptions, data: DataOptions, attribute_names: tuple[str, ...], device: torch.device
) -> SelectedAttributes | None:
    """The classifier that measures edit accuracy; None for images without attributes, or, with a warning, where there is none."""
    if not attribute_names:
        if options.attribute_classifier is not None:
            raise ValueError("--attribute-classifier has no effect on images without attributes; leave it out, or use --data folder with --attributes")
        return None
    path = options.attribute_classifier or (shipped_weights("faces_classifier") if data.data == "faces" else None)
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


def _second_extractor(options: EvaluationOptions, device: torch.device) -> FeatureExtractor | None:
    name = options.second_extractor
    if name == "none":
        return None
    if name == "auto":
        name = "random" if options.second_weights is None else "squeezenet"
    if name == "random":
        return RandomExtractor().to(device).eval()
    return create_extractor(name, weights=options.second_weights, device=device)


class SelectedAttributes(torch.nn.Module):
    """A classifier's logits in the order of a run's attributes."""

    def __init__(self, classifier: AttributeNet, attribute_names: tuple[str, ...]) -> None:
        super().__init__()
        self.classifier = classifier
        self.columns = [classifier.attribute_names.index(name) for name in attribute_names]

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(images)[:, self.columns]


@dataclass(frozen=True)
class EvaluationSets:
    """Data sets of an evaluation: held-back images, real images to compare with, and the training images on which the best step is chosen."""

    held_out: Dataset
    real: Dataset
    train: Dataset


def evaluation_sets(options: EvaluationOptions, data: DataOptions, reference: Dataset | None = None) -> EvaluationSets:
    """Find the images and check that there are enough.

    Args:
        reference: real images to compare with; those of the data set if None.

    Raises:
        ValueError: too few to measure anything. Fewer than asked for are taken as they are, with a warning.
    """
    sets = EvaluationSets(build_dataset(data, "test"), reference or build_dataset(data, "reference"), build_dataset(data, "train"))
    for flag, asked, dataset, least in (("eval-size", options.eval_size, sets.held_out, 2), ("reference-size", options.reference_size, sets.real, 4)):
        if min(asked, len(dataset)) < least:
            raise ValueError(f"expected --{flag} of at least {least} images, got {asked} of {len(dataset)} that there are ({dataset.description})")
        if asked > len(dataset):
            logger.warning(f"--{flag} {asked}: there are only {len(dataset)} images, all are taken ({dataset.description})")
    return sets


def make_evaluator(
    options: EvaluationOptions,
    data: DataOptions,
    models: EvaluationModels,
    malp: MaLP | None,
    folder: Path,
    device: torch.device,
    sets: EvaluationSets | None = None,
) -> Evaluator:
    """Load the inputs and the reference; seconds for drawn faces, minutes for Inception on a CPU. `sets`: from `evaluation_sets`, if it was called before."""
    sets = sets or evaluation_sets(options, data)
    exclusive = tuple(sets.held_out.attribute_names) if isinstance(sets.held_out, DomainFolder) else None
    inputs = EvalSet.take(sets.held_out, options.eval_size, exclusive=exclusive)
    selection = EvalSet.take(sets.train, min(_SELECTION, options.eval_size), exclusive=exclusive)
    models = dataclasses.replace(models, malp=malp)
    reference = measure_reference(sets.real, options.reference_size, models, device=device, cache=folder / "features" / "reference.npz")
    return Evaluator(folder, inputs, reference, models, device, selection)


def save_features(path: Path, features: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        np.save(temporary, features.astype(np.float32))


def check_same_attributes(dataset: Dataset, c_dim: int, source: str) -> None:
    """Raise ValueError unless a generator takes as many attributes as the data set has."""
    if c_dim != len(dataset.attribute_names):
        raise ValueError(
            f"{source} takes {c_dim} attributes, but {len(dataset.attribute_names)} are selected ({' '.join(dataset.attribute_names)}); "
            "give --selected-attributes in the order it was trained with"
        )


def _log_summary(arm: str, measured: Mapping[str, Any]) -> None:
    frechet, accuracy = measured["frechet"], measured.get("edit_accuracy")
    edits = "edit accuracy not measured" if accuracy is None else f"edit accuracy {accuracy:.3f}"
    logger.info(
        f"{arm}: {frechet['label']} {frechet['value']:.2f} (n = {frechet['n']}), {edits}, mean |x - G(x)| {measured['identity_l1']:.3f}"
    )


def finite(value: Any) -> Any:
    """A nested value with None in place of every number that isn't finite: JSON has no word for them."""
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value

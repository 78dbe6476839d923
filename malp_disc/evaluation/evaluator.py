"""The evaluation of a run: evaluation models, inputs and reference images, on which every generator is measured in the same way."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from malp_disc import MaLP
from malp_disc.data import build_dataset
from malp_disc.data.part import Part
from malp_disc.evaluation.eval_set import BATCH, EvalSet, Manipulate, edit
from malp_disc.evaluation.evaluation_models import EvaluationConfig
from malp_disc.evaluation.feature_views import images_sha256
from malp_disc.evaluation.gallery import captions_of, draw_arm, rows_of
from malp_disc.evaluation.measure import (
    EvaluationModels,
    Reference,
    measure_arm,
    measure_frechet,
    measure_reference,
    measure_reference_points,
)
from malp_disc.plotting.image_grids import sample_grid
from malp_disc.run_folder.measurement import Measurement, Network, TrainingDistance, WeightsFile
from malp_disc.run_folder.schema import features_path, read_lines, read_typed
from malp_disc.run_folder.strips import write_strips
from malp_disc.serialization.files import atomic_path, file_sha256, write_json, write_text
from malp_disc.serialization.reading import read_json
from malp_disc.serialization.typed_json import to_json
from malp_disc.target_kind import check_attribute_count

logger = logging.getLogger("malp_disc")
_FEWEST_REAL = 4
_HELD_OUT = "held-out images that no generator edits"
_SELECTION = 500  # training images whose edits choose the best step, so that the edits of the held-out ones are only reported on


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
        self,
        arm: str,
        manipulate: Manipulate,
        *,
        seed: int = 0,
        weights: Path | None = None,
        fresh: MaLP | None = None,
        steps: int | None = None,
        seconds: float | None = None,
        skipped: int | None = None,
        experiment: str | None = None,
        teachers: Sequence[Network] = (),
    ) -> Measurement:
        """Measure one arm of one seed: a line of ``measurements.jsonl``, its features, and the images that the report shows.

        Args:
            arm: out of `malp_disc.run_folder.arms.ARMS`. "before" is the same for all seeds: measure it once.
            weights: the generator's file, whose hash goes into the report.
            fresh: a MaLP trained from scratch against this generator.
            steps, seconds, skipped, experiment, teachers: of the training, for the line.
        """
        label = f"measure {arm}" if seed == 0 else f"measure {arm}, seed {seed}"
        malp = self.models.malp
        measured, evidence = measure_arm(manipulate, self.inputs, self.reference, self.models, fresh=fresh, device=self.device, label=label)
        for view, features in (evidence.features | evidence.scores).items():
            save_features(features_path(self.folder, arm, seed=seed, view=view), features)
        if measured.diverged:
            logger.warning(f"{arm}, seed {seed}: the images are not finite, nothing was measured")
        else:
            write_strips(self.folder, arm, draw_arm(manipulate, self.inputs, malp, evidence=evidence, device=self.device), seed=seed)
            _log_summary(arm, measured)
        if weights is not None:
            measured = dataclasses.replace(measured, weights=WeightsFile(weights.name, file_sha256(weights)))
        measured = dataclasses.replace(measured, steps=steps, seconds=seconds, skipped=skipped, experiment=experiment, teachers=tuple(teachers))
        self._write_measurement(arm, seed, measured)
        return measured

    def quick_distance(self, arm: str, step: int, manipulate: Manipulate, *, seed: int = 0) -> float:
        """The Fréchet distance during training, on the `selection`, also written to ``quality.jsonl``; infinity for images that are not finite."""
        value = measure_frechet(
            manipulate, self.selection or self.inputs, self.reference, self.models.extractor, device=self.device, label="quick distance"
        )
        path = self.folder / "quality.jsonl"
        others = [line for line in read_typed(path, TrainingDistance) if (line.seed, line.arm, line.step) != (seed, arm, step)]
        _write_lines(path, [to_json(line) for line in (*others, TrainingDistance(seed, arm, step, finite(value)))])
        return math.inf if value is None else value

    @torch.no_grad()
    def grid(self, arm: str, step: int, manipulate: Manipulate, *, seed: int = 0) -> None:
        """Save the current edits of the gallery's images as ``samples/<arm>/<step>.png``, for seeds other than 0 below ``samples/<seed>``."""
        shown = self.inputs.first(rows_of(self.inputs))
        edited = edit(manipulate, shown.images, shown.targets, current=shown.labels, device=self.device)
        if edited.isfinite().all():
            folder = self.folder / "samples" / (str(seed) if seed else "") / arm
            sample_grid({"real": shown.images, arm: edited}, folder / f"{step:06d}.png", captions=captions_of(shown))

    def check_same_images(self) -> None:
        """Raise ValueError if the inputs or the reference aren't those that the run's earlier measurements were made on; their names alone don't tell."""
        was = read_json(self.folder / "reference_points.json", what="the reference points of a run")
        for name, images, flag in (("inputs", images_sha256(self.inputs.images.split(BATCH)), "held-out"), ("reference", self.reference.sha256, "real")):
            if was.get(f"{name}_sha256") not in (None, images):
                chosen = name == "reference" and self.reference.text.startswith(_HELD_OUT)
                earlier = ", add --reference-split training if the earlier ones were compared with training images" if chosen else ""
                raise ValueError(
                    f"{self.folder} was measured on other {flag} images than there are now, under the same names; restore them{earlier}, or choose another --output-dir"
                )

    def measure_reference_points(self) -> None:
        """Reference points for every metric, ``reference_points.json``, and the features of the reference and of the unedited inputs; once for all seeds."""
        found, unedited = measure_reference_points(self.inputs, self.reference, self.models, device=self.device)
        write_json(self.folder / "reference_points.json", to_json(found, sparse=True))
        for name, features in (("reference", self.reference.features), ("unedited", unedited)):
            for view, values in features.items():
                save_features(features_path(self.folder, name, view=view), values)

    def measured(self, *, seed: int = 0) -> list[str]:
        """Arms of a seed that this run or an interrupted try of it has measured; "before" counts for all seeds."""
        return [line["arm"] for line in self._measured_lines() if line["seed"] == seed or line["arm"] == "before"]

    def recorded_experiment(self) -> str | None:
        """Hash of the experiment in which the generator before fine-tuning was measured; None if it wasn't."""
        return next((line.get("experiment") for line in self._measured_lines() if line["arm"] == "before"), None)

    def _measured_lines(self) -> list[dict[str, Any]]:
        path = self.folder / "measurements.jsonl"
        return [line for _, line in read_lines(path)] if path.is_file() else []

    def _write_measurement(self, arm: str, seed: int, measured: Measurement) -> None:
        """Replace the line of this arm and seed, or add one. Values that are not finite are left out, as not measured."""
        others = [line for line in self._measured_lines() if (line["seed"], line["arm"]) != (seed, arm)]
        line = {"seed": seed, "arm": arm, **to_json(finite(to_json(measured)), sparse=True)}
        _write_lines(self.folder / "measurements.jsonl", [*others, line])


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))


@dataclass(frozen=True)
class EvaluationSets:
    """Data sets of an evaluation: held-out images, real images to compare with, and the training images on which the best step is chosen."""

    held_out: Dataset
    real: Dataset
    train: Dataset


def evaluation_sets(config: EvaluationConfig, reference: Dataset | None = None) -> EvaluationSets:
    """Find the images and check that there are enough.

    Args:
        reference: real images to compare with; those of the data set if None.

    Raises:
        ValueError: too few to measure anything. Fewer than asked for are taken as they are, with a warning.
    """
    held_out = build_dataset(config, "test")
    sets = EvaluationSets(held_out, reference or _real_images(config, held_out), build_dataset(config, "train"))
    for flag, asked, dataset, least in (("eval-size", config.eval_size, sets.held_out, 2), ("reference-size", config.reference_size, sets.real, _FEWEST_REAL)):
        if min(asked, len(dataset)) < least:
            raise ValueError(f"expected --{flag} of at least {least} images, got {asked} of {len(dataset)} that there are ({dataset.description})")
        if asked > len(dataset):
            logger.warning(f"--{flag} {asked}: there are only {len(dataset)} images, all are taken ({dataset.description})")
    return sets


def _real_images(config: EvaluationConfig, held_out: Dataset) -> Dataset:
    """The images that the generators' are compared with, by ``config.reference_split``."""
    needed = config.eval_size + config.reference_size
    if config.reference_split == "training":
        return build_dataset(config, "train")
    if config.data == "faces" or (config.reference_split == "auto" and len(held_out) < needed):
        return build_dataset(config, "reference")
    if len(held_out) < config.eval_size + _FEWEST_REAL:
        raise ValueError(
            f"--reference-split held-out: of {len(held_out)} held-out images, --eval-size {config.eval_size} are edited, which leaves too few to compare with; "
            "hold out more (--test-size), edit fewer, or compare with training images (--reference-split training)"
        )
    return Part(held_out, config.eval_size, len(held_out), name=f"{_HELD_OUT},")


def make_evaluator(
    config: EvaluationConfig,
    models: EvaluationModels,
    malp: MaLP | None,
    folder: Path,
    device: torch.device,
    sets: EvaluationSets | None = None,
    *,
    exclusive: Sequence[str] | None = None,
) -> Evaluator:
    """Load the inputs and the reference; seconds for drawn faces, minutes for Inception on a CPU.

    Args:
        sets: from `evaluation_sets`, if it was called before.
        exclusive: labels of which an edit must leave exactly one, where the data set doesn't say so itself (`malp_disc.target_kind.exclusive_names`).
    """
    sets = sets or evaluation_sets(config)
    inputs = EvalSet.take(sets.held_out, config.eval_size, exclusive=exclusive)
    selection = EvalSet.take(sets.train, min(_SELECTION, config.eval_size), exclusive=exclusive)
    models = dataclasses.replace(models, malp=malp)
    reference = measure_reference(sets.real, config.reference_size, models, device=device, cache=folder / "features" / "reference.npz")
    return Evaluator(folder, inputs, reference, models, device, selection)


def save_features(path: Path, features: np.ndarray) -> None:
    """Write features (N, D), or scores of single images, as a ``.npy`` file of float32, atomically."""
    with atomic_path(path) as temporary:
        np.save(temporary, features.astype(np.float32))


def check_same_attributes(dataset: Dataset, c_dim: int, source: str) -> None:
    """Raise ValueError unless a generator takes as many attributes as the data set has."""
    check_attribute_count(c_dim, len(dataset.attribute_names), source, dataset.attribute_names)


def _log_summary(arm: str, measured: Measurement) -> None:
    frechet, accuracy = measured.frechet, measured.edit_accuracy
    edits = "edit accuracy not measured" if accuracy is None else f"edit accuracy {accuracy:.3f}"
    if measured.attributes == 0 and measured.content.value is not None:
        edits = f"content {measured.content.value:.3f}"
    logger.info(f"{arm}: {frechet.label} {frechet.value:.2f} (n = {frechet.n}), {edits}, mean |x - G(x)| {measured.identity_l1:.3f}")


def finite(value: Any) -> Any:
    """A nested value with None in place of every number that isn't finite: JSON has no word for them."""
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value

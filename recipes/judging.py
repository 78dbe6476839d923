"""The judges of a run, and the bench on which every generator is measured the same way."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from malp_disc import MaLP
from malp_disc.checkpoint import atomic_path, write_json, write_text
from malp_disc.data import DataOptions, DomainFolder, build_dataset
from malp_disc.metrics.attribute_net import AttributeNet, shipped_weights
from malp_disc.metrics.features import FeatureExtractor, create_extractor
from malp_disc.report.figures import fakeness_grid, sample_grid
from malp_disc.report.inputs import Inputs, Manipulate
from malp_disc.report.localizing import malp_gallery
from malp_disc.report.measure import Judges, Reference, measure_anchors, measure_arm, measure_reference

logger = logging.getLogger("malp_disc")


@dataclass(kw_only=True)
class JudgeOptions:
    """By what the pictures are judged."""

    extractor: Literal["auto", "faces", "clean", "inception-64", "inception-192", "inception-768", "inception-2048"] = "auto"
    """Features of the Fréchet distance. auto: the shipped small net on drawn faces (FD-faces), inception-2048 (FID) on real pictures."""
    fid_weights: Path | None = None
    """File of Inception weights (pytorch-fid's state dict, .pth or .safetensors), for machines without internet."""
    attribute_classifier: Path | None = None
    """Classifier that reads the edits, made by train_attribute_classifier.py; the shipped one on drawn faces. Without one on real pictures,
    edit accuracy isn't measured and no verdict is given."""
    eval_size: int = 1000
    """Held-back pictures that every generator edits."""
    reference_size: int = 2000
    """Real pictures they are compared with."""


@dataclass
class Bench:
    """The same inputs, targets, reference and judges for every arm; what it measures is written to the run's folder."""

    folder: Path
    inputs: Inputs
    reference: Reference
    judges: Judges
    device: torch.device

    def measure(self, arm: str, manipulate: Manipulate, **more: Any) -> dict[str, Any]:
        """Measure one arm into ``measurements.jsonl`` and ``features/<arm>.npy``; `more` goes along (steps, seconds)."""
        measured, features = measure_arm(manipulate, self.inputs, self.reference, self.judges, device=self.device, label=f"measure {arm}")
        save_features(self.folder / "features" / f"{arm}.npy", features)
        lines = [line for line in read_lines(self.folder / "measurements.jsonl") if line["arm"] != arm]
        lines.append({"arm": arm, **measured, **more})
        write_text(self.folder / "measurements.jsonl", "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))
        frechet, accuracy = measured["frechet"], measured["edit_accuracy"]
        edits = "edit accuracy not measured" if accuracy is None else f"edit accuracy {accuracy:.3f}"
        logger.info(f"{arm}: {frechet['label']} {frechet['value']:.2f} (n = {frechet['n']}), {edits}, mean |x - G(x)| {measured['identity_l1']:.3f}")
        return measured

    def glance(self, arm: str, step: int, manipulate: Manipulate) -> None:
        """The Fréchet distance on the way, on all inputs, into ``quality.jsonl``."""
        measured, _ = measure_arm(manipulate, self.inputs, self.reference, Judges(self.judges.extractor, None, None), device=self.device, label="glance")
        path = self.folder / "quality.jsonl"
        lines = [line for line in read_lines(path) if (line["arm"], line["step"]) != (arm, step)]
        lines.append({"arm": arm, "step": step, "frechet": measured["frechet"]["value"]})
        write_text(path, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))

    def measure_anchors(self) -> None:
        write_json(self.folder / "anchors.json", measure_anchors(self.inputs, self.reference, self.judges, device=self.device))
        save_features(self.folder / "features" / "reference.npy", self.reference.features)

    def measured(self) -> list[str]:
        """Arms that a run, perhaps an earlier try of it, has measured."""
        return [line["arm"] for line in read_lines(self.folder / "measurements.jsonl")]

    @torch.no_grad()
    def draw(self, arms: dict[str, Manipulate], *, rows: int = 10) -> None:
        """``samples.png``: the same faces and edits through every arm; ``fakeness.png``: where MaLP sees the changes of the first arm."""
        real, target = self.inputs.images[:rows].to(self.device), self.inputs.targets[:rows].to(self.device)
        columns = {"real": real}
        if self.judges.malp is not None and not self.judges.malp.passive:
            columns["encrypted"] = self.judges.malp.encrypt(real, torch.zeros(len(real), dtype=torch.long, device=self.device))[0]
        columns |= {arm: manipulate(real, target).float() for arm, manipulate in arms.items()}
        names = self.inputs.attribute_names
        captions = [
            ("+ " if self.inputs.targets[row, edited] > 0.5 else "- ") + names[edited] for row, edited in enumerate(self.inputs.edited[:rows].tolist())
        ]
        sample_grid({name: column.cpu() for name, column in columns.items()}, self.folder / "samples.png", captions=captions)
        if self.judges.malp is not None:
            first = next(iter(arms.values()))
            fakeness_grid(**malp_gallery(first, self.inputs, self.judges.malp, device=self.device), path=self.folder / "fakeness.png")


def make_judges(options: JudgeOptions, data: DataOptions, attribute_names: tuple[str, ...], device: torch.device) -> tuple[FeatureExtractor, AttributeNet | None]:
    """The extractor and the classifier, loaded before any long work: what is missing is said at once."""
    name = options.extractor
    if name == "auto":
        name = "faces" if data.data == "faces" else "inception-2048"
    extractor = create_extractor(name, weights=options.fid_weights, device=device)
    path = options.attribute_classifier or (shipped_weights("faces_classifier") if data.data == "faces" else None)
    if path is None:
        logger.warning("no --attribute-classifier: edit accuracy isn't measured, and without it no verdict is given (see recipes/train_attribute_classifier.py)")
        return extractor, None
    classifier = AttributeNet.load(path).to(device).eval()
    missing = [attribute for attribute in attribute_names if attribute not in classifier.attribute_names]
    if missing:
        raise ValueError(f"the attribute classifier {path} doesn't know {missing}; it reads {list(classifier.attribute_names)}")
    return extractor, SelectedAttributes(classifier, attribute_names)


class SelectedAttributes(torch.nn.Module):
    """A classifier's logits in the order of a run's attributes."""

    def __init__(self, classifier: AttributeNet, attribute_names: tuple[str, ...]) -> None:
        super().__init__()
        self.classifier = classifier
        self.columns = [classifier.attribute_names.index(name) for name in attribute_names]

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(images)[:, self.columns]


def make_bench(
    options: JudgeOptions, data: DataOptions, judges: tuple[FeatureExtractor, torch.nn.Module | None], malp: MaLP | None, folder: Path, device: torch.device
) -> Bench:
    """Load the inputs and the reference; seconds for drawn faces, minutes for Inception on a CPU."""
    held_out = build_dataset(data, "test")
    exclusive = tuple(held_out.attribute_names) if isinstance(held_out, DomainFolder) else None
    inputs = Inputs.take(held_out, options.eval_size, exclusive=exclusive)
    reference = measure_reference(build_dataset(data, "reference"), options.reference_size, judges[0], device=device)
    return Bench(folder, inputs, reference, Judges(*judges, malp), device)


def save_features(path: Path, features: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        np.save(temporary, features.astype(np.float32))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def check_same_attributes(dataset: Dataset, c_dim: int, source: str) -> None:
    """A generator made for other attributes fails here, with their number, and not in the middle of a run."""
    if c_dim != len(dataset.attribute_names):
        raise ValueError(
            f"{source} takes {c_dim} attributes, but {len(dataset.attribute_names)} are selected ({' '.join(dataset.attribute_names)}); "
            "give --selected-attributes in the order it was trained with"
        )

"""Which evaluation network notices which damage: Fréchet distances of drawn faces that were damaged in known ways, at rising strengths.

    python recipes/research/judge_damages.py --extractors FD-SqueezeNet-128=squeezenet-128 FD-faces=faces FD-random=random --seeds 0 1
    python recipes/research/judge_damages.py --extractors FID-192=inception-192:fid_inception.safetensors --seeds 0 --size 128

An extractor is usable if its distance rises with every damage and is well above that of undamaged images where the damage is plain to see. Measured are

    damages     nine damages (`recipes/research/damages.py`) at five strengths, each against the same faces without it
    wrong edits faces rendered with other attributes (perfect edits), of which a rising share isn't edited at all
    cleaner     the reference has noise, like photographs: are the same faces without noise called better than damaged ones with it?
    repair      the shipped generator's edits, mixed with perfect ones: is a generator that improves called better?

Each extractor, seed and part is a few lines of ``damages.jsonl``; ``judges.md`` and ``damages.png`` are made from it. What is complete there, with the same
numbers of images and resamples, isn't repeated.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from generators import create_generator
from malp_disc.data.faces import ATTRIBUTES, DEFAULT_SELECTION, draw_faces
from malp_disc.degradations import blurred, gaussian_noise
from malp_disc.evaluation.eval_set import edit
from malp_disc.metrics.attribute_net import AttributeNet, shipped_weights
from malp_disc.metrics.editing import single_attribute_targets
from malp_disc.metrics.extractor import FeatureExtractor
from malp_disc.metrics.features import create_extractor, extract_features
from malp_disc.metrics.frechet import frechet_distance
from malp_disc.metrics.paired_bootstrap import bootstrap_delta, resampled_frechet
from malp_disc.metrics.random_features import RandomExtractor
from malp_disc.run_folder.experiment import not_compared
from malp_disc.serialization.files import write_text
from malp_disc.shipped import FACES_GENERATOR
from malp_disc.training.launch import check_seeds, run_recipe
from recipes.research.damages import DAMAGES, MODERATE
from recipes.research.judge_report import damage_figure, study_tables

FACES = 50_000_000
"""Number of the first drawn face; seeds and the reference take disjoint ranges, which no other recipe draws from."""
REFERENCE = 9_000_000  # after FACES
UNEDITED = (0.05, 0.1, 0.2, 0.5, 1.0)  # shares of the images that a request is ignored for
GRAIN = 3.0  # standard deviation of the noise of the reference in the part "cleaner", grey levels
REPAIRED = (0.25, 0.5, 0.75, 1.0)  # shares of the perfect edit
COARSE = 2.0  # standard deviation of the blur that separates coarse from fine errors, pixels
Part = Literal["damages", "wrong edits", "cleaner", "repair"]
SMALLEST = 24  # images, so that there are some with and without each attribute
_BATCH = 64


@dataclass(kw_only=True)
class Config:
    output_dir: Path = not_compared(Path("runs/judges"))
    """Folder of the measurements, the table and the figure."""
    extractors: tuple[str, ...] = ("FD-SqueezeNet-128=squeezenet-128", "FD-faces=faces", "FD-random=random")
    """LABEL=NAME or LABEL=NAME:FILE, an extractor of `create_extractor` with the file of its weights, or random."""
    parts: tuple[Part, ...] = ("damages", "wrong edits", "cleaner", "repair")
    """The parts to measure."""
    seeds: tuple[int, ...] = (0,)
    """Each seed has other faces and other random damage."""
    size: int = 256
    """Number of damaged images."""
    reference_size: int = 1000
    """Number of undamaged images that they are compared with, other faces."""
    resamples: int = 40
    """Resamples of the bootstrap, for the intervals over images."""


@dataclass
class Faces:
    """Drawn faces with all labels, (N, 3, 64, 64) and (N, 8), and their numbers."""

    numbers: range
    images: Tensor
    labels: Tensor

    @classmethod
    def draw(cls, first: int, count: int) -> Faces:
        numbers = range(first, first + count)
        parts = [draw_faces(numbers[i : i + _BATCH]) for i in range(0, count, _BATCH)]
        return cls(numbers, torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts]))


def main(config: Config) -> None:
    check_seeds(*config.seeds)
    if min(config.size, config.reference_size) < SMALLEST or config.resamples < 2:
        raise ValueError(
            f"expected --size and --reference-size of at least {SMALLEST} images and --resamples of at least 2, "
            f"got {config.size}, {config.reference_size} and {config.resamples}"
        )
    path = config.output_dir / "damages.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    for text in config.extractors:  # a wrong name or file is reported before any work
        label, extractor = load_extractor(text)
        if others := {line["extractor"] for line in lines if line["judge"] == label} - {extractor.name}:
            raise ValueError(f"{path} has {label} with another network, {others.pop()}, now {extractor.name}; give it another label, or choose another --output-dir")
    path.parent.mkdir(parents=True, exist_ok=True)
    for text in config.extractors:
        for seed in config.seeds:
            label, extractor = load_extractor(text)  # anew, because the untrained one is fitted to the reference
            about = {"judge": label, "seed": seed, "n": config.size, "reference_n": config.reference_size, "resamples": config.resamples}
            missing = [part for part in config.parts if not any((about | {"part": part}).items() <= line.items() for line in lines)]
            if not missing:
                continue
            lines = [line for line in lines if (line["judge"], line["seed"]) != (label, seed) or line["part"] not in missing]
            lines += [{**about, **line} for line in measure(extractor, config, missing, seed=seed, label=label)]
            write_text(path, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))
    tables = study_tables(lines)
    write_text(config.output_dir / "judges.md", tables)
    damage_figure(lines, config.output_dir / "damages.png")
    print(tables)


def load_extractor(text: str) -> tuple[str, FeatureExtractor]:
    """LABEL=NAME or LABEL=NAME:FILE -> label and extractor.

    Raises:
        ValueError: another form, or an unknown extractor.
    """
    label, equals, source = text.partition("=")
    if not label or not equals:
        raise ValueError(f"expected --extractors LABEL=NAME or LABEL=NAME:FILE, got {text!r}")
    name, _, weights = source.partition(":")
    return label, RandomExtractor().eval() if name == "random" else create_extractor(name, weights=weights or None)


def measure(extractor: FeatureExtractor, config: Config, parts: list[Part], *, seed: int, label: str) -> Iterator[dict[str, Any]]:
    """The lines of one extractor and seed."""
    faces = Faces.draw(FACES + seed * config.size, config.size)
    real = Faces.draw(FACES + REFERENCE, config.reference_size)
    started, count = time.process_time(), config.reference_size
    reference = features(extractor, real.images)
    common = {"extractor": extractor.name, "resize": extractor.resize, "seconds_per_1000": 1000 * (time.process_time() - started) / count}
    if isinstance(extractor, RandomExtractor):
        reference = extractor.fit(reference)
    clean = features(extractor, faces.images)
    measuring = {
        "damages": lambda: damages(extractor, reference, faces, clean, config, seed=seed, label=label),
        "wrong edits": lambda: wrong_edits(extractor, reference, real, faces, config),
        "cleaner": lambda: cleaner(extractor, real, faces, clean, config, seed=seed),
        "repair": lambda: repair(extractor, reference, faces, config),
    }
    for part in parts:
        for line in measuring[part]():
            yield {**common, "part": part, **line}


def damages(
    extractor: FeatureExtractor, reference: np.ndarray, faces: Faces, clean: np.ndarray, config: Config, *, seed: int, label: str
) -> Iterator[dict[str, Any]]:
    """Every damage at every strength, 0 first; and the distance between two halves of the reference."""
    half = len(reference) // 2
    yield {"damage": None, "value": frechet_distance(reference[:half], reference[half:])}
    for kind, damage in tqdm(DAMAGES.items(), desc=f"{label}, seed {seed}"):
        noise = torch.Generator().manual_seed(seed)
        sets = {"0": clean} | {str(i + 1): features(extractor, damage(faces.images, level, noise)) for i, level in enumerate(damage.levels)}
        for step, found in compared(reference, sets, config).items():
            yield {"damage": kind, "strength": int(step), "level": (0.0, *damage.levels)[int(step)], **found}


def features(extractor: FeatureExtractor, images: Tensor) -> np.ndarray:
    return extract_features(extractor, images.split(_BATCH))


def compared(reference: np.ndarray, sets: dict[str, np.ndarray], config: Config) -> dict[str, dict[str, float]]:
    """Distance of every set, and its difference from that of the first set and from the one before, with 95 % intervals over images."""
    resampled = resampled_frechet(reference, sets, resamples=config.resamples)
    found, names = {}, list(sets)
    for before, name in zip([names[0], *names], names):
        excess, step = bootstrap_delta(resampled[name], resampled[names[0]]), bootstrap_delta(resampled[name], resampled[before])
        found[name] = {"value": resampled[name].value, "excess": dataclasses.astuple(excess), "step": dataclasses.astuple(step)}
    return found


def perfect_edits(faces: Faces) -> tuple[Tensor, Tensor]:
    """One requested change per face: the images with it, drawn anew, and the targets (N, A) of a generator with the default attributes."""
    columns = [ATTRIBUTES.index(name) for name in DEFAULT_SELECTION]
    targets, _ = single_attribute_targets(faces.labels[:, columns], DEFAULT_SELECTION)
    wanted = faces.labels.clone()
    wanted[:, columns] = targets
    parts = [draw_faces(faces.numbers[i : i + _BATCH], labels=wanted[i : i + _BATCH])[0] for i in range(0, len(wanted), _BATCH)]
    return torch.cat(parts), targets


def wrong_edits(extractor: FeatureExtractor, reference: np.ndarray, real: Faces, faces: Faces, config: Config) -> Iterator[dict[str, Any]]:
    """Perfect edits, of which a rising share isn't made: the distance, the mean distance per attribute, and the edit accuracy.

    The requests leave the frequencies of the attributes nearly as they are, so that a distance between whole sets can't see whether they were followed.
    The conditional one compares the images that should have an attribute with real ones that have it.
    """
    columns = [ATTRIBUTES.index(name) for name in DEFAULT_SELECTION]
    edited, targets = perfect_edits(faces)
    rows = {"made": features(extractor, edited), "not made": features(extractor, faces.images)}
    classifier = AttributeNet.load(shipped_weights("faces_classifier"))
    order = [classifier.attribute_names.index(name) for name in DEFAULT_SELECTION]
    requested = targets != faces.labels[:, columns]
    shares = (0.0, *UNEDITED)
    sets, accuracies = {}, []
    for share in shares:
        ignored = torch.arange(len(edited)) < round(share * len(edited))
        sets[str(share)] = np.where(ignored.numpy()[:, None], rows["not made"], rows["made"])
        with torch.no_grad():
            images = torch.where(ignored[:, None, None, None], faces.images, edited)
            logits = torch.cat([classifier(part)[:, order] for part in images.split(_BATCH)])
        accuracies.append(((logits > 0) == (targets > 0.5))[requested].double().mean().item())
    for step, (share, found) in enumerate(compared(reference, sets, config).items()):
        conditional = [
            frechet_distance(reference[real.labels[:, column].numpy() == value], sets[share][targets[:, i].numpy() == value])
            for i, column in enumerate(columns)
            for value in (0, 1)
        ]
        yield {"strength": step, "level": shares[step], **found, "conditional": float(np.mean(conditional)), "edit_accuracy": accuracies[step]}


def cleaner(
    extractor: FeatureExtractor, real: Faces, faces: Faces, clean: np.ndarray, config: Config, *, seed: int
) -> Iterator[dict[str, Any]]:
    """Against a reference with noise: faces with the same noise, without noise, and with noise and a moderate damage."""
    noise = torch.Generator().manual_seed(1000 + seed)
    reference = features(extractor, gaussian_noise(real.images, GRAIN, noise))
    grainy = gaussian_noise(faces.images, GRAIN, noise)
    sets = {"the same noise": features(extractor, grainy), "without noise": clean}
    sets |= {kind: features(extractor, DAMAGES[kind](grainy, DAMAGES[kind].levels[MODERATE], noise)) for kind in DAMAGES if kind != "noise"}
    for name, found in compared(reference, sets, config).items():
        yield {"case": name, "value": found["value"], "excess": found["excess"]}


def repair(extractor: FeatureExtractor, reference: np.ndarray, faces: Faces, config: Config) -> Iterator[dict[str, Any]]:
    """The shipped generator's edits, mixed with the perfect ones; and with only their coarse or only their fine errors repaired."""
    perfect, targets = perfect_edits(faces)
    labels = faces.labels[:, [ATTRIBUTES.index(name) for name in DEFAULT_SELECTION]]
    edited = edit(create_generator("stargan", FACES_GENERATOR).eval().manipulate, faces.images, targets, current=labels)
    coarse = blurred(perfect - edited, COARSE)
    cases = {"as edited": edited} | {f"{share:.0%} repaired": torch.lerp(edited, perfect, share) for share in REPAIRED}
    cases |= {"coarse errors repaired": edited + coarse, "fine errors repaired": perfect - coarse}
    sets = {name: features(extractor, images.clamp(-1, 1)) for name, images in cases.items()}
    for name, found in compared(reference, sets, config).items():
        yield {"case": name, **found}


if __name__ == "__main__":
    run_recipe(main, Config, __doc__)

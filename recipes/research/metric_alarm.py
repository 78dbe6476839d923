"""Does the report notice a generator that was tuned on its extractor? Generators that were, and generators that weren't, on drawn faces of 64 pixels.

    python recipes/research/metric_alarm.py --seeds 100 101 102 --output-dir runs/alarm-choice      # to choose the threshold
    python recipes/research/metric_alarm.py --output-dir runs/alarm                                 # to report it
    python recipes/research/metric_alarm.py --seeds 10 11 12 13 14 15 16 17 18 19 --kinds control --output-dir runs/alarm

Every kind and seed (recipes/research/alarm_generators.py) is one generator, whose edits of held-out faces are kept as ``images/<kind>-<seed>.npy``. Existing
ones aren't made again, so an interrupted command continues, and several commands with other seeds may share a folder; with other steps or numbers of images they can't.

``results.jsonl`` has, of every generator in the folder and for every extractor and reference extractor, the differences of both Fréchet distances from the control of the same
seed and from the generator before, the leverage (malp_disc/metrics/leverage.py), and how much farther from the perfect edits the generator is; a control is
compared with that of the next seed, and left out if it is the only one. ``table.md`` counts what the rule of the verdict would say: whether the extractor sees a gain
(conditions 1 and 2), whether the reference extractor refuses it, because it shows the opposite (5) or by the leverage (6), and whether the perfect edits refuse it (7).
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from malp_disc.data import DataOptions, build_dataset
from malp_disc.evaluation.eval_set import EvalSet, edit
from malp_disc.levels import as_images, quantize
from malp_disc.metrics.extractor import FeatureExtractor, extract_features
from malp_disc.metrics.features import create_extractor
from malp_disc.metrics.leverage import leverage
from malp_disc.metrics.paired_bootstrap import bootstrap_delta, paired_mean_delta, resampled_frechet
from malp_disc.metrics.random_features import RandomExtractor
from malp_disc.report.cells import Table
from malp_disc.report.markdown import markdown_table
from malp_disc.report.verdict_rule import TOLERATED_LEVERAGE
from malp_disc.serialization.files import atomic_path, write_json, write_text
from malp_disc.serialization.reading import read_json
from malp_disc.training.launch import run_recipe
from recipes.research.alarm_generators import Kind, Trainer, load

_TRAINING_IMAGES = 2000
PAIRS = (("faces", "squeezenet-128"), ("faces", "random"), ("squeezenet-128", "faces"), ("squeezenet-128", "random"))
"""Extractors with their reference extractors."""


@dataclass(kw_only=True)
class Config:
    """Flags of the experiment."""

    output_dir: Path = Path("runs/alarm")
    """Folder of the images and results, created if absent."""
    seeds: tuple[int, ...] = tuple(range(10))
    """Seeds with which every kind is made."""
    kinds: tuple[Kind, ...] = ("control", "tuned_faces", "tuned_squeezenet", "honest")
    """Kinds of generators to make."""
    steps: int = 60
    """Fine-tuning steps."""
    batch: int = 2
    """Images per step."""
    eval_size: int = 200
    """Number of held-out faces that every generator edits."""
    reference_size: int = 600
    """Number of other faces that the edited ones are compared with."""


def main(config: Config) -> None:
    images = config.output_dir / "images"
    check_same(config)
    missing = [(seed, kind) for seed in config.seeds for kind in config.kinds if not (images / f"{kind}-{seed}.npy").exists()]
    if missing:
        faces = build_dataset(DataOptions(), "test")
        inputs = EvalSet.take(faces, config.eval_size)
        trainer = Trainer(*load(build_dataset(DataOptions(), "train"), _TRAINING_IMAGES), steps=config.steps, batch=config.batch)
        save(images / "perfect.npy", faces.perfect_edits(range(config.eval_size), inputs.targets))
        save(images / "before.npy", edit(trainer.before.manipulate, inputs.images, inputs.targets, current=inputs.labels))
        save(images / "reference.npy", load(build_dataset(DataOptions(), "reference"), config.reference_size)[0])
        for seed, kind in missing:
            save(images / f"{kind}-{seed}.npy", edit(trainer.train(kind, seed).manipulate, inputs.images, inputs.targets, current=inputs.labels))
            print(f"{kind}, seed {seed}: made", flush=True)
    found = results(images)
    write_text(config.output_dir / "results.jsonl", "".join(json.dumps(line) + "\n" for line in found))
    write_text(config.output_dir / "table.md", alarms(found))
    print(alarms(found))


def check_same(config: Config) -> None:
    """Write what all generators of the folder have in common as ``settings.json``.

    Raises:
        ValueError: the folder's generators were made or measured with other settings.
    """
    path, settings = config.output_dir / "settings.json", {name: getattr(config, name) for name in ("steps", "batch", "eval_size", "reference_size")}
    found = read_json(path, what="the settings of the generators in this folder") if path.exists() else settings
    if differing := [f"--{name.replace('_', '-')} was {found.get(name)}, is {value}" for name, value in settings.items() if found.get(name) != value]:
        raise ValueError(f"{config.output_dir} has generators of other settings: {'; '.join(differing)}; choose another --output-dir")
    write_json(path, settings)


def save(path: Path, images: torch.Tensor) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, quantize(images).numpy())


def results(folder: Path) -> list[dict[str, Any]]:
    """One line per generator, extractor and reference extractor. A control that is the only one has none.

    Raises:
        ValueError: a generator without the control of its seed.
    """
    seeds = sorted(int(path.stem.partition("-")[2]) for path in folder.glob("control-*.npy"))
    following = dict(zip(seeds, seeds[1:] + seeds[:1]))
    made = [path for path in folder.glob("*-*.npy") if not path.name.startswith(".")]  # without what another command is writing now
    generators = sorted((kind, int(seed)) for kind, _, seed in (path.stem.partition("-") for path in made))
    if lacking := sorted({seed for _, seed in generators} - set(seeds)):
        flags = f"--kinds control --seeds {' '.join(map(str, lacking))}"
        raise ValueError(f"{folder} has generators without a control of the same seed to compare them with; make it with {flags}, and all others are kept")
    if len(seeds) == 1:
        print(f"the control of seed {seeds[0]} is the only one and isn't compared; give --seeds a second one")
        generators.remove(("control", seeds[0]))
    extractors = {name: RandomExtractor() if name == "random" else create_extractor(name) for pair in PAIRS for name in pair}
    perfect = np.load(folder / "perfect.npy")
    extractors["random"].fit(features_of(folder, "reference", "random", extractors["random"]))
    real = {name: features_of(folder, "reference", name, extractor) for name, extractor in extractors.items()}
    lines = []
    for kind, seed in generators:
        control = following[seed] if kind == "control" else seed
        names = (f"{kind}-{seed}", f"control-{control}", "before")
        features = {network: [features_of(folder, name, network, extractor) for name in names] for network, extractor in extractors.items()}
        changes = {network: changes_of(real[network], *own) for network, own in features.items()}
        farther = farther_from(perfect, *(np.load(folder / f"{name}.npy") for name in names))
        for extractor, reference in PAIRS:
            line = {"kind": kind, "seed": seed, "judge": extractor, "witness": reference, "n": len(features[extractor][0])}
            line |= {"by_judge": changes[extractor], "by_witness": changes[reference], "perfect_edit": farther}
            if (found := leverage(features[extractor], features[reference])) is not None:
                line |= {"leverage": found.value, "low": found.low, "high": found.high}
            lines.append(line)
    return lines


def changes_of(real: np.ndarray, own: np.ndarray, control: np.ndarray, before: np.ndarray) -> dict[str, Any]:
    """A generator's Fréchet distance minus the control's and minus the one before, with their intervals, and the distances of these two."""
    found = resampled_frechet(real, {"own": own, "control": control, "before": before})
    deltas = {f"minus_{other}": dataclasses.asdict(bootstrap_delta(found["own"], found[other])) for other in ("control", "before")}
    return deltas | {other: found[other].value for other in ("control", "before")}


def farther_from(perfect: np.ndarray, own: np.ndarray, control: np.ndarray, before: np.ndarray) -> dict[str, dict[str, float]]:
    """A generator's mean absolute difference from the perfect edits, for images in [-1, 1], minus the control's and minus the one before."""
    distances = [np.abs(images / 127.5 - perfect / 127.5).mean(axis=(1, 2, 3)) for images in (own, control, before)]
    return {f"minus_{other}": dataclasses.asdict(paired_mean_delta(distances[0], its)) for other, its in zip(("control", "before"), distances[1:])}


def features_of(folder: Path, name: str, network: str, extractor: FeatureExtractor) -> np.ndarray:
    """Features of saved images, kept as ``features/<network>/<name>.npy``; those of the untrained network before whitening."""
    path = folder.parent / "features" / network / f"{name}.npy"
    if not path.exists():
        images = as_images(torch.from_numpy(np.load(folder / f"{name}.npy")))
        features = extract_features(RandomExtractor() if network == "random" else extractor, images.split(50))
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.save(file, features)
    features = np.load(path)
    return (features - extractor.mean.numpy()) @ extractor.matrix.numpy() if network == "random" else features


def alarms(lines: list[dict[str, Any]]) -> str:
    """By extractor, reference extractor and kind: both distances against the control, and how many generators gained, and were refused by the reference extractor."""
    rows = []
    for key in dict.fromkeys((line["judge"], line["witness"], line["kind"]) for line in lines):
        own = [line for line in lines if (line["judge"], line["witness"], line["kind"]) == key]
        changes = [spread_of([100 * line[name]["minus_control"]["value"] / line[name]["control"] for line in own], "+.0f") for name in ("by_judge", "by_witness")]
        leverages = spread_of([line["leverage"] for line in own if "leverage" in line], "+.2f")
        counts = [sum(map(counted, own)) for counted in (gained, opposite, leveraged, farther, refused, refused_by_any)]
        rows.append([*key, *changes, leverages, *(f"{count} of {len(own)}" for count in counts)])
    head = ["extractor", "reference extractor", "kind", "by the extractor, %", "by the reference extractor, %", "leverage", "gained", "opposite", "by leverage", "farther", "gained, refused by the reference extractor", "… or by the perfect edits"]
    return markdown_table(Table(head, rows), left=(0, 1, 2))


def spread_of(values: list[float], form: str) -> str:
    """The mean of the values, with the lowest and the highest."""
    return f"{np.mean(values):{form}} ({min(values):{form}} to {max(values):{form}})" if values else ""


def gained(line: dict[str, Any]) -> bool:
    """Conditions (1) and (2) of the verdict: the extractor's distance is below the control's, with the whole interval, and not above the one before."""
    return line["by_judge"]["minus_control"]["high"] < 0 and line["by_judge"]["minus_before"]["value"] <= 0


def opposite(line: dict[str, Any]) -> bool:
    """Condition (5): the reference extractor shows the opposite, against the control or before."""
    return any(line["by_witness"][delta]["low"] > 0 for delta in ("minus_control", "minus_before"))


def leveraged(line: dict[str, Any]) -> bool:
    """Condition (6): the reference extractor sees no gain over the control, and the changes favour the extractor's features."""
    return "low" in line and line["low"] > TOLERATED_LEVERAGE and not line["by_witness"]["minus_control"]["high"] < 0


def farther(line: dict[str, Any]) -> bool:
    """Condition (7): farther from the perfect edits than the control or before."""
    return any(line["perfect_edit"][delta]["low"] > 0 for delta in ("minus_control", "minus_before"))


def refused(line: dict[str, Any]) -> bool:
    """Whether the reference extractor refuses the extractor's gain."""
    return gained(line) and (opposite(line) or leveraged(line))


def refused_by_any(line: dict[str, Any]) -> bool:
    """Whether the reference extractor or the perfect edits refuse it."""
    return gained(line) and (refused(line) or farther(line))


if __name__ == "__main__":
    run_recipe(main, Config, __doc__)

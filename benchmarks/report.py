"""Time of the report of four fine-tuned generators against four runs of clean-fid on the same images.

    python benchmarks/report.py                                                    # drawn faces, with the default evaluation
    python benchmarks/report.py --weights fid_inception.safetensors --dims 768     # the same network on both sides, which must give the same values

Ours is `recipes/evaluate.py`, from its start to the page: the generator before and four arms edit the images, and every metric is measured, with the intervals of all
differences. Without weights it is measured with the included networks, and clean-fid has Inception with 2,048 features and random weights, since the time doesn't
depend on them. With weights, both have that network up to `dims` features, and ours has no second and third extractor and no smaller view.
clean-fid starts with images in folders; the time to write them isn't counted. It reads the reference in each of its four runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch
import tyro
from cleanfid import fid as clean_fid
from fid import restore_sqrtm
from PIL import Image
from torch import Tensor, nn

from generators import create_generator
from malp_disc.data import build_dataset
from malp_disc.evaluation.eval_set import EvalSet, edit, load_all
from malp_disc.levels import to_pixels
from malp_disc.metrics.inception import build_inception, load_inception
from malp_disc.serialization.files import write_json
from malp_disc.serialization.state_dicts import save_tensors
from malp_disc.shipped import FACES_GENERATOR
from recipes.evaluate import Config as Evaluation

ARMS = ("control", "frozen", "cotrain", "vision_aided")


@dataclass
class Config:
    images: int = 1000
    """Images of every generator, and of the reference."""
    weights: Path | None = None
    """Inception's weights, as for `malp-disc fid --fid-weights`."""
    dims: int = 2048
    threads: int = 2
    json: Path | None = None
    """File for the results."""


def main(config: Config) -> None:
    torch.set_num_threads(config.threads)
    restore_sqrtm()
    flags = ["--eval-size", config.images, "--reference-size", config.images]
    if config.weights is not None:
        flags += ["--extractor", f"clean-{config.dims}", "--fid-weights", config.weights.resolve(), "--second-extractor", "none", "--third-extractor", "none", "--smaller-views"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generators = {arm: perturbed(folder / f"{arm}.safetensors", seed) for seed, arm in enumerate(ARMS)}
        flags += [part for arm, path in generators.items() for part in (f"--{arm.replace('_', '-')}", path)]
        write_images(folder, generators, config.images)
        command = [sys.executable, "recipes/evaluate.py", "--output-dir", folder / "run", *flags]
        environment = {**os.environ, "OMP_NUM_THREADS": str(config.threads)}
        own = timed(lambda: subprocess.run(list(map(str, command)), check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL))
        found = {run["arm"]: run for run in map(json.loads, (folder / "run" / "measurements.jsonl").read_text().splitlines())}
        net = load_inception(config.dims, config.weights) if config.weights is not None else build_inception(config.dims)
        values: dict[str, float] = {}
        theirs = timed(lambda: values.update({arm: clean(folder / arm, folder / "reference", net) for arm in ARMS}))
    print(f"torch {torch.__version__}, {config.threads} threads of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {config.images} images of 64 pixels per generator")
    print(f"malp-disc, report with {1 + len(ARMS)} generators: {own['seconds']:.1f} s, {own['cpu']:.1f} s of CPU time")
    print(f"clean-fid, {config.dims} features, {len(ARMS)} runs: {theirs['seconds']:.1f} s, {theirs['cpu']:.1f} s of CPU time")
    print(f"{theirs['seconds'] / own['seconds']:.2f} times as fast, {theirs['cpu'] / own['cpu']:.2f} times by CPU time")
    results: dict[str, Any] = {"torch": torch.__version__, "images": config.images, "dims": config.dims, "malp-disc": own, "clean-fid": theirs}
    if config.weights is not None:
        results["relative_differences"] = {arm: found[arm]["frechet"]["value"] / values[arm] - 1 for arm in ARMS}
        print("relative differences of the distances:", ", ".join(f"{arm} {value:.1e}" for arm, value in results["relative_differences"].items()))
    if config.json is not None:
        write_json(config.json, results)


def timed(program: Callable[[], object]) -> dict[str, float]:
    """Seconds, and seconds of CPU time, those of child processes included."""
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    program()
    return {"seconds": time.perf_counter() - wall, "cpu": sum(os.times()[:4]) - cpu}


def perturbed(path: Path, seed: int) -> Path:
    """The included generator with noise on its weights, so that every arm has images of its own."""
    generator = create_generator("stargan", FACES_GENERATOR)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in generator.parameters():
            weight += 0.02 * weight.std(correction=0) * torch.randn(weight.shape, generator=noise)
    save_tensors(path, generator.state_dict())
    return path


def write_images(folder: Path, generators: dict[str, Path], count: int) -> None:
    """The images that the report measures, as PNG files in a folder of every arm, and those of the reference."""
    options = Evaluation(output_dir=folder / "run")
    inputs = EvalSet.take(build_dataset(options, "test"), count)
    write_folder(folder / "reference", load_all(build_dataset(options, "reference"), count, "reference")[0])
    for arm, path in generators.items():
        generator = create_generator("stargan", path).eval().requires_grad_(False)
        write_folder(folder / arm, edit(generator.manipulate, inputs.images, inputs.targets, current=inputs.labels, device=torch.device("cpu")))


def write_folder(folder: Path, images: Tensor) -> None:
    folder.mkdir()
    for number, image in enumerate(to_pixels(images)):
        Image.fromarray(image).save(folder / f"{number:05}.png")


def clean(samples: Path, reference: Path, net: nn.Module) -> float:
    """clean-fid's distance of two folders, with its own listing, resize and batches, and as many workers as there are cores."""

    def features(images: Tensor) -> Tensor:
        with torch.no_grad():
            return net((images - 128) / 128).mean(dim=(2, 3))

    options = {"mode": "clean", "custom_feat_extractor": features, "device": torch.device("cpu"), "num_workers": os.cpu_count() or 1, "verbose": False}
    return clean_fid.compute_fid(str(samples), str(reference), **options)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))

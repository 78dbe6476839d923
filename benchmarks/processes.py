"""Steps of a fine-tuning on two CPU processes against one, with the same images per step: the default StarGAN on drawn faces.

    python benchmarks/processes.py --arm control            # three kinds in alternation: 1 process of 1 thread, 1 of 2, 2 of 1
    python benchmarks/processes.py --arm joint

The time per step is that of the later steps alone: of a long run minus a short one, divided by the difference in steps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

import torch
import tyro

ROOT = Path(__file__).resolve().parents[1]
KINDS = ((1, 1), (1, 2), (2, 1))
"""Processes, and threads of each."""


@dataclass
class Config:
    arm: Literal["control", "vision_aided", "cotrain", "joint"] = "control"
    images: int = 16
    """Images per step, over all processes."""
    steps: tuple[int, int] = (4, 24)
    """Steps of the short and the long run."""
    rounds: int = 2
    """Runs of every kind and length, in alternation; the median of the times per step is reported."""


def main(config: Config) -> None:
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {config.arm}, {config.images} images of 64 pixels per step, median of {config.rounds}")
    found: dict[tuple[int, int], list[float]] = {kind: [] for kind in KINDS}
    for _ in range(config.rounds):
        for kind, times in found.items():
            short, long = (seconds(config, *kind, steps) for steps in config.steps)
            times.append((long - short) / (config.steps[1] - config.steps[0]))
    per_step = {kind: median(times) for kind, times in found.items()}
    for (processes, threads), time in per_step.items():
        print(f"{processes} process{'es' * (processes > 1)} of {threads} thread{'s' * (threads > 1)}: {time:.3f} s per step, {per_step[1, 1] / time:.2f} times as fast as one of one")
    print(f"2 processes of 1 thread against 1 of 2: {per_step[1, 2] / per_step[2, 1]:.2f} times as fast")


def seconds(config: Config, processes: int, threads: int, steps: int) -> float:
    """The time that the arm took, by its measurement."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--arms", config.arm, "--max-train-steps", steps, "--train-batch-size", config.images // processes, "--output-dir", folder]
        flags += ["--eval-size", 2, "--reference-size", 4, "--smaller-views", "--eval-steps", 0, "--sample-steps", steps, "--second-extractor", "none", "--third-extractor", "none"]
        command = [sys.executable, *launcher, "recipes/finetune_stargan.py", *map(str, flags)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "ACCELERATE_USE_CPU": "1"}
        subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        lines = map(json.loads, (Path(folder) / "measurements.jsonl").read_text().splitlines())
        return next(line["seconds"] for line in lines if line["arm"] == config.arm)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))

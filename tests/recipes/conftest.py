"""A tiny StarGAN and MaLP, made by the recipes themselves, on drawn faces of 32 pixels."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--image-size", "32", "--train-size", "64", "--train-batch-size", "4", "--log-steps", "1"]


@pytest.fixture(scope="session")
def launch() -> Callable[..., subprocess.CompletedProcess]:
    """Run a recipe outside the repository, as ``python recipes/x.py``; `processes` above 1 means that many on the CPU.

    `accelerate launch` costs two seconds more each time; tests of the launcher start it themselves.
    """

    def run(recipe: str, *arguments: object, processes: int = 1, check: bool = True, cwd: str | Path = "/") -> subprocess.CompletedProcess:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": ""}
        starter = [sys.executable]
        if processes > 1:  # `accelerate launch --cpu --num_processes 2` starts one process
            starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        script = next(path for folder in ("recipes", "recipes/research") if (path := ROOT / folder / recipe).is_file())
        command = [*starter, str(script), *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, cwd=cwd)
        if check and result.returncode:
            pytest.fail(f"{recipe} failed:\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}")
        return result

    return run


@pytest.fixture(scope="session")
def stargan(launch, tmp_path_factory) -> Path:
    """Folder with G.safetensors and D.safetensors of a StarGAN after six steps; checkpoint-3 is kept."""
    folder = tmp_path_factory.mktemp("stargan")
    launch("train_stargan.py", *TINY, "--output-dir", folder, "--max-train-steps", 6, "--conv-dim", 4, "--warmup-steps", 2,
           "--identity-share", 0.25, "--checkpointing-steps", 3, "--sample-steps", 3)  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def malp(launch, stargan, tmp_path_factory) -> Path:
    """Output folder of pretrain_malp.py after two steps; the model itself is in its sub-folder malp."""
    folder = tmp_path_factory.mktemp("malp")
    launch("pretrain_malp.py", *TINY, "--output-dir", folder, "--max-train-steps", 2, "--generator-checkpoint", stargan / "G.safetensors",
           "--malp-width", 4, "--malp-transformer", "False", "--test-size", 16)  # fmt: skip
    return folder

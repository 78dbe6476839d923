"""A tiny StarGAN and MaLP, made by the recipes themselves, on drawn faces of 32 pixels."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from tests.recipes.in_process import CPU, run_in_process, script_of

TINY = ["--image-size", "32", "--train-size", "64", "--train-batch-size", "4", "--log-steps", "1"]


@pytest.fixture(scope="session")
def launch() -> Callable[..., subprocess.CompletedProcess]:
    """Run a recipe with another working folder: inside this process, or, `alone`, as ``python recipes/x.py``; `processes` above 1 means that many.

    `accelerate launch` costs two seconds more each time; tests of the launcher start it themselves.
    """

    def run(
        recipe: str, *arguments: object, processes: int = 1, alone: bool = False, check: bool = True, cwd: str | Path = "/"
    ) -> subprocess.CompletedProcess:
        script = script_of(recipe)
        if alone or processes > 1:
            starter = [sys.executable]
            if processes > 1:  # `accelerate launch --cpu --num_processes 2` starts one process
                starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
            command = [*starter, str(script), *map(str, arguments)]
            result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **CPU}, timeout=600, cwd=cwd)
        else:
            result = run_in_process(script, *arguments, cwd=cwd)
        if check and result.returncode:
            pytest.fail(f"{recipe} failed:\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}")
        return result

    return run


def made_once(tmp_path_factory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` of this session, which the first of pytest-xdist's workers to need it fills, and the others wait for. Nobody may write to it."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared" / name
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            partial = folder.with_name(f"{name}.partial")
            make(partial)
            partial.rename(folder)
    return folder


@pytest.fixture(scope="session")
def stargan(launch, tmp_path_factory) -> Path:
    """Folder with G.safetensors and D.safetensors of a StarGAN after six steps; checkpoint-3 is kept."""

    def make(folder: Path) -> None:
        launch("train_stargan.py", *TINY, "--output-dir", folder, "--max-train-steps", 6, "--conv-dim", 4, "--warmup-steps", 2,
               "--identity-share", 0.25, "--checkpointing-steps", 3, "--sample-steps", 3)  # fmt: skip

    return made_once(tmp_path_factory, "stargan", make)


@pytest.fixture(scope="session")
def malp(launch, stargan, tmp_path_factory) -> Path:
    """Output folder of pretrain_malp.py after two steps; the model itself is in its sub-folder malp."""

    def make(folder: Path) -> None:
        launch("pretrain_malp.py", *TINY, "--output-dir", folder, "--max-train-steps", 2, "--generator-checkpoint", stargan / "G.safetensors",
               "--malp-width", 4, "--malp-branch", "none", "--test-size", 16)  # fmt: skip

    return made_once(tmp_path_factory, "malp", make)

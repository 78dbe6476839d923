"""A tiny StarGAN and MaLP, made by the recipes themselves, on drawn faces of 32 pixels."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from malp_disc.run_folder.lock import release_locks
from tests.charts import without_charts
from tests.recipes.in_process import CPU, run_in_process, script_of
from tests.recipes.own_process import OwnProcesses

TINY = ["--image-size", "32", "--train-size", "64", "--train-batch-size", "4", "--log-steps", "1"]


@pytest.fixture
def release_all_locks():
    """For tests that lock run folders within the tests' own process."""
    yield
    release_locks()


@pytest.fixture(scope="session")
def launch(tmp_path_factory) -> Callable[..., subprocess.CompletedProcess]:
    """Run a recipe with another working folder: inside this process, or in several with torchrun's environment, or by a `starter`.

    starter: arguments of Python before the script, () for ``python recipes/x.py``. Importing torch anew takes seconds for every process.
    charts: False if nothing looks at the report's figures.
    """

    def run(
        recipe: str,
        *arguments: object,
        processes: int = 1,
        starter: tuple[str, ...] | None = None,
        charts: bool = True,
        check: bool = True,
        cwd: str | Path = "/",
    ) -> subprocess.CompletedProcess:
        script = script_of(recipe)
        if starter is not None:
            command = [sys.executable, *starter, str(script), *map(str, arguments)]
            result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **CPU}, timeout=600, cwd=cwd)
        elif processes > 1:
            log = tmp_path_factory.mktemp("log") / "log.txt"
            status, said = OwnProcesses(script, *arguments, processes=processes, log=log, charts=charts).wait()
            result = subprocess.CompletedProcess([str(script), *map(str, arguments)], status, said, said)
        else:
            with contextlib.nullcontext() if charts else without_charts():
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

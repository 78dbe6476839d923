"""Run a recipe inside the tests' own process: a process of its own spends four to six seconds on imports."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from malp_disc.run_folder.lock import release_locks
from malp_disc.training.launch import run_recipe

ROOT = Path(__file__).resolve().parents[2]
CPU = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": ""}


def script_of(recipe: str) -> Path:
    """The file of ``finetune.py``, say, in recipes/ or recipes/research/."""
    return next(path for folder in ("recipes", "recipes/research") if (path := ROOT / folder / recipe).is_file())


def run_in_process(script: Path, *arguments: object, cwd: str | Path = "/") -> subprocess.CompletedProcess:
    """Run a recipe's `main` as its script does. Standard error holds the log, and the message that it ended with, if any."""
    module = importlib.import_module(".".join(script.relative_to(ROOT).with_suffix("").parts))
    out, err, status = io.StringIO(), io.StringIO(), 0
    with as_if_alone(cwd, [str(script), *map(str, arguments)]), _logged(err), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_recipe(module.main, module.Config, module.__doc__)
        except SystemExit as stopped:
            status = stopped.code or 0
            if isinstance(status, str):  # as the interpreter does
                err.write(status + "\n")
                status = 1
    return subprocess.CompletedProcess([str(script), *map(str, arguments)], status, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def as_if_alone(cwd: str | Path, argv: list[str]) -> Iterator[None]:
    """Another working folder and command line, the environment of a run on the CPU, no accelerator yet; afterwards all is as it was."""
    folder, path, before, command = os.getcwd(), list(sys.path), dict(os.environ), sys.argv
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    deterministic, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    forget_accelerator()
    os.chdir(cwd)
    os.environ.update(CPU)
    sys.argv = argv
    try:
        yield
    finally:
        release_locks()
        forget_accelerator()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(before)
        sys.path[:], sys.argv = path, command
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)


def forget_accelerator() -> None:
    """Accelerate keeps its precision and processes in singletons, which a second run in one process would otherwise inherit."""
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    GradientState._reset_state()


@contextlib.contextmanager
def _logged(stream: io.StringIO) -> Iterator[None]:
    """Log from INFO upwards into `stream`, as a script's `logging.basicConfig` does; under pytest that has no effect."""
    root, handler = logging.getLogger(), logging.StreamHandler(stream)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)

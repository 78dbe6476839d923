"""Runs of a recipe in processes of their own, one or several, that can be killed.

They are forked from a server that has imported the recipe once: started afresh, each would import torch and all the rest for four to six seconds.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import socket
import sys
from pathlib import Path

from malp_disc.training.launch import run_recipe
from tests.charts import without_charts
from tests.recipes.in_process import CPU, ROOT

_server = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")


class OwnProcesses:
    """Start `script` in `processes` processes, as torchrun would."""

    def __init__(self, script: Path, *arguments: object, processes: int = 1, log: Path, charts: bool = True) -> None:
        module = ".".join(script.relative_to(ROOT).with_suffix("").parts)
        if os.name == "posix":
            _server.set_forkserver_preload([module, "tests.recipes.own_process"])
        self._log, common = log, dict(CPU)
        if processes > 1:
            common |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        command = [str(script), *map(str, arguments)]
        self._started = []
        for rank in range(processes):
            ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
            process = _server.Process(target=_run, args=(module, command, common | ranks, log, charts))
            process.start()
            self._started.append(process)

    def ended(self) -> bool:
        return not any(process.is_alive() for process in self._started)

    def kill(self) -> None:
        """SIGKILL to all at once."""
        for process in self._started:
            process.kill()

    def wait(self, seconds: float = 600) -> tuple[int, str]:
        """The first status that isn't 0, if any, negative for a signal, and what they printed and logged."""
        for process in self._started:
            process.join(seconds)
        said = self._log.read_text() if self._log.exists() else ""
        if not self.ended():
            self.kill()
            raise TimeoutError(said[-4000:])
        return next((process.exitcode for process in self._started if process.exitcode), 0), said


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _run(module: str, command: list[str], environment: dict[str, str], log: Path, charts: bool) -> None:
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(environment)
    os.chdir("/")
    sys.argv = command
    recipe = importlib.import_module(module)
    with contextlib.nullcontext() if charts else without_charts():
        run_recipe(recipe.main, recipe.Config, recipe.__doc__)

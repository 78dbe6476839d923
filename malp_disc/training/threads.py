"""CPU threads of a run: all cores for a single process, unless the user chose another number, and on resuming the number that the run began with.

`accelerate launch` sets OMP_NUM_THREADS=1 unless it is told otherwise, with which one process computes on one core.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import psutil
import torch

from malp_disc.run_folder.schema import read_json
from malp_disc.training.launcher_watch import launcher

logger = logging.getLogger("malp_disc")
_VARIABLE, _FLAG = "OMP_NUM_THREADS", "--num_cpu_threads_per_process"


def use_all_cores(environment: Mapping[str, str] = os.environ) -> None:
    """Let PyTorch use every core if this is the only process and its single thread is `accelerate launch`'s default, not the user's choice."""
    if int(environment.get("WORLD_SIZE", "1")) == 1 and environment.get(_VARIABLE) == "1" and set_by_launcher():
        torch.set_num_threads(available_cores())


def keep_threads(folder: Path) -> None:
    """Use as many threads as the run in `folder` began with: sums over other numbers of threads differ in the last bits, and so would its result."""
    was = read_json(folder / "environment.json") or {}
    recorded = was.get("threads")
    if was.get("processes") != int(os.environ.get("WORLD_SIZE", "1")):
        return  # the result isn't the same to the last bit anyway
    if isinstance(recorded, int) and recorded > 0 and recorded != torch.get_num_threads():
        logger.info(f"continuing with {recorded} CPU threads, as the run began, so that its result stays the same (here {torch.get_num_threads()} would be used)")
        torch.set_num_threads(recorded)


def set_by_launcher() -> bool:
    """Whether an `accelerate launch` started this process, with neither the variable nor the flag for the number of threads."""
    process = launcher()
    if process is None:
        return False
    try:
        chosen = _VARIABLE in process.environ() or any(part.replace("-", "_").startswith(_FLAG.replace("-", "_")) for part in process.cmdline())
    except (psutil.Error, OSError):
        return False
    return not chosen


def available_cores() -> int:
    """Physical cores that this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))

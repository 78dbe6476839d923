"""Loading the images of a training, in worker processes where that pays.

Workers change no result: what a step sees depends on (seed, step, image) alone. They leave signals to the training, which finishes its step and saves before it
stops, and what goes wrong in one is raised as if there were no worker.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from malp_disc.data.augment import check_normalized
from malp_disc.training.threads import available_cores

_MOST_WORKERS = 8
_PATIENCE = 5.0  # seconds for a worker that loads an image
_started: weakref.WeakKeyDictionary[multiprocessing.process.BaseProcess, int] = weakref.WeakKeyDictionary()  # workers, and the process that has started them


@atexit.register
def _end_workers() -> None:
    """End the workers that are left, as after an uncaught error, whose traceback keeps the loader: Python would ask them to terminate, which they ignore, and wait for them forever.

    Exit functions run in reverse order, so this one comes before that of multiprocessing, which torch has imported.
    """
    left = [worker for worker, parent in _started.items() if parent == os.getpid() and worker.is_alive()]
    if hasattr(signal, "SIGALRM"):  # elsewhere, none is ignored that ends a process
        for worker in left:
            os.kill(worker.pid, signal.SIGALRM)
        for worker in left:
            worker.join(_PATIENCE)
            worker.kill()


def image_batches(dataset: Dataset, sampler: Iterable[list[int]], *, device: torch.device, workers: int | None = None) -> Iterator[list[Tensor]]:
    """The batches of a data set on `device`: its items, stacked.

    Args:
        sampler: the rows of every batch.
        workers: number of worker processes; None for `default_workers`.

    Raises:
        ValueError: images that aren't in [-1, 1].
    """
    workers = default_workers(device) if workers is None else workers
    options: dict[str, Any] = {"num_workers": workers, "pin_memory": device.type == "cuda"}
    if workers:
        options |= {"worker_init_fn": _ignore_signals, "collate_fn": _collate}
        dataset = _Reporting(dataset)
    own = torch.Generator()  # otherwise the seeds of its workers would be drawn from torch's global generator, which losses of a user's own may draw from
    before = set(multiprocessing.active_children())
    batches = iter(DataLoader(dataset, batch_sampler=sampler, generator=own, **options))
    _started.update(dict.fromkeys(set(multiprocessing.active_children()) - before, os.getpid()))
    for batch in batches:
        if isinstance(batch, _Failure):
            raise batch.error
        for part in batch:
            if part.ndim == 4:
                check_normalized(part)  # here, since on a GPU this would take a wait
        yield [part.to(device, non_blocking=True) for part in batch]


def default_workers(device: torch.device) -> int:
    """Without a GPU none, since the training itself needs the cores. With one, a worker for each further core of this process, at most eight."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(0, min(_MOST_WORKERS, available_cores() // processes - 1)) if device.type == "cuda" else 0


@dataclass
class _Failure:
    """An error in a worker. Raised there, it would reach the training with the worker's traceback as its message."""

    error: Exception


class _Reporting(Dataset):
    """A data set that returns an error as its only item, where the images are at fault (ValueError, OSError)."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitems__(self, rows: Sequence[int]) -> list[Any]:
        try:
            if hasattr(self.dataset, "__getitems__"):
                return self.dataset.__getitems__(rows)
            return [self.dataset[row] for row in rows]
        except (ValueError, OSError) as error:
            return [_Failure(error)]


def _collate(items: list[Any]) -> Any:
    return items[0] if isinstance(items[0], _Failure) else default_collate(items)


def _ignore_signals(worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach all processes of a group; a worker ends with the training, at the latest by `_end_workers`."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, lambda number, frame: os._exit(0))  # another status would be reported as an error of the worker

"""Independent batches side by side, each on a core of its own, instead of one batch after the other on all cores.

Small convolutions gain little from a second core, and lose where another program uses it. Batches that are computed side by side need no
synchronization, and up to eight cores compute each as a single one would, to the last bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch

from malp_disc.runtime.precision import full_float32

_MOST = 8  # batches at a time, which bounds the memory on machines with many cores
Item, Result = TypeVar("Item"), TypeVar("Result")


def map_batches(function: Callable[[Item], Result], batches: Iterable[Item], *, device: torch.device | str = "cpu") -> Iterator[Result]:
    """`function` of every batch, without gradients, in the order of the batches. On a CPU, as many batches at a time as PyTorch has threads.

    Args:
        function: must not change anything that another call reads. The networks of an evaluation satisfy that; a user's generator need not.
        batches: read in the calling thread, a few ahead.
        device: where `function` computes. On a GPU, which is busy with one batch already, the batches follow each other.
    """
    threads = torch.get_num_threads()
    function = torch.no_grad()(function)
    if threads == 1 or torch.device(device).type != "cpu":
        yield from map(function, batches)
        return
    workers = min(threads, _MOST)
    # full_float32 is a global setting: threads that enter and leave it at different times would not restore it.
    with full_float32(), ThreadPoolExecutor(workers, initializer=partial(torch.set_num_threads, threads // workers)) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for batch in batches:
                waiting.append(pool.submit(function, batch))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            torch.set_num_threads(threads)  # threads that start later begin with the number that was set last

"""Speed of a localizer: images per second, on one thread of a CPU and on a GPU."""

from __future__ import annotations

import time

import torch

from malp_disc.benchmark.failures import named_failures
from malp_disc.benchmark.localizer import Localizer, name_of, ready

_BATCH = 8
_SECONDS = 0.5  # at least, after one batch that isn't timed
_BATCHES = 3  # at least


@torch.no_grad()
def images_per_second(localizer: Localizer, side: int, device: torch.device | str = "cpu") -> float:
    """Images of side×side per second through `localize`, in batches of 8; the median batch. On a CPU with one thread, whose number is restored afterwards.

    Raises:
        ValueError: the localizer failed on images of this size.
    """
    device = torch.device(device)
    threads = torch.get_num_threads()
    images = torch.rand(_BATCH, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device) * 2 - 1
    try:
        torch.set_num_threads(1)
        with named_failures(f"localize of {name_of(localizer)} on {_BATCH} images of {side}x{side}"):
            localizer = ready(localizer, device)
            _timed(localizer, images)
            taken: list[float] = []
            while len(taken) < _BATCHES or sum(taken) < _SECONDS:
                taken.append(_timed(localizer, images))
    finally:
        torch.set_num_threads(threads)
    return _BATCH / sorted(taken)[len(taken) // 2]


def _timed(localizer: Localizer, images: torch.Tensor) -> float:
    """Seconds for one batch."""
    began = time.perf_counter()
    localizer.localize(images)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - began

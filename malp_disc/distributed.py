"""What several processes have to agree on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor that every process has; itself where there is one process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        value = value.clone()
        torch.distributed.all_reduce(value)
        value /= torch.distributed.get_world_size()
    return value


def place_of_process() -> tuple[int, int]:
    """This process's number and how many there are: 0 and 1 where torch.distributed isn't started."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def gather_objects(own: Any) -> list[Any]:
    """One object of each process, in their order; every process must call it."""
    _, world = place_of_process()
    gathered = [own] * world
    if world > 1:
        distributed.all_gather_object(gathered, own)
    return gathered

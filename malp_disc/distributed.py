"""Communication between the processes of a run. Everything here also works in a single process, where `torch.distributed` isn't initialised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def rank_and_world_size() -> tuple[int, int]:
    """The rank of this process and the number of processes, (0, 1) in a single process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes, which must all call this; in a single process the tensor itself."""
    if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        value = value.clone()
        torch.distributed.all_reduce(value)
        value /= torch.distributed.get_world_size()
    return value


def mean_values_over_processes(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean of every named scalar over all processes, with one all-reduce."""
    return dict(zip(values, mean_over_processes(torch.stack([value.float() for value in values.values()]))))


def gather_objects(own: Any) -> list[Any]:
    """The objects that all processes pass, by rank; every process must call this."""
    _, world_size = rank_and_world_size()
    gathered = [own] * world_size
    if world_size > 1:
        torch.distributed.all_gather_object(gathered, own)
    return gathered

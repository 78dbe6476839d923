"""Copies to a GPU that nobody waits for."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """``values.to(device)``, but from a CPU to a GPU by way of pinned memory: Python goes on while the GPU still works on what it was given before.

    A copy from ordinary memory waits until the GPU has done all of it, so a few random numbers would cost the time of a network.
    """
    if values.device.type == "cpu" and torch.device(device).type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)

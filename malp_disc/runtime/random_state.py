"""Torch's global random numbers: borrowed, and given back as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def random_state_kept(device: torch.device | str = "cpu", *, seed: int | None = None) -> Iterator[None]:
    """Within this context the global generators of the CPU and of `device` may be drawn from; afterwards they go on as if nothing had been drawn.

    Args:
        seed: of the CPU's generator in this context, for networks that are initialised on the CPU. Other devices aren't seeded, as `torch.manual_seed` would, and which
            `torch.random.fork_rng` restores only where it is told to.
    """
    device = torch.device(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        yield

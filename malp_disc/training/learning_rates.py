"""Learning-rate schedules as pure functions of the step.

No `torch.optim.lr_scheduler`: a schedule that depends on the step alone needs no state in a checkpoint, and `LambdaLR` would add ``initial_lr`` to the
optimizer states that are saved.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def constant_then_linear(step: int, steps: int) -> float:
    """Factor at `step` of `steps`, counted from 0: 1 for the first half, then falling linearly to 0 (StarGAN, section 5.1)."""
    return min(1.0, 2 * (steps - step) / steps)


def set_learning_rates(optimizer: torch.optim.Optimizer, rates: Sequence[float]) -> None:
    """Set the learning rate of every parameter group, in their order."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate

"""Safeguards of a fine-tuning.

`FiniteSteps` keeps NaNs out of the weights. `TrainingMonitor` warns of a collapsed fakeness map, of a generator that stops editing, and of a detector that
is fooled completely, so that the generator learns nothing more from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

_DEAD_MAP = 1e-4
"""A map with a lower maximum has vanishing gradients, since sigmoid'(x) ≈ sigmoid(x) there."""


class TrainingStopped(RuntimeError):
    """The training can't continue. Its checkpoints are valid."""


class FiniteSteps:
    """Skips updates whose gradient isn't finite, and stops the training when that happens too often.

    Args:
        most: maximum number of skipped steps in the whole training.
        skipped: number of steps skipped so far, from a checkpoint.
    """

    def __init__(self, most: int, *, skipped: int = 0) -> None:
        self.most, self.skipped = most, skipped

    def allow(self, step: int, name: str, norm: Tensor | float, terms: Mapping[str, Tensor | float]) -> str | None:
        """None if the gradient's `norm` is finite; otherwise a message for the user, and the caller has to skip the step.

        With several processes pass the norm of the synchronised gradient, so that all of them decide the same.

        Args:
            name: of the network, for the message.
            terms: of the loss; the message names those that aren't finite.

        Raises:
            TrainingStopped: more than `most` steps were skipped.
        """
        if math.isfinite(float(norm)):
            return None
        return self.refuse(step, f"the gradient of {name} isn't finite", terms)

    def refuse(self, step: int, what: str, terms: Mapping[str, Tensor | float]) -> str:
        """Count a step as skipped and return the message; `what` is the reason. Raises as `allow`."""
        self.skipped += 1
        broken = [f"{key} = {float(value)}" for key, value in terms.items() if not math.isfinite(float(value))]
        reason = f"step {step}: {what} ({', '.join(broken) or 'though every term of the loss is'})"
        if self.skipped > self.most:
            raise TrainingStopped(
                f"{reason}; {self.most} steps were skipped for this before, which is the limit. The last checkpoint is valid. "
                "Try a lower learning rate, --max-grad-norm 1, or --mixed-precision no"
            )
        return f"{reason}; it is skipped, {self.skipped} of at most {self.most}"


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """L2 norm of all gradients together; 0 without gradients."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())


class TrainingMonitor:
    """Compares the curves with their initial values and warns once of each kind of failure.

    Args:
        state: `TrainingMonitor.state` from a checkpoint; None for a new run.
        least_edit: share of the initial edit strength below which the generator counts as copying its input.
        fooled: share of the map's initial mean square below which the detector counts as fooled completely.
    """

    def __init__(self, *, state: Mapping[str, Any] | None = None, least_edit: float = 0.5, fooled: float = 0.01) -> None:
        self.state: dict[str, Any] = {"start": {}, "told": [], **(state or {})}
        self.least_edit, self.fooled = least_edit, fooled

    def begin(self, values: Mapping[str, float]) -> None:
        """Set the initial values, from before the first update: `edit_strength`, mean |x − G(x)|, and `map`, the mean square of the map of G's images."""
        self.state["start"] = {key: float(value) for key, value in values.items()}

    def check(self, step: int, values: Mapping[str, float]) -> list[str]:
        """New warnings for the user; each kind is returned once.

        Args:
            values: as for `begin`, and `map_peak`, the maximum of a map, averaged over images. Checks whose values are absent are skipped.
        """
        start, found = self.state["start"], {}
        strength, first = values.get("edit_strength"), start.get("edit_strength")
        if strength is not None and first and strength < self.least_edit * first:
            found["copying"] = (
                f"the generator edits less and less: mean |x - G(x)| is {strength:.4f}, {strength / first:.0%} of its initial value. Copying the input lowers any "
                "FID. Increase the weight of its own losses, or decrease MaLP's"
            )
        if values.get("map_peak", 1.0) < _DEAD_MAP:
            found["dead"] = (
                f"MaLP's map is dead: its largest value is {values['map_peak']:.1e}, so its gradient vanishes. Pretrain MaLP longer or with a lower learning "
                "rate (malp-disc pretrain), or set --classifier-weight"
            )
        elif start.get("map") and values.get("map", start["map"]) < self.fooled * start["map"]:
            found["fooled"] = (
                f"MaLP is fooled completely: its map of G's images has {values['map'] / start['map']:.1%} of its initial mean square. G learns nothing more from "
                "it, and its images may have an adversarial texture: check the samples. Co-train MaLP, increase its learning rate, or decrease its weight"
            )
        new = [key for key in found if key not in self.state["told"]]
        self.state["told"] = self.state["told"] + new
        return [f"step {step}: {found[key]}" for key in new]

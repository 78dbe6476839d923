"""What can go wrong while a generator is fine-tuned against a detector, seen and said in time.

`FiniteSteps` keeps a NaN out of the weights. `TrainingMonitor` looks at the curves: a map that died, a generator that stopped editing, a detector that is
fooled so completely that nothing more can be learned from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

_DEAD_MAP = 1e-4
"""A map whose largest value lies below has no gradient worth the name: sigmoid'(x) ≈ the value itself."""


class TrainingStopped(RuntimeError):
    """A training that can't go on. The checkpoints it wrote are good."""


class FiniteSteps:
    """Skips an optimizer step whose gradient isn't finite, and stops the training when that happens too often.

    Args:
        most: skipped steps of the whole training that are put up with.
        skipped: those of an earlier try, from a checkpoint.
    """

    def __init__(self, most: int, *, skipped: int = 0) -> None:
        self.most, self.skipped = most, skipped

    def allow(self, step: int, name: str, norm: Tensor | float, terms: Mapping[str, Tensor | float]) -> str | None:
        """None if the gradient's `norm` is finite; else what to tell the user, after which the step has to be skipped.

        With several processes give the norm of the exchanged gradient, which all share: they decide alike.

        Args:
            name: whose step it is.
            terms: of the loss, to name those that aren't finite.

        Raises:
            TrainingStopped: one time too many.
        """
        if math.isfinite(float(norm)):
            return None
        return self.refuse(step, f"the gradient of {name} isn't finite", terms)

    def refuse(self, step: int, what: str, terms: Mapping[str, Tensor | float]) -> str:
        """Count a step as skipped for the reason `what`; as `allow`."""
        self.skipped += 1
        broken = [f"{key} = {float(value)}" for key, value in terms.items() if not math.isfinite(float(value))]
        reason = f"step {step}: {what} ({', '.join(broken) or 'though every term of the loss is'})"
        if self.skipped > self.most:
            raise TrainingStopped(
                f"{reason}; {self.most} steps were skipped for this before, and that was the limit. The last checkpoint is good. "
                "Try a lower learning rate, --max-grad-norm 1, or --mixed-precision no"
            )
        return f"{reason}; it is skipped, {self.skipped} of at most {self.most}"


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """L2 norm of all gradients together; 0 where there are none."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())


class TrainingMonitor:
    """Compares the curves with their beginning, and tells once per kind what has gone wrong.

    Args:
        state: of an earlier try, from a checkpoint: `TrainingMonitor.state`.
        least_edit: share of the first edit strength below which a generator counts as collapsed into copying.
        fooled: share of the map's first mean square below which the detector counts as fooled completely.
    """

    def __init__(self, *, state: Mapping[str, Any] | None = None, least_edit: float = 0.5, fooled: float = 0.01) -> None:
        self.state: dict[str, Any] = {"start": {}, "told": [], **(state or {})}
        self.least_edit, self.fooled = least_edit, fooled

    def begin(self, values: Mapping[str, float]) -> None:
        """The values before the first update: `edit_strength`, mean |x − G(x)|, and `map`, mean square of the map of G's images."""
        self.state["start"] = {key: float(value) for key, value in values.items()}

    def look(self, step: int, values: Mapping[str, float]) -> list[str]:
        """What to tell the user now, each thing once.

        Args:
            values: as for `begin`, and `map_peak`, the largest value of a map, on average over images; what is absent isn't judged.
        """
        start, found = self.state["start"], {}
        strength, first = values.get("edit_strength"), start.get("edit_strength")
        if strength is not None and first and strength < self.least_edit * first:
            found["copying"] = (
                f"the generator edits less and less: mean |x - G(x)| is {strength:.4f}, {strength / first:.0%} of what it was. Copying the input lowers every "
                "FID. Give its own losses more weight, or MaLP's less"
            )
        if values.get("map_peak", 1.0) < _DEAD_MAP:
            found["dead"] = (
                f"MaLP's map is dead: its largest value is {values['map_peak']:.1e}, so no gradient comes through it. Pretrain MaLP longer or at a lower rate "
                "(recipes/pretrain_malp.py), or give --classifier-weight"
            )
        elif start.get("map") and values.get("map", start["map"]) < self.fooled * start["map"]:
            found["fooled"] = (
                f"MaLP is fooled completely: its map of G's images has {values['map'] / start['map']:.1%} of the mean square it began with. From here on it "
                "teaches G nothing, and what is left may be an adversarial texture: look at the images. Co-train it, or faster, or give it less weight"
            )
        new = [key for key in found if key not in self.state["told"]]
        self.state["told"] = self.state["told"] + new
        return [f"step {step}: {found[key]}" for key in new]

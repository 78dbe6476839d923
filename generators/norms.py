"""Normalization layers with selectable statistics: of each image, of the batch, or running averages.

A batch norm over a batch of one image is an instance norm. Many image-to-image networks were published with test scripts that
stay in training mode and process one image at a time; ``statistics="image"`` does the same for batches of any size, so that an image's result
doesn't depend on the rest of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from malp_disc.serialization.state_dicts import load_state

STATISTICS = ("image", "batch", "running")


def image_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Zero mean and unit (biased) variance per image and channel, then weight and bias; a 1×1 map, which torch refuses, becomes the bias."""
    if x.shape[2:].numel() == 1:
        return _alone(x, weight, bias)
    return F.instance_norm(x, None, None, weight, bias, use_input_stats=True, eps=eps)


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Zero mean and unit (biased) variance per channel over the whole batch, then weight and bias; a single value becomes the bias."""
    if x.numel() == x.shape[1]:
        return _alone(x, weight, bias)
    return F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)


def _alone(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """The bias, for one value per channel: a value minus its mean is exactly 0, and rounding errors must not be divided by √eps."""
    normed = x - x
    return normed if weight is None else normed * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm with the statistics of its input, in training and in evaluation mode.

    Args:
        affine: with weight and bias.
        tracked: has the buffers of running averages that some checkpoints contain; they are unused.
    """

    def __init__(self, channels: int, *, affine: bool = False, tracked: bool = False, eps: float = 1e-5) -> None:
        super().__init__(channels, eps=eps, affine=affine, track_running_stats=tracked)

    def forward(self, x: Tensor) -> Tensor:
        return image_norm(x, self.weight, self.bias, self.eps)


class BatchNorm(nn.BatchNorm2d):
    """Batch norm with selectable statistics.

    Args:
        statistics: "running" is the usual batch norm: batch statistics in training, running averages in evaluation. "batch" and "image"
            are those of the batch, or of each image, in either mode; the running averages are unused then.
        counter: whether there is a ``num_batches_tracked``, which TensorFlow's batch norm lacks.
    """

    def __init__(self, channels: int, *, statistics: str = "running", eps: float = 1e-5, counter: bool = True) -> None:
        if statistics not in STATISTICS:
            raise ValueError(f"expected statistics out of {STATISTICS}, got {statistics!r}")
        super().__init__(channels, eps=eps)
        self.statistics = statistics
        if not counter:
            self.num_batches_tracked = None
            self.track_running_stats = False  # otherwise loading would require the counter

    def forward(self, x: Tensor) -> Tensor:
        if self.statistics == "image":
            return image_norm(x, self.weight, self.bias, self.eps)
        if self.statistics == "batch":
            return batch_norm(x, self.weight, self.bias, self.eps)
        return super().forward(x)


def make_norm(kind: str, channels: int, *, statistics: str = "running") -> nn.Module:
    """The norm of a junyanz network by its option's name: "batch", "instance" (no parameters), or "instance_tracked" (buffers only)."""
    if kind == "batch":
        return BatchNorm(channels, statistics=statistics)
    if kind in ("instance", "instance_tracked"):
        return InstanceNorm(channels, tracked=kind == "instance_tracked")
    raise ValueError(f"expected norm 'batch', 'instance' or 'instance_tracked', got {kind!r}")


class Dropout(nn.Dropout):
    """Dropout in training and, with `always`, in evaluation too: pix2pix's source of noise."""

    def __init__(self, p: float = 0.5, *, always: bool = False) -> None:
        super().__init__(p)
        self.always = always

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, self.training or self.always)


def norm_in_file(tensors: Mapping[str, Tensor], key: str, asked: Mapping[str, Any]) -> dict[str, str]:
    """The option `norm` inferred from a checkpoint: `key` is the weight that a batch norm would have. Either instance norm may be requested."""
    if key in tensors:
        return {"norm": "batch"}
    return {} if asked.get("norm") == "instance_tracked" else {"norm": "instance"}


def load_normed(network: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """`load_state`, ignoring the running averages of instance norms in checkpoints of old torch versions. Raises as `load_state` does."""
    averages = () if network.config["norm"] == "batch" else ("running_mean", "running_var")
    load_state(network, tensors, source=str(source), optional=("num_batches_tracked", *averages))

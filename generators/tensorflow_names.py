"""TensorFlow variables as a state dict: names and kernel layout converted to PyTorch's."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from generators.tensorflow_files import read_variables

LAST_PARTS = {
    "weights": "weight",
    "kernel": "weight",
    "w": "weight",
    "gamma": "weight",
    "scale": "weight",
    "biases": "bias",
    "bias": "bias",
    "beta": "bias",
    "center": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def torch_key(name: str) -> str | None:
    """gen/conv0/kernel -> gen.conv0.weight; None for variables that don't belong to a network, such as an optimizer's slots."""
    *scopes, last = name.split("/")
    return ".".join([*scopes, LAST_PARTS[last]]) if scopes and last in LAST_PARTS else None


def load_tensorflow(path: str | Path) -> dict[str, Tensor]:
    """The networks of a checkpoint of TensorFlow's Saver (or ``.npz`` of its variables) by `torch_key`.

    A kernel (height, width, in, out) becomes (out, in, height, width), and a transposed convolution's (height, width, out, in) becomes
    (in, out, height, width): PyTorch's layouts.

    Raises:
        FileNotFoundError, ValueError: as `generators.tensorflow_files.read_variables`.
    """
    named = {torch_key(name): value for name, value in read_variables(path).items()}
    return {key: value.permute(3, 2, 0, 1).contiguous() if value.ndim == 4 else value for key, value in named.items() if key is not None}

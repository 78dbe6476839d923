"""How a golden's weights and inputs are drawn: by numpy, from a name, a shape and a seed, so that no checkpoint has to be shipped.

Every name has a stream of its own, PCG64 seeded with crc32(name) + seed · 2³². A weight is standard normal and then scaled by its kind:

    name ends in running_var              |x| + 0.5
    name ends in running_mean             0.1 x
    at most one dimension, …weight        1 + 0.1 x
    at most one dimension, anything else  0.1 x
    two dimensions and more               x / √(numbers per output channel)
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def stream(name: str, seed: int = 0) -> np.random.Generator:
    """The random numbers that belong to `name`."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) + (seed << 32)))


def weight(name: str, shape: Sequence[int], seed: int = 0) -> Tensor:
    """One floating-point entry of a state dict."""
    drawn = stream(name, seed).standard_normal(tuple(shape), dtype=np.float32)
    x = torch.from_numpy(np.asarray(drawn, dtype=np.float32).reshape(tuple(shape)))
    if name.endswith("running_var"):
        return x.abs_().add_(0.5)
    if name.endswith("running_mean"):
        return x.mul_(0.1)
    if x.ndim <= 1:
        return x.mul_(0.1).add_(1.0 if name.endswith("weight") else 0.0)
    return x.div_(math.sqrt(math.prod(x.shape[1:])))  # in place: a copy of 100 million numbers takes as long as drawing a third of them


def fill(network: nn.Module, seed: int = 0, rules: Sequence[Mapping[str, Any]] = ()) -> None:
    """Give every floating-point entry of the network its seeded value, then apply the golden's `state_rules`; counters stay as built."""
    built = network.state_dict()
    state = {name: weight(name, value.shape, seed) if value.is_floating_point() else value for name, value in built.items()}
    for rule in rules:
        for name in [name for name in state if re.search(rule["match"], name) and built[name].is_floating_point()]:
            if "ndim" not in rule or state[name].ndim == rule["ndim"]:
                state.update(_ruled(rule, name, state, built))
    network.load_state_dict(state)


class WithoutInitialization(TorchFunctionMode):
    """Networks that are built inside have NaN where `torch.nn.init` would draw numbers, which takes longer; `fill` sets every weight anyway."""

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        if getattr(function, "__module__", None) == "torch.nn.init" and function.__name__ in DRAWING:
            return (keywords or {}).get("tensor", *arguments[:1]).data.fill_(math.nan)
        return function(*arguments, **(keywords or {}))


DRAWING = ("uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_", "orthogonal_")


def image(name: str, shape: Sequence[int], seed: int = 0) -> Tensor:
    """A batch (N, C, H, W) in [-1, 1]: an 8×8 grid of colours, enlarged bilinearly, with a little noise over it."""
    n, c, height, width = shape
    grid = torch.from_numpy(stream(name, seed).uniform(-1, 1, (n, c, 8, 8)).astype(np.float32))
    noise = torch.from_numpy(stream(name + "/fine", seed).uniform(-0.2, 0.2, tuple(shape)).astype(np.float32))
    return (F.interpolate(grid, (height, width), mode="bilinear", align_corners=False) + noise).clamp(-1, 1)


THEN: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "value*0.5+0.5": lambda value: value * 0.5 + 0.5,
    "divided by its L2 norm (float32)": lambda value: value / value.norm(),
}


def drawn(spec: Mapping[str, Any]) -> Tensor:
    """An entry of a golden's `config.inputs`: an image, standard normal numbers or a map of labels in blocks, and what is done to it then."""
    name, shape, seed = spec["name"], spec.get("shape", ()), spec["seed"]
    if spec["kind"] == "image":
        value = image(name, shape, seed)
    elif spec["kind"] == "normal":
        value = torch.from_numpy(stream(name, seed).standard_normal(tuple(shape), dtype=np.float32))
    elif spec["kind"] == "labels":
        blocks = torch.from_numpy(stream(name, seed).integers(0, spec["classes"], (spec["grid"], spec["grid"])))
        row, column = (torch.arange(side) * spec["grid"] // side for side in shape[-2:])
        value = blocks[row[:, None], column].expand(*shape).clone()
    else:
        raise ValueError(f"unknown kind of input {spec['kind']!r}")
    return THEN[spec["then"]](value) if "then" in spec else value


def _ruled(rule: Mapping[str, Any], name: str, state: Mapping[str, Tensor], built: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a rule makes of the entry `name`: the entries to replace."""
    value, operation = state[name], rule["op"]
    if operation == "keep":
        return {name: built[name].clone()}
    if operation == "zero":
        return {name: torch.zeros_like(value)}
    if operation == "affine":
        return {name: value * rule["factor"] + rule["offset"]}
    if operation == "unit":  # back to N(0, factor²)
        return {name: value * rule["factor"] * (math.sqrt(math.prod(value.shape[1:])) if value.ndim > 1 else 1.0)}
    if operation == "spectral":  # power iteration, so that the spectral norm's u and v belong to the weight
        prefix = name.removesuffix("orig")
        matrix, u = value.double().flatten(1), state[prefix + "u"].double()
        for _ in range(rule["iterations"]):
            v = F.normalize(matrix.T @ u, dim=0)
            u = F.normalize(matrix @ v, dim=0)
        return {prefix + "u": u.float(), prefix + "v": v.float()}
    raise ValueError(f"unknown state rule {operation!r}")

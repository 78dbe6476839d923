"""What a golden is, and what its builder makes of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.golden.seeded import drawn, image


@dataclass(frozen=True)
class Case:
    """A golden as its files have it: NAME.json without the parts that are compared, and the ``in/…`` arrays of NAME.npz."""

    name: str
    source: str
    config: Mapping[str, Any]
    inputs: Mapping[str, np.ndarray]

    @property
    def args(self) -> dict[str, Any]:
        """Constructor arguments of the authors' class."""
        return dict(self.config.get("args", {}))

    def images(self) -> Tensor:
        """The seeded input that `config.input` describes."""
        spec = self.config["input"]
        images = image(spec["name"], spec["shape"], spec["seed"]) * spec.get("scale", 1) + spec.get("shift", 0)
        if hole := spec.get("center_fill"):  # from a quarter of either side to three quarters, less an overlap
            rows, columns = (slice(side // 4 + hole["overlap"], side // 4 + side // 2 - hole["overlap"]) for side in images.shape[2:])
            images[:, :, rows, columns] = torch.tensor(hole["value"]).view(-1, 1, 1)
        return images

    def drawn(self, name: str) -> Tensor:
        """The seeded input that `config.inputs` describes under this name."""
        return drawn(self.config["inputs"][name])

    def condition(self, name: str) -> Tensor:
        """A conditioning vector, in full in the config."""
        return torch.tensor(self.config["cond"][name])


@dataclass(frozen=True)
class Built:
    """A network with freshly initialised weights, and how it is run: the call's result has an entry per ``out/…``.

    An output passes if max|ours - theirs| <= absolute + relative · max|theirs|.
    """

    network: nn.Module
    run: Callable[[], Mapping[str, Tensor]]
    absolute: float = 1e-4
    relative: float = 0.0


@dataclass(frozen=True)
class Computed:
    """Numbers as NAME.json nests them (None where there is none), and arrays as NAME.npz names them, unstrided.

    A value passes if max|ours - theirs| <= absolute + relative · max|theirs|. `rounding` replaces the absolute part for numbers whose name
    begins so.
    """

    numbers: dict[str, Any]
    arrays: dict[str, Tensor] = field(default_factory=dict)
    absolute: float = 1e-6
    relative: float = 1e-4
    rounding: Mapping[str, float] = field(default_factory=dict)


@contextlib.contextmanager
def tapped(**modules: nn.Module) -> Iterator[dict[str, Tensor]]:
    """What the modules put out while this is open, by name."""
    seen: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: seen.update({name: output.clone()})

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()

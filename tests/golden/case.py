"""What a golden is, and what its builder makes of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.golden.seeded import image


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

    def picture(self) -> Tensor:
        """The seeded input that `config.input` describes."""
        spec = self.config["input"]
        return image(spec["name"], spec["shape"], spec["seed"]) * spec.get("scale", 1) + spec.get("shift", 0)

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

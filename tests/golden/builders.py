"""Which of our networks answers which golden. A new generator is one function and one entry in `BUILDERS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from generators.stargan import StarGANDiscriminator, StarGANGenerator
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


def stargan_generator(case: Case) -> Built:
    network = StarGANGenerator(**case.args, use_running_statistics=case.config["mode"] == "eval")
    return Built(network, lambda: {"y": network(case.picture(), case.condition("c"))})


def stargan_discriminator(case: Case) -> Built:
    network = StarGANDiscriminator(**case.args)
    return Built(network, lambda: dict(zip(("src", "cls"), network(case.picture()))))


# (start of `source`, `config.cls` or None for any) -> builder. The first match counts.
BUILDERS: list[tuple[str, str | None, Callable[[Case], Built]]] = [
    ("yunjey/stargan@", "Generator", stargan_generator),
    ("yunjey/stargan@", "Discriminator", stargan_discriminator),
]


def find_builder(case: Case) -> Callable[[Case], Built] | None:
    """The builder of a case, or None."""
    for source, cls, builder in BUILDERS:
        if case.source.startswith(source) and cls in (None, case.config.get("cls")):
            return builder
    return None

"""Which of our networks answers which golden. A new generator is one function and one entry in `BUILDERS`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from generators.stargan import StarGANDiscriminator, StarGANGenerator
from malp_disc.official import OfficialClassifier, OfficialEncoder
from malp_disc.official_vit import OfficialViT
from malp_disc.proactive_imd import RecoveryEncoder
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


# Networks whose last ReLU may leave next to nothing are compared before it as well. An in-place ReLU follows, hence the clone.
def malp_encoder(case: Case) -> Built:
    network = OfficialEncoder()

    def run() -> dict[str, Tensor]:
        with tapped(man_map_prerelu=network.layers_5[1], signal_prerelu=network.layers_6[1]) as inside:
            man_map, signal = network(case.picture())
        return {"man_map": man_map, "signal": signal, **inside}

    return Built(network, run, absolute=2e-6, relative=1e-4)


def imd_encoder(case: Case) -> Built:
    network = RecoveryEncoder()

    def run() -> dict[str, Tensor]:
        with tapped(signal_prerelu=network.layer_2[1]) as inside:
            return {"signal": network(case.picture()), **inside}

    return Built(network, run, absolute=2e-6, relative=1e-4)


def map_classifier(case: Case) -> Built:
    network = OfficialClassifier(channels=case.config["input"]["shape"][1], depth=case.config["num_layers"])

    def run() -> dict[str, Tensor]:
        with tapped(map_prerelu=network.layers[-1][1], logits=network.layers4[4]) as inside:
            return {"y": network.sigmoids(case.picture()), **inside}

    return Built(network, run, absolute=2e-6, relative=1e-4)


def vit(case: Case) -> Built:
    arguments = ("image_size", "patch_size", "num_classes", "dim", "depth", "heads", "mlp_dim", "dropout", "emb_dropout")
    network = OfficialViT(generation_of(f"vit-pytorch {case.config['vit_pytorch_version']}"), **{key: case.config[key] for key in arguments})

    def run() -> dict[str, Tensor]:
        tokens = network.tokens(case.picture())
        pieces = tokens[:, 1:].unflatten(2, (8, 8))
        return {"logits": network.classes(tokens), "features": tokens, "trans_map": network(case.picture()), "trans_map_8": pieces}

    return Built(network, run, absolute=0.0, relative=1e-4)


def generation_of(text: str) -> str:
    """Which keys and semantics a "vit-pytorch 1.2.3" somewhere in the text has."""
    version = tuple(int(number) for number in re.search(r"vit-pytorch (\d+)\.(\d+)\.(\d+)", text).groups())
    last = {(0, 99, 0): "prenorm", (1, 3, 99): "dualpatchnorm", (1, 16, 1): "foldednorm"}
    return next((generation for until, generation in last.items() if version <= until), "current")


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


# (start of `source`, `config.cls` or None for any) -> builder. The first match counts.
BUILDERS: list[tuple[str, str | None, Callable[[Case], Built]]] = [
    ("yunjey/stargan@", "Generator", stargan_generator),
    ("yunjey/stargan@", "Discriminator", stargan_discriminator),
    ("vishal3477/pro_loc@", "encoder", malp_encoder),
    ("vishal3477/pro_loc@", "encoder1", map_classifier),
    ("vishal3477/proactive_IMD@", "encoder1", map_classifier),
    ("vishal3477/proactive_IMD@", "encoder2", imd_encoder),
    ("lucidrains/vit-pytorch", "ViT", vit),
]


def find_builder(case: Case) -> Callable[[Case], Built] | None:
    """The builder of a case, or None."""
    for source, cls, builder in BUILDERS:
        if case.source.startswith(source) and cls in (None, case.config.get("cls")):
            return builder
    return None

"""The authors' networks of MaLP, of the detector it grew from, and their transformers."""

from __future__ import annotations

import re

from torch import Tensor

from malp_disc.official.networks import OfficialClassifier, OfficialEncoder
from malp_disc.official.proactive_imd import RecoveryEncoder
from malp_disc.official.vit import OfficialViT
from tests.golden.case import Built, Case, tapped


# Networks whose last ReLU may leave next to nothing are compared before it as well. An in-place ReLU follows, hence the clone.
def malp_encoder(case: Case) -> Built:
    network = OfficialEncoder()

    def run() -> dict[str, Tensor]:
        with tapped(man_map_prerelu=network.layers_5[1], signal_prerelu=network.layers_6[1]) as inside:
            man_map, signal = network(case.images())
        return {"man_map": man_map, "signal": signal, **inside}

    return Built(network, run, absolute=2e-6, relative=1e-4)


def imd_encoder(case: Case) -> Built:
    network = RecoveryEncoder()

    def run() -> dict[str, Tensor]:
        with tapped(signal_prerelu=network.layer_2[1]) as inside:
            return {"signal": network(case.images()), **inside}

    return Built(network, run, absolute=2e-6, relative=1e-4)


def map_classifier(case: Case) -> Built:
    network = OfficialClassifier(channels=case.config["input"]["shape"][1], depth=case.config["num_layers"])

    def run() -> dict[str, Tensor]:
        with tapped(map_prerelu=network.layers[-1][1], logits=network.layers4[4]) as inside:
            return {"y": network.sigmoids(case.images()), **inside}

    return Built(network, run, absolute=2e-6, relative=1e-4)


def vit(case: Case) -> Built:
    arguments = ("image_size", "patch_size", "num_classes", "dim", "depth", "heads", "mlp_dim", "dropout", "emb_dropout")
    network = OfficialViT(generation_of(f"vit-pytorch {case.config['vit_pytorch_version']}"), **{key: case.config[key] for key in arguments})

    def run() -> dict[str, Tensor]:
        tokens = network.tokens(case.images())
        pieces = tokens[:, 1:].unflatten(2, (8, 8))
        return {"logits": network.mlp_head(tokens[:, 0]), "features": tokens, "trans_map": network(case.images()), "trans_map_8": pieces}

    return Built(network, run, absolute=0.0, relative=1e-4)


def generation_of(text: str) -> str:
    """Which keys and semantics a "vit-pytorch 1.2.3" somewhere in the text has."""
    version = tuple(int(number) for number in re.search(r"vit-pytorch (\d+)\.(\d+)\.(\d+)", text).groups())
    last = {(0, 99, 0): "prenorm", (1, 3, 99): "dualpatchnorm", (1, 16, 1): "foldednorm"}
    return next((generation for until, generation in last.items() if version <= until), "current")


BUILDERS = [
    ("vishal3477/pro_loc@", "encoder", malp_encoder),
    ("vishal3477/pro_loc@", "encoder1", map_classifier),
    ("vishal3477/proactive_IMD@", "encoder1", map_classifier),
    ("vishal3477/proactive_IMD@", "encoder2", imd_encoder),
    ("lucidrains/vit-pytorch", "ViT", vit),
]

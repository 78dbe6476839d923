"""The authors' networks with seeded weights, and checkpoints as their code packs them."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from malp_disc import MaLP, MaLPConfig
from malp_disc.official.networks import OfficialClassifier, OfficialEncoder
from malp_disc.official.vit import OfficialViT
from tests.golden.seeded import fill, stream

GOLDENS = Path(__file__).resolve().parent / "golden" / "data"
OPTIONAL = ("state_dict_transformer", "state_dict_class")


@functools.cache
def seeded_network(make, *arguments) -> nn.Module:
    network = make(*arguments)
    fill(network)
    return network


def seeded_state(make, *arguments) -> dict[str, Tensor]:
    return dict(seeded_network(make, *arguments).state_dict())


def light_classifier() -> dict[str, Tensor]:
    """The classifier with its one large matrix made of one number, so that files of it stay small."""
    state = seeded_state(OfficialClassifier)
    state["layers4.0.weight"] = torch.tensor(1e-3).expand(512, 65536)
    return state


def signal(count: int = 1) -> Tensor:
    return torch.from_numpy(stream("A").uniform(0, 1, (count, 128, 128)).astype(np.float32))


def packed(generation: str = "prenorm", *, count: int = 1, classifier=light_classifier) -> dict:
    """A checkpoint as train_loc_det.py packs it: networks, and the optimisers as they were before the first step."""
    content = {
        "state_dict_encoder": seeded_state(OfficialEncoder),
        "state_dict_signal": {"A": signal(count)},
        "state_dict_transformer": seeded_state(OfficialViT, generation),
        "state_dict_class": classifier(),
    }
    for number in range(1, 5):
        content[f"optimizer_{number}"] = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=1e-5).state_dict()
    return content


def saved(folder: Path, content: dict, name: str = "19000_model.pickle") -> Path:
    torch.save(content, folder / name)
    return folder / name


def golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDENS / f"{name}.npz") as file:
        return {key.removeprefix("out/"): torch.from_numpy(value) for key, value in file.items()}


def official(generation: str | None = None, count: int = 1) -> MaLP:
    """A fresh official MaLP with seeded weights, without a file."""
    malp = MaLP(MaLPConfig(architecture="official", set_size=count, branch="vit" if generation is not None else None, vit_generation=generation or "prenorm"))
    malp.cnn.load_state_dict(seeded_state(OfficialEncoder))
    malp.classifier.load_state_dict(seeded_state(OfficialClassifier))
    if generation is not None:
        malp.branch.load_state_dict(seeded_state(OfficialViT, generation))
    malp.encryption.templates.data.copy_(signal(count))
    return malp.eval()

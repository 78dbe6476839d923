"""SEAN, with its style encoder."""

from __future__ import annotations

import torch
from torch import Tensor

from generators.label_maps import one_hot
from generators.sean import SEANGenerator
from tests.golden.case import Built, Case
from tests.golden.seeded import drawn


def sean(case: Case) -> Built:
    config, encoder = case.config, case.config["zencoder"]
    network = SEANGenerator(
        label_nc=config["label_nc"],
        ngf=config["ngf"],
        style_length=config["style_length"],
        zencoder_ngf=encoder["ngf"],
        n_downsampling=encoder["n_downsampling"],
        crop_size=config["crop_size"],
    )

    def run() -> dict[str, Tensor]:
        x, label = case.drawn("x"), case.drawn("label")[:, 0]
        semantics, codes = one_hot(label, network.label_nc), network.encode(x, label)
        # The authors draw (B, width, height, 1) and swap the first and the last axis of an image.
        noise = iter(
            drawn({"kind": "normal", "name": f"noise/{k}", "shape": shape, "seed": config["seed"]}).transpose(1, 3)
            for k, shape in enumerate(config["noise_calls"])
        )
        return {
            "image": network(semantics, codes, silence),
            "image_noise": network(semantics, codes, lambda height, width: next(noise)),
            "image_ui": network(semantics, 0.5 * case.drawn("codes"), silence),
            "style_codes": codes,
        }

    def silence(height: int, width: int) -> Tensor:
        return torch.zeros(1, 1, height, width)

    return Built(network, run, absolute=2e-4)


BUILDERS = [("ZPdesu/SEAN@", None, sean)]

"""ALAE: encoder, decoder, mapping and head in one container."""

from __future__ import annotations

import torch
from torch import Tensor

from generators.alae import ALAE
from tests.golden.case import Built, Case
from tests.golden.seeded import drawn


def alae(case: Case) -> Built:
    arguments = ("layer_count", "startf", "maxf", "latent_size", "mapping_layers", "channels", "truncation_psi", "truncation_cutoff")
    network = ALAE(**{key: case.config[key] for key in arguments})
    lod = case.config["lod"]

    def run() -> dict[str, Tensor]:
        x, z = case.drawn("x"), case.drawn("z")
        seed, shapes = case.config["seed"], case.config["noise_calls"]
        noise = [drawn({"kind": "normal", "name": f"noise/{k}", "shape": shape, "seed": seed}) for k, shape in enumerate(shapes)]
        silence = [torch.zeros_like(value) for value in noise]
        w, w_blend = network.encode(x, lod), network.encode(x, lod, 0.3)
        return {
            "w": w[:, None],
            "disc": network.mapping_tl_s(w),
            "rec": network.decode(w, lod, noise=silence),
            "rec_noise": network.decode(w, lod, noise=noise),
            "w_of_z": network.mapping_fl_s(z)[:, None],
            "generated": network.generate(z, lod, silence),
            "w_blend": w_blend[:, None],
            "rec_blend": network.decode(w_blend, lod, 0.3, silence),
        }

    return Built(network, run, absolute=5e-4)


BUILDERS = [("podgorskiy/ALAE@", None, alae)]

"""GauGAN: SPADE's generator on a label map, as the authors prepare it."""

from __future__ import annotations

import torch
from torch import Tensor

from generators.label_maps import edges
from generators.spade import SPADEGenerator
from tests.golden.case import Built, Case


def spade(case: Case) -> Built:
    if case.config["use_vae"]:
        raise ValueError("SPADE with its style encoder is not built")
    arguments = ("label_nc", "contain_dontcare_label", "no_instance", "ngf", "norm_G", "num_upsampling_layers", "crop_size", "aspect_ratio")
    network = SPADEGenerator(**{key: case.config[key] for key in arguments})

    def run() -> dict[str, Tensor]:
        label = case.drawn("label")
        if not network.has_edges:
            return {"image": network(network.semantics(label))}
        instances = case.drawn("instance")
        return {"image": network(network.semantics(torch.cat([label, instances], dim=1))), "edge": edges(instances)}

    return Built(network, run, absolute=2e-4)


BUILDERS = [("NVlabs/SPADE@", None, spade)]

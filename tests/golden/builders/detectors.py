"""Passive localizers and binary detectors that MaLP is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torchvision
from torch import Tensor, nn

from malp_disc.benchmark.autogan import centre, spectrum_feature
from malp_disc.benchmark.ffd_network import FFDNetwork
from malp_disc.benchmark.patch_networks import PATCH_NETWORKS, WHOLE_NETWORKS
from tests.golden.case import Built, Case, Computed, tapped
from tests.golden.seeded import image, weight

TOLERANCE = {"absolute": 1e-6, "relative": 1e-4}


def ffd(case: Case) -> Built:
    form = case.config["maptype"]
    network = FFDNetwork(form)
    templates = weight("templates", (10, 19, 19)).sigmoid() if form == "tmp" else None

    def run() -> dict[str, Tensor]:
        with tapped(features=network.bn4) as inside:
            logits, mask, coefficients = network(case.images(), templates)
        return {"logits": logits, "mask": mask, **({"vec": coefficients} if form == "tmp" else {}), **inside}

    return Built(network, run, **TOLERANCE)


def patch_forensics(case: Case) -> Built:
    name = case.config["which_model_netD"]
    make, side = (PATCH_NETWORKS | WHOLE_NETWORKS)[name]
    assert list(case.config["input"]["shape"][2:]) == [side, side]
    network = make()
    last = {"xception": "bn4", "resnet18": "layer4"}.get(name)

    def run() -> dict[str, Tensor]:
        with tapped(**{"features": getattr(network, last)} if last else {}) as inside:
            return {"logits": network(case.images()), **inside}

    return Built(network, run, **TOLERANCE)


def torchvision_classifier(case: Case) -> Built:
    """ResNets of torchvision, whose last layer has another number of outputs."""
    network = getattr(torchvision.models, case.config["cls"].rpartition(".")[2])(num_classes=case.config.get("num_classes", 2))
    name = {1: "logit", 2: "logits"}.get(network.fc.out_features, "y")

    def run() -> dict[str, Tensor]:
        with tapped(features=network.layer4) as inside:
            out = {name: network(case.images()), **inside}
        return out | ({"prob": out["logit"].sigmoid()} if name == "logit" else {})

    return Built(network, run, **TOLERANCE)


def deeplab(case: Case) -> Built:
    network: nn.Module = torchvision.models.segmentation.deeplabv3_resnet101(
        num_classes=case.config["num_classes"], aux_loss=case.config["aux_loss"], weights=None, weights_backbone=None
    )
    return Built(network, lambda: network(case.images()), **TOLERANCE)


BUILDERS = [
    ("JStehouwer/FFD_CVPR2020@", "Xception", ffd),
    ("chail/patch-forensics@", None, patch_forensics),
    ("PeterWang512/CNNDetection@", "resnet50", torchvision_classifier),
    ("ColumbiaDVMM/AutoGAN@", "torchvision.models.resnet34", torchvision_classifier),
    ("torchvision", "resnet50", torchvision_classifier),
    ("torchvision", "deeplabv3_resnet101", deeplab),
]


def autogan_features(settings: Mapping[str, Any]) -> Computed:
    """The inputs of AutoGAN's detector for images of 8 bits: the centre itself, and its spectrum in four bands."""
    images = (((image("x", (2, 3, 256, 256), settings["config"]["seed"]) + 1) / 2 * 255).round() / 127.5) - 1
    arrays = {"image_0": centre(images)}
    arrays |= {f"fft_{number}": spectrum_feature(centre(images), band) for number, band in enumerate(("full", "low", "mid", "high"))}
    cases = {name: {"shape": list(value.shape), "mean": value.double().mean().item(), "std": value.double().std(correction=0).item()} for name, value in arrays.items()}
    return Computed({"cases": cases}, arrays, absolute=1e-4)


COMPUTATIONS = [("ColumbiaDVMM/AutoGAN@", "cases", autogan_features)]

"""StarGAN v2 with its masks, UNIT, MUNIT, Council-GAN, DRIT and GDWCT: a golden holds one domain's network, or a checkpoint's parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from generators.council_gan import CouncilGAN
from generators.drit import DRIT
from generators.gdwct import GDWCTGenerator
from generators.munit import MUNITGenerator
from generators.starganv2 import StarGANv2
from generators.starganv2_fan import FAN, face_masks
from generators.starganv2_networks import StarGANv2Discriminator
from generators.unit import UNITGenerator
from tests.golden.case import Built, Case
from tests.golden.seeded import stream


def starganv2(case: Case) -> Built:
    """Networks for generator, styles and discriminator in one container, or the landmark network alone."""
    config = case.config
    if "num_landmarks" in config:
        return landmarks(case)
    width, shape = config["max_conv_dim"], {key: config[key] for key in ("img_size", "num_domains")}
    whole = StarGANv2(**shape, max_conv_dim=width, **{key: config[key] for key in ("style_dim", "latent_dim", "w_hpf")})
    whole.fan = None  # the goldens bring their masks
    whole.discriminator = StarGANv2Discriminator(**shape, max_conv_dim=width)

    def run() -> Mapping[str, Tensor]:
        domains, one = torch.from_numpy(case.inputs["y"]), torch.from_numpy(case.inputs["y_ref"])
        images = case.drawn("x")
        latent, reference = whole.mapping_network(case.drawn("z"), domains), whole.style_encoder(case.drawn("ref"), one)
        outputs = {"style_latent": latent, "style_ref": reference, "disc": whole.discriminator(images, one)}
        if config["w_hpf"] > 0:
            masks = (case.drawn("mask0"), case.drawn("mask1"))
            outputs["image_ref"] = whole.generator(images, reference, masks)
            outputs["image_latent_nomask"] = whole.generator(images, latent[:1])
        else:
            outputs["image_ref"] = whole.generator(images, reference)
            outputs["image_latent"] = whole.generator(images, latent[1:])
        return outputs

    return Built(whole, run, absolute=5e-4)


def landmarks(case: Case) -> Built:
    if case.config["num_modules"] != 1 or case.config["end_relu"]:
        raise ValueError("the landmark network is built with one hour-glass and without a last ReLU")
    network = FAN(num_landmarks=case.config["num_landmarks"])

    def run() -> Mapping[str, Tensor]:
        coarse, fine = face_masks(blobs(case.config["inputs"]["blobs"]))
        return {"heatmap": network.heatmaps(case.drawn("x")), "mask0": coarse, "mask1": fine}

    return Built(network, run, absolute=5e-4)


def blobs(spec: Mapping[str, Any]) -> Tensor:
    """Heat maps like a trained network's: a bump per landmark, (1, 98, 64, 64)."""
    centres = stream(spec["name"], spec["seed"]).uniform(8, 56, (98, 2))
    rows, columns = np.mgrid[:64, :64]
    squares = (rows - centres[:, 0, None, None]) ** 2 + (columns - centres[:, 1, None, None]) ** 2
    return torch.from_numpy(np.exp(-squares / (2 * 1.5**2)).astype(np.float32))[None]


def unit(case: Case) -> Built:
    network = UNITGenerator(input_dim=case.config["input_dim"], **case.config["gen"])

    def run() -> Mapping[str, Tensor]:
        hidden = network.encode(case.drawn("x"))
        return {"hidden": hidden, "image": network.decode(hidden)}

    return Built(network, run, absolute=2e-4)


def munit(case: Case) -> Built:
    network = MUNITGenerator(input_dim=case.config["input_dim"], **case.config["gen"])

    def run() -> Mapping[str, Tensor]:
        content, style = network.encode(case.drawn("x"))
        return {
            "content": content,
            "style_x": style,
            "recon": network.decode(content, style),
            "image": network.decode(content, case.drawn("style")),
        }

    return Built(network, run, absolute=2e-4)


def council_gan(case: Case) -> Built:
    arguments = dict(case.config["gen"])
    if arguments.pop("do_my_style"):
        raise ValueError("Council-GAN is built without do_my_style")
    network = CouncilGAN(input_dim=case.config["input_dim"], **arguments)

    def run() -> Mapping[str, Tensor]:
        images = case.drawn("x")
        content, style = network.encode(images)
        translated, masks = network.decode(content, case.drawn("style"), images)
        shown = masks if masks.shape[1] == 3 else masks.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
        return {"content": content, "style_x": style, "image": translated, "mask": shown}

    return Built(network, run, absolute=2e-4)


def drit(case: Case) -> Built:
    config = case.config
    network = DRIT(concat=bool(config["concat"]), **{key: config[key] for key in ("input_dim_a", "input_dim_b", "nz")})

    def run() -> Mapping[str, Tensor]:
        a, b = case.drawn("a"), case.drawn("b")
        content = network.enc_c(a, "A")
        outputs = {"content_a": content, "fake_b": network.gen(content, case.drawn("z"), "B")}
        if config["concat"]:
            outputs["mu_a"], outputs["logvar_a"] = network.enc_a(a, "A")
            outputs["mu_b"], outputs["logvar_b"] = network.enc_a(b, "B")
        else:
            outputs["attr_a"], outputs["attr_b"] = network.enc_a(a, "A"), network.enc_a(b, "B")
        outputs["fake_a"] = network.gen(network.enc_c(b, "B"), outputs["mu_a" if config["concat"] else "attr_a"], "A")
        return outputs

    return Built(network, run, absolute=2e-4)


def gdwct(case: Case) -> Built:
    shape = {key: case.config[key] for key in ("conv_dim", "repeat_num", "n_group", "mlp_dim", "bias_dim")}
    if case.config["content_dim"] != 4 * shape["conv_dim"]:
        raise ValueError("GDWCT's content has four times the channels of its first layer")
    network: nn.Module = GDWCTGenerator(**shape)

    def run() -> Mapping[str, Tensor]:
        content, style = network.c_encoder(case.drawn("x")), network.s_encoder(case.drawn("y"))
        image, covariances, bases = network.decoder(content, style)
        return {"content": content, "style": style, "image": image, "cov0": covariances[0][:2], "eigen0": bases[0][:2]}

    return Built(network, run, absolute=2e-4)


BUILDERS = [
    ("clovaai/stargan-v2@", None, starganv2),
    ("mingyuliutw/UNIT@", None, unit),
    ("NVlabs/MUNIT@", None, munit),
    ("Onr/Council-GAN@", None, council_gan),
    ("HsinYingLee/DRIT@", None, drit),
    ("WonwoongCho/GDWCT@", None, gdwct),
]

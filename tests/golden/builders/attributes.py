"""Editors of attributes, expressions and poses: AttGAN, GANimation, STGAN in both forms, DR-GAN."""

from __future__ import annotations

import torch
from torch import Tensor

from generators.attgan import AttGANDiscriminators, AttGANGenerator
from generators.dr_gan import DRGANGenerator
from generators.ganimation import GANimationGenerator, blend
from generators.stargan import StarGANDiscriminator
from generators.stgan import STGANDiscriminator, STGANGenerator
from generators.stgan_official import STGANOfficialGenerator
from tests.golden.case import Built, Case

# Options of the authors' STGAN that we have in one form only, with that form.
STGAN_FIXED = {"multi_inputs": 1, "stu_norm": "none", "stu_state": "stu", "label": "diff"}
STGAN_OPTIONS = (
    "n_att", "enc_dim", "enc_layers", "stu_dim", "stu_layers", "stu_inject_layers", "stu_kernel_size", "dec_dim", "dec_layers", "shortcut_layers",
    "inject_layers", "one_more_conv",
)  # fmt: skip


def attgan_generator(case: Case) -> Built:
    network = AttGANGenerator(**case.args)
    return Built(network, lambda: {"y": network(case.images(), case.condition("a"))})


def attgan_discriminators(case: Case) -> Built:
    network = AttGANDiscriminators(**case.args)
    return Built(network, lambda: dict(zip(("adv", "cls"), network(case.images()))))


def ganimation_generator(case: Case) -> Built:
    network = GANimationGenerator(**case.args)

    def run() -> dict[str, Tensor]:
        images = case.images()
        color, attention = network(images, case.condition("c"))
        return {"color": color, "attention": attention, "fake": blend(images, color, attention)}

    return Built(network, run)


def ganimation_discriminator(case: Case) -> Built:
    """The authors squeeze what it gives."""
    network = StarGANDiscriminator(**case.args)
    return Built(network, lambda: {name: output.squeeze() for name, output in zip(("real", "aux"), network(case.images()))})


def stgan_generator(case: Case) -> Built:
    network = STGANGenerator(**case.args)
    return Built(network, lambda: {"y": network(case.images(), case.condition("a"))})


def stgan_discriminator(case: Case) -> Built:
    network = STGANDiscriminator(**case.args)
    return Built(network, lambda: dict(zip(("adv", "att"), network(case.images()))))


def stgan_official(case: Case) -> Built:
    other = {name: case.config[name] for name, value in STGAN_FIXED.items() if case.config.get(name, value) != value}
    if other:
        raise ValueError(f"STGAN with {other} isn't built here, only with {STGAN_FIXED}")
    network = STGANOfficialGenerator(**{name: case.config[name] for name in STGAN_OPTIONS if name in case.config})
    return Built(network, lambda: {"y": network(case.images(), case.condition("a"))})


def dr_gan(case: Case) -> Built:
    """For single images, or for several of one person (`images_perID`). What isn't drawn, the pose, stands in the .npz."""
    config = case.config
    multi = "images_perID" in config
    channels = config.get("channle_num", config.get("channel_num", 3))  # the port spells it both ways
    network = DRGANGenerator(n_poses=config["Np"], n_noise=config["Nz"], channel_num=channels, multi=multi)

    def run() -> dict[str, Tensor]:
        images, pose, noise = (
            case.drawn(name) if name in config["inputs"] else torch.from_numpy(case.inputs[name]) for name in ("x", "pose", "noise")
        )
        if not multi:
            return {"image": network(images, pose, noise), "features": network.encode(images)[0]}
        one = images[None], pose[:1], noise[:1]
        return {
            "image_fused": network.fuse(*one),
            "features_fused": network.fuse_features(images[None]),
            "image_single": network(images, pose, noise),
        }

    return Built(network, run, absolute=2e-4)


BUILDERS = [
    ("elvisyjlin/AttGAN-PyTorch@", "Generator", attgan_generator),
    ("elvisyjlin/AttGAN-PyTorch@", "Discriminators", attgan_discriminators),
    ("albertpumarola/GANimation@", "Generator", ganimation_generator),
    ("albertpumarola/GANimation@", "Discriminator", ganimation_discriminator),
    ("bluestyle97/STGAN-pytorch@", "Generator", stgan_generator),
    ("bluestyle97/STGAN-pytorch@", "Discriminator", stgan_discriminator),
    ("csmliu/STGAN@", None, stgan_official),
    ("kayamin/DR-GAN@", None, dr_gan),
]

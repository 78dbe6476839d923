"""Image-to-image translation: CycleGAN, pix2pix, BicycleGAN, DualGAN, the context encoder and Colorizing-with-GANs."""

from __future__ import annotations

from torch import Tensor, nn

from generators.bicyclegan import BicycleGANDiscriminator, BicycleGANEncoder, BicycleGANGenerator
from generators.colorizing_gan import ColorizingGenerator, ColorizingPort, from_normalised_lab, to_normalised_lab
from generators.context_encoder import ContextEncoderGenerator
from generators.cyclegan import ResnetGenerator
from generators.dualgan import DualGANGenerator, PyTorchGANGenerator, TogheppiGenerator
from generators.patchgan import PatchDiscriminator
from generators.pix2pix import UnetGenerator
from tests.golden.case import Built, Case

SMALL_MAPS = 3e-4
"""Tolerance where a norm takes its statistics from 4 values at the bottom of a U-Net."""


def statistics(case: Case) -> str:
    """Which a batch norm used: running averages, or those of the batch."""
    return "running" if case.config.get("mode", "eval") == "eval" else "batch"


def painted(network: nn.Module, case: Case, *condition: Tensor, absolute: float = 1e-4) -> Built:
    """The output is `y`. Dropout is off in all goldens, also where the norms were in training mode."""
    return Built(network, lambda: {"y": network.eval()(case.images(), *condition)}, absolute=absolute)


def resnet(case: Case) -> Built:
    return painted(ResnetGenerator(**case.args, statistics=statistics(case)), case)


def unet(case: Case) -> Built:
    return painted(
        UnetGenerator(**case.args, statistics=statistics(case)), case, absolute=SMALL_MAPS if statistics(case) == "batch" else 1e-4
    )


def patchgan(case: Case) -> Built:
    return painted(PatchDiscriminator(**case.args, statistics=statistics(case)), case)


def bicyclegan(case: Case) -> Built:
    return painted(BicycleGANGenerator(**case.args, statistics=statistics(case)), case, case.condition("z"), absolute=SMALL_MAPS)


def bicyclegan_encoder(case: Case) -> Built:
    args = case.args
    network = BicycleGANEncoder(vae=args.pop("vaeLike", False), **args, statistics=statistics(case))

    def run() -> dict[str, Tensor]:
        output = network.eval()(case.images())
        return dict(zip(("mu", "logvar"), output)) if isinstance(output, tuple) else {"mu": output}

    return Built(network, run)


def bicyclegan_discriminator(case: Case) -> Built:
    args = case.args
    network = BicycleGANDiscriminator(num_scales=args.pop("num_D", 1), **args, statistics=statistics(case))
    return Built(network, lambda: {f"d{i}": output for i, output in enumerate(network.eval()(case.images()))})


def dualgan_official(case: Case) -> Built:
    config = case.config
    channels = (config["A_channels"], config["B_channels"])
    before, after = channels if config["prefix"] == "A_g_" else channels[::-1]
    return painted(DualGANGenerator(prefix=config["prefix"], gcn=config["gcn"], input_channels=before, output_channels=after), case)


def dualgan_pytorch_gan(case: Case) -> Built:
    return painted(PyTorchGANGenerator(**case.args), case)


def dualgan_togheppi(case: Case) -> Built:
    return painted(TogheppiGenerator(**case.args, statistics=statistics(case)), case)


def context_encoder(case: Case) -> Built:
    args = case.args
    args.pop("ngpu", None)
    if "nBottleneck" in args:
        args["bottleneck"] = args.pop("nBottleneck")
    return painted(ContextEncoderGenerator(**args), case)


def colorizing_official(case: Case) -> Built:
    config = case.config
    names = ("encoder", "decoder", "output_channels", "kernel")
    network = ColorizingGenerator(**{name: config[name] for name in names}, statistics="batch")
    return painted(network, case, absolute=SMALL_MAPS)


def colorizing_port(case: Case) -> Built:
    return painted(ColorizingPort(**case.args, statistics=statistics(case)), case)


def colorizing_lab(case: Case) -> Built:
    def run() -> dict[str, Tensor]:
        x = case.images()
        lab = to_normalised_lab(x)
        return {"lab": lab, "rgb": (from_normalised_lab(x) + 1) / 2, "back": (from_normalised_lab(lab) + 1) / 2}

    return Built(nn.Module(), run)


BUILDERS = [
    ("junyanz/pytorch-CycleGAN-and-pix2pix@", "ResnetGenerator", resnet),
    ("junyanz/pytorch-CycleGAN-and-pix2pix@", "UnetGenerator", unet),
    ("junyanz/pytorch-CycleGAN-and-pix2pix@", "NLayerDiscriminator", patchgan),
    ("junyanz/BicycleGAN@", "G_Unet_add_all", bicyclegan),
    ("junyanz/BicycleGAN@", "E_ResNet", bicyclegan_encoder),
    ("junyanz/BicycleGAN@", "D_NLayersMulti", bicyclegan_discriminator),
    ("duxingren14/DualGAN@", None, dualgan_official),
    ("eriklindernoren/PyTorch-GAN@", "Generator", dualgan_pytorch_gan),
    ("togheppi/DualGAN@", "Generator", dualgan_togheppi),
    ("BoyuanJiang/context_encoder_pytorch@", "_netG", context_encoder),
    ("ImagingLab/Colorizing-with-GANs@", "Generator", colorizing_official),
    ("ImagingLab/Colorizing-with-GANs@", "preprocess/postprocess", colorizing_lab),
    ("karoly-hars/GAN_image_colorizing@", "Generator", colorizing_port),
]

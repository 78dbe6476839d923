"""StyleGAN v1 in its two PyTorch ports, with InterFaceGAN's edits."""

from __future__ import annotations

import torch
from torch import Tensor

from generators.interfacegan import edit, to_sphere
from generators.style_based_gan import StyleBasedGAN
from generators.stylegan import StyleGANGenerator
from tests.golden.case import Built, Case


def interfacegan(case: Case) -> Built:
    arguments = ("resolution", "w_space_dim", "fused_scale", "output_channels", "truncation_psi", "truncation_layers")
    network = StyleGANGenerator(**{key: case.config[key] for key in arguments})

    def run() -> dict[str, Tensor]:
        z, boundary = case.drawn("z"), case.drawn("boundary")
        w = network.mapping(z)
        wp = network.truncation(w)[:1]
        distances = torch.linspace(-3, 3, 4)
        edited_w = edit(w[:1].expand(4, -1), boundary, distances)
        return {
            "w": w,
            "wp": wp,
            "image": network(wp),
            "edited_z": edit(to_sphere(z)[:1].expand(4, -1), boundary, distances),
            "edited_w": edited_w,
            "image_edited_w": network(network.truncation(edited_w[-1:])),
        }

    return Built(network, run, absolute=5e-4)


def rosinality(case: Case) -> Built:
    step, alpha = case.config["step"], case.config["alpha"]
    network = StyleBasedGAN(resolution=4 * 2**step, code_dim=case.config["code_dim"], n_mlp=case.config["n_mlp"])

    def run() -> dict[str, Tensor]:
        z, noise = case.drawn("z"), [case.drawn(f"noise/{i}") for i in range(step + 1)]
        mean_style = network.mean_style(case.drawn("mean_z"))
        truncated = torch.lerp(mean_style, network.mapping(z), 0.7)[:, None].expand(-1, network.layers, -1)
        coarse = torch.arange(network.layers)[:, None] < 4  # 4 and 8 pixels, two layers each
        return {
            "mean_style": mean_style,
            "image": network(z[:1], noise, alpha=alpha),
            "image_trunc": network(truncated[:1], noise, alpha=alpha),
            "image_mix": network(torch.where(coarse, truncated[1:], truncated[:1]), noise, alpha=alpha),
            "image_fade": network(z[:1], noise, alpha=0.4),
        }

    return Built(network, run, absolute=5e-4)


BUILDERS = [
    ("genforce/interfacegan@", None, interfacegan),
    ("rosinality/style-based-gan-pytorch@", None, rosinality),
]

"""StarGAN v2: diverse image synthesis for multiple domains (Choi, Uh, Yoo, Ha, CVPR 2020).

Official code: https://github.com/clovaai/stargan-v2 (CC BY-NC 4.0, code and weights: no commercial use), whose ``download.sh`` fetches the
checkpoints. Written from the paper and a description, with the authors' state-dict keys: ``100000_nets_ema.ckpt`` holds ``generator``,
``mapping_network``, ``style_encoder`` and, for faces, ``fan``. Domains: AFHQ 0 cat, 1 dog, 2 wild; CelebA-HQ 0 female, 1 male.

Note:
    For faces (w_hpf > 0) the decoder's blocks have no shortcut, although some checkpoints carry weights for one, and high-pass filtered features
    of the input are added where the masks of `generators.starganv2_fan` say so. The released file lacks the constant ``generator.hpf.filter``, which
    was added to the code later.
    The last layer has no tanh, so its values exceed [-1, 1] slightly. `manipulate` clamps them (clamped pixels have no gradient), `forward` doesn't.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from generators.images import check_input
from generators.loading import agree
from generators.starganv2_fan import FAN
from generators.starganv2_networks import FIRST_AREA, MappingNetwork, StarGANv2Discriminator, StarGANv2Generator, StyleEncoder
from malp_disc.serialization.state_dicts import load_parts, load_state, load_tensors


class StarGANv2(nn.Module):
    """Translates images to a domain: the generator, and the networks that provide style codes.

    Args:
        img_size, style_dim, max_conv_dim, w_hpf: as for `StarGANv2Generator`.
        latent_dim, hidden_dim: input and hidden width of the mapping network.
        num_domains: number of domains.

    Shape:
        images (B, 3, H, W) in [-1, 1], sides divisible by 16 (by 32 with w_hpf > 0; for img_size 256) -> the same.
    """

    target_kind = "domain"

    def __init__(
        self,
        *,
        img_size: int = 256,
        style_dim: int = 64,
        latent_dim: int = 16,
        num_domains: int = 2,
        w_hpf: float = 1,
        max_conv_dim: int = 512,
        hidden_dim: int = 512,
    ) -> None:
        super().__init__()
        self.config = {"img_size": img_size, "style_dim": style_dim, "latent_dim": latent_dim, "num_domains": num_domains}
        self.config |= {"w_hpf": w_hpf, "max_conv_dim": max_conv_dim, "hidden_dim": hidden_dim}
        self.num_domains, self.latent_dim, self.style_dim = num_domains, latent_dim, style_dim
        self.generator = StarGANv2Generator(img_size=img_size, style_dim=style_dim, max_conv_dim=max_conv_dim, w_hpf=w_hpf)
        self.mapping_network = MappingNetwork(latent_dim=latent_dim, style_dim=style_dim, num_domains=num_domains, hidden_dim=hidden_dim)
        self.style_encoder = StyleEncoder(img_size=img_size, style_dim=style_dim, num_domains=num_domains, max_conv_dim=max_conv_dim)
        self.fan = FAN() if w_hpf > 0 else None

    def forward(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """As `manipulate`, without the clamp."""
        divisor = self.generator.divisor
        check_input(images, "StarGAN v2", divisor=divisor, least=2 * divisor)
        masks = None if self.fan is None else self.fan.masks(images)
        return self.generator(images, self.style(images, target), masks)

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: images in [-1, 1] -> translated images in [-1, 1], same size.

        Args:
            target: the domain of each image, integers (B,), whose style is computed from one fixed latent code; or style codes
                (B, style_dim) from ``mapping_network(latents, domains)`` or ``style_encoder(references, domains)``. None: domain 0.

        Raises:
            ValueError: other shapes, or an unknown domain.
        """
        return self(images, target).clamp(-1, 1)

    def style(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Style codes (B, style_dim) for a target of `manipulate`.

        Raises:
            ValueError: neither domains nor style codes.
        """
        count = len(images)
        if target is None:
            target = torch.zeros(count, dtype=torch.long, device=images.device)
        if target.shape == (count,) and not target.is_floating_point():
            if not (0 <= target.min() and target.max() < self.num_domains):
                raise ValueError(f"expected domains from 0 to {self.num_domains - 1}, got {target.tolist()}")
            latent = torch.randn(1, self.latent_dim, generator=torch.Generator().manual_seed(0)).to(images)
            return self.mapping_network(latent.expand(count, -1), target.long())
        if target.shape == (count, self.style_dim) and target.is_floating_point():
            return target.to(images)
        raise ValueError(
            f"expected as target the domains ({count},) as whole numbers or styles ({count}, {self.style_dim}), got {tuple(target.shape)} of {target.dtype}"
        )


def starganv2(checkpoint: str | Path | None = None, **config: int | float) -> StarGANv2:
    """Build StarGAN v2; with a checkpoint, the architecture is inferred from its tensors, and arguments given explicitly must agree with it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if checkpoint is None:
        return StarGANv2(**config)
    tensors = load_parts(checkpoint, ("generator", "mapping_network", "style_encoder"), ("fan",), what="a checkpoint of StarGAN v2")
    network = StarGANv2(**agree(_shape(tensors), config, checkpoint))
    load_state(network, tensors, source=str(checkpoint), optional=("hpf.filter", "num_batches_tracked"))
    return network


def starganv2_discriminator(checkpoint: str | Path | None = None, **config: int) -> StarGANv2Discriminator:
    """The discriminator, from the entry ``discriminator`` of a training checkpoint (``…_nets.ckpt``); raises as `starganv2` does."""
    if checkpoint is None:
        return StarGANv2Discriminator(**config)
    tensors = load_tensors(checkpoint, forms=(("main.0.weight", "main.1.conv1.weight"),), entries=("discriminator",), role="discriminator")
    found = _trunk_shape(tensors, "main")
    if found and (head := tensors.get(f"main.{int(math.log2(found['img_size'])) + 2}.weight")) is not None:
        found["num_domains"] = head.shape[0]
    network = StarGANv2Discriminator(**agree(found, config, checkpoint))
    load_state(network, tensors, source=str(checkpoint))
    return network


def _trunk_shape(tensors: Mapping[str, Tensor], name: str) -> dict[str, int]:
    """Arguments inferred from the layers of `make_trunk`; empty if the tensors aren't such layers."""
    first = tensors.get(f"{name}.0.weight")
    if first is None or first.ndim != 4:
        return {}
    img_size = FIRST_AREA // first.shape[0]
    last = tensors.get(f"{name}.{int(math.log2(img_size))}.weight")
    return {"img_size": img_size} if last is None else {"img_size": img_size, "max_conv_dim": last.shape[0]}


def _shape(tensors: Mapping[str, Tensor]) -> dict[str, int | float]:
    """Arguments of `StarGANv2` that can be inferred from the tensors."""
    found: dict[str, int | float] = dict(_trunk_shape(tensors, "style_encoder.shared"))
    latent, style = tensors.get("mapping_network.shared.0.weight"), tensors.get("mapping_network.unshared.0.6.weight")
    if latent is not None and style is not None:
        heads = sum(re.fullmatch(r"mapping_network\.unshared\.\d+\.6\.weight", key) is not None for key in tensors)
        found |= {"latent_dim": latent.shape[1], "hidden_dim": latent.shape[0], "style_dim": style.shape[0], "num_domains": heads}
    if "img_size" in found:
        blocks = sum(re.fullmatch(r"generator\.encode\.\d+\.conv1\.weight", key) is not None for key in tensors)
        if blocks - 2 <= int(math.log2(found["img_size"])) - 4:
            found["w_hpf"] = 0
        elif "generator.hpf.filter" in tensors:
            found["w_hpf"] = round(8 / tensors["generator.hpf.filter"][1, 1].item(), 6)
    return found

"""StarGAN v2: diverse image synthesis for multiple domains (Choi, Uh, Yoo, Ha, CVPR 2020).

Official code: https://github.com/clovaai/stargan-v2 (CC BY-NC 4.0, code and weights: no commercial use). Written from the paper and a
description; the state-dict keys are the authors', so ``100000_nets_ema.ckpt``, which holds ``generator``, ``mapping_network``,
``style_encoder`` and for faces ``fan``, loads as it is. Its domains: AFHQ 0 cat, 1 dog, 2 wild; CelebA-HQ 0 female, 1 male.

Note:
    For faces (w_hpf > 0) the decoder's blocks have no shortcut, although some carry the weights of one, and the image's own edges come back
    where the masks of `starganv2_fan` say. The released file lacks the constant ``generator.hpf.filter``, which joined the network later.
    The last layer has no tanh: its values go a little beyond [-1, 1], and `manipulate` cuts them. Beyond, no gradient flows; `forward`
    gives the uncut image.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.images import check_input, in_float32
from generators.loading import agree
from generators.starganv2_fan import FAN
from malp_disc.serialization.state_dicts import load_parts, load_state, load_tensors

_AREA = 2**14  # channels of the first layer times the image's side


class ResidualBlock(nn.Module):
    """(shortcut + residual) / √2, activated before each convolution; at half the size if `down`."""

    def __init__(self, inputs: int, outputs: int, *, normalize: bool = False, down: bool = False) -> None:
        super().__init__()
        self.down = down
        self.conv1 = nn.Conv2d(inputs, inputs, 3, 1, 1)
        self.conv2 = nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.norm1 = nn.InstanceNorm2d(inputs, affine=True) if normalize else nn.Identity()
        self.norm2 = nn.InstanceNorm2d(inputs, affine=True) if normalize else nn.Identity()
        self.conv1x1 = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        residual = self.conv1(F.leaky_relu(self.norm1(x), 0.2))
        residual = self.conv2(F.leaky_relu(self.norm2(self._pooled(residual)), 0.2))
        return (self._pooled(self.conv1x1(x)) + residual) / math.sqrt(2)

    def _pooled(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2) if self.down else x


class AdaIN(nn.Module):
    """(1 + γ) · (x - mean) / std + β, both read from the style."""

    def __init__(self, style_dim: int, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(style_dim, 2 * channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        gamma, beta = self.fc(style)[:, :, None, None].chunk(2, dim=1)
        return (1 + gamma) * F.instance_norm(x, eps=1e-5) + beta


class StyledBlock(nn.Module):
    """A residual block whose norms take a style, at twice the size if `up`; with `bare` only its residual."""

    def __init__(self, inputs: int, outputs: int, style_dim: int, *, bare: bool, up: bool = False) -> None:
        super().__init__()
        self.bare, self.up = bare, up
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.norm1, self.norm2 = AdaIN(style_dim, inputs), AdaIN(style_dim, outputs)
        self.conv1x1 = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        residual = self.conv1(self._enlarged(F.leaky_relu(self.norm1(x, style), 0.2)))
        residual = self.conv2(F.leaky_relu(self.norm2(residual, style), 0.2))
        return residual if self.bare else (self.conv1x1(self._enlarged(x)) + residual) / math.sqrt(2)

    def _enlarged(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="nearest") if self.up else x


class HighPass(nn.Module):
    """Each channel's edges: eight times a pixel less its neighbours, over w_hpf."""

    def __init__(self, w_hpf: float) -> None:
        super().__init__()
        kernel = torch.full((3, 3), -1.0)
        kernel[1, 1] = 8.0
        self.register_buffer("filter", kernel / w_hpf)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(x, self.filter.to(x.dtype).expand(channels, 1, 3, 3), padding=1, groups=channels)


class StarGANv2Generator(nn.Module):
    """G(x, s): redraws image x in the style s, and with masks keeps the edges of x where they are 1.

    Args:
        img_size: side of the training images; it sets the widths and depth. Others fit in, if their sides are divisible.
        style_dim: width of a style.
        max_conv_dim: no layer has more channels.
        w_hpf: weight of the kept edges is 1 / w_hpf; 0 for the form without.
    """

    def __init__(self, *, img_size: int = 256, style_dim: int = 64, max_conv_dim: int = 512, w_hpf: float = 1) -> None:
        super().__init__()
        bare = w_hpf > 0
        halvings = int(math.log2(img_size)) - 4 + bare
        width = _AREA // img_size
        self.divisor = 2**halvings
        self.from_rgb = nn.Conv2d(3, width, 3, 1, 1)
        self.to_rgb = nn.Sequential(nn.InstanceNorm2d(width, affine=True), nn.LeakyReLU(0.2), nn.Conv2d(width, 3, 1))
        encode, decode = [], []
        for _ in range(halvings):
            wider = min(2 * width, max_conv_dim)
            encode.append(ResidualBlock(width, wider, normalize=True, down=True))
            decode.insert(0, StyledBlock(wider, width, style_dim, bare=bare, up=True))
            width = wider
        for _ in range(2):
            encode.append(ResidualBlock(width, width, normalize=True))
            decode.insert(0, StyledBlock(width, width, style_dim, bare=bare))
        self.encode, self.decode = nn.ModuleList(encode), nn.ModuleList(decode)
        self.hpf = HighPass(w_hpf) if bare else None

    def forward(self, images: Tensor, style: Tensor, masks: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(B, 3, H, W), (B, style_dim), and perhaps masks (B, 1, h, w) for 32 and for 64 and 128 pixels' height -> (B, 3, H, W), uncut."""
        x = self.from_rgb(images)
        kept = {}
        for block in self.encode:
            if masks is not None and x.shape[2] in (32, 64, 128):
                kept[x.shape[2]] = x
            x = block(x)
        for block in self.decode:
            x = block(x, style)
            if x.shape[2] in kept:
                mask = F.interpolate(masks[0 if x.shape[2] == 32 else 1], x.shape[2:], mode="bilinear", align_corners=False)
                x = x + self.hpf(mask * kept[x.shape[2]])
        return in_float32(self.to_rgb, x)


class MappingNetwork(nn.Module):
    """Latents to styles, one head per domain: (B, latent_dim), domains (B,) -> (B, style_dim)."""

    def __init__(self, *, latent_dim: int = 16, style_dim: int = 64, num_domains: int = 2, hidden_dim: int = 512) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(latent_dim, hidden_dim), nn.ReLU()]
        for _ in range(3):
            layers += [nn.Linear(hidden_dim, hidden_dim), nn.ReLU()]
        self.shared = nn.Sequential(*layers)
        self.unshared = nn.ModuleList()
        for _ in range(num_domains):
            layers = []
            for _ in range(3):
                layers += [nn.Linear(hidden_dim, hidden_dim), nn.ReLU()]
            self.unshared.append(nn.Sequential(*layers, nn.Linear(hidden_dim, style_dim)))

    def forward(self, latents: Tensor, domains: Tensor) -> Tensor:
        return _of_domains(self.unshared, self.shared(latents), domains)


def _trunk(img_size: int, max_conv_dim: int) -> tuple[list[nn.Module], int]:
    """Layers of style encoder and discriminator, (B, 3, img_size, img_size) -> (B, width, 1, 1), and the width."""
    width = _AREA // img_size
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1)]
    for _ in range(int(math.log2(img_size)) - 2):
        wider = min(2 * width, max_conv_dim)
        layers.append(ResidualBlock(width, wider, down=True))
        width = wider
    return [*layers, nn.LeakyReLU(0.2), nn.Conv2d(width, width, 4), nn.LeakyReLU(0.2)], width


def _of_domains(heads: nn.ModuleList, features: Tensor, domains: Tensor) -> Tensor:
    """Row i through the head of its domain."""
    everything = torch.stack([head(features) for head in heads], dim=1)  # (B, domains, style_dim)
    return everything[torch.arange(len(domains), device=features.device), domains.to(features.device)]


class StyleEncoder(nn.Module):
    """Reference images to styles, one head per domain: (B, 3, img_size, img_size), domains (B,) -> (B, style_dim)."""

    def __init__(self, *, img_size: int = 256, style_dim: int = 64, num_domains: int = 2, max_conv_dim: int = 512) -> None:
        super().__init__()
        self.img_size = img_size
        layers, width = _trunk(img_size, max_conv_dim)
        self.shared = nn.Sequential(*layers)
        self.unshared = nn.ModuleList([nn.Linear(width, style_dim) for _ in range(num_domains)])

    def forward(self, images: Tensor, domains: Tensor) -> Tensor:
        _check_square(images, self.img_size)
        return _of_domains(self.unshared, self.shared(images).flatten(1), domains)


class StarGANv2Discriminator(nn.Module):
    """Real or not, as an image of its domain: (B, 3, img_size, img_size), domains (B,) -> logits (B,)."""

    def __init__(self, *, img_size: int = 256, num_domains: int = 2, max_conv_dim: int = 512) -> None:
        super().__init__()
        self.img_size = img_size
        self.config = {"img_size": img_size, "num_domains": num_domains, "max_conv_dim": max_conv_dim}
        layers, width = _trunk(img_size, max_conv_dim)
        self.main = nn.Sequential(*layers, nn.Conv2d(width, num_domains, 1))

    def forward(self, images: Tensor, domains: Tensor) -> Tensor:
        _check_square(images, self.img_size)
        logits = self.main(images).flatten(1)
        return logits[torch.arange(len(domains), device=logits.device), domains.to(logits.device)]


class StarGANv2(nn.Module):
    """Images as images of a domain: the generator, and where its styles come from.

    Args:
        img_size, style_dim, max_conv_dim, w_hpf: as for `StarGANv2Generator`.
        latent_dim, hidden_dim: widths of the mapping network.
        num_domains: domains.

    Shape:
        images (B, 3, H, W) in [-1, 1], sides divisible by 16 at 256 pixels, 32 with w_hpf -> the same.
    """

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
        """As `manipulate`, but uncut."""
        divisor = self.generator.divisor
        check_input(images, "StarGAN v2", divisor=divisor, least=2 * divisor)
        masks = None if self.fan is None else self.fan.masks(images)
        return self.generator(images, self.style(images, target), masks)

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """The library's common entry: [-1, 1] in, [-1, 1] out.

        `target` is the domain of each image, whole numbers (B,), whose style comes from one latent of N(0, I), always the same; or the
        styles themselves, (B, style_dim), from ``mapping_network(latents, domains)`` or ``style_encoder(references, domains)``; None is domain 0.
        """
        return self(images, target).clamp(-1, 1)

    def style(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """(B, style_dim) for the target of `manipulate`.

        Raises:
            ValueError: for a target that is none.
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
    """StarGAN v2; with a checkpoint its form and widths are read from it, and any that are given must agree.

    Raises:
        FileNotFoundError, ValueError: no such file, an unsafe file, a checkpoint of another network, or of another `config`.
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
    """What the layers of `_trunk` tell; nothing if they aren't such."""
    first = tensors.get(f"{name}.0.weight")
    if first is None or first.ndim != 4:
        return {}
    img_size = _AREA // first.shape[0]
    last = tensors.get(f"{name}.{int(math.log2(img_size))}.weight")
    return {"img_size": img_size} if last is None else {"img_size": img_size, "max_conv_dim": last.shape[0]}


def _shape(tensors: Mapping[str, Tensor]) -> dict[str, int | float]:
    """The arguments of a `StarGANv2` that the shapes tell."""
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


def _check_square(images: Tensor, size: int) -> None:
    if images.ndim != 4 or images.shape[1:] != (3, size, size):
        raise ValueError(f"expected images (B, 3, {size}, {size}), got {tuple(images.shape)}")

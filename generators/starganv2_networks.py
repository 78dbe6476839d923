"""The networks of StarGAN v2 (Choi et al., CVPR 2020): generator, mapping network, style encoder and discriminator.

`generators.starganv2.StarGANv2` combines them and cites paper and code.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.images import in_float32

FIRST_AREA = 2**14
"""Channels of the first layer times the side of the training images."""


class ResidualBlock(nn.Module):
    """Pre-activation residual block, (shortcut + residual) / √2, with average pooling if `down`."""

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
    """Adaptive instance norm: (1 + γ) · (x - mean) / std + β, with γ and β linear functions of the style."""

    def __init__(self, style_dim: int, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(style_dim, 2 * channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        gamma, beta = self.fc(style)[:, :, None, None].chunk(2, dim=1)
        return (1 + gamma) * F.instance_norm(x, eps=1e-5) + beta


class StyledBlock(nn.Module):
    """Residual block with AdaIN, with nearest-neighbour upsampling if `up`.

    bare: without the shortcut, as in the networks with `w_hpf` > 0.
    """

    def __init__(self, inputs: int, outputs: int, style_dim: int, *, bare: bool, up: bool = False) -> None:
        super().__init__()
        self.bare, self.up = bare, up
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.norm1, self.norm2 = AdaIN(style_dim, inputs), AdaIN(style_dim, outputs)
        self.conv1x1 = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        residual = self.conv1(self._upsampled(F.leaky_relu(self.norm1(x, style), 0.2)))
        residual = self.conv2(F.leaky_relu(self.norm2(residual, style), 0.2))
        return residual if self.bare else (self.conv1x1(self._upsampled(x)) + residual) / math.sqrt(2)

    def _upsampled(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="nearest") if self.up else x


class HighPass(nn.Module):
    """High-pass filter of every channel: (8 · pixel - its eight neighbours) / w_hpf."""

    def __init__(self, w_hpf: float) -> None:
        super().__init__()
        kernel = torch.full((3, 3), -1.0)
        kernel[1, 1] = 8.0
        self.register_buffer("filter", kernel / w_hpf)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(x, self.filter.to(x.dtype).expand(channels, 1, 3, 3), padding=1, groups=channels)


class StarGANv2Generator(nn.Module):
    """G(x, s): translates image x to style s. With masks, high-pass filtered features of x are added where the masks are 1.

    Args:
        img_size: side of the training images, which determines widths and depth. Images of other sizes are accepted.
        style_dim: dimension of a style code.
        max_conv_dim: maximum number of channels.
        w_hpf: the high-pass features are weighted with 1 / w_hpf; 0: none (AFHQ).
    """

    def __init__(self, *, img_size: int = 256, style_dim: int = 64, max_conv_dim: int = 512, w_hpf: float = 1) -> None:
        super().__init__()
        bare = w_hpf > 0
        halvings = int(math.log2(img_size)) - 4 + bare
        width = FIRST_AREA // img_size
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
        """Images (B, 3, H, W) in [-1, 1], styles (B, style_dim) -> (B, 3, H, W), not clamped.

        masks: (B, 1, h, w) each, for the features of height 32, and for those of height 64 and 128.
        """
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
    """F: latent codes z ~ N(0, I) to style codes, one head per domain: (B, latent_dim), domains (B,) -> (B, style_dim)."""

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


def make_trunk(img_size: int, max_conv_dim: int) -> tuple[list[nn.Module], int]:
    """Layers shared by style encoder and discriminator, (B, 3, img_size, img_size) -> (B, width, 1, 1), and their output width."""
    width = FIRST_AREA // img_size
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1)]
    for _ in range(int(math.log2(img_size)) - 2):
        wider = min(2 * width, max_conv_dim)
        layers.append(ResidualBlock(width, wider, down=True))
        width = wider
    return [*layers, nn.LeakyReLU(0.2), nn.Conv2d(width, width, 4), nn.LeakyReLU(0.2)], width


def _of_domains(heads: nn.ModuleList, features: Tensor, domains: Tensor) -> Tensor:
    """Features (B, C) through the head of each image's domain: (B, style_dim)."""
    everything = torch.stack([head(features) for head in heads], dim=1)  # (B, domains, style_dim)
    return everything[torch.arange(len(domains), device=features.device), domains.to(features.device)]


class StyleEncoder(nn.Module):
    """E: reference images to style codes, one head per domain: (B, 3, img_size, img_size), domains (B,) -> (B, style_dim)."""

    def __init__(self, *, img_size: int = 256, style_dim: int = 64, num_domains: int = 2, max_conv_dim: int = 512) -> None:
        super().__init__()
        self.img_size = img_size
        layers, width = make_trunk(img_size, max_conv_dim)
        self.shared = nn.Sequential(*layers)
        self.unshared = nn.ModuleList([nn.Linear(width, style_dim) for _ in range(num_domains)])

    def forward(self, images: Tensor, domains: Tensor) -> Tensor:
        _check_square(images, self.img_size)
        return _of_domains(self.unshared, self.shared(images).flatten(1), domains)


class StarGANv2Discriminator(nn.Module):
    """D: realness within a domain, (B, 3, img_size, img_size), domains (B,) -> logits (B,)."""

    def __init__(self, *, img_size: int = 256, num_domains: int = 2, max_conv_dim: int = 512) -> None:
        super().__init__()
        self.img_size = img_size
        self.config = {"img_size": img_size, "num_domains": num_domains, "max_conv_dim": max_conv_dim}
        layers, width = make_trunk(img_size, max_conv_dim)
        self.main = nn.Sequential(*layers, nn.Conv2d(width, num_domains, 1))

    def forward(self, images: Tensor, domains: Tensor) -> Tensor:
        _check_square(images, self.img_size)
        logits = self.main(images).flatten(1)
        return logits[torch.arange(len(domains), device=logits.device), domains.to(logits.device)]


def _check_square(images: Tensor, size: int) -> None:
    if images.ndim != 4 or images.shape[1:] != (3, size, size):
        raise ValueError(f"expected images (B, 3, {size}, {size}), got {tuple(images.shape)}")

"""GDWCT: image-to-image translation via group-wise deep whitening-and-coloring transformation (Cho et al., CVPR 2019).

Official code: https://github.com/WonwoongCho/GDWCT (no licence stated for code or weights: all rights reserved). Written from the paper
and a description, with the authors' state-dict keys: the checkpoints ``G_A_<name>_<iteration>.pth`` and ``G_B_…`` (Google Drive, linked from the
repository), bare state dicts, load directly. An image is translated from A to B by G_A's content encoder and G_B's decoder.

Note:
    In the authors' code the content is centred over the whole batch, so a result depends on the other images of the batch.
    `GDWCTGenerator.decode` can do both; `manipulate` centres every image by itself, which equals the authors' code for batches of one.
    Whitening is learned through a loss on the covariances; the forward pass only centres and colours.
    In evaluation mode the content encoder's instance norms use the checkpoint's running averages, as in the authors' test script.
"""

from __future__ import annotations

import re
import warnings
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from generators.content_style import (
    LEAST_REFERENCE,
    ConvBlock,
    LastBlock,
    Make,
    check_direction,
    linear_blocks,
    style_codes,
)
from generators.images import check_input
from generators.loading import agree
from malp_disc.serialization.state_dicts import load_parts, load_state, load_tensors

_DOMAIN = ("c_encoder.main.0.conv.weight", "decoder.main.4.conv.weight")  # keys by which one domain's checkpoint is recognized


class Main(nn.Module):
    """Sequential under the name `main`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.main = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)


class ResidualBlock(Main):
    """x + conv-(norm)-relu-conv-(norm)(x)."""

    def __init__(self, channels: int, norm: Make | None = None) -> None:
        super().__init__(ConvBlock(channels, channels, 3, norm=norm), ConvBlock(channels, channels, 3, norm=norm, activation=nn.Identity))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x)


class Coloring(nn.Module):
    """Group-wise deep whitening-and-coloring transformation, in G groups of n = C / G channels.

    Args:
        channels: C.
        groups: G.
        mlp_dim, bias_dim: hidden widths of the MLPs that predict coloring matrices and mean from the style.
    """

    def __init__(self, channels: int, groups: int, mlp_dim: int, bias_dim: int) -> None:
        super().__init__()
        self.groups, self.size = groups, channels // groups
        slope = partial(nn.LeakyReLU, 0.01)
        self.alpha = nn.Parameter(torch.tensor([0.5]))
        self.mlp_CT = Main(*linear_blocks(self.size, *[mlp_dim] * 4, self.size**2, activation=slope))
        self.mlp_mu = Main(*linear_blocks(channels, bias_dim, bias_dim, channels, activation=slope))

    def forward(self, content: Tensor, style: Tensor, per_image: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """α · (X (c - mean c) + μ) + (1 - α) · c with block-diagonal X = U D Uᵀ, and α clamped to [0, 1].

        Shape:
            content (B, C, h, w), style (B, C, 1, 1) -> (B, C, h, w), and, for the training losses, the covariance of every group of the centred content
            (G, n, n), and the unit columns U of every group's coloring matrix (G · B, n, n), group by group.
        """
        batch, channels, height, width = content.shape
        centred = content - content.mean(dim=(2, 3) if per_image else (0, 2, 3), keepdim=True)
        matrices = self.mlp_CT(style.reshape(batch * self.groups, self.size)).view(batch, self.groups, self.size, self.size)
        bases = matrices / matrices.norm(dim=-2, keepdim=True)
        coloring = matrices @ bases.transpose(-1, -2)  # S = U D, so S Uᵀ = U D Uᵀ: (B, G, n, n)
        colored = (coloring @ centred.reshape(batch, self.groups, self.size, -1)).view(content.shape)
        colored = colored + self.mlp_mu(style.flatten(1))[:, :, None, None]
        grouped = centred.transpose(0, 1).reshape(self.groups, self.size, -1)  # (G, n, B·h·w)
        covariances = grouped @ grouped.transpose(1, 2) / (batch * height * width - 1)
        covariances = covariances + 1e-5 * torch.eye(self.size, device=content.device, dtype=covariances.dtype)
        return (
            torch.lerp(content, colored.to(content.dtype), self.alpha.clamp(0, 1).to(content.dtype)),
            covariances,
            bases.transpose(0, 1).flatten(0, 1),
        )


class Decoder(nn.Module):
    def __init__(self, *, channels: int, blocks: int, groups: int, mlp_dim: int, bias_dim: int) -> None:
        super().__init__()
        self.gdwct_modules = nn.ModuleList([Coloring(channels, groups, mlp_dim, bias_dim) for _ in range(blocks + 1)])
        self.resblocks = nn.ModuleList([ResidualBlock(channels) for _ in range(blocks)])
        norm = partial(nn.GroupNorm, 1)
        half, quarter = channels // 2, channels // 4
        self.main = nn.Sequential(
            nn.Upsample(scale_factor=2),
            ConvBlock(channels, half, 5, norm=norm),
            nn.Upsample(scale_factor=2),
            ConvBlock(half, quarter, 5, norm=norm),
            LastBlock(quarter, 3, 7),
        )

    def forward(self, content: Tensor, style: Tensor, per_image: bool = False) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        x, covariances, bases = self.gdwct_modules[0](content, style, per_image)
        lists = ([covariances], [bases])
        for block, coloring in zip(self.resblocks, self.gdwct_modules[1:]):
            x, covariances, bases = coloring(block(x), style, per_image)
            lists[0].append(covariances), lists[1].append(bases)
        return self.main(x), *lists


class GDWCTGenerator(nn.Module):
    """Content encoder, style encoder and decoder of one domain.

    Args:
        conv_dim: channels of the first layers.
        repeat_num: residual blocks, half in the content encoder, half in the decoder.
        n_group: groups of channels, G4 or G8 in the names of the checkpoints.
        mlp_dim, bias_dim: see `Coloring`.
    """

    def __init__(self, *, conv_dim: int = 64, repeat_num: int = 8, n_group: int = 4, mlp_dim: int = 256, bias_dim: int = 256) -> None:
        super().__init__()
        wide = 4 * conv_dim
        if wide % n_group:
            raise ValueError(f"expected a number of groups that divides the {wide} channels, got n_group={n_group}")
        running = partial(nn.InstanceNorm2d, affine=True, track_running_stats=True)
        grouped = partial(nn.GroupNorm, n_group)
        blocks = repeat_num // 2
        self.c_encoder = Main(
            ConvBlock(3, conv_dim, 7, norm=running),
            ConvBlock(conv_dim, 2 * conv_dim, 4, 2, norm=running),
            ConvBlock(2 * conv_dim, wide, 4, 2, norm=running),
            *[ResidualBlock(wide, running) for _ in range(blocks)],
        )
        self.s_encoder = Main(
            ConvBlock(3, conv_dim, 7),
            ConvBlock(conv_dim, 2 * conv_dim, 4, 2, norm=grouped),
            ConvBlock(2 * conv_dim, wide, 4, 2, norm=grouped),
            ConvBlock(wide, wide, 4, 2, norm=grouped),
            ConvBlock(wide, wide, 4, 2, norm=grouped),
            nn.AdaptiveAvgPool2d(1),
        )
        self.decoder = Decoder(channels=wide, blocks=blocks, groups=n_group, mlp_dim=mlp_dim, bias_dim=bias_dim)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] -> content (B, 4 conv_dim, H / 4, W / 4), style (B, 4 conv_dim, 1, 1)."""
        return self.c_encoder(images), self.s_encoder(images)

    def decode(self, content: Tensor, style: Tensor, per_image: bool = False) -> Tensor:
        """Image of this domain from content and style; the content is centred over the batch, or per image."""
        return self.decoder(content, style, per_image)[0]


class GDWCT(nn.Module):
    """Translates images to the other domain: content of the input, style of another image.

    Args:
        direction: "a2b" or "b2a".
        generator: further arguments of `GDWCTGenerator`.

    Shape:
        images (B, 3, H, W) in [-1, 1], sides divisible by 4 -> the same.
    """

    target_kind = "none"  # a style can't be made from labels: the commands take its default

    def __init__(self, *, direction: str = "a2b", conv_dim: int = 64, **generator: int) -> None:
        super().__init__()
        source, goal = check_direction(direction)
        self.source, self.goal, self.style_dim = f"G_{source.upper()}", f"G_{goal.upper()}", 4 * conv_dim
        self.config = {"direction": direction, "conv_dim": conv_dim, **generator}
        self.G_A, self.G_B = (GDWCTGenerator(conv_dim=conv_dim, **generator) for _ in range(2))

    def forward(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        check_input(images, "GDWCT", divisor=4, least=LEAST_REFERENCE if target is None else 8)
        source, goal = getattr(self, self.source), getattr(self, self.goal)
        style = style_codes(images if target is None else target, images, self.style_dim, goal.s_encoder)
        return goal.decode(source.c_encoder(images), style[:, :, None, None], per_image=True)

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: images in [-1, 1] -> images in [-1, 1].

        Args:
            target: reference images (B, 3, h, w) of the target domain, as in the authors' test script; or their style codes
                (B, 4 conv_dim) from ``s_encoder``, which follow no known distribution. None: every image is its own reference.
        """
        return self(images, target)


def gdwct(checkpoint: str | Path | None = None, *, partner: str | Path | None = None, **config: int | str) -> GDWCT:
    """GDWCT in one direction; with checkpoints, the widths are inferred from the tensors, and arguments given explicitly must agree.

    Args:
        checkpoint: the authors' ``G_A_….pth`` or ``G_B_….pth``, or one file with both under ``G_A`` and ``G_B``.
        partner: the other domain's checkpoint; by default it is searched beside the first one under the authors' name. `checkpoint` is
            taken for G_A's unless its name contains G_B. Without a partner one network is used for both domains, with a warning.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if checkpoint is None:
        return GDWCT(**config)
    tensors = _both(Path(checkpoint), partner)
    network = GDWCT(**agree(_shape(tensors, "G_A"), config, checkpoint))
    load_state(network, tensors, source=str(checkpoint), optional=("num_batches_tracked",))
    return network


def _both(checkpoint: Path, partner: str | Path | None) -> dict[str, Tensor]:
    """The tensors of both networks, with the prefixes ``G_A.`` and ``G_B.``."""
    try:
        return load_parts(checkpoint, ("G_A", "G_B"), what="a checkpoint of GDWCT")
    except ValueError:  # one domain's file, or no file of GDWCT at all
        tensors = load_tensors(checkpoint, forms=(_DOMAIN,), entries=("state_dict", "G_A", "G_B"))
    own, other = ("G_B", "G_A") if "G_B" in checkpoint.name else ("G_A", "G_B")
    beside = checkpoint.with_name(checkpoint.name.replace(own, other))
    if partner is None and beside != checkpoint and beside.is_file():
        partner = beside
    if partner is not None:
        others = load_tensors(partner, forms=(_DOMAIN,), entries=("state_dict", other))
    else:
        others = tensors
        if "decoder.main.4.conv.weight" in tensors:
            warnings.warn(
                f"{checkpoint} is one domain's network and the other's isn't beside it: it does both sides; give partner=…", stacklevel=3
            )
    return {f"{name}.{key}": value for name, part in ((own, tensors), (other, others)) for key, value in part.items()}


def _shape(tensors: dict[str, Tensor], name: str) -> dict[str, int]:
    """Arguments of `GDWCTGenerator` inferred from the tensors; empty if they are another network's."""
    first = tensors.get(f"{name}.c_encoder.main.0.conv.weight")
    matrices = tensors.get(f"{name}.decoder.gdwct_modules.0.mlp_CT.main.0.fc.weight")
    bias = tensors.get(f"{name}.decoder.gdwct_modules.0.mlp_mu.main.0.fc.weight")
    if first is None or matrices is None or bias is None:
        return {}
    blocks = sum(re.fullmatch(rf"{name}\.decoder\.resblocks\.\d+\.main\.0\.conv\.weight", key) is not None for key in tensors)
    channels = {"conv_dim": first.shape[0], "n_group": 4 * first.shape[0] // matrices.shape[1]}
    return {**channels, "repeat_num": 2 * blocks, "mlp_dim": matrices.shape[0], "bias_dim": bias.shape[0]}

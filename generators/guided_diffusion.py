"""The UNet of guided diffusion: diffusion models beat GANs on image synthesis (Dhariwal and Nichol, NeurIPS 2021), Section 3.

Official code: https://github.com/openai/guided-diffusion (MIT). Written from the paper and the published key lists, with the authors'
state-dict keys. ILVR (https://github.com/jychoi118/ilvr_adm, MIT) and RePaint sample from it: see ``ilvr.py`` and ``repaint.py``.

Note:
    The width of an attention head, the order of queries, keys and values, and the training resolution can't be inferred from a checkpoint:
    `num_head_channels`, `use_new_attention_order` and `image_size` keep the values that were passed. The authors initialize the last convolution
    of every block with zeros, which matters for training from scratch; here a fresh network has PyTorch's default initialization.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.images import in_float32
from generators.loading import agree
from malp_disc.serialization.state_dicts import load_state, load_tensors

FFHQ256: dict[str, Any] = {"num_channels": 128, "num_res_blocks": 1, "attention_resolutions": (16,)}
"""ILVR's networks: FFHQ, CelebA-HQ, AFHQ dogs and others."""
CELEBA256: dict[str, Any] = {"num_channels": 256, "num_res_blocks": 2, "attention_resolutions": (32, 16, 8)}
"""RePaint's networks of CelebA-HQ and Places2, and OpenAI's unconditional one of ImageNet."""
CHANNEL_MULT = {512: (0.5, 1, 1, 2, 2, 4, 4), 256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4), 64: (1, 2, 3, 4)}
GROUPS = 32


class GroupNorm(nn.GroupNorm):
    """In 32 groups, and in the weights' precision under autocast."""

    def __init__(self, channels: int) -> None:
        super().__init__(GROUPS, channels)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class ResBlock(nn.Module):
    """Residual block of two pre-activated convolutions, conditioned on the time step; `resample` "down" or "up" resamples both paths by 2."""

    def __init__(self, channels: int, out_channels: int, times: int, *, scale_shift: bool, dropout: float, resample: str = "") -> None:
        super().__init__()
        self.scale_shift, self.resample = scale_shift, resample
        self.in_layers = nn.Sequential(GroupNorm(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(times, (2 if scale_shift else 1) * out_channels))
        self.out_layers = nn.Sequential(
            GroupNorm(out_channels), nn.SiLU(), nn.Dropout(dropout), nn.Conv2d(out_channels, out_channels, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.in_layers[:-1](x)
        if self.resample:
            h, x = (_doubled(y) if self.resample == "up" else F.avg_pool2d(y, 2) for y in (h, x))
        h, time = self.in_layers[-1](h), self.emb_layers(time)[..., None, None]
        if self.scale_shift:  # adaptive group norm, Section 3.1
            scale, shift = time.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + time)
        return self.skip_connection(x) + h


class AttentionBlock(nn.Module):
    """x + self-attention over all positions. The legacy order of channels is (head, query/key/value), the new one (query/key/value, head)."""

    def __init__(self, channels: int, heads: int, *, new_order: bool) -> None:
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm = GroupNorm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x.flatten(2)))  # (B, 3 C, HW)
        if self.new_order:
            q, k, v = qkv.unflatten(1, (3, self.heads, -1)).unbind(1)
        else:
            q, k, v = qkv.unflatten(1, (self.heads, 3, -1)).unbind(2)
        h = F.scaled_dot_product_attention(*(part.transpose(2, 3) for part in (q, k, v)))  # (B, heads, HW, C / heads)
        return x + self.proj_out(h.transpose(2, 3).flatten(1, 2)).view_as(x)


class Resample(nn.Module):
    """Downsampling or upsampling by 2 with a convolution, for networks without `resblock_updown`."""

    def __init__(self, channels: int, *, up: bool) -> None:
        super().__init__()
        if up:
            self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        else:
            self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.up = up

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(_doubled(x)) if self.up else self.op(x)


class Timed(nn.Sequential):
    """Sequential that passes the time embedding to the layers that take it."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, time) if isinstance(layer, ResBlock) else layer(x)
        return x


class GuidedUNet(nn.Module):
    """Predicts the noise eps in x at time t, and the position of the variance between its two bounds.

    Args:
        image_size: training resolution, to which `attention_resolutions` and the default of `channel_mult` refer.
        num_channels: channels of the first level, a multiple of 32.
        channel_mult: channels of the levels, as multiples; None: the authors' choice for this size.
        attention_resolutions: resolutions (for images of `image_size`) at which blocks have attention.
        num_heads, num_heads_upsample, num_head_channels: the last one takes precedence unless it is -1.
        learn_sigma: three additional output channels for the variance.
        num_classes: number of classes of a class-conditional network, else None.
        use_scale_shift_norm, resblock_updown, dropout, use_new_attention_order: as in the authors' script.

    Shape:
        x (B, 3, H, W), timesteps (B,) in [0, 1000) -> (B, 6, H, W), or 3 channels without `learn_sigma`; sides divisible by 2^(levels - 1).
    """

    def __init__(
        self,
        *,
        image_size: int = 256,
        num_channels: int = 128,
        num_res_blocks: int = 1,
        channel_mult: tuple[float, ...] | None = None,
        attention_resolutions: tuple[int, ...] = (16,),
        num_heads: int = 4,
        num_head_channels: int = 64,
        num_heads_upsample: int = -1,
        learn_sigma: bool = True,
        num_classes: int | None = None,
        use_scale_shift_norm: bool = True,
        resblock_updown: bool = True,
        dropout: float = 0.0,
        use_new_attention_order: bool = False,
    ) -> None:
        super().__init__()
        if channel_mult is None and image_size not in CHANNEL_MULT:
            raise ValueError(
                f"the authors' channel_mult is known for images of {sorted(CHANNEL_MULT)}, got {image_size}; give channel_mult"
            )
        mult = tuple(channel_mult or CHANNEL_MULT[image_size])
        self.num_channels, self.divisor, self.num_classes = num_channels, 2 ** (len(mult) - 1), num_classes
        self.config: dict[str, Any] = {"image_size": image_size, "num_channels": num_channels, "num_res_blocks": num_res_blocks}
        self.config |= {"channel_mult": mult, "attention_resolutions": tuple(attention_resolutions)}
        times = 4 * num_channels
        self.time_embed = nn.Sequential(nn.Linear(num_channels, times), nn.SiLU(), nn.Linear(times, times))
        if num_classes is not None:
            self.label_emb = nn.Embedding(num_classes, times)
        attended = {image_size // resolution for resolution in attention_resolutions}

        def block(channels: int, out_channels: int, resample: str = "") -> ResBlock:
            return ResBlock(channels, out_channels, times, scale_shift=use_scale_shift_norm, dropout=dropout, resample=resample)

        def attention(channels: int, heads: int) -> AttentionBlock:
            heads = heads if num_head_channels == -1 else channels // num_head_channels
            return AttentionBlock(channels, heads, new_order=use_new_attention_order)

        def resample(channels: int, *, up: bool) -> nn.Module:
            return block(channels, channels, "up" if up else "down") if resblock_updown else Resample(channels, up=up)

        widths = [int(m * num_channels) for m in mult]
        channels = widths[0]
        self.input_blocks = nn.ModuleList([Timed(nn.Conv2d(3, channels, 3, padding=1))])
        kept = [channels]  # channels of every input block, which the output blocks take up from the last to the first
        for level, width in enumerate(widths):
            for _ in range(num_res_blocks):
                layers: list[nn.Module] = [block(channels, width)]
                if 2**level in attended:
                    layers.append(attention(width, num_heads))
                self.input_blocks.append(Timed(*layers))
                channels = width
                kept.append(channels)
            if level < len(widths) - 1:
                self.input_blocks.append(Timed(resample(channels, up=False)))
                kept.append(channels)

        self.middle_block = Timed(block(channels, channels), attention(channels, num_heads), block(channels, channels))

        self.output_blocks = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for k in range(num_res_blocks + 1):
                layers = [block(channels + kept.pop(), width)]
                channels = width
                if 2**level in attended:
                    layers.append(attention(channels, num_heads if num_heads_upsample == -1 else num_heads_upsample))
                if level and k == num_res_blocks:
                    layers.append(resample(channels, up=True))
                self.output_blocks.append(Timed(*layers))

        self.out = nn.Sequential(GroupNorm(channels), nn.SiLU(), nn.Conv2d(channels, 6 if learn_sigma else 3, 3, padding=1))

    def forward(self, x: Tensor, timesteps: Tensor, classes: Tensor | None = None) -> Tensor:
        if (classes is None) != (self.num_classes is None):
            raise ValueError("a class-conditional network takes classes (B,), and no other does")
        time = self.time_embed(sinusoids(timesteps, self.num_channels).to(self.time_embed[0].weight.dtype))
        if classes is not None:
            time = time + self.label_emb(classes)
        kept = []
        for block in self.input_blocks:
            x = block(x, time)
            kept.append(x)
        x = self.middle_block(x, time)
        for block in self.output_blocks:
            x = block(torch.cat([x, kept.pop()], dim=1), time)
        return in_float32(self.out, x)


def sinusoids(timesteps: Tensor, width: int) -> Tensor:
    """(B,) -> (B, width): sinusoidal embedding of the time step: cosines, then sines, at wavelengths from 2π to 2π · 10000."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=timesteps.device) / half)
    angles = timesteps.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


Network = TypeVar("Network", bound=GuidedUNet)


def load_unet(cls: type[Network], checkpoint: str | Path, config: Mapping[str, Any]) -> Network:
    """Build a network of class `cls` from a checkpoint; the UNet's arguments are inferred from the tensors, and arguments given explicitly must agree.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    tensors = load_tensors(checkpoint, forms=(("input_blocks.0.0.weight", "out.2.weight"),), entries=("state_dict",))
    asked = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    found = _arguments(tensors, asked.get("image_size", 256))
    if not found:
        raise ValueError(
            f"{checkpoint} is not a checkpoint of {cls.__name__}: expected the keys of a guided-diffusion UNet, found {list(tensors)[:3]}"
        )
    network = cls(**agree(found, asked, checkpoint))
    load_state(network, tensors, source=str(checkpoint))
    return network


def _arguments(tensors: Mapping[str, Tensor], image_size: int) -> dict[str, Any]:
    """Constructor arguments inferred from the tensors; empty for another network's."""
    first, last = tensors.get("input_blocks.0.0.weight"), tensors.get("out.2.weight")
    outputs = {int(key.split(".")[1]) for key in tensors if key.startswith("output_blocks.") and key.split(".")[1].isdecimal()}
    if first is None or last is None or first.ndim != 4 or last.ndim != 4 or not outputs:
        return {}
    # The last output block of each level, but for the finest, ends in what doubles the sides: a second residual block or a convolution.
    doubling = {key.split(".")[1] for key in tensors if key.startswith("output_blocks.") and key.split(".")[2] in "12" and _resamples(key)}
    per_level = (max(outputs) + 1) // (len(doubling) + 1)
    starts = [1 + level * per_level for level in range(len(doubling) + 1)]  # input blocks that begin a level
    widths = [tensors.get(f"input_blocks.{start}.0.out_layers.3.weight") for start in starts]
    time = tensors.get("input_blocks.1.0.emb_layers.1.weight")
    width = tensors["time_embed.0.weight"].shape[1] if "time_embed.0.weight" in tensors else first.shape[0]
    if time is None or any(weight is None for weight in widths):
        return {}
    attended = [2**level for level, start in enumerate(starts) if f"input_blocks.{start}.1.qkv.weight" in tensors]
    return {
        "image_size": image_size,
        "num_channels": width,
        "num_res_blocks": per_level - 1,
        "channel_mult": tuple(weight.shape[0] // width if weight.shape[0] % width == 0 else weight.shape[0] / width for weight in widths),
        "attention_resolutions": tuple(image_size // factor for factor in attended),
        "use_scale_shift_norm": time.shape[0] == 2 * widths[0].shape[0],
        "resblock_updown": len(starts) == 1 or f"input_blocks.{per_level}.0.op.weight" not in tensors,
    }


def _resamples(key: str) -> bool:
    return key.split(".", 3)[3] in ("in_layers.0.weight", "conv.weight")


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")

"""ALAE: adversarial latent autoencoders, in its form with StyleGAN's decoder (Pidhorskyi, Adjeroh, Doretto, CVPR 2020).

Official code: https://github.com/podgorskiy/ALAE (Apache 2.0). Written from the paper and the key list. The parts have the names that they have
in the authors' files, where the averaged copies end in "_s" and the encoder is called the discriminator: it is one together with a small head.

Note:
    The authors train with equalised learning rates and store weights that are already scaled: here they are used as they are.
    The paper's Figure of the encoder gives each block's style by instance norm statistics, mean and deviation; so does the code. In their code
    an image's colours go through the leaky ReLU twice on the way in, which the paper doesn't say; the code was followed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.images import check_input
from generators.loading import agree
from generators.style_layers import Blur, fixed_noise, pixel_norm, spread, stylise
from malp_disc.serialization.state_dicts import load_parts, load_state

PARTS = ("discriminator_s", "generator_s", "mapping_tl_s", "mapping_fl_s", "dlatent_avg")
HEAD_LAYERS = 3


def statistics(x: Tensor) -> Tensor:
    """Mean and deviation of every map: (B, C, H, W) -> (B, 2C)."""
    variance = x.var(dim=(2, 3), correction=0)
    return torch.cat([x.mean(dim=(2, 3)), variance.clamp_min(1e-20).sqrt()], dim=1)  # the root has no slope at 0


class FromRGB(nn.Module):
    """Colours to maps, 1×1."""

    def __init__(self, colours: int, channels: int) -> None:
        super().__init__()
        self.from_rgb = nn.Conv2d(colours, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(F.leaky_relu(self.from_rgb(x), 0.2), 0.2)  # twice, see the note of this file


class ToRGB(nn.Module):
    """Maps to colours, in float32 under autocast as well: in bf16 they would fall on a coarse grid that a detector learns to see."""

    def __init__(self, channels: int, colours: int) -> None:
        super().__init__()
        self.to_rgb = nn.Conv2d(channels, colours, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.to_rgb(x.to(self.to_rgb.weight.dtype))


class EncodeBlock(nn.Module):
    """Halves the maps, and tells what their statistics add to the latent: (B, C, H, W) -> (B, C', H/2, W/2), (B, D)."""

    def __init__(self, inputs: int, outputs: int, size: int, *, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.conv_1 = nn.Conv2d(inputs, inputs, 3, padding=1, bias=False)
        self.bias_1 = nn.Parameter(torch.zeros(1, inputs, 1, 1))
        self.blur = Blur(inputs, "weight")
        self.conv_2 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bias_2 = nn.Parameter(torch.zeros(1, outputs, 1, 1))
        self.style_1, self.style_2 = nn.Linear(2 * inputs, size), nn.Linear(2 * outputs, size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.leaky_relu(self.conv_1(x) + self.bias_1, 0.2)
        style = self.style_1(statistics(x))
        x = self.blur(F.instance_norm(x, eps=1e-5))
        if self.fused:
            x = F.conv2d(x, spread(self.conv_2.weight) / 4, stride=2, padding=1)
        else:
            x = F.avg_pool2d(self.conv_2(x), 2)
        x = F.leaky_relu(x + self.bias_2, 0.2)
        style = style + self.style_2(statistics(x))
        return F.instance_norm(x, eps=1e-5), style


class Encoder(nn.Module):
    """E: images (B, 3, N, N) -> w (B, D), the sum over all blocks."""

    def __init__(self, startf: int, maxf: int, layer_count: int, size: int, colours: int, fused_from: int) -> None:
        super().__init__()
        self.layer_count = layer_count
        widths = [min(startf << i, maxf) for i in range(layer_count + 1)]
        sides = [2 ** (layer_count + 1 - i) for i in range(layer_count)]
        self.from_rgb = nn.ModuleList(FromRGB(colours, width) for width in widths[:-1])
        self.encode_block = nn.ModuleList(
            EncodeBlock(inputs, outputs, size, fused=side >= fused_from) for inputs, outputs, side in zip(widths, widths[1:], sides)
        )

    def forward(self, images: Tensor, lod: int, blend: float = 1.0) -> Tensor:
        first = self.layer_count - lod - 1
        x, w = self.encode_block[first](self.from_rgb[first](images))
        if blend < 1:
            w, x = blend * w, torch.lerp(self.from_rgb[first + 1](F.avg_pool2d(images, 2)), x, blend)
        for block in self.encode_block[first + 1 :]:
            x, style = block(x)
            w = w + style
        return w


class DecodeBlock(nn.Module):
    """Doubles the maps (all but the first block) and gives them two styles."""

    def __init__(self, inputs: int, outputs: int, size: int, *, first: bool, fused: bool) -> None:
        super().__init__()
        self.first, self.fused = first, fused
        if not first:
            self.conv_1 = (nn.ConvTranspose2d if fused else nn.Conv2d)(inputs, outputs, 3, padding=1, bias=False)
        self.blur = Blur(outputs, "weight")
        self.conv_2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        for i in (1, 2):
            self.register_parameter(f"noise_weight_{i}", nn.Parameter(torch.zeros(1, outputs, 1, 1)))
            self.register_parameter(f"bias_{i}", nn.Parameter(torch.zeros(1, outputs, 1, 1)))
        self.style_1, self.style_2 = nn.Linear(size, 2 * outputs), nn.Linear(size, 2 * outputs)

    def forward(self, x: Tensor, styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
        if not self.first:
            if self.fused:
                x = F.conv_transpose2d(x, spread(self.conv_1.weight), stride=2, padding=1)
            else:
                x = self.conv_1(F.interpolate(x, scale_factor=2))
            x = self.blur(x)
        x = self._dress(x + self.noise_weight_1 * noise[0] + self.bias_1, self.style_1(styles[:, 0]))
        return self._dress(self.conv_2(x) + self.noise_weight_2 * noise[1] + self.bias_2, self.style_2(styles[:, 1]))

    @staticmethod
    def _dress(x: Tensor, style: Tensor) -> Tensor:
        scale, shift = style.chunk(2, dim=1)
        return stylise(F.leaky_relu(x, 0.2), scale + 1, shift)


class Decoder(nn.Module):
    """G: styles (B, L, D) -> colours (B, 3, N, N), about [-1, 1] and not clamped."""

    def __init__(self, startf: int, maxf: int, layer_count: int, size: int, colours: int, fused_from: int) -> None:
        super().__init__()
        widths = [min(startf << i, maxf) for i in reversed(range(layer_count))]
        self.const = nn.Parameter(torch.ones(1, widths[0], 4, 4))
        self.decode_block = nn.ModuleList(
            DecodeBlock(widths[max(i - 1, 0)], width, size, first=i == 0, fused=4 * 2**i >= fused_from) for i, width in enumerate(widths)
        )
        self.to_rgb = nn.ModuleList(ToRGB(width, colours) for width in widths)

    def forward(self, styles: Tensor, lod: int, noise: Sequence[Tensor], blend: float = 1.0) -> Tensor:
        before, x = None, self.const.expand(len(styles), -1, -1, -1)
        for i in range(lod + 1):
            before, x = x, self.decode_block[i](x, styles[:, 2 * i : 2 * i + 2], noise[2 * i : 2 * i + 2])
        colours = self.to_rgb[lod](x)
        if blend < 1:
            colours = torch.lerp(F.interpolate(self.to_rgb[lod - 1](before), scale_factor=2), colours, blend)
        return colours


class Head(nn.Module):
    """D after E: how real a latent looks, three linear layers with nothing in between. Of its outputs only the middle one is the logit."""

    def __init__(self, size: int) -> None:
        super().__init__()
        widths = [size] * HEAD_LAYERS + [2 * size]
        self.map_blocks = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in zip(widths, widths[1:]))

    def forward(self, w: Tensor) -> Tensor:
        for block in self.map_blocks:
            w = block(w)
        return w[:, w.shape[1] // 2]


class MappingBlock(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.fc = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.fc(x), 0.2)


class Mapping(nn.Module):
    """F: z -> w, (B, D) -> (B, D)."""

    def __init__(self, size: int, layers: int) -> None:
        super().__init__()
        self.map_blocks = nn.ModuleList(MappingBlock(size) for _ in range(layers))

    def forward(self, z: Tensor) -> Tensor:
        return nn.Sequential(*self.map_blocks)(pixel_norm(z))


class Average(nn.Module):
    """The mean style of each layer."""

    def __init__(self, layers: int, size: int) -> None:
        super().__init__()
        self.register_buffer("buff", torch.zeros(layers, size))


class ALAE(nn.Module):
    """Encodes an image into the latent space of a StyleGAN and draws it again, from the same latent or from a moved one.

    Args:
        layer_count: resolutions from 4 pixels on: 6 for CelebA at 128, 7 for CelebA-HQ and bedrooms at 256, 9 for FFHQ at 1024.
        startf, maxf: channels at the full resolution, doubled with every halving, up to a maximum: 64 and 256, 64 and 512, 16 and 512.
        latent_size: D, size of z and w: 256, 512, 512.
        mapping_layers: of F.
        channels: colours.
        truncation_psi, truncation_cutoff: how strongly, and in how many layers, `generate` draws styles to the mean style.
        fused_from: side from which resampling and convolution are one.
    """

    def __init__(
        self,
        *,
        layer_count: int = 7,
        startf: int = 64,
        maxf: int = 512,
        latent_size: int = 512,
        mapping_layers: int = 8,
        channels: int = 3,
        truncation_psi: float = 0.7,
        truncation_cutoff: int = 8,
        fused_from: int = 128,
    ) -> None:
        super().__init__()
        self.config = {
            "layer_count": layer_count,
            "startf": startf,
            "maxf": maxf,
            "latent_size": latent_size,
            "mapping_layers": mapping_layers,
            "channels": channels,
            "truncation_psi": truncation_psi,
            "truncation_cutoff": truncation_cutoff,
            "fused_from": fused_from,
        }
        self.resolution, self.size, self.layers, self.lod = 2 ** (layer_count + 1), latent_size, 2 * layer_count, layer_count - 1
        self.psi, self.cutoff = truncation_psi, truncation_cutoff
        self.discriminator_s = Encoder(startf, maxf, layer_count, latent_size, channels, fused_from)
        self.generator_s = Decoder(startf, maxf, layer_count, latent_size, channels, fused_from)
        self.mapping_tl_s = Head(latent_size)
        self.mapping_fl_s = Mapping(latent_size, mapping_layers)
        self.dlatent_avg = Average(self.layers, latent_size)

    def encode(self, images: Tensor, lod: int | None = None, blend: float = 1.0) -> Tensor:
        """w of images: (B, 3, N, N) -> (B, D).

        Args:
            lod: number of resolutions in use less 1, for images of 4 · 2^lod pixels; all of them without it.
            blend: below 1 the last resolution is faded in, as in progressive training.
        """
        return self.discriminator_s(images, self.lod if lod is None else lod, blend)

    def decode(self, w: Tensor, lod: int | None = None, blend: float = 1.0, noise: Sequence[Tensor] | None = None) -> Tensor:
        """The image of one style (B, D) or of one per layer (B, L, D): (B, 3, N, N), not clamped.

        Args:
            noise: two per resolution, (1 or B, 1, side, side); without it the same fixed noise in every call.
        """
        lod = self.lod if lod is None else lod
        styles = w[:, None].expand(-1, self.layers, -1) if w.ndim == 2 else w
        if noise is None:
            noise = [fixed_noise(i, 4 << i // 2, 4 << i // 2, styles) for i in range(2 * lod + 2)]
        return self.generator_s(styles, lod, noise, blend)

    def generate(self, z: Tensor, lod: int | None = None, noise: Sequence[Tensor] | None = None) -> Tensor:
        """The image of a code of Z, with truncated styles: (B, D) -> (B, 3, N, N), not clamped."""
        styles, mean = self.mapping_fl_s(z)[:, None].expand(-1, self.layers, -1), self.dlatent_avg.buff
        kept = torch.where(torch.arange(self.layers, device=z.device) < self.cutoff, self.psi, 1.0)[:, None]
        return self.decode(mean + (styles - mean) * kept, lod, noise=noise)

    def forward(self, images: Tensor, shift: Tensor | None = None) -> Tensor:
        """Decoded from w + shift; not clamped."""
        w = self.encode(images)
        if shift is not None:
            w = (w[:, None] if shift.ndim == 3 else w) + shift.to(w.dtype)
        return self.decode(w)

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """The library's common entry: [-1, 1] in, [-1, 1] out, same size. Noise is fixed and nothing is truncated.

        Args:
            images: (B, 3, N, N), N the network's resolution.
            target: what is added to the image's latent, (B, D), or for each layer of its own, (B, L, D): an attribute's direction times how
                far to go, such as the authors' ``principal_directions/direction_*.npy``. None reconstructs the image.

        Raises:
            ValueError: other shapes.
        """
        check_input(images, "ALAE")
        if images.shape[2:] != (self.resolution, self.resolution):
            raise ValueError(
                f"this ALAE takes {self.resolution}x{self.resolution}, got {images.shape[2]}x{images.shape[3]}; resize, or use another checkpoint"
            )
        count, size = len(images), self.size
        if target is not None and target.shape not in ((count, size), (count, self.layers, size)):
            raise ValueError(
                f"expected as the target a shift of the latents, ({count}, {size}), or one per layer, ({count}, {self.layers}, {size}), "
                f"or None; got {tuple(target.shape)}"
            )
        return self(images, target).clamp(-1, 1)


def alae(checkpoint: str | Path | None = None, **config: Any) -> ALAE:
    """An ALAE; with a checkpoint its sizes are read from it, and any that are given must agree.

    Args:
        checkpoint: the authors' ``model_*.pth``, of whose "models" the averaged ones are taken, or one state dict with their names as prefixes.

    Raises:
        FileNotFoundError, ValueError: no such file, an unsafe file, a checkpoint of another network, or of another `config`.
    """
    if checkpoint is None:
        return ALAE(**config)
    tensors = load_parts(checkpoint, PARTS, entries=("models",), what="a checkpoint of ALAE")
    blocks = sum(re.fullmatch(r"discriminator_s\.encode_block\.\d+\.bias_2", key) is not None for key in tensors)
    first, last = (
        tensors.get("discriminator_s.from_rgb.0.from_rgb.weight"),
        tensors.get(f"discriminator_s.encode_block.{blocks - 1}.style_2.weight"),
    )
    if first is None or first.ndim != 4 or last is None or last.ndim != 2:
        raise ValueError(
            f"{checkpoint} is not a checkpoint of ALAE: expected discriminator_s.encode_block.0.bias_1, …, found {list(tensors)[:3]}"
        )
    found = {
        "layer_count": blocks,
        "startf": first.shape[0],
        "channels": first.shape[1],
        "latent_size": last.shape[0],
        "mapping_layers": sum(re.fullmatch(r"mapping_fl_s\.map_blocks\.\d+\.fc\.weight", key) is not None for key in tensors),
    }
    widest = last.shape[1] // 2  # the last block's channels: the maximum, unless none is so wide
    if widest < first.shape[0] << blocks:
        found["maxf"] = widest
    else:
        config.setdefault("maxf", widest)
    network = ALAE(**agree(found, config, checkpoint))
    load_state(network, tensors, source=str(checkpoint), optional=(".blur.weight",))
    return network

"""The networks of ALAE (Pidhorskyi, Adjeroh, Doretto, CVPR 2020): encoder E, decoder G, mapping F and latent discriminator D.

`generators.alae.ALAE` combines them and cites paper and code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.style_layers import Blur, pixel_norm, spread, stylise

HEAD_LAYERS = 3


def instance_statistics(x: Tensor) -> Tensor:
    """Mean and standard deviation of every channel of every image: (B, C, H, W) -> (B, 2C)."""
    variance = x.var(dim=(2, 3), correction=0)
    return torch.cat([x.mean(dim=(2, 3)), variance.clamp_min(1e-20).sqrt()], dim=1)  # the square root has no gradient at 0


class FromRGB(nn.Module):
    """1×1 convolution from RGB to features: (B, 3, H, W) -> (B, C, H, W)."""

    def __init__(self, colours: int, channels: int) -> None:
        super().__init__()
        self.from_rgb = nn.Conv2d(colours, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(F.leaky_relu(self.from_rgb(x), 0.2), 0.2)  # twice, as in the official code (not in the paper)


class ToRGB(nn.Module):
    """1×1 convolution from features to RGB, in float32 also under autocast: rounding to bf16 would leave a pattern that a detector could learn."""

    def __init__(self, channels: int, colours: int) -> None:
        super().__init__()
        self.to_rgb = nn.Conv2d(channels, colours, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.to_rgb(x.to(self.to_rgb.weight.dtype))


class EncodeBlock(nn.Module):
    """Downsamples by 2 and returns the block's contribution to w, a linear function of its instance statistics.

    Shape: (B, C, H, W) -> (B, C', H/2, W/2), (B, D).
    """

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
        style = self.style_1(instance_statistics(x))
        x = self.blur(F.instance_norm(x, eps=1e-5))
        if self.fused:
            x = F.conv2d(x, spread(self.conv_2.weight) / 4, stride=2, padding=1)
        else:
            x = F.avg_pool2d(self.conv_2(x), 2)
        x = F.leaky_relu(x + self.bias_2, 0.2)
        style = style + self.style_2(instance_statistics(x))
        return F.instance_norm(x, eps=1e-5), style


class Encoder(nn.Module):
    """E: images (B, 3, N, N) in [-1, 1] -> w (B, D), the sum of the contributions of all blocks."""

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
    """Block of StyleGAN's synthesis network: upsampling by 2 (except in the first block), then twice noise, bias, leaky ReLU and AdaIN.

    Shape: (B, C, H, W), styles (B, 2, D), two noise maps (1 or B, 1, 2H, 2W) -> (B, C', 2H, 2W).
    """

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
        x = self._modulated(x + self.noise_weight_1 * noise[0] + self.bias_1, self.style_1(styles[:, 0]))
        return self._modulated(self.conv_2(x) + self.noise_weight_2 * noise[1] + self.bias_2, self.style_2(styles[:, 1]))

    @staticmethod
    def _modulated(x: Tensor, style: Tensor) -> Tensor:
        scale, shift = style.chunk(2, dim=1)
        return stylise(F.leaky_relu(x, 0.2), scale + 1, shift)


class Decoder(nn.Module):
    """G: styles (B, L, D), L = 2 per resolution -> images (B, 3, N, N), roughly in [-1, 1], not clamped."""

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
        rgb = self.to_rgb[lod](x)
        if blend < 1:
            rgb = torch.lerp(F.interpolate(self.to_rgb[lod - 1](before), scale_factor=2), rgb, blend)
        return rgb


class Head(nn.Module):
    """D: three linear layers without activations on a latent, (B, D) -> realness logit (B,).

    The last layer has 2D outputs, of which only the middle one is used, as in the official code.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        widths = [size] * HEAD_LAYERS + [2 * size]
        self.map_blocks = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in zip(widths, widths[1:]))

    def forward(self, w: Tensor) -> Tensor:
        for block in self.map_blocks:
            w = block(w)
        return w[:, w.shape[1] // 2]


class MappingBlock(nn.Module):
    """Linear layer and leaky ReLU."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.fc = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.fc(x), 0.2)


class Mapping(nn.Module):
    """F: z ~ N(0, I) -> w, (B, D) -> (B, D)."""

    def __init__(self, size: int, layers: int) -> None:
        super().__init__()
        self.map_blocks = nn.ModuleList(MappingBlock(size) for _ in range(layers))

    def forward(self, z: Tensor) -> Tensor:
        return nn.Sequential(*self.map_blocks)(pixel_norm(z))


class Average(nn.Module):
    """Running mean of w per layer, (L, D), for truncation."""

    def __init__(self, layers: int, size: int) -> None:
        super().__init__()
        self.register_buffer("buff", torch.zeros(layers, size))

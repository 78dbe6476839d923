"""Mapping and synthesis network of StyleGAN (Karras et al., CVPR 2019) with the keys of InterFaceGAN's port.

`generators.stylegan.StyleGANGenerator` combines them and cites paper and code.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.style_layers import Blur, equalised, pixel_norm, spread, stylise


class ScaledBias(nn.Module):
    """The bias of a `ScaledLinear`, which the port stores under ``wscale``."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(size))


class ScaledLinear(nn.Module):
    """Linear layer with equalized learning rate: the weight is stored with unit variance and scaled in the forward pass; `rate` multiplies its
    learning rate."""

    def __init__(self, inputs: int, outputs: int, *, gain: float, rate: float = 1.0) -> None:
        super().__init__()
        self.gain, self.rate = gain, rate
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.wscale = ScaledBias(outputs)
        nn.init.normal_(self.linear.weight, std=1 / rate)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, equalised(self.linear.weight, self.gain) * self.rate, self.wscale.bias * self.rate)


class Mapping(nn.Module):
    """Mapping network f: Z -> W, (B, D) -> (B, D)."""

    def __init__(self, size: int, depth: int = 8) -> None:
        super().__init__()
        self.depth = depth
        for i in range(depth):
            self.add_module(f"dense{i}", ScaledLinear(size, size, gain=math.sqrt(2), rate=0.01))

    def forward(self, z: Tensor) -> Tensor:
        x = pixel_norm(z)
        for i in range(self.depth):
            x = F.leaky_relu(self.get_submodule(f"dense{i}")(x), 0.2)
        return x


class Truncation(nn.Module):
    """Truncation trick: w̄ + ψ (w - w̄) for the first `cut` layers, w for the others. Shape: (B, D) -> (B, L, D)."""

    def __init__(self, size: int, layers: int, psi: float, cut: int) -> None:
        super().__init__()
        self.register_buffer("w_avg", torch.zeros(size))
        self.register_buffer("truncation", torch.where(torch.arange(layers) < cut, psi, 1.0).view(1, layers, 1))

    def forward(self, w: Tensor) -> Tensor:
        return self.w_avg + (w[:, None] - self.w_avg) * self.truncation


class Noise(nn.Module):
    """x + weight · noise, with a noise map that is drawn at construction and stored in the checkpoint."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.register_buffer("noise", torch.randn(1, 1, side, side))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.noise * self.weight[:, None, None]


class StyleModulation(nn.Module):
    """AdaIN, with scale - 1 and shift given by the learned affine transformation A of w."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.dense = ScaledLinear(size, 2 * channels, gain=1.0)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        scale, shift = self.dense(w).chunk(2, dim=1)
        return stylise(x, scale + 1, shift)


class Epilogue(nn.Module):
    """Noise, bias, leaky ReLU and AdaIN after every convolution."""

    def __init__(self, size: int, channels: int, side: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.apply_noise = Noise(channels, side)
        self.style_mod = StyleModulation(size, channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self.style_mod(F.leaky_relu(self.apply_noise(x) + self.bias[:, None, None], 0.2), w)


class FirstLayer(nn.Module):
    """The learned constant input, (B, D) -> (B, C, 4, 4)."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.first_layer = nn.Parameter(torch.ones(1, channels, 4, 4))
        self.epilogue = Epilogue(size, channels, 4)

    def forward(self, w: Tensor) -> Tensor:
        return self.epilogue(self.first_layer.expand(len(w), -1, -1, -1), w)


class Convolution(nn.Module):
    """3×3 convolution."""

    def __init__(self, size: int, inputs: int, outputs: int, side: int) -> None:
        super().__init__()
        self.conv = _unit_conv(inputs, outputs, 3)
        self.epilogue = Epilogue(size, outputs, side)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self.epilogue(F.conv2d(x, equalised(self.conv.weight), padding=1), w)


class UpsamplingConvolution(nn.Module):
    """Upsampling by 2, 3×3 convolution, blur. If `fused`, the first two are one transposed convolution, whose weight is stored as (3, 3, in, out)."""

    def __init__(self, size: int, inputs: int, outputs: int, side: int, *, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        if fused:
            self.weight = nn.Parameter(torch.randn(3, 3, inputs, outputs))
        else:
            self.conv = _unit_conv(inputs, outputs, 3)
        self.blur = Blur(outputs, "kernel")
        self.epilogue = Epilogue(size, outputs, side)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        if self.fused:
            weight = equalised(self.weight.permute(3, 2, 0, 1))  # (out, in, 3, 3)
            x = F.conv_transpose2d(x, spread(weight.transpose(0, 1)), stride=2, padding=1)
        else:
            x = F.conv2d(F.interpolate(x, scale_factor=2), equalised(self.conv.weight), padding=1)
        return self.epilogue(self.blur(x), w)


class Output(nn.Module):
    """1×1 convolution from features to RGB, in float32 also under autocast: rounding to bf16 would leave a pattern that a detector could learn."""

    def __init__(self, channels: int, colours: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(colours))
        self.conv = _unit_conv(channels, colours, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(x.to(self.bias.dtype), equalised(self.conv.weight, 1.0), self.bias)


class Synthesis(nn.Module):
    """Synthesis network g: styles (B, L, D) -> images (B, 3, R, R), roughly in [-1, 1], not clamped."""

    def __init__(self, size: int, widths: list[int], colours: int, fused: Callable[[int], bool]) -> None:
        super().__init__()
        self.lod = nn.Parameter(torch.zeros(()), requires_grad=False)  # level of detail of progressive training; 0 when it is complete
        self.layers = 2 * len(widths)
        for i, width in enumerate(widths):
            before, side = widths[max(i - 1, 0)], 4 * 2**i
            first = UpsamplingConvolution(size, before, width, side, fused=fused(side)) if i else FirstLayer(size, width)
            self.add_module(f"layer{2 * i}", first)
            self.add_module(f"layer{2 * i + 1}", Convolution(size, width, width, side))
            self.add_module(f"output{i}", Output(width, colours))  # all but the last were used in progressive training only

    def forward(self, styles: Tensor) -> Tensor:
        x = self.layer0(styles[:, 0])
        for i in range(1, self.layers):
            x = self.get_submodule(f"layer{i}")(x, styles[:, i])
        return self.get_submodule(f"output{self.layers // 2 - 1}")(x)


def _unit_conv(inputs: int, outputs: int, side: int) -> nn.Conv2d:
    """A convolution whose weight is stored with unit variance and scaled where it is used."""
    conv = nn.Conv2d(inputs, outputs, side, bias=False)
    nn.init.normal_(conv.weight)
    return conv

"""StyleGAN (Karras et al., CVPR 2019) in the widely used port https://github.com/rosinality/style-based-gan-pytorch (MIT), trained on FFHQ.

`generators.stylegan.stylegan` loads its ``stylegan-256px-new.model`` (Google Drive, linked from the repository), of which ``g_running`` is taken. Written
from the paper and the key list, with the port's state-dict keys. NVIDIA's weights and the other port: ``stylegan.py``.

Note:
    It differs from the paper and from the other port: all weights, including those of mapping, styles and noise, are equalized with gain √2; the
    convolutions' biases are added before blur and noise; fused upsampling averages where the original sums; AdaIN is scale · x + shift, without
    adding 1 to the scale; both layers of a resolution share one noise map. The port draws new noise in every call; in `manipulate` the noise is
    fixed, so that results are reproducible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.loading import agree
from generators.style_layers import Blur, check_latents, equalised, fixed_noise, pixel_norm, spread, stylise
from malp_disc.serialization.state_dicts import load_state

STEPS = 9
"""Resolutions 4 to 1024: a checkpoint has the layers of all of them, whatever resolution it was trained at."""


class Equalised(nn.Module):
    """A weight stored with unit variance, and a bias."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight_orig = nn.Parameter(torch.randn(*shape))
        self.bias = nn.Parameter(torch.zeros(shape[0]))


class EqualisedLinear(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = Equalised(outputs, inputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, equalised(self.linear.weight_orig), self.linear.bias)


class EqualisedConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, side: int) -> None:
        super().__init__()
        self.conv = Equalised(outputs, inputs, side, side)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight_orig
        return F.conv2d(x, equalised(weight), self.conv.bias, padding=weight.shape[-1] // 2)


class FusedEnlargement(nn.Module):
    """Upsampling by 2 fused into a convolution; the weight is stored as (in, out, 3, 3)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        weight = equalised(self.weight.transpose(0, 1)).transpose(0, 1)
        return F.conv_transpose2d(x, spread(weight) / 4, self.bias, stride=2, padding=1)


class Constant(nn.Module):
    """The learned constant input, (1, C, 4, 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4))

    def forward(self, count: int) -> Tensor:
        return self.input.expand(count, -1, -1, -1)


class NoiseWeight(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight_orig = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        # The port scales by the number of channels, as if they were this layer's inputs.
        return x + equalised(self.weight_orig) * noise


class Style(nn.Module):
    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.style = EqualisedLinear(size, 2 * channels)
        with torch.no_grad():
            self.style.linear.bias[:channels] = 1

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return stylise(x, *self.style(w).chunk(2, dim=1), eps=1e-5)


class Progression(nn.Module):
    """The two convolutions of one resolution."""

    def __init__(self, size: int, inputs: int, outputs: int, *, first: bool = False, fused: bool = False) -> None:
        super().__init__()
        if first:
            self.conv1: nn.Module = Constant(outputs)
        elif fused:
            self.conv1 = nn.Sequential(FusedEnlargement(inputs, outputs), Blur(outputs, "weight", "weight_flip"))
        else:
            self.conv1 = nn.Sequential(
                nn.Upsample(scale_factor=2), EqualisedConv(inputs, outputs, 3), Blur(outputs, "weight", "weight_flip")
            )
        self.noise1, self.adain1 = NoiseWeight(outputs), Style(size, outputs)
        self.conv2 = EqualisedConv(outputs, outputs, 3)
        self.noise2, self.adain2 = NoiseWeight(outputs), Style(size, outputs)

    def forward(self, x: Tensor | int, styles: Tensor, noise: Tensor) -> Tensor:
        x = self.adain1(F.leaky_relu(self.noise1(self.conv1(x), noise), 0.2), styles[:, 0])
        return self.adain2(F.leaky_relu(self.noise2(self.conv2(x), noise), 0.2), styles[:, 1])


class Synthesis(nn.Module):
    """Synthesis network: styles (B, L, D) -> images (B, 3, R, R), roughly in [-1, 1], not clamped; L = 2 (step + 1), R = 4 · 2^step."""

    def __init__(self, size: int, channels: int, fused_from: int) -> None:
        super().__init__()
        widths = [channels >> max(0, i - 3) for i in range(STEPS)]  # 512 to 32 pixels, then halved
        pairs = list(zip([channels, *widths], widths))
        self.progression = nn.ModuleList(
            Progression(size, inputs, outputs, first=i == 0, fused=4 * 2**i >= fused_from) for i, (inputs, outputs) in enumerate(pairs)
        )
        self.to_rgb = nn.ModuleList(EqualisedConv(width, 3, 1) for width in widths)

    def forward(self, styles: Tensor, noise: Sequence[Tensor], alpha: float = 1.0) -> Tensor:
        step, before, x = styles.shape[1] // 2 - 1, None, len(styles)
        for i in range(step + 1):
            before, x = x, self.progression[i](x, styles[:, 2 * i : 2 * i + 2], noise[i])
        # In float32 also under autocast: rounding to bf16 would leave a pattern that a detector could learn.
        with torch.autocast(x.device.type, enabled=False):
            colours = self.to_rgb[step](x.float())
            if step and alpha < 1:
                colours = torch.lerp(F.interpolate(self.to_rgb[step - 1](before.float()), scale_factor=2), colours, alpha)
        return colours


class StyleBasedGAN(nn.Module):
    """StyleGAN: z -> w (mapping) -> one style per layer -> image (synthesis).

    Args:
        resolution: side of the images, a power of 2 from 8 to 1024. It can't be inferred from a checkpoint; 256, 512 and 1024 were
            published.
        code_dim: D, dimension of z and w.
        n_mlp: layers of the mapping network.
        truncation_psi: ψ of the truncation trick, which `manipulate` applies to codes of Z.
        channels, fused_from: maximum number of channels, and the resolution from which upsampling is fused into the convolution.
    """

    def __init__(
        self,
        *,
        resolution: int = 256,
        code_dim: int = 512,
        n_mlp: int = 8,
        truncation_psi: float = 0.7,
        channels: int = 512,
        fused_from: int = 128,
    ) -> None:
        super().__init__()
        if resolution not in [4 * 2**step for step in range(1, STEPS)]:
            raise ValueError(f"expected a resolution that is a power of 2 from 8 to 1024, got {resolution}")
        if channels < 32:
            raise ValueError(f"the widest layers have 32 times the channels of the last: expected at least 32, got {channels}")
        self.config = {
            "resolution": resolution,
            "code_dim": code_dim,
            "n_mlp": n_mlp,
            "truncation_psi": truncation_psi,
            "channels": channels,
            "fused_from": fused_from,
        }
        self.resolution, self.size, self.layers, self.psi = resolution, code_dim, 2 * int(math.log2(resolution)) - 2, truncation_psi
        self.generator = Synthesis(code_dim, channels, fused_from)
        self.style = nn.Sequential(nn.Identity())  # where the port has its pixel norm
        for _ in range(n_mlp):
            self.style.extend([EqualisedLinear(code_dim, code_dim), nn.LeakyReLU(0.2)])

    def mapping(self, z: Tensor) -> Tensor:
        """f: Z -> W, (B, D) -> (B, D)."""
        return self.style(pixel_norm(z))

    def mean_style(self, z: Tensor | None = None) -> Tensor:
        """Mean of w over the given codes z, or over 1024 fixed ones: (1, D), without a gradient."""
        if z is None:
            like = next(self.parameters())
            z = torch.randn(1024, self.size, generator=torch.Generator().manual_seed(0)).to(like.device, like.dtype)
        with torch.no_grad():
            return self.mapping(z).mean(dim=0, keepdim=True)

    def forward(self, latents: Tensor, noise: Sequence[Tensor] | None = None, *, alpha: float = 1.0) -> Tensor:
        """Codes of Z (B, D), which are mapped but not truncated, or styles (B, L, D) -> (B, 3, R, R), not clamped.

        Args:
            noise: one map per resolution, (1 or B, 1, side, side). None: new noise.
            alpha: below 1, weight of the highest resolution while it is faded in, as in progressive training.
        """
        styles = self.mapping(latents)[:, None].expand(-1, self.layers, -1) if latents.ndim == 2 else latents
        if noise is None:
            noise = [torch.randn(len(styles), 1, 4 * 2**i, 4 * 2**i, device=styles.device) for i in range(self.layers // 2)]
        return self.generator(styles, noise, alpha)

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: the images generated from `target`, in [-1, 1], with fixed noise. The input image isn't used, see ``stylegan.py``.

        Args:
            images: (B, 3, R, R); only batch size and resolution are used.
            target: codes of Z (B, D), which are mapped and truncated, or styles (B, L, D), L = 2 log2(R) - 2. None is refused.

        Raises:
            ValueError: other shapes, or no target.
        """
        check_latents(images, target, resolution=self.resolution, layers=self.layers, size=self.size)
        latents = target.to(images.dtype)
        if latents.ndim == 2:
            latents = torch.lerp(self.mean_style(), self.mapping(latents), self.psi)[:, None].expand(-1, self.layers, -1)
        noise = [fixed_noise(i, 4 * 2**i, 4 * 2**i, images) for i in range(self.layers // 2)]
        return self(latents, noise).clamp(-1, 1)


def style_based_gan(tensors: dict[str, Tensor], source: str | Path, **config: Any) -> StyleBasedGAN:
    """The network of a state dict; its sizes are inferred from the tensors, and arguments given explicitly must agree.

    Raises:
        ValueError: the state dict of another network, or one that contradicts `config`.
    """
    constant, styles = (tensors.get(f"generator.progression.0.{key}") for key in ("conv1.input", "adain1.style.linear.weight_orig"))
    if constant is None or constant.ndim != 4 or styles is None or styles.ndim != 2:
        raise ValueError(
            f"{source} is not a checkpoint of StyleBasedGAN: expected generator.progression.0.conv1.input, …, found {list(tensors)[:3]}"
        )
    found: dict[str, Any] = {
        "channels": constant.shape[1],
        "code_dim": styles.shape[1],
        "n_mlp": sum(key.startswith("style.") and key.endswith(".weight_orig") for key in tensors),
    }
    fused = [4 * 2**i for i in range(STEPS) if f"generator.progression.{i}.conv1.0.weight" in tensors]
    found["fused_from"] = min(fused, default=2048)
    network = StyleBasedGAN(**agree(found, config, source))
    load_state(network, tensors, source=str(source))
    return network

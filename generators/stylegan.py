"""StyleGAN: a style-based generator architecture for generative adversarial networks (Karras et al., CVPR 2019), with the latent edits of
InterFaceGAN: interpreting the latent space of GANs for semantic face editing (Shen et al., CVPR 2020).

Official code: https://github.com/NVlabs/stylegan (TensorFlow; CC BY-NC 4.0, the weights too) and https://github.com/genforce/interfacegan
(MIT), whose PyTorch port turns NVIDIA's pickles into ``stylegan_ffhq.pth`` and ``stylegan_celebahq.pth``. The keys here are that port's.
The other much used port, https://github.com/rosinality/style-based-gan-pytorch, has a file of its own: ``style_based_gan.py``; `stylegan`
makes either. Written from the papers and the key lists.

Note:
    A StyleGAN draws images from latents and has no encoder, so the image that is manipulated has no part in the result: `manipulate`
    takes latents as its target. To edit a photograph, invert it first (with a tool of your choice), move the latents with `edit`, and give
    them as the target.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.loading import agree
from generators.style_based_gan import StyleBasedGAN, style_based_gan
from generators.style_layers import Blur, check_latents, equalised, pixel_norm, spread, stylise
from malp_disc.serialization.state_dicts import load_state, load_tensors


class ScaledBias(nn.Module):
    """Holds the bias of a `ScaledLinear`; the port keeps it one level deeper than the weight."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(size))


class ScaledLinear(nn.Module):
    """A linear layer whose weight is stored at unit variance, and learns `rate` times as fast."""

    def __init__(self, inputs: int, outputs: int, *, gain: float, rate: float = 1.0) -> None:
        super().__init__()
        self.gain, self.rate = gain, rate
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.wscale = ScaledBias(outputs)
        nn.init.normal_(self.linear.weight, std=1 / rate)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, equalised(self.linear.weight, self.gain) * self.rate, self.wscale.bias * self.rate)


class Mapping(nn.Module):
    """f: Z -> W, eight layers: (B, D) -> (B, D)."""

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
    """One style per layer, the first `cut` of them drawn towards the mean style: w̄ + ψ (w - w̄). (B, D) -> (B, L, D)."""

    def __init__(self, size: int, layers: int, psi: float, cut: int) -> None:
        super().__init__()
        self.register_buffer("w_avg", torch.zeros(size))
        self.register_buffer("truncation", torch.where(torch.arange(layers) < cut, psi, 1.0).view(1, layers, 1))

    def forward(self, w: Tensor) -> Tensor:
        return self.w_avg + (w[:, None] - self.w_avg) * self.truncation


class Noise(nn.Module):
    """x + weight · noise. The noise is drawn once and belongs to the network."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.register_buffer("noise", torch.randn(1, 1, side, side))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.noise * self.weight[:, None, None]


class StyleModulation(nn.Module):
    """The style's affine map A: w -> (scale - 1, shift), applied to normed maps."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.dense = ScaledLinear(size, 2 * channels, gain=1.0)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        scale, shift = self.dense(w).chunk(2, dim=1)
        return stylise(x, scale + 1, shift)


class Epilogue(nn.Module):
    """Noise, bias, leaky ReLU, style: what follows every convolution."""

    def __init__(self, size: int, channels: int, side: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.apply_noise = Noise(channels, side)
        self.style_mod = StyleModulation(size, channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self.style_mod(F.leaky_relu(self.apply_noise(x) + self.bias[:, None, None], 0.2), w)


class FirstLayer(nn.Module):
    """The learned constant from which every image starts."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.first_layer = nn.Parameter(torch.ones(1, channels, 4, 4))
        self.epilogue = Epilogue(size, channels, 4)

    def forward(self, w: Tensor) -> Tensor:
        return self.epilogue(self.first_layer.expand(len(w), -1, -1, -1), w)


class Convolution(nn.Module):
    """3×3 convolution at the same size."""

    def __init__(self, size: int, inputs: int, outputs: int, side: int) -> None:
        super().__init__()
        self.conv = _unit_conv(inputs, outputs, 3)
        self.epilogue = Epilogue(size, outputs, side)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self.epilogue(F.conv2d(x, equalised(self.conv.weight), padding=1), w)


class Enlargement(nn.Module):
    """Twice the size, convolution, blur. Where it is `fused` the first two are one transposed convolution, and the weight is (3, 3, in, out)."""

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
    """Maps to colours, in float32 under autocast as well: in bf16 they would fall on a coarse grid that a detector learns to see."""

    def __init__(self, channels: int, colours: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(colours))
        self.conv = _unit_conv(channels, colours, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(x.to(self.bias.dtype), equalised(self.conv.weight, 1.0), self.bias)


class Synthesis(nn.Module):
    """g: styles (B, L, D) -> colours (B, 3, R, R), about [-1, 1] and not clamped."""

    def __init__(self, size: int, widths: list[int], colours: int, fused: Callable[[int], bool]) -> None:
        super().__init__()
        self.lod = nn.Parameter(torch.zeros(()), requires_grad=False)  # how far the progressive training had got: 0 is the end
        self.layers = 2 * len(widths)
        for i, width in enumerate(widths):
            before, side = widths[max(i - 1, 0)], 4 * 2**i
            first = Enlargement(size, before, width, side, fused=fused(side)) if i else FirstLayer(size, width)
            self.add_module(f"layer{2 * i}", first)
            self.add_module(f"layer{2 * i + 1}", Convolution(size, width, width, side))
            self.add_module(f"output{i}", Output(width, colours))  # all but the last served progressive training

    def forward(self, styles: Tensor) -> Tensor:
        x = self.layer0(styles[:, 0])
        for i in range(1, self.layers):
            x = self.get_submodule(f"layer{i}")(x, styles[:, i])
        return self.get_submodule(f"output{self.layers // 2 - 1}")(x)


class StyleGANGenerator(nn.Module):
    """z -> w -> one style per layer -> image.

    Args:
        resolution: side of the images, a power of 2 (1024 published).
        w_space_dim: D, size of z and w.
        fused_scale: "auto" fuses enlargement and convolution from 128 pixels on, as published; or always, or never.
        output_channels: colours.
        truncation_psi, truncation_layers: how strongly, and in how many layers, styles are drawn to the mean style.
        fmaps_base, fmaps_max: a layer of side r has min(fmaps_base / r, fmaps_max) channels, halved before the first.
    """

    def __init__(
        self,
        *,
        resolution: int = 1024,
        w_space_dim: int = 512,
        fused_scale: bool | str = "auto",
        output_channels: int = 3,
        truncation_psi: float = 0.7,
        truncation_layers: int = 8,
        fmaps_base: int = 16384,
        fmaps_max: int = 512,
    ) -> None:
        super().__init__()
        if resolution < 8 or resolution & (resolution - 1):
            raise ValueError(f"expected a resolution that is a power of 2 and at least 8, got {resolution}")
        if fused_scale not in ("auto", True, False):
            raise ValueError(f"expected fused_scale 'auto', True or False, got {fused_scale!r}")
        self.config = {
            "resolution": resolution,
            "w_space_dim": w_space_dim,
            "fused_scale": fused_scale,
            "output_channels": output_channels,
            "truncation_psi": truncation_psi,
            "truncation_layers": truncation_layers,
            "fmaps_base": fmaps_base,
            "fmaps_max": fmaps_max,
        }
        self.resolution, self.size, self.layers = resolution, w_space_dim, 2 * int(math.log2(resolution)) - 2
        widths = [min(fmaps_base // 2**i, fmaps_max) for i in range(2, int(math.log2(resolution)) + 1)]
        self.mapping = Mapping(w_space_dim)
        self.truncation = Truncation(w_space_dim, self.layers, truncation_psi, truncation_layers)
        self.synthesis = Synthesis(w_space_dim, widths, output_channels, lambda side: side >= 128 if fused_scale == "auto" else fused_scale)

    def forward(self, latents: Tensor) -> Tensor:
        """Images of codes (B, D) of Z, mapped and truncated, or of styles (B, L, D) as they are; (B, 3, R, R), not clamped."""
        return self.synthesis(self.truncation(self.mapping(latents)) if latents.ndim == 2 else latents)

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """The library's common entry, [-1, 1] out. The image decides nothing, see the note of this file.

        Args:
            images: (B, 3, R, R); only their number and size count.
            target: latents: (B, D) codes of Z, or (B, L, D) styles, L = 2 log2(R) - 2. There is no default.

        Raises:
            ValueError: other shapes, or no target.
        """
        check_latents(images, target, resolution=self.resolution, layers=self.layers, size=self.size)
        return self(target.to(images.dtype)).clamp(-1, 1)


def edit(codes: Tensor, boundary: Tensor, distance: float | Tensor) -> Tensor:
    """InterFaceGAN's edit: latents moved across the hyperplane that separates faces with an attribute from those without.

    A code of Z or W is moved along the normal n until its distance to the plane is `distance`: code + (distance - code · n) n. Styles per layer
    have no one distance, so they are moved by it: style + distance · n.

    Args:
        codes: (B, D), or styles (B, L, D). Codes of Z are to have the norm √D first: `to_sphere`. Those of W go through ``truncation`` afterwards.
        boundary: the unit normal, (D,) or (1, D): the authors' ``boundaries/stylegan_ffhq_smile_boundary.npy`` and its like, "_w" for W.
        distance: one number, or one per code (B,).

    Raises:
        ValueError: the sizes of codes and boundary differ, or the boundary isn't a unit vector.
    """
    normal = boundary.flatten().to(codes)
    if codes.ndim not in (2, 3) or len(normal) != codes.shape[-1]:
        raise ValueError(f"expected codes (B, {len(normal)}) or (B, L, {len(normal)}), as long as the boundary, got {tuple(codes.shape)}")
    if abs(float(normal.norm()) - 1) > 1e-3:
        raise ValueError(f"expected a boundary of norm 1, got {float(normal.norm()):.4g}; divide it by its norm")
    distances = torch.as_tensor(distance, dtype=codes.dtype, device=codes.device).expand(len(codes))
    if codes.ndim == 3:
        return codes + distances[:, None, None] * normal
    return codes + (distances - codes @ normal)[:, None] * normal


def to_sphere(z: Tensor) -> Tensor:
    """Codes of Z at the norm √D that nearly all drawn ones have: (B, D) -> (B, D)."""
    return F.normalize(z, dim=1) * math.sqrt(z.shape[1])


def stylegan(checkpoint: str | Path | None = None, *, port: str | None = None, **config: Any) -> StyleGANGenerator | StyleBasedGAN:
    """A StyleGAN v1; with a checkpoint its port and its sizes are read from it, and any that are given must agree.

    Args:
        checkpoint: InterFaceGAN's ``stylegan_ffhq.pth`` (a bare state dict, with or without ``truncation.truncation``) or rosinality's
            ``stylegan-256px-new.model``, of which ``g_running`` is taken.
        port: "interfacegan" or "rosinality"; without a checkpoint the first is meant.
        config: of `StyleGANGenerator` or of `StyleBasedGAN`.

    Raises:
        FileNotFoundError, ValueError: no such file, an unsafe file, a checkpoint of another network, or of another `config`.
    """
    if port not in (None, "interfacegan", "rosinality"):
        raise ValueError(f"unknown port {port!r}; choose 'interfacegan' or 'rosinality'")
    if checkpoint is None:
        return StyleBasedGAN(**config) if port == "rosinality" else StyleGANGenerator(**config)
    tensors = load_tensors(checkpoint, forms=(("generator.progression.0.conv1.input",), ("synthesis.layer0.first_layer",)), entries=("g_running", "generator", "state_dict"))
    starts = {"rosinality": "generator.progression.", "interfacegan": "synthesis."}
    found = next((name for name, start in starts.items() if any(key.startswith(start) for key in tensors)), port)
    agree({"port": found}, {"port": port or found}, checkpoint)
    if found == "rosinality":
        return style_based_gan(tensors, checkpoint, **config)
    return _from_interfacegan(tensors, checkpoint, **config)


def _from_interfacegan(tensors: dict[str, Tensor], source: str | Path, **config: Any) -> StyleGANGenerator:
    first, last = tensors.get("synthesis.layer0.first_layer"), "synthesis.layer{}.epilogue.bias"
    layers = sum(re.fullmatch(r"synthesis\.layer\d+\.epilogue\.bias", key) is not None for key in tensors)
    size = tensors.get("truncation.w_avg")
    if first is None or first.ndim != 4 or layers < 4 or size is None or size.ndim != 1 or last.format(layers - 1) not in tensors:
        raise ValueError(
            f"{source} is not a checkpoint of StyleGANGenerator: expected synthesis.layer0.first_layer, truncation.w_avg, … "
            f"(or generator.progression.0.conv1.input, … of rosinality's port), found {list(tensors)[:3]}"
        )
    resolution = 2 ** (layers // 2 + 1)
    narrow, fused = (
        len(tensors[last.format(layers - 1)]),
        {4 * 2**i for i in range(1, layers // 2) if f"synthesis.layer{2 * i}.weight" in tensors},
    )
    found: dict[str, Any] = {"resolution": resolution, "w_space_dim": len(size), "fmaps_max": first.shape[1]}
    if narrow < first.shape[1]:
        found["fmaps_base"] = narrow * resolution
    else:
        config.setdefault("fmaps_base", max(16384, narrow * resolution))
    if all((side in fused) == (side >= 128) for side in (8 * 2**i for i in range(layers // 2 - 1))):
        config.setdefault("fused_scale", "auto")
    else:
        found["fused_scale"] = bool(fused)
    output = tensors.get(f"synthesis.output{layers // 2 - 1}.bias")
    found["output_channels"] = 3 if output is None else len(output)
    network = StyleGANGenerator(**agree(found, config, source))
    if "synthesis.lod" in tensors and tensors["synthesis.lod"].abs().max() > 0:
        raise ValueError(
            f"{source} comes from the middle of progressive training: its synthesis.lod is {float(tensors['synthesis.lod'].max()):g}, not 0"
        )
    load_state(network, tensors, source=str(source), optional=("truncation.truncation",))
    return network


def _unit_conv(inputs: int, outputs: int, side: int) -> nn.Conv2d:
    """Carries a weight of unit variance; it's scaled where it is used."""
    conv = nn.Conv2d(inputs, outputs, side, bias=False)
    nn.init.normal_(conv.weight)
    return conv

"""Layers shared by the content-and-style generators UNIT, MUNIT, Council-GAN and GDWCT, and their style targets.

The layers are those of MUNIT: multimodal unsupervised image-to-image translation (Huang et al., ECCV 2018), with the state-dict
keys that the later networks kept: a block has `conv` and, if it has weights, `norm`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.images import in_float32

Make = Callable[..., nn.Module]
PADDINGS: dict[str, Make] = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d, "zero": nn.ZeroPad2d}
ACTIVATIONS: dict[str, Make] = {
    "relu": nn.ReLU,
    "lrelu": lambda: nn.LeakyReLU(0.2),
    "prelu": nn.PReLU,
    "selu": nn.SELU,
    "tanh": nn.Tanh,
    "none": nn.Identity,
}
LEAST_REFERENCE = 16  # the style encoders downsample four times


def chosen(table: Mapping[str, Make], name: str) -> Make:
    """The entry of `PADDINGS` or `ACTIVATIONS` that a configuration names. Raises ValueError for an unknown name."""
    if name not in table:
        raise ValueError(f"unknown layer {name!r}; choose from {list(table)}")
    return table[name]


# --- layers ------------------------------------------------------------------------------------------------------------------------


class AdaIN(nn.Module):
    """Adaptive instance norm: weight · (x - mean) / std + bias, with weight and bias predicted from the style. The buffers exist in the checkpoints and are unused."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, parameters: Tensor) -> Tensor:
        bias, weight = parameters[:, :, None, None].chunk(2, dim=1)  # (B, 2C): the biases come first
        return F.instance_norm(x, eps=1e-5) * weight + bias


class ImageLayerNorm(nn.Module):
    """MUNIT's layer norm over all channels and pixels of an image: with the unbiased standard deviation, to which eps is added (not to the variance)."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        std, mean = torch.std_mean(x, dim=(1, 2, 3), keepdim=True)
        return (x - mean) / (std + self.eps) * self.gamma[:, None, None] + self.beta[:, None, None]


class ConvBlock(nn.Module):
    """Padding, convolution, norm, activation. A block with `AdaIN` takes its parameters from `styles`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        norm: Make | None = None,
        activation: Make = nn.ReLU,
        pad_type: str = "reflect",
    ) -> None:
        super().__init__()
        self.pad = chosen(PADDINGS, pad_type)((kernel - 1) // 2)
        self.norm = norm(outputs) if norm else None
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride)
        self.activation = activation()

    def forward(self, x: Tensor, styles: Iterator[Tensor] | None = None) -> Tensor:
        x = self.conv(self.pad(x))
        if self.norm is not None:
            x = self.norm(x, next(styles)) if isinstance(self.norm, AdaIN) else self.norm(x)
        return self.activation(x)


class LastBlock(ConvBlock):
    """The output block: no norm, tanh, in float32 also under autocast."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, pad_type: str = "reflect") -> None:
        super().__init__(inputs, outputs, kernel, activation=nn.Tanh, pad_type=pad_type)

    def forward(self, x: Tensor, styles: Iterator[Tensor] | None = None) -> Tensor:
        return self.activation(in_float32(self.conv, self.pad(x)))


class StyledSequential(nn.Sequential):
    """Sequential that passes on the iterator `styles`, from which every `AdaIN` takes its parameters."""

    def forward(self, x: Tensor, styles: Iterator[Tensor] | None = None) -> Tensor:
        for layer in self:
            x = layer(x) if isinstance(layer, nn.Upsample) else layer(x, styles)
        return x


class ResidualBlock(nn.Module):
    """x + conv-norm-relu-conv-norm(x)."""

    def __init__(self, channels: int, **block) -> None:
        super().__init__()
        last = {**block, "activation": nn.Identity}
        self.model = StyledSequential(ConvBlock(channels, channels, 3, **block), ConvBlock(channels, channels, 3, **last))

    def forward(self, x: Tensor, styles: Iterator[Tensor] | None = None) -> Tensor:
        return x + self.model(x, styles)


class ResidualBlocks(nn.Module):
    def __init__(self, count: int, channels: int, **block) -> None:
        super().__init__()
        self.model = StyledSequential(*[ResidualBlock(channels, **block) for _ in range(count)])

    def forward(self, x: Tensor, styles: Iterator[Tensor] | None = None) -> Tensor:
        return self.model(x, styles)


class LinearBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, activation: Make) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, outputs)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.fc(x))


def linear_blocks(*widths: int, activation: Make = nn.ReLU) -> nn.Sequential:
    """Fully connected layers with the given widths, and an activation between them."""
    last = len(widths) - 2
    return nn.Sequential(*[LinearBlock(*pair, nn.Identity if i == last else activation) for i, pair in enumerate(zip(widths, widths[1:]))])


# --- MUNIT's networks --------------------------------------------------------------------------------------------------------------


class ContentEncoder(nn.Module):
    """Content code: (B, input_dim, H, W) -> (B, dim · 2^n, H / 2^n, W / 2^n) with n downsampling layers."""

    def __init__(self, *, input_dim: int, dim: int, n_downsample: int, n_res: int, activation: Make, pad_type: str) -> None:
        super().__init__()
        block = {"norm": nn.InstanceNorm2d, "activation": activation, "pad_type": pad_type}
        layers: list[nn.Module] = [ConvBlock(input_dim, dim, 7, **block)]
        for _ in range(n_downsample):
            layers.append(ConvBlock(dim, 2 * dim, 4, 2, **block))
            dim *= 2
        self.model = nn.Sequential(*layers, ResidualBlocks(n_res, dim, **block))
        self.output_dim = dim

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


class StyleEncoder(nn.Module):
    """Style code, without norms, which would remove the style: (B, input_dim, H, W) -> (B, style_dim, 1, 1)."""

    def __init__(self, *, input_dim: int, dim: int, style_dim: int, activation: Make, pad_type: str) -> None:
        super().__init__()
        block = {"activation": activation, "pad_type": pad_type}
        self.model = nn.Sequential(
            ConvBlock(input_dim, dim, 7, **block),
            ConvBlock(dim, 2 * dim, 4, 2, **block),
            ConvBlock(2 * dim, 4 * dim, 4, 2, **block),
            ConvBlock(4 * dim, 4 * dim, 4, 2, **block),
            ConvBlock(4 * dim, 4 * dim, 4, 2, **block),
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(4 * dim, style_dim, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


class Decoder(nn.Module):
    """Content code to image: (B, dim, h, w) -> (B, output_dim, h · 2^n, w · 2^n) in [-1, 1]."""

    def __init__(self, *, dim: int, n_upsample: int, n_res: int, output_dim: int, norm: Make, activation: Make, pad_type: str) -> None:
        super().__init__()
        layers: list[nn.Module] = [ResidualBlocks(n_res, dim, norm=norm, activation=activation, pad_type=pad_type)]
        for _ in range(n_upsample):
            layers += [
                nn.Upsample(scale_factor=2),
                ConvBlock(dim, dim // 2, 5, norm=ImageLayerNorm, activation=activation, pad_type=pad_type),
            ]
            dim //= 2
        self.model = StyledSequential(*layers, LastBlock(dim, output_dim, 7, pad_type=pad_type))

    def forward(self, content: Tensor, styles: Iterator[Tensor] | None = None) -> Tensor:
        return self.model(content, styles)


class StyleMLP(nn.Module):
    """Style code to the parameters of all `AdaIN` layers of a decoder: (B, style_dim, …) -> (B, Σ 2C)."""

    def __init__(self, style_dim: int, mlp_dim: int, decoder: nn.Module, activation: Make) -> None:
        super().__init__()
        self.widths = [2 * module.channels for module in decoder.modules() if isinstance(module, AdaIN)]
        self.model = linear_blocks(style_dim, mlp_dim, mlp_dim, sum(self.widths), activation=activation)

    def forward(self, style: Tensor) -> Iterator[Tensor]:
        return iter(self.model(style.flatten(1)).split(self.widths, dim=1))


def content_shape(tensors: Mapping[str, Tensor], encoder: str) -> dict[str, int]:
    """Arguments of `ContentEncoder` inferred from the tensors under ``encoder.model``; empty if they are another network's."""
    first = tensors.get(f"{encoder}.model.0.conv.weight")
    if first is None or first.ndim != 4:
        return {}

    def count(pattern: str) -> int:
        return sum(re.fullmatch(re.escape(encoder) + pattern, key) is not None for key in tensors)

    return {
        "input_dim": first.shape[1],
        "dim": first.shape[0],
        "n_downsample": count(r"\.model\.\d+\.conv\.weight") - 1,
        "n_res": count(r"\.model\.\d+\.model\.\d+\.model\.0\.conv\.weight"),
    }


def style_shape(tensors: Mapping[str, Tensor], mlp: str) -> dict[str, int]:
    """`style_dim` and `mlp_dim` inferred from the tensors under ``mlp.model``; empty if they are another network's."""
    first = tensors.get(f"{mlp}.model.0.fc.weight")
    return {} if first is None or first.ndim != 2 else {"style_dim": first.shape[1], "mlp_dim": first.shape[0]}


# --- the common interface ----------------------------------------------------------------------------------------------------------


def check_direction(direction: str) -> tuple[str, str]:
    """Source and target domain: "a2b" -> ("a", "b")."""
    if direction not in ("a2b", "b2a"):
        raise ValueError(f"expected direction 'a2b' or 'b2a', got {direction!r}")
    return direction[0], direction[2]


def style_codes(target: Tensor | None, images: Tensor, style_dim: int, read: Callable[[Tensor], Tensor]) -> Tensor:
    """Style codes (B, style_dim) for the target of `manipulate`.

    Args:
        target: codes (B, style_dim) or (B, style_dim, 1, 1); reference images (B, 3, h, w) in [-1, 1], which `read` encodes; or
            None: one code from N(0, I) with a fixed seed, for all images.

    Raises:
        ValueError: for other shapes.
    """
    if target is None:
        return torch.randn(1, style_dim, generator=torch.Generator().manual_seed(0)).to(images).expand(len(images), -1)
    if target.ndim == 4 and target.shape[:2] == (len(images), 3) and min(target.shape[2:]) >= LEAST_REFERENCE:
        return read(target).flatten(1)
    if target.shape in ((len(images), style_dim), (len(images), style_dim, 1, 1)):
        return target.flatten(1).to(images)
    raise ValueError(
        f"expected as target style codes ({len(images)}, {style_dim}), reference images ({len(images)}, 3, h, w) with sides of at least "
        f"{LEAST_REFERENCE}, or None, got {tuple(target.shape)}"
    )

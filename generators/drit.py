"""DRIT and DRIT++: diverse image-to-image translation via disentangled representations (Lee et al., ECCV 2018; IJCV 2020).

Official code: https://github.com/HsinYingLee/DRIT (no licence stated for code or weights: all rights reserved). Written from the papers
and a description, with the authors' state-dict keys: ``example.pth`` and other training checkpoints load directly (``enc_c``, ``enc_a`` and ``gen``
of their entries).

Both of the authors' variants are implemented: `concat=True` (their default) concatenates the attribute code with the features at every scale;
`concat=False` combines it with every pixel's features by small networks, which suits translations that change shapes.

Note:
    In training mode noise from N(0, 1) is added to the content, as the authors do; in evaluation there is none.
    As in their code, the content encoder's leaky ReLU has slope 0.01, all others 0.2, and the first layers have no norm.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.content_style import check_direction, style_codes
from generators.images import check_input, from_rgb, in_float32, to_rgb
from generators.loading import agree
from malp_disc.serialization.state_dicts import load_parts, load_state


def padded_conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """Reflection padding and convolution, two layers of a Sequential."""
    return [nn.ReflectionPad2d((kernel - 1) // 2), nn.Conv2d(inputs, outputs, kernel, stride)]


class Row(nn.Module):
    """Sequential under the name `model`, as in most of the authors' blocks."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class ResidualBlock(Row):
    """x + conv-norm-relu-conv-norm(x)."""

    def __init__(self, channels: int) -> None:
        first, second = padded_conv(channels, channels, 3), padded_conv(channels, channels, 3)
        super().__init__(*first, nn.InstanceNorm2d(channels), nn.ReLU(), *second, nn.InstanceNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.model(x)


class LayerNorm(nn.Module):
    """Layer norm over channels and pixels, with a weight and bias per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[1:], eps=1e-5) * self.weight + self.bias


def upscaling(inputs: int, outputs: int) -> Row:
    """Upsampling by 2: transposed convolution, layer norm, ReLU."""
    return Row(nn.ConvTranspose2d(inputs, outputs, 3, 2, padding=1, output_padding=1), LayerNorm(outputs), nn.ReLU())


class Noise(nn.Module):
    """Adds N(0, 1) in training."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) if self.training else x


def joined(x: Tensor, code: Tensor) -> Tensor:
    """Concatenate a code with the features of every pixel: (B, C, h, w), (B, Z) -> (B, C + Z, h, w)."""
    return torch.cat([x, code.to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[2:])], dim=1)


class DomainNetwork(nn.Module):
    """A network with separate layers for the domains "A" and "B", whose names contain that letter."""

    def of(self, name: str, domain: str) -> nn.Module:
        """``of("dec{}1", "A")`` is ``self.decA1``."""
        return getattr(self, name.format(domain))


class ContentEncoder(DomainNetwork):
    """Images of either domain to content codes of a shared space: (B, 3, H, W) -> (B, 4 dim, H / 4, W / 4)."""

    def __init__(self, input_dim_a: int, input_dim_b: int, dim: int) -> None:
        super().__init__()
        for domain, channels in (("A", input_dim_a), ("B", input_dim_b)):
            layers: list[nn.Module] = [Row(*padded_conv(channels, dim, 7), nn.LeakyReLU(0.01))]
            for width in (dim, 2 * dim):
                layers.append(Row(*padded_conv(width, 2 * width, 3, 2), nn.InstanceNorm2d(2 * width), nn.ReLU()))
            layers += [ResidualBlock(4 * dim) for _ in range(3)]
            self.add_module(f"conv{domain}", nn.Sequential(*layers))
        self.conv_share = nn.Sequential(ResidualBlock(4 * dim), Noise())

    def forward(self, images: Tensor, domain: str) -> Tensor:
        return self.conv_share(self.of("conv{}", domain)(images))


class PooledBlock(nn.Module):
    """Downsampling residual block: two pre-activated convolutions with pooling, plus a 1×1 convolution of the pooled input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        widen = nn.Sequential(*padded_conv(inputs, outputs, 3), nn.AvgPool2d(2))
        self.conv = nn.Sequential(nn.LeakyReLU(0.2), *padded_conv(inputs, inputs, 3), nn.LeakyReLU(0.2), widen)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.shortcut(x)


class AttributeEncoderConcat(DomainNetwork):
    """Attribute code as a normal distribution: (B, 3, H, W) -> mean and log-variance, (B, nz) each."""

    def __init__(self, input_dim_a: int, input_dim_b: int, nz: int, dim: int) -> None:
        super().__init__()
        for domain, channels in (("A", input_dim_a), ("B", input_dim_b)):
            blocks = [PooledBlock(width * dim, (width + 1) * dim) for width in (1, 2, 3)]
            layers = [*padded_conv(channels, dim, 4, 2), *blocks, nn.LeakyReLU(0.2), nn.AdaptiveAvgPool2d(1)]
            self.add_module(f"conv_{domain}", nn.Sequential(*layers))
            self.add_module(f"fc_{domain}", nn.Sequential(nn.Linear(4 * dim, nz)))
            self.add_module(f"fcVar_{domain}", nn.Sequential(nn.Linear(4 * dim, nz)))

    def forward(self, images: Tensor, domain: str) -> tuple[Tensor, Tensor]:
        features = self.of("conv_{}", domain)(images).flatten(1)
        return self.of("fc_{}", domain)(features), self.of("fcVar_{}", domain)(features)

    def read(self, images: Tensor, domain: str) -> Tensor:
        """The mean, (B, nz)."""
        return self(images, domain)[0]


class AttributeEncoder(DomainNetwork):
    """Attribute code: (B, 3, H, W) -> (B, nz)."""

    def __init__(self, input_dim_a: int, input_dim_b: int, nz: int, dim: int) -> None:
        super().__init__()
        for domain, channels in (("a", input_dim_a), ("b", input_dim_b)):
            layers = [*padded_conv(channels, dim, 7), nn.ReLU()]
            for inputs, outputs in ((1, 2), (2, 4), (4, 4), (4, 4)):
                layers += [*padded_conv(inputs * dim, outputs * dim, 4, 2), nn.ReLU()]
            self.add_module(f"model_{domain}", nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Conv2d(4 * dim, nz, 1)))

    def forward(self, images: Tensor, domain: str) -> Tensor:
        return self.of("model_{}", domain.lower())(images).flatten(1)

    read = forward


class GeneratorConcat(DomainNetwork):
    """Content (B, 4 dim, h, w) and attribute (B, nz) -> image (B, 3, 4h, 4w): the attribute is concatenated at every scale."""

    def __init__(self, output_dim_a: int, output_dim_b: int, nz: int, dim: int) -> None:
        super().__init__()
        self.dec_share = nn.Sequential(ResidualBlock(4 * dim))
        for domain, channels in (("A", output_dim_a), ("B", output_dim_b)):
            width = 4 * dim + nz
            self.add_module(f"dec{domain}1", nn.Sequential(*[ResidualBlock(width) for _ in range(3)]))
            for number in (2, 3):
                width += nz
                self.add_module(f"dec{domain}{number}", nn.Sequential(upscaling(width, width // 2)))
                width //= 2
            self.add_module(f"dec{domain}4", nn.Sequential(nn.ConvTranspose2d(width + nz, channels, 1), nn.Tanh()))

    def forward(self, content: Tensor, code: Tensor, domain: str) -> Tensor:
        x = self.dec_share(content)
        for number in (1, 2, 3):
            x = self.of(f"dec{{}}{number}", domain)(joined(x, code))
        return in_float32(self.of("dec{}4", domain), joined(x, code))


class MixedBlock(nn.Module):
    """Residual block that combines a code (B, C) with the features of every pixel (B, C, h, w), twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for number in (1, 2):
            convolution = nn.Sequential(*padded_conv(channels, channels, 3))
            self.add_module(f"conv{number}", nn.Sequential(convolution, nn.InstanceNorm2d(channels)))
            mix = [nn.Conv2d(2 * channels, 2 * channels, 1), nn.ReLU(), nn.Conv2d(2 * channels, channels, 1), nn.ReLU()]
            self.add_module(f"blk{number}", nn.Sequential(*mix))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        mixed = self.blk1(joined(self.conv1(x), code))
        return x + self.blk2(joined(self.conv2(mixed), code))


class GeneratorFeatureWise(DomainNetwork):
    """Content (B, 4 dim, h, w) and attribute (B, nz) -> image (B, 3, 4h, 4w): the attribute is combined with every pixel's features."""

    def __init__(self, output_dim_a: int, output_dim_b: int, nz: int, dim: int) -> None:
        super().__init__()
        width = 4 * dim
        for domain, channels in (("A", output_dim_a), ("B", output_dim_b)):
            for number in (1, 2, 3, 4):
                self.add_module(f"dec{domain}{number}", MixedBlock(width))
            last = [nn.ConvTranspose2d(dim, channels, 1), nn.Tanh()]
            self.add_module(f"dec{domain}5", nn.Sequential(upscaling(4 * dim, 2 * dim), upscaling(2 * dim, dim), *last))
            layers = [nn.Linear(nz, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4 * width)]
            self.add_module(f"mlp{domain}", nn.Sequential(*layers))

    def forward(self, content: Tensor, code: Tensor, domain: str) -> Tensor:
        x = content
        for number, part in enumerate(self.of("mlp{}", domain)(code).chunk(4, dim=1), start=1):
            x = self.of(f"dec{{}}{number}", domain)(x, part)
        last = self.of("dec{}5", domain)
        return in_float32(last[2:], last[:2](x))


class DRIT(nn.Module):
    """Translates images to the other domain: content of the input, attribute code of the other domain.

    Args:
        direction: "a2b" or "b2a"; in the authors' example a is summer and b winter.
        concat: which of the two variants, see the module's docstring.
        input_dim_a, input_dim_b: image channels of the domains.
        nz: dimension of an attribute code.
        dim: channels of the first layers (64 in the authors' code).

    Shape:
        images (B, 3, H, W) in [-1, 1], sides divisible by 4 -> the same.
    """

    target_kind = "none"  # a style can't be made from labels: the commands take its default

    def __init__(
        self, *, direction: str = "a2b", concat: bool = True, input_dim_a: int = 3, input_dim_b: int = 3, nz: int = 8, dim: int = 64
    ) -> None:
        super().__init__()
        self.source, self.goal = (side.upper() for side in check_direction(direction))
        self.config = {
            "direction": direction,
            "concat": bool(concat),
            "input_dim_a": input_dim_a,
            "input_dim_b": input_dim_b,
            "nz": nz,
            "dim": dim,
        }
        self.nz, self.channels = nz, {"A": input_dim_a, "B": input_dim_b}
        self.enc_c = ContentEncoder(input_dim_a, input_dim_b, dim)
        self.enc_a = (AttributeEncoderConcat if concat else AttributeEncoder)(input_dim_a, input_dim_b, nz, dim)
        self.gen = (GeneratorConcat if concat else GeneratorFeatureWise)(input_dim_a, input_dim_b, nz, dim)

    def forward(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        check_input(images, "DRIT", divisor=4, least=8)
        code = style_codes(
            target, images, self.nz, lambda references: self.enc_a.read(from_rgb(references, self.channels[self.goal]), self.goal)
        )
        return to_rgb(self.gen(self.enc_c(from_rgb(images, self.channels[self.source]), self.source), code, self.goal))

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: images in [-1, 1] -> images in [-1, 1].

        Args:
            target: attribute codes (B, nz) from N(0, I), as in the authors' test script; or reference images (B, 3, h, w) of the target
                domain. None: one fixed code from N(0, I).
        """
        return self(images, target)


def drit(checkpoint: str | Path | None = None, **config: int | str | bool) -> DRIT:
    """DRIT in one direction; with a checkpoint, its form and widths are inferred from the tensors, and arguments given explicitly must agree.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if checkpoint is None:
        return DRIT(**config)
    tensors = load_parts(checkpoint, ("enc_c", "enc_a", "gen"), what="a checkpoint of DRIT")
    found: dict[str, int | bool] = {"concat": "gen.mlpA.0.weight" not in tensors}
    code = tensors.get("enc_a.fc_A.0.weight" if found["concat"] else "enc_a.model_a.16.weight")
    if code is not None:
        found["nz"] = code.shape[0]
    for domain in "AB":
        first = tensors.get(f"enc_c.conv{domain}.0.model.1.weight")
        if first is not None and first.ndim == 4:
            found[f"input_dim_{domain.lower()}"], found["dim"] = first.shape[1], first.shape[0]
    network = DRIT(**agree(found, config, checkpoint))
    load_state(network, tensors, source=str(checkpoint), optional=("running_mean", "running_var", "num_batches_tracked"))
    return network

"""GAN Compression: efficient architectures for interactive conditional GANs (Li, Lin, Ding, Liu, Zhu and Han, CVPR 2020).

The compressed CycleGAN and pix2pix generators: CycleGAN's ResNet with separable convolutions in its blocks and a width for each part.
Official code: https://github.com/mit-han-lab/gan-compression (BSD). Written from the paper and the published key list, with the
authors' state-dict keys: a compressed ``latest_net_G.pth`` loads directly, and its widths are inferred from it.

Note:
    The authors describe a network by eight numbers, ``16_16_32_16_32_32_16_16`` for horse2zebra: channels in units of those of a CycleGAN
    with one filter, that is times 1, 2, 4 for the first three layers, 4 within the blocks (three groups of three), and 2, 1 for the last two.
    The dropout between the convolutions of a block is off in the published networks. It has no weights, and is left out here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from generators.images import check_channels, check_input, from_rgb, in_float32, to_rgb
from generators.loading import agree
from generators.norms import load_normed, make_norm, norm_in_file
from malp_disc.serialization.state_dicts import load_tensors

HORSE2ZEBRA = (16, 16, 32, 16, 32, 32, 16, 16)
"""The published configuration of horse2zebra."""

_UNITS = (1, 2, 4, 4, 4, 4, 2, 1)
"""What one unit of each of the eight numbers is, in channels."""
_BLOCKS = 9


class SeparableConvolution(nn.Module):
    """A 3×3 convolution of each channel by itself, a norm, and a 1×1 convolution across the channels; padding is the caller's."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: str, bias: bool, statistics: str) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, 3, groups=in_channels, bias=bias),
            make_norm(norm, in_channels, statistics=statistics),
            nn.Conv2d(in_channels, out_channels, 1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class SeparableResidualBlock(nn.Module):
    """x + separable-norm-relu-separable-norm(x), with `inner` channels between the two."""

    def __init__(self, channels: int, inner: int, *, norm: str, bias: bool, statistics: str) -> None:
        super().__init__()

        def convolution(before: int, after: int) -> list[nn.Module]:
            separable = SeparableConvolution(before, after, norm=norm, bias=bias, statistics=statistics)
            return [nn.ReflectionPad2d(1), separable, make_norm(norm, after, statistics=statistics)]

        # The identity takes the place of the authors' dropout, which counts in the keys
        self.conv_block = nn.Sequential(*convolution(channels, inner), nn.ReLU(), nn.Identity(), *convolution(inner, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class CompressedResnetGenerator(nn.Module):
    """G(x): translates image x to the other domain, with 1/32 of the parameters of CycleGAN's generator (horse2zebra: 0.36 M of 11.4 M).

    Args:
        channels: the eight numbers of the authors' configuration, see the module's note.
        input_nc, output_nc: channels of the image and of the result.
        norm: "instance"; "batch", or "instance_tracked" for files with buffers that have no use.
        statistics: those that batch norm uses, see `generators.norms`.

    Shape:
        images (B, 3, H, W) in [-1, 1] with H and W divisible by 4, at least 8 -> (B, 3, H, W) in [-1, 1].

    Raises:
        ValueError: `channels` aren't eight positive numbers.

    Note:
        A checkpoint translates in one direction. `target` is accepted and ignored, so that all generators share one interface.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int] = HORSE2ZEBRA,
        input_nc: int = 3,
        output_nc: int = 3,
        norm: str = "instance",
        statistics: str = "image",
    ) -> None:
        super().__init__()
        if len(channels) != len(_UNITS) or min(channels) < 1:
            raise ValueError(f"expected channels of {len(_UNITS)} positive numbers such as {HORSE2ZEBRA}, got {tuple(channels)}")
        self.config = {"channels": tuple(channels), "input_nc": input_nc, "output_nc": output_nc, "norm": norm, "statistics": statistics}
        self.input_nc = input_nc
        widths = [number * unit for number, unit in zip(channels, _UNITS)]
        bias = norm != "batch"  # a batch norm has its own
        shared = {"norm": norm, "statistics": statistics}

        def normed(layer: nn.Module) -> list[nn.Module]:
            return [layer, make_norm(norm, layer.out_channels, statistics=statistics), nn.ReLU()]

        layers: list[nn.Module] = [nn.ReflectionPad2d(3), *normed(nn.Conv2d(input_nc, widths[0], 7, bias=bias))]
        for before, after in zip(widths[:2], widths[1:3]):
            layers += normed(nn.Conv2d(before, after, 3, 2, 1, bias=bias))
        layers += [SeparableResidualBlock(widths[2], widths[3 + number // 3], bias=bias, **shared) for number in range(_BLOCKS)]
        for before, after in ((widths[2], widths[6]), (widths[6], widths[7])):
            layers += normed(nn.ConvTranspose2d(before, after, 3, 2, 1, output_padding=1, bias=bias))
        self.model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(widths[7], output_nc, 7), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        """(B, input_nc, H, W) -> (B, output_nc, 4⌈H / 4⌉, 4⌈W / 4⌉)."""
        check_channels(x, self.input_nc, "compressed CycleGAN")
        return in_float32(self.model[-3:], self.model[:-3](x))

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: RGB images in [-1, 1] -> RGB images in [-1, 1]. A network with one input channel gets the luminance; `target` is ignored."""
        check_input(images, "the compressed CycleGAN halves the image twice", divisor=4, least=8)
        return to_rgb(self(from_rgb(images, self.input_nc)))


COMPRESSED_FORM = ("model.1.weight", "model.10.conv_block.1.conv.0.weight")
"""Keys by which a file of this network is known."""


def cyclegan_compressed(checkpoint: str | Path | None = None, **config: Any) -> CompressedResnetGenerator:
    """A compressed CycleGAN or pix2pix generator; with a checkpoint, the eight widths and the norm are inferred from the tensors, and arguments given explicitly must agree.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if checkpoint is None:
        return CompressedResnetGenerator(**config)
    tensors = load_tensors(checkpoint, forms=(COMPRESSED_FORM,), entries=("state_dict", "G"))
    if "channels" in config:
        config["channels"] = tuple(config["channels"])
    network = CompressedResnetGenerator(**agree(_found(tensors, config), config, checkpoint))
    load_normed(network, tensors, checkpoint)
    return network


def _found(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments read from the shapes; empty for a file that isn't this network's, which loading then refuses."""
    outputs = {int(match[1]): value for key, value in tensors.items() if (match := re.fullmatch(r"model\.(\d+)\.weight", key)) and value.ndim == 4}
    inner = [tensors.get(f"model.{number}.conv_block.1.conv.2.weight") for number in (10, 13, 16)]
    if set(outputs) != {1, 4, 7, 19, 22, 26} or any(value is None or value.ndim != 4 for value in inner):
        return {}
    widths = [outputs[number].shape[0] for number in (1, 4, 7)] + [value.shape[0] for value in inner]
    widths += [outputs[number].shape[1] for number in (19, 22)]  # of a transposed convolution the second side is the output
    channels = tuple(max(1, width // unit) for width, unit in zip(widths, _UNITS))
    sides = {"input_nc": outputs[1].shape[1], "output_nc": outputs[26].shape[0]}
    return {"channels": channels, **sides, **norm_in_file(tensors, "model.2.weight", config)}

"""CycleGAN: unpaired image-to-image translation using cycle-consistent adversarial networks (Zhu, Park, Isola and Efros, ICCV 2017).

Official code: https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix (BSD-2-Clause). Written from the paper and the published key list,
with the authors' state-dict keys: the published ``horse2zebra.pth`` and similar, and your own ``latest_net_G_A.pth``, load directly.

Note:
    The published checkpoints contain running averages of instance norms, which are ignored, as by the official loader: an instance norm uses the
    statistics of its image. The network rounds sides up to multiples of 4; `manipulate`, which keeps the size, refuses other sides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from generators.images import check_channels, check_input, from_rgb, in_float32, to_rgb
from generators.loading import agree
from generators.norms import Dropout, load_normed, make_norm, norm_in_file
from malp_disc.serialization.state_dicts import load_tensors

PADDINGS = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d, "zero": None}


class ResidualBlock(nn.Module):
    """x + conv-norm-relu-(dropout)-conv-norm(x), in a Sequential that the authors call `conv_block`; `padding` and `dropout` shift the indices in it."""

    def __init__(self, channels: int, *, norm: str, padding: str, bias: bool, dropout: Dropout | None, statistics: str) -> None:
        super().__init__()
        pad = PADDINGS[padding]

        def convolution() -> list[nn.Module]:
            layers = [pad(1)] if pad is not None else []
            layers += [
                nn.Conv2d(channels, channels, 3, padding=0 if layers else 1, bias=bias),
                make_norm(norm, channels, statistics=statistics),
            ]
            return layers

        self.conv_block = nn.Sequential(*convolution(), nn.ReLU(), *([dropout] if dropout is not None else []), *convolution())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class ResnetGenerator(nn.Module):
    """G(x): translates image x to the other domain; Johnson et al.'s network for style transfer (appendix 7.2 of the paper).

    Args:
        input_nc, output_nc, ngf: channels of the input, of the output and of the first layer.
        norm: "instance" for CycleGAN; "batch" (pix2pix); "instance_tracked" has the unused buffers of the published checkpoints.
        use_dropout: dropout of 0.5 in every block (pix2pix).
        n_blocks: residual blocks, 9 for images of 256 px, 6 for 128 px.
        padding_type: "reflect", "replicate" or "zero", of the residual blocks.
        statistics: those that batch norm uses, see `generators.norms`; "image" is the authors' test script.
        noise: keep dropout on in evaluation, as in the authors' test script; every call gives another result.

    Shape:
        images (B, 3, H, W) in [-1, 1] with H and W divisible by 4, at least 8 -> (B, 3, H, W) in [-1, 1].

    Note:
        A checkpoint translates in one direction. `target` is accepted and ignored, so that all generators share one interface.
    """

    def __init__(
        self,
        *,
        input_nc: int = 3,
        output_nc: int = 3,
        ngf: int = 64,
        norm: str = "instance",
        use_dropout: bool = False,
        n_blocks: int = 9,
        padding_type: str = "reflect",
        statistics: str = "image",
        noise: bool = False,
    ) -> None:
        super().__init__()
        if padding_type not in PADDINGS:
            raise ValueError(f"expected padding_type out of {list(PADDINGS)}, got {padding_type!r}")
        self.config = {
            "input_nc": input_nc,
            "output_nc": output_nc,
            "ngf": ngf,
            "norm": norm,
            "use_dropout": use_dropout,
            "n_blocks": n_blocks,
        }
        self.config |= {"padding_type": padding_type, "statistics": statistics, "noise": noise}
        self.input_nc = input_nc
        bias = norm != "batch"  # a batch norm has its own

        def block() -> ResidualBlock:
            dropout = Dropout(always=noise) if use_dropout else None
            return ResidualBlock(4 * ngf, norm=norm, padding=padding_type, bias=bias, dropout=dropout, statistics=statistics)

        def normed(layer: nn.Module) -> list[nn.Module]:
            return [layer, make_norm(norm, layer.out_channels, statistics=statistics), nn.ReLU()]

        layers: list[nn.Module] = [nn.ReflectionPad2d(3), *normed(nn.Conv2d(input_nc, ngf, 7, bias=bias))]
        for channels in (ngf, 2 * ngf):
            layers += normed(nn.Conv2d(channels, 2 * channels, 3, 2, 1, bias=bias))
        layers += [block() for _ in range(n_blocks)]
        for channels in (4 * ngf, 2 * ngf):
            layers += normed(nn.ConvTranspose2d(channels, channels // 2, 3, 2, 1, output_padding=1, bias=bias))
        self.model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(ngf, output_nc, 7), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        """(B, input_nc, H, W) -> (B, output_nc, 4⌈H / 4⌉, 4⌈W / 4⌉)."""
        check_channels(x, self.input_nc, "CycleGAN")
        return in_float32(self.model[-3:], self.model[:-3](x))

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: RGB images in [-1, 1] -> RGB images in [-1, 1]. A network with one input channel gets the luminance; `target` is ignored."""
        check_input(images, "CycleGAN halves the image twice", divisor=4, least=8)
        return to_rgb(self(from_rgb(images, self.input_nc)))


RESNET_FORM = ("model.1.weight", "model.4.weight")
"""Keys by which a checkpoint of this network is recognized."""


def cyclegan(checkpoint: str | Path | None = None, **config: Any) -> ResnetGenerator:
    """A CycleGAN generator; with a checkpoint, the widths, norm, dropout and blocks are inferred from the tensors, and arguments given explicitly must agree.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if checkpoint is None:
        return ResnetGenerator(**config)
    return load_resnet(load_tensors(checkpoint, forms=(RESNET_FORM,), entries=("state_dict", "G")), config, checkpoint)


def load_resnet(tensors: Mapping[str, Tensor], config: Mapping[str, Any], source: str | Path) -> ResnetGenerator:
    """A `ResnetGenerator` with the weights of a state dict. Raises as `cyclegan` does."""
    if any(key.endswith(".conv_block.1.conv.0.weight") for key in tensors):
        raise ValueError(f"{source} has separable convolutions, a network of GAN Compression; load it as cyclegan_compressed")
    found: dict[str, Any] = {}
    blocks: dict[int, set[int]] = {}  # number in `model` -> numbers of the convolutions in `conv_block`
    for key, value in tensors.items():
        if value.ndim == 4 and (match := re.fullmatch(r"model\.(\d+)\.conv_block\.(\d+)\.weight", key)):
            blocks.setdefault(int(match[1]), set()).add(int(match[2]))
    first, last = tensors.get("model.1.weight"), tensors.get(f"model.{17 + len(blocks)}.weight")
    if first is not None and first.ndim == 4 and blocks:
        numbers = next(iter(blocks.values()))
        padded = 0 not in numbers  # a padding layer precedes each convolution
        found = {"ngf": first.shape[0], "input_nc": first.shape[1], "n_blocks": len(blocks)}
        found["use_dropout"] = max(numbers) == (6 if padded else 4)
        if not padded or config.get("padding_type") == "zero":
            found["padding_type"] = "reflect or replicate" if padded else "zero"
        found |= norm_in_file(tensors, "model.2.weight", config)
        if last is not None and last.ndim == 4:
            found["output_nc"] = last.shape[0]
    network = ResnetGenerator(**agree(found, config, source))
    load_normed(network, tensors, source)
    return network

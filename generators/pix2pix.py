"""pix2pix: image-to-image translation with conditional adversarial networks (Isola, Zhu, Zhou and Efros, CVPR 2017).

Official code: https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix (BSD-2-Clause). Written from the paper and the published key list,
with the authors' state-dict keys: the published ``edges2shoes.pth``, ``facades_label2photo.pth`` and similar load directly.

Note:
    The paper tests in training mode, one image at a time: batch norm uses that image's statistics, and dropout serves as noise. Here
    ``statistics="image"`` (the default) does the former for batches of any size; dropout is off in evaluation, so that results are
    reproducible, unless ``noise=True``. ``statistics="running"`` is the test script with ``--eval``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generators.cyclegan import RESNET_FORM, ResnetGenerator, load_resnet
from generators.images import check_channels, check_input, from_rgb, in_float32, to_rgb
from generators.loading import agree
from generators.norms import Dropout, load_normed, make_norm, norm_in_file
from malp_disc.serialization.state_dicts import load_tensors


class UnetBlock(nn.Module):
    """One level of the U-Net with all levels below it. Returns the input concatenated with the output, or, at the outermost level, the image."""

    def __init__(self, layers: list[nn.Module], *, outermost: bool = False) -> None:
        super().__init__()
        self.outermost = outermost
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        if self.outermost:
            return in_float32(self.model[-2:], self.model[:-2](x))
        return torch.cat([x, self.model(x)], dim=1)


class UnetGenerator(nn.Module):
    """G(x): translates image x; a U-Net whose bottleneck is 1×1 at the training resolution.

    Args:
        input_nc, output_nc, ngf: channels of the input, of the output and of the first layer.
        num_downs: downsampling layers, at least 5; 8 for 256 px (unet_256), 7 for 128 px (unet_128).
        norm: "batch", "instance", or "instance_tracked" (the same with unused buffers).
        use_dropout: dropout of 0.5 in the innermost levels.
        statistics, noise: see the module's note, and `generators.norms`.

    Shape:
        images (B, 3, H, W) in [-1, 1] with H and W divisible by 2^num_downs -> (B, 3, H, W) in [-1, 1].

    Note:
        A checkpoint translates in one direction; `target` is accepted and ignored. Checkpoints that start from labels or edges expect those, as an
        image.
    """

    def __init__(
        self,
        *,
        input_nc: int = 3,
        output_nc: int = 3,
        num_downs: int = 8,
        ngf: int = 64,
        norm: str = "batch",
        use_dropout: bool = True,
        statistics: str = "image",
        noise: bool = False,
    ) -> None:
        super().__init__()
        if num_downs < 5:
            raise ValueError(f"this U-Net halves the image 5 times at least, got num_downs {num_downs}")
        self.config = {
            "input_nc": input_nc,
            "output_nc": output_nc,
            "num_downs": num_downs,
            "ngf": ngf,
            "norm": norm,
            "use_dropout": use_dropout,
        }
        self.config |= {"statistics": statistics, "noise": noise}
        self.input_nc, self.num_downs = input_nc, num_downs
        bias = norm != "batch"  # a batch norm has its own

        def down(inner: int, outer: int) -> nn.Module:
            return nn.Conv2d(outer, inner, 4, 2, 1, bias=bias)

        def up(inner: int, outer: int) -> list[nn.Module]:
            return [nn.ReLU(), nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=bias), make_norm(norm, outer, statistics=statistics)]

        block = UnetBlock([nn.LeakyReLU(0.2), down(8 * ngf, 8 * ngf), *up(8 * ngf, 8 * ngf)])
        middle = [(8 * ngf, 8 * ngf)] * (num_downs - 5) + [(8 * ngf, 4 * ngf), (4 * ngf, 2 * ngf), (2 * ngf, ngf)]
        for level, (inner, outer) in enumerate(middle):
            dropout = [Dropout(always=noise)] if use_dropout and level < num_downs - 5 else []
            norm_down = make_norm(norm, inner, statistics=statistics)
            block = UnetBlock([nn.LeakyReLU(0.2), down(inner, outer), norm_down, block, *up(2 * inner, outer), *dropout])
        first, last = nn.Conv2d(input_nc, ngf, 4, 2, 1, bias=bias), nn.ConvTranspose2d(2 * ngf, output_nc, 4, 2, 1)
        self.model = UnetBlock([first, block, nn.ReLU(), last, nn.Tanh()], outermost=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, input_nc, H, W) -> (B, output_nc, H, W)."""
        check_channels(x, self.input_nc, "pix2pix")
        return self.model(x)

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: RGB images in [-1, 1] -> RGB images in [-1, 1]. A network with one input channel gets the luminance; `target` is ignored."""
        check_input(images, f"this U-Net halves the image {self.num_downs} times", divisor=2**self.num_downs)
        return to_rgb(self(from_rgb(images, self.input_nc)))


def pix2pix(checkpoint: str | Path | None = None, *, network: str | None = None, **config: Any) -> UnetGenerator | ResnetGenerator:
    """A pix2pix generator; with a checkpoint, everything but `statistics` and `noise` is inferred from the tensors, and arguments given explicitly must agree.

    Args:
        network: "unet" (the default, and all published checkpoints), or "resnet", CycleGAN's network, by default with batch norm and dropout.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if network not in (None, "unet", "resnet"):
        raise ValueError(f"expected network 'unet' or 'resnet', got {network!r}")
    if checkpoint is None:
        return ResnetGenerator(**{"norm": "batch", "use_dropout": True, **config}) if network == "resnet" else UnetGenerator(**config)
    tensors = load_tensors(checkpoint, forms=(("model.model.0.weight", "model.model.3.weight"), RESNET_FORM), entries=("state_dict", "G"))
    kinds = ["resnet"] * any(".conv_block." in key for key in tensors) + ["unet"] * ("model.model.0.weight" in tensors)
    if kinds and network is not None:
        agree({"network": kinds[0]}, {"network": network}, checkpoint)
    kind = [*kinds, network or "unet"][0]  # for another network's checkpoint the loader reports the differences
    return load_resnet(tensors, config, checkpoint) if kind == "resnet" else _load_unet(tensors, config, checkpoint)


def _load_unet(tensors: Mapping[str, Tensor], config: Mapping[str, Any], source: str | Path) -> UnetGenerator:
    found: dict[str, Any] = {}
    first, last = tensors.get("model.model.0.weight"), tensors.get("model.model.3.weight")
    levels = max((key.count("model.") - 1 for key in tensors if re.fullmatch(r"model\.model\.(\d\.model\.)*\d\.weight", key)), default=0)
    if first is not None and first.ndim == 4 and levels >= 5:
        found = {"ngf": first.shape[0], "input_nc": first.shape[1], "num_downs": levels}
        found |= norm_in_file(tensors, "model.model.1.model.2.weight", config)
        if last is not None and last.ndim == 4:
            found["output_nc"] = last.shape[1]
    network = UnetGenerator(**agree(found, config, source))
    load_normed(network, tensors, source)
    return network

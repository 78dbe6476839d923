"""Image colorization using generative adversarial networks (Nazeri, Ng and Ebrahimi, AMDO 2018); the MaLP paper's "CoGAN".

Official code: https://github.com/ImagingLab/Colorizing-with-GANs (Apache-2.0), TensorFlow. Three forms:

    "places365"  the authors' network for 256 px: 8 encoder layers. Their TensorFlow checkpoints (``CGAN_places365.index`` with its data
                 file) are read directly, as are state dicts with the keys of `generators.tensorflow_names`.
    "cifar10"    the authors' network for 32 px: 5 encoder layers; the same kinds of files.
    "port"       https://github.com/karoly-hars/GAN_image_colorizing (MIT), the 32 px network for PyTorch:
                 ``batchnorm_ep200_weigths_gen.pt``, ``spectralnorm_ep100_weights_gen.pt``.

Written from the paper and the published key lists.

Note:
    The authors' networks take the luminance in [0, 255] and predict L*a*b*, the lightness included, which is what `manipulate` returns;
    ``keep_lightness=True`` takes only a and b from the network, and L from the image. Their batch norm uses batch statistics in testing too
    (the running averages in the checkpoints were never updated), so that an image's colours would depend on the batch; here the statistics of
    each image are used, as in a batch of one. The port predicts colours only, always at 32×32; its batch norms have running averages, which
    are used here, although its own test script stays in training mode, dropout included.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.colours import lab_to_rgb, rgb_to_lab
from generators.images import check_channels, check_input, in_float32, luminance
from generators.loading import agree
from generators.norms import BatchNorm, Dropout
from generators.same_padding import SameConv2d, SameConvTranspose2d
from generators.tensorflow_files import is_tensorflow
from generators.tensorflow_names import load_tensorflow
from malp_disc.serialization.state_dicts import load_state, load_tensors

RANGES = (50.0, 110.0, 110.0)
"""What 1 in the network's range [-1, 1] means in L - 50, a and b."""

LEVELS: Mapping[str, dict[str, Sequence[Any]]] = {
    "places365": {
        "encoder": ((64, 1), (64, 2), (128, 2), (256, 2), (512, 2), (512, 2), (512, 2), (512, 2)),
        "decoder": (512, 512, 512, 256, 128, 64, 64),
        "dropouts": (),
    },
    "cifar10": {"encoder": ((64, 1), (128, 2), (256, 2), (512, 2), (512, 2)), "decoder": (512, 256, 128, 64), "dropouts": (0, 1)},
}


def to_normalised_lab(images: Tensor) -> Tensor:
    """RGB in [-1, 1] -> L / 50 - 1, a / 110, b / 110. Shape: (B, 3, H, W) -> the same."""
    lightness, a, b = rgb_to_lab((images + 1) / 2).unbind(1)
    return torch.stack([lightness / RANGES[0] - 1, a / RANGES[1], b / RANGES[2]], dim=1)


def from_normalised_lab(lab: Tensor) -> Tensor:
    """The inverse: L / 50 - 1, a / 110, b / 110 -> RGB in [-1, 1], clipped to the gamut. Shape: (B, 3, H, W) -> the same."""
    lightness, a, b = lab.unbind(1)
    return 2 * lab_to_rgb(torch.stack([(lightness + 1) * RANGES[0], a * RANGES[1], b * RANGES[2]], dim=1)) - 1


class _Generator(nn.Module):
    """The layers, with the names of TensorFlow's variables in the scope `gen`."""

    def __init__(
        self, encoder: Sequence[tuple[int, int]], decoder: Sequence[int], output_channels: int, kernel: int, statistics: str
    ) -> None:
        super().__init__()
        self.levels = len(encoder), len(decoder)
        channels = 1
        for i, (width, stride) in enumerate(encoder):
            self.add_module(f"conv{i}", SameConv2d(channels, width, kernel, stride))
            self.add_module(f"bn_conv{i}", BatchNorm(width, statistics=statistics, eps=1e-3, counter=False))
            channels = width
        for i, width in enumerate(decoder):
            self.add_module(f"deconv{i}", SameConvTranspose2d(channels, width, kernel))
            self.add_module(f"bn_deconv{i}", BatchNorm(width, statistics=statistics, eps=1e-3, counter=False))
            channels = width + encoder[-2 - i][0]
        self.conv_last = nn.Conv2d(channels, output_channels, 1)


class ColorizingGenerator(nn.Module):
    """G(x): predicts the image with luminance x; the authors' U-Net (Figure 2 of the paper).

    Args:
        encoder: channels and stride of every encoder layer.
        decoder: channels of every decoder layer (stride 2).
        output_channels, kernel: 3 (L, a and b); kernel size.
        dropouts: indices of decoder layers that are followed by dropout (0.5) in training.
        statistics: those that batch norm uses, see `generators.norms`. "batch" is the authors' code; "running" is meaningless with their
            checkpoints.
        keep_lightness: `manipulate` takes L from the image, and only a and b from the network.

    Shape:
        images (B, 3, H, W) in [-1, 1] with sides divisible by the product of the strides (128, or 16) -> (B, 3, H, W) in [-1, 1].

    Note:
        `target` is accepted and ignored, so that all generators share one interface.
    """

    def __init__(
        self,
        *,
        encoder: Sequence[tuple[int, int]] = LEVELS["places365"]["encoder"],
        decoder: Sequence[int] = LEVELS["places365"]["decoder"],
        output_channels: int = 3,
        kernel: int = 4,
        dropouts: Sequence[int] = (),
        statistics: str = "image",
        keep_lightness: bool = False,
    ) -> None:
        super().__init__()
        encoder, decoder = tuple((int(width), int(stride)) for width, stride in encoder), tuple(decoder)
        self.config = {"encoder": encoder, "decoder": decoder, "output_channels": output_channels, "kernel": kernel}
        self.config |= {"dropouts": tuple(dropouts), "statistics": statistics, "keep_lightness": keep_lightness}
        self.keep_lightness = keep_lightness
        self.dropouts = tuple(dropouts)
        self.divisor = math.prod(stride for _, stride in encoder)
        self.gen = _Generator(encoder, decoder, output_channels, kernel, statistics)

    def forward(self, grey: Tensor) -> Tensor:
        """Luminance (B, 1, H, W) in [0, 255] -> (B, output_channels, H, W) in [-1, 1]: L / 50 - 1, a / 110, b / 110."""
        check_channels(grey, 1, "Colorizing-with-GANs")
        gen, x, skips = self.gen, grey, []
        down, up = gen.levels
        for i in range(down):
            x = F.leaky_relu(getattr(gen, f"bn_conv{i}")(getattr(gen, f"conv{i}")(x)), 0.2)
            skips.append(x)
        skips.pop()
        for i in range(up):
            skip = skips.pop()
            x = getattr(gen, f"bn_deconv{i}")(getattr(gen, f"deconv{i}")(x, skip.shape[2:])).relu()
            x = F.dropout(x, 0.5, self.training and i in self.dropouts)
            x = torch.cat([skip, x], dim=1)
        return in_float32(gen.conv_last, x).tanh()

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: RGB images in [-1, 1] -> RGB images in [-1, 1]. Removes the colours and predicts new ones; `target` is ignored."""
        check_input(images, "Colorizing-with-GANs", divisor=self.divisor)
        lab = self(luminance(images + 1) * 127.5)
        if self.keep_lightness:
            lab = torch.cat([to_normalised_lab(images)[:, :1], lab[:, 1:]], dim=1)
        return from_normalised_lab(lab)


class _Block(nn.Module):
    """A layer of the port, in a Sequential that it calls `model`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class ColorizingPort(nn.Module):
    """G(L): predicts a and b of a 32×32 image; the port's U-Net.

    Args:
        width: channels of the first layer (64 in the port).
        normalization_type: "batch" or None.
        statistics: those that batch norm uses, see `generators.norms`.
        noise: keep dropout on in evaluation, as in the port's test script; every call gives another result.

    Shape:
        images (B, 3, H, W) in [-1, 1], of any size -> (B, 3, H, W) in [-1, 1]; colours are predicted at 32×32 and upsampled.
    """

    size, unit = 32, 127.0

    def __init__(
        self, *, width: int = 64, normalization_type: str | None = "batch", statistics: str = "running", noise: bool = False
    ) -> None:
        super().__init__()
        if normalization_type not in ("batch", None):
            raise ValueError(
                f"expected normalization_type 'batch' or None, got {normalization_type!r}; spectral norm was the discriminator's only"
            )
        self.config = {"width": width, "normalization_type": normalization_type, "statistics": statistics, "noise": noise}

        def normed(channels: int) -> list[nn.Module]:
            return [BatchNorm(channels, statistics=statistics)] if normalization_type == "batch" else []

        def up(channels: int, following: int, *dropout: nn.Module) -> _Block:
            return _Block(nn.ConvTranspose2d(channels, following, 4, 2, 1), *normed(following), nn.ReLU(), *dropout)

        widths = [1, width, 2 * width, 4 * width, 8 * width, 8 * width]
        for level, (channels, following) in enumerate(zip(widths, widths[1:]), start=1):
            layer = nn.Conv2d(channels, following, 4) if level == 1 else nn.Conv2d(channels, following, 4, 2, 1)
            self.add_module(f"down{level}", _Block(layer, *normed(following), nn.LeakyReLU(0.2)))
        self.up1 = up(8 * width, 8 * width, Dropout(always=noise))
        self.up2 = up(16 * width, 4 * width, Dropout(always=noise))
        self.up3 = up(8 * width, 2 * width)
        self.up4 = up(4 * width, width)
        self.final = _Block(nn.Conv2d(2 * width, 2, 1), nn.Tanh())

    def forward(self, lightness: Tensor) -> Tensor:
        """L / 50 - 1 (B, 1, H, W) -> a / 127, b / 127 (B, 2, 32, 32)."""
        check_channels(lightness, 1, "the port of Colorizing-with-GANs")
        side = self.size + 3  # the first convolution has no padding
        x = F.interpolate(lightness, (side, side), mode="bilinear", align_corners=True)
        skips = []
        for level in range(1, 6):
            x = getattr(self, f"down{level}")(x)
            skips.append(x)
        skips.pop()
        for level in range(1, 5):
            x = torch.cat([getattr(self, f"up{level}")(x), skips.pop()], dim=1)
        return in_float32(self.final.model, x)

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: RGB images in [-1, 1] -> RGB images in [-1, 1]. Keeps the lightness and predicts new colours; `target` is ignored."""
        check_input(images, "the port of Colorizing-with-GANs")
        lightness = rgb_to_lab((images + 1) / 2)[:, :1]
        colours = self.unit * self(lightness / 50 - 1)
        if colours.shape[2:] != images.shape[2:]:
            colours = F.interpolate(colours, images.shape[2:], mode="bilinear")
        return 2 * lab_to_rgb(torch.cat([lightness, colours], dim=1)) - 1


FORMS = ("places365", "cifar10", "port")


def colorizing_gan(checkpoint: str | Path | None = None, *, form: str | None = None, **config: Any) -> ColorizingGenerator | ColorizingPort:
    """A colorizing generator; with a checkpoint, its form and widths are inferred from the tensors, and arguments given explicitly must agree.

    Args:
        checkpoint: torch or safetensors; for the authors' forms also a TensorFlow checkpoint, by its ``.index`` file or its name without.
        form: "places365" (the default), "cifar10" or "port", see the module's docstring.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if form not in (None, *FORMS):
        raise ValueError(f"expected form out of {list(FORMS)}, got {form!r}")
    if checkpoint is None:
        return ColorizingPort(**config) if form == "port" else ColorizingGenerator(**{**LEVELS[form or "places365"], **config})
    tensors = load_tensorflow(checkpoint) if is_tensorflow(checkpoint) else load_tensors(checkpoint, forms=(("gen.conv0.weight", "gen.conv_last.weight"), ("down1.model.0.weight", "final.model.0.weight")), entries=("state_dict", "G"))
    if "down1.model.0.weight" in tensors:
        if form not in (None, "port"):
            raise ValueError(f"{checkpoint}: its keys are the port's, and form {form!r} was asked for")
        found = {
            "width": len(tensors["down1.model.0.weight"]),
            "normalization_type": "batch" if "down1.model.1.weight" in tensors else None,
        }
        network: ColorizingGenerator | ColorizingPort = ColorizingPort(**agree(found, config, checkpoint))
    elif "gen.conv0.weight" in tensors:
        tensors = {key: value for key, value in tensors.items() if key.startswith("gen.")}  # beside it are the discriminator's
        found = _levels(tensors)
        found_form = "cifar10" if len(found["encoder"]) == 5 else "places365"
        if form not in (None, found_form):
            raise ValueError(f"{checkpoint} has {len(found['encoder'])} layers down, and form {form!r} was asked for")
        config = {**config, **{key: _tuples(config[key]) for key in ("encoder", "decoder") if key in config}}
        network = ColorizingGenerator(**{"dropouts": LEVELS[found_form]["dropouts"], **agree(found, config, checkpoint)})
    else:
        raise ValueError(
            f"{checkpoint} is not a checkpoint of Colorizing-with-GANs: expected gen.conv0.weight or "
            f"down1.model.0.weight, found {list(tensors)[:3]}"
        )
    load_state(network, tensors, source=str(checkpoint), optional=("num_batches_tracked",))
    return network


def _levels(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments inferred from the tensors. Strides can't be: they are 1, then 2, as in both of the authors' networks."""

    def widths(name: str, dimension: int) -> list[int]:
        keys = sorted(
            (key for key in tensors if re.fullmatch(rf"gen\.{name}\d+\.weight", key)), key=lambda key: int(re.sub(r"\D", "", key))
        )
        return [tensors[key].shape[dimension] for key in keys]

    found: dict[str, Any] = {"encoder": tuple((width, 2 if i else 1) for i, width in enumerate(widths("conv", 0)))}
    found |= {"decoder": tuple(widths("deconv", 1)), "kernel": tensors["gen.conv0.weight"].shape[-1]}
    if "gen.conv_last.weight" in tensors:
        found["output_channels"] = len(tensors["gen.conv_last.weight"])
    return found


def _tuples(value: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(tuple(part) if isinstance(part, Sequence) else part for part in value)

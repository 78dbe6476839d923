"""DualGAN: unsupervised dual learning for image-to-image translation (Yi, Zhang, Tan and Gong, ICCV 2017).

Three networks have this name; `form` selects one:

    "official"     the authors', https://github.com/duxingren14/DualGAN (Apache-2.0), TensorFlow. Its published checkpoints
                   (``DualNet.model-….index`` with its data file) are read directly, as is a state dict with the keys of
                   `generators.tensorflow_names`.
    "pytorch_gan"  the best-known port, https://github.com/eriklindernoren/PyTorch-GAN (MIT): 7 levels, for 128 px, ``G_AB_<epoch>.pth``.
    "togheppi"     https://github.com/togheppi/DualGAN (no licence stated): 8 levels with batch norm, ``generator_A_param.pkl``.

Written from the paper and the published key lists, with the state-dict keys of these projects. The ports published no weights.

Note:
    The three differ in kernels, norms, order of activations and skip connections, so that no checkpoint fits two of them. What the official code calls
    batch norm is an instance norm (eps 1e-6): at 256 px the bottleneck is one pixel, whose normalized value is 0, so it is constant and only the
    skip connections carry the image. This was kept. The ports' dropout is the paper's noise; here it is on in training only, or with
    ``noise=True``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.images import check_channels, check_input, from_rgb, in_float32, to_rgb
from generators.loading import agree
from generators.norms import BatchNorm, Dropout, InstanceNorm
from generators.same_padding import SameConv2d, SameConvTranspose2d
from generators.tensorflow_files import is_tensorflow
from generators.tensorflow_names import load_tensorflow
from malp_disc.serialization.state_dicts import load_state, load_tensors

DOWN = (1, 2, 4, 8, 8, 8, 8, 8)
"""Channels of the paper's eight levels, in units of the first layer's."""
_FILE_FORMS = (("A_g_e1_conv.weight",), ("B_g_e1_conv.weight",), ("down1.model.0.weight", "final.0.weight"), ("conv1.conv.weight", "deconv8.deconv.weight"))


class DualGANGenerator(nn.Module):
    """The authors' U-Net (Figure 2 of the paper), with the names of its TensorFlow variables.

    Args:
        prefix: "A_g_", the generator from A to B, or "B_g_", the inverse direction.
        input_channels, output_channels, gcn: channels of the input, of the output and of the first layer.

    Shape:
        images (B, 3, H, W) in [-1, 1] with sides divisible by 256 -> (B, 3, H, W) in [-1, 1].

    Note:
        The network works in BGR; `manipulate` takes and returns RGB. `target` is ignored.
    """

    def __init__(self, *, prefix: str = "A_g_", input_channels: int = 3, output_channels: int = 3, gcn: int = 64) -> None:
        super().__init__()
        self.config = {"prefix": prefix, "input_channels": input_channels, "output_channels": output_channels, "gcn": gcn}
        self.prefix, self.input_channels = prefix, input_channels
        channels = input_channels
        for level, width in enumerate(DOWN, start=1):
            self.add_module(f"{prefix}e{level}_conv", SameConv2d(channels, width * gcn, 5 if level == 1 else 3, 2))
            if level > 1:
                self.add_module(f"{prefix}bn_e{level}", InstanceNorm(width * gcn, affine=True, eps=1e-6))
            channels = width * gcn
        for level, width in enumerate((*DOWN[-2::-1], 0), start=1):
            if level < 8:
                self.add_module(f"{prefix}d{level}", SameConvTranspose2d(channels, width * gcn, 3))
                self.add_module(f"{prefix}bn_d{level}", InstanceNorm(width * gcn, affine=True, eps=1e-6))
                channels = 2 * width * gcn  # with the skip
            else:
                self.add_module(f"{prefix}d{level}", SameConvTranspose2d(channels, output_channels, 5))

    def forward(self, x: Tensor) -> Tensor:
        """(B, input_channels, H, W) BGR in [-1, 1] -> (B, output_channels, H, W)."""
        check_channels(x, self.input_channels, "DualGAN")
        size = x.shape[2:]
        encoded = [self._part("e1_conv")(x)]
        for level in range(2, 9):
            encoded.append(self._part(f"bn_e{level}")(self._part(f"e{level}_conv")(F.leaky_relu(encoded[-1], 0.2))))
        x = encoded.pop()
        for level in range(1, 8):
            skip = encoded.pop()
            x = self._part(f"bn_d{level}")(self._part(f"d{level}")(x.relu(), skip.shape[2:]))
            x = torch.cat([x, skip], dim=1)
        last = self._part("d8")
        with torch.autocast(x.device.type, enabled=False):  # as in `in_float32`
            return last(x.relu().to(last.weight.dtype), size).tanh()

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: RGB images in [-1, 1] -> RGB images in [-1, 1]. A network with one input channel gets the luminance; `target` is ignored."""
        check_input(images, "DualGAN halves the image 8 times", divisor=256)
        output = self(from_rgb(images, self.input_channels) if self.input_channels != 3 else images.flip(1))
        return to_rgb(output.flip(1))

    def _part(self, name: str) -> nn.Module:
        return getattr(self, self.prefix + name)


class _Level(nn.Module):
    """A layer of the PyTorch-GAN port, in a Sequential that it calls `model`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class PyTorchGANGenerator(nn.Module):
    """The U-Net of the PyTorch-GAN port. Its skip connections start after the activations.

    Args:
        channels, width: channels of an image and of the first layer (64 in the port).
        noise: keep dropout on in evaluation; every call gives another result.

    Shape:
        images (B, 3, H, W) in [-1, 1] with sides divisible by 128 -> (B, 3, H, W) in [-1, 1].
    """

    def __init__(self, *, channels: int = 3, width: int = 64, noise: bool = False) -> None:
        super().__init__()
        self.config = {"channels": channels, "width": width, "noise": noise}
        self.channels = channels

        def down(level: int, before: int, after: int) -> _Level:
            norm = [InstanceNorm(after, affine=True)] if level not in (1, 7) else []
            return _Level(
                nn.Conv2d(before, after, 4, 2, 1, bias=False), *norm, nn.LeakyReLU(0.2), *([Dropout(always=noise)] if level > 3 else [])
            )

        def up(level: int, before: int, after: int) -> _Level:
            dropout = [Dropout(always=noise)] if level < 4 else []
            return _Level(nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), InstanceNorm(after, affine=True), nn.ReLU(), *dropout)

        widths = [width * factor for factor in DOWN[:7]]
        for level, (before, after) in enumerate(zip([channels, *widths], widths), start=1):
            self.add_module(f"down{level}", down(level, before, after))
        before = widths[-1]
        for level, after in enumerate(widths[-2::-1], start=1):
            self.add_module(f"up{level}", up(level, before, after))
            before = 2 * after
        self.final = nn.Sequential(nn.ConvTranspose2d(before, channels, 4, 2, 1), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape, in [-1, 1]."""
        check_channels(x, self.channels, "DualGAN")
        encoded = []
        for level in range(1, 8):
            x = getattr(self, f"down{level}")(x)
            encoded.append(x)
        encoded.pop()
        for level in range(1, 7):
            x = torch.cat([getattr(self, f"up{level}")(x), encoded.pop()], dim=1)
        return in_float32(self.final, x)

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: RGB images in [-1, 1] -> RGB images in [-1, 1]; `target` is ignored."""
        check_input(images, "this form of DualGAN halves the image 7 times", divisor=128)
        return to_rgb(self(from_rgb(images, self.channels)))


class _Convolution(nn.Module):
    """An encoder layer of the togheppi port: leaky ReLU, `conv`, `bn`. The first uses `conv` only; its `bn` exists in the checkpoints."""

    def __init__(self, channels: int, following: int, *, first: bool, statistics: str) -> None:
        super().__init__()
        self.first = first
        self.conv = nn.Conv2d(channels, following, 4, 2, 1)
        self.bn = BatchNorm(following, statistics=statistics)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if self.first else self.bn(self.conv(F.leaky_relu(x, 0.2)))


class _Deconvolution(nn.Module):
    """A decoder layer: ReLU, `deconv`, `bn`. The last one has no `bn`."""

    def __init__(self, channels: int, following: int, *, last: bool, statistics: str) -> None:
        super().__init__()
        self.last = last
        self.deconv = nn.ConvTranspose2d(channels, following, 4, 2, 1)
        self.bn = BatchNorm(following, statistics=statistics)

    def forward(self, x: Tensor) -> Tensor:
        if not self.last:
            return self.bn(self.deconv(x.relu()))
        with torch.autocast(x.device.type, enabled=False):  # as in `in_float32`
            return self.deconv(x.relu().to(self.deconv.weight.dtype)).tanh()


class TogheppiGenerator(nn.Module):
    """The U-Net of the togheppi port: the paper's eight levels, with 4×4 kernels and batch norm.

    Args:
        input_dim, output_dim, num_filter: channels of the input (1 in the port), of the output and of the first layer.
        statistics: those that batch norm uses, see `generators.norms`.
        noise: keep dropout on in evaluation, as in the port; every call gives another result.

    Shape:
        images (B, 3, H, W) in [-1, 1] with sides divisible by 256 -> (B, 3, H, W) in [-1, 1].
    """

    def __init__(
        self, *, input_dim: int = 1, num_filter: int = 64, output_dim: int = 1, statistics: str = "running", noise: bool = False
    ) -> None:
        super().__init__()
        self.config = {"input_dim": input_dim, "num_filter": num_filter, "output_dim": output_dim, "statistics": statistics, "noise": noise}
        self.input_dim = input_dim
        self.dropout = Dropout(always=noise)
        widths = [num_filter * factor for factor in DOWN]
        for level, (before, after) in enumerate(zip([input_dim, *widths], widths), start=1):
            self.add_module(f"conv{level}", _Convolution(before, after, first=level == 1, statistics=statistics))
        before = widths[-1]
        for level, after in enumerate([*widths[-2::-1], output_dim], start=1):
            self.add_module(f"deconv{level}", _Deconvolution(before, after, last=level == 8, statistics=statistics))
            before = 2 * after

    def forward(self, x: Tensor) -> Tensor:
        """(B, input_dim, H, W) -> (B, output_dim, H, W), in [-1, 1]."""
        check_channels(x, self.input_dim, "DualGAN")
        encoded = []
        for level in range(1, 9):
            x = getattr(self, f"conv{level}")(x)
            encoded.append(x)
        encoded.pop()
        for level in range(1, 8):
            x = getattr(self, f"deconv{level}")(x)
            x = torch.cat([self.dropout(x) if level < 4 else x, encoded.pop()], dim=1)
        return self.deconv8(x)

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: RGB images in [-1, 1] -> RGB images in [-1, 1]. A network with one channel gets the luminance, and its result is grey; `target` is ignored."""
        check_input(images, "this form of DualGAN halves the image 8 times", divisor=256)
        return to_rgb(self(from_rgb(images, self.input_dim)))


FORMS = {"official": DualGANGenerator, "pytorch_gan": PyTorchGANGenerator, "togheppi": TogheppiGenerator}


def dualgan(checkpoint: str | Path | None = None, *, form: str | None = None, **config: Any) -> nn.Module:
    """A DualGAN generator; with a checkpoint, its form and widths are inferred from the tensors, and arguments given explicitly must agree.

    Args:
        checkpoint: torch or safetensors; for the official form also a TensorFlow checkpoint, by its ``.index`` file or its name without.
            If it contains both directions, ``prefix`` selects one, by default "A_g_".
        form: "official" (the default), "pytorch_gan" or "togheppi", see the module's docstring.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if form not in (None, *FORMS):
        raise ValueError(f"expected form out of {list(FORMS)}, got {form!r}")
    if checkpoint is None:
        return FORMS[form or "official"](**config)
    tensors = load_tensorflow(checkpoint) if is_tensorflow(checkpoint) else load_tensors(checkpoint, forms=_FILE_FORMS, entries=("state_dict", "G"))
    found_form = _form(tensors)
    if found_form is None:
        raise ValueError(
            f"{checkpoint} is not a checkpoint of a DualGAN generator: expected the keys of one of the forms {list(FORMS)}, "
            f"found {list(tensors)[:3]}"
        )
    agree({"form": found_form}, {} if form is None else {"form": form}, checkpoint)
    if found_form == "official":
        prefixes = [prefix for prefix in ("A_g_", "B_g_") if prefix + "e1_conv.weight" in tensors]
        prefix = config.get("prefix", prefixes[0])
        if prefix not in prefixes:
            raise ValueError(f"{checkpoint} has the generators {prefixes}, and prefix {prefix!r} was asked for")
        tensors = {key: value for key, value in tensors.items() if key.startswith(prefix)}
        found = {"prefix": prefix, **_widths(tensors, prefix + "e1_conv", ("gcn", "input_channels"), prefix + "d8", "output_channels")}
    elif found_form == "pytorch_gan":
        found = _widths(tensors, "down1.model.0", ("width", "channels"))
    else:
        found = _widths(tensors, "conv1.conv", ("num_filter", "input_dim"), "deconv8.deconv", "output_dim")
    network = FORMS[found_form](**agree(found, config, checkpoint))
    load_state(network, tensors, source=str(checkpoint), optional=("num_batches_tracked",))
    return network


def _form(tensors: Mapping[str, Tensor]) -> str | None:
    firsts = {"A_g_e1_conv": "official", "B_g_e1_conv": "official", "down1.model.0": "pytorch_gan", "conv1.conv": "togheppi"}
    return next((form for key, form in firsts.items() if key + ".weight" in tensors and tensors[key + ".weight"].ndim == 4), None)


def _widths(tensors: Mapping[str, Tensor], first: str, names: tuple[str, str], last: str | None = None, name: str = "") -> dict[str, int]:
    found = dict(zip(names, tensors[first + ".weight"].shape))
    if last is not None and last + ".weight" in tensors and tensors[last + ".weight"].ndim == 4:
        found[name] = tensors[last + ".weight"].shape[1]
    return found

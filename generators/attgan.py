"""AttGAN: facial attribute editing by only changing what you want (He, Zuo, Kan, Shan, Chen; IEEE TIP 2019).

Code: https://github.com/elvisyjlin/AttGAN-PyTorch (MIT), the port whose checkpoints are in use; the authors' own code,
https://github.com/LynnHo/AttGAN-Tensorflow, is in TensorFlow. Written from the paper and the port's published key list, with the
port's state-dict keys: ``weights.<epoch>.pth`` of ``128_shortcut1_inject1_none`` and similar folders (links in the port's README) load directly.

Note:
    The port's leaky ReLU has slope 0.01 where the original has 0.2; its checkpoints were trained with it, so it is kept. The generator's weights don't
    depend on `img_size`: a checkpoint for 128 px runs at 384 px.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generators.attributes import ATTGAN_CONFLICTS, CELEBA_13, check_condition, check_target, flip_attribute, tell
from generators.images import check_input, in_float32
from generators.loading import agree, numbered_kernels
from generators.norms import InstanceNorm
from malp_disc.serialization.state_dicts import load_state, load_tensors

MOST_CHANNELS = 1024
NORMS = {
    "batchnorm": nn.BatchNorm2d,
    "instancenorm": lambda channels: InstanceNorm(channels, affine=True),
    "none": None,
}
ACTIVATIONS = {"lrelu": nn.LeakyReLU, "relu": nn.ReLU, "tanh": nn.Tanh, "none": None}


class Block(nn.Module):
    """Convolution or linear layer, norm and activation, in a Sequential that the port calls `layers`. The first has a bias if no norm follows."""

    def __init__(self, layer: nn.Module, norm: nn.Module | None, activation: str) -> None:
        super().__init__()
        act = _choose(ACTIVATIONS, activation, "activation")
        self.layers = nn.Sequential(layer, *([norm] if norm is not None else []), *([act()] if act is not None else []))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def _convolution(kind: type[nn.Module], channels_in: int, channels_out: int, norm: str, activation: str) -> Block:
    """4×4 convolution of stride 2: downsampling, or upsampling with `nn.ConvTranspose2d`."""
    make = _choose(NORMS, norm, "norm")
    layer = kind(channels_in, channels_out, 4, 2, 1, bias=make is None)
    return Block(layer, None if make is None else make(channels_out), activation)


def _linear(features_in: int, features_out: int, activation: str) -> Block:
    return Block(nn.Linear(features_in, features_out), None, activation)


def _choose(among: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in among:
        raise ValueError(f"unknown {what} {name!r}; choose from {list(among)}")
    return among[name]


class AttGANGenerator(nn.Module):
    """G(x, a): an encoder, and a decoder conditioned on the attributes.

    Args:
        enc_dim, enc_layers, enc_norm_fn, enc_acti_fn: channels of the first layer, layers, norm and activation of the encoder.
        dec_dim, dec_layers, dec_norm_fn, dec_acti_fn: the same of the decoder, channels of its last layer but one.
        n_attrs: number of attributes.
        shortcut_layers: number of decoder layers with a skip connection from the encoder.
        inject_layers: number of decoder layers, after the first, that get the attributes as well.
        img_size: accepted because the port's setting.txt contains it; not used.

    Shape:
        images (B, 3, H, W) in [-1, 1] with H and W divisible by 2^enc_layers (32), vector (B, n_attrs) -> (B, 3, H, W) in [-1, 1].
    """

    def __init__(
        self,
        *,
        enc_dim: int = 64,
        enc_layers: int = 5,
        enc_norm_fn: str = "batchnorm",
        enc_acti_fn: str = "lrelu",
        dec_dim: int = 64,
        dec_layers: int = 5,
        dec_norm_fn: str = "batchnorm",
        dec_acti_fn: str = "relu",
        n_attrs: int = 13,
        shortcut_layers: int = 1,
        inject_layers: int = 0,
        img_size: int | None = None,
    ) -> None:
        super().__init__()
        if enc_layers != dec_layers:
            raise ValueError(
                f"expected as many decoder layers as encoder layers, got {dec_layers} and {enc_layers}: the image would change its size"
            )
        self.n_attrs = n_attrs
        self.shortcut_layers, self.inject_layers = min(shortcut_layers, dec_layers - 1), min(inject_layers, dec_layers - 1)
        self.config = {
            "enc_dim": enc_dim, "enc_layers": enc_layers, "enc_norm_fn": enc_norm_fn, "dec_dim": dec_dim, "dec_layers": dec_layers,
            "dec_norm_fn": dec_norm_fn, "n_attrs": n_attrs, "shortcut_layers": self.shortcut_layers, "inject_layers": self.inject_layers,
        }  # fmt: skip
        down = [3, *(min(enc_dim * 2**i, MOST_CHANNELS) for i in range(enc_layers))]
        self.enc_layers = nn.ModuleList(_convolution(nn.Conv2d, *pair, enc_norm_fn, enc_acti_fn) for pair in zip(down, down[1:]))
        self.dec_layers = nn.ModuleList()
        channels = down[-1] + n_attrs
        for i in range(dec_layers - 1):
            wider = min(dec_dim * 2 ** (dec_layers - 1 - i), MOST_CHANNELS)
            self.dec_layers.append(_convolution(nn.ConvTranspose2d, channels, wider, dec_norm_fn, dec_acti_fn))
            channels = wider + (down[-2 - i] if i < self.shortcut_layers else 0) + (n_attrs if i < self.inject_layers else 0)
        self.dec_layers.append(_convolution(nn.ConvTranspose2d, channels, 3, "none", "tanh"))

    def forward(self, images: Tensor, vector: Tensor) -> Tensor:
        check_input(images, "AttGAN", divisor=2 ** len(self.enc_layers))
        check_condition(vector, (len(images), self.n_attrs), "attribute")
        encoded = [images]
        for layer in self.enc_layers:
            encoded.append(layer(encoded[-1]))
        x = tell(encoded[-1], vector)
        for i, layer in enumerate(self.dec_layers[:-1]):
            x = layer(x)
            if i < self.shortcut_layers:
                x = torch.cat([x, encoded[-2 - i]], dim=1)
            if i < self.inject_layers:
                x = tell(x, vector)
        return in_float32(self.dec_layers[-1].layers, x)

    def manipulate(self, images: Tensor, target: Tensor) -> Tensor:
        """Common interface of all generators: images in [-1, 1] with the attributes `target`.

        Args:
            target: (B, n_attrs), the desired labels, 0 or 1, or values in between; -0.5 and 1.5 exaggerate, as the port's test script
                does for the edited attribute (`attgan_target`).

        Raises:
            ValueError: another shape, or a number outside [-0.5, 1.5].
        """
        check_input(images, "AttGAN", divisor=2 ** len(self.enc_layers))
        check_target(target, (len(images), self.n_attrs), -0.5, 1.5, "the wanted labels as 0 and 1 (CelebA's -1 means 0)")
        return self(images, self.vector(target.to(images.dtype)))

    @staticmethod
    def vector(target: Tensor) -> Tensor:
        """G's condition for labels 0 and 1: -0.5 and 0.5 (the port's `thres_int` in training, by default)."""
        return target - 0.5


def attgan_target(labels: Tensor, attribute: str, names: Sequence[str] = CELEBA_13, *, intensity: float = 1.0) -> Tensor:
    """The target of the port's test script: one attribute flipped and exaggerated, those that it excludes cleared.

    Args:
        labels: (B, A) in {0, 1}, the current labels.
        intensity: `test_int` of the port, in [0.5, 1]; 0.5 doesn't exaggerate.

    Returns:
        (B, A) for `AttGANGenerator.manipulate`.
    """
    target = flip_attribute(labels, names, attribute, ATTGAN_CONFLICTS).float()
    column = list(names).index(attribute)
    target[:, column] = 0.5 + (2 * target[:, column] - 1) * intensity
    return target


class AttGANDiscriminators(nn.Module):
    """D(x): a shared trunk with two heads, the critic's value and one logit per attribute.

    Args:
        dim, n_layers, norm_fn, acti_fn: channels of the first layer, layers, norm and activation of the trunk.
        fc_dim, fc_norm_fn, fc_acti_fn: the heads' hidden layer; its norm must be "none". The activation can't be inferred from a checkpoint: the
            default of the port's class is "lrelu", but its train.py, which made the checkpoints, uses "relu", as `attgan_discriminators` does.
        img_size: side of the images, a multiple of 2^n_layers.
        n_attrs: number of attributes.

    Shape:
        (B, 3, N, N) -> values (B, 1) without a sigmoid, logits (B, n_attrs).
    """

    def __init__(
        self,
        *,
        dim: int = 64,
        norm_fn: str = "instancenorm",
        acti_fn: str = "lrelu",
        fc_dim: int = 1024,
        fc_norm_fn: str = "none",
        fc_acti_fn: str = "lrelu",
        n_layers: int = 5,
        img_size: int = 128,
        n_attrs: int = 13,
    ) -> None:
        super().__init__()
        if img_size % 2**n_layers:
            raise ValueError(f"expected an img_size divisible by 2^{n_layers} = {2**n_layers}, got {img_size}")
        if fc_norm_fn != "none":
            raise ValueError(f"expected fc_norm_fn 'none', got {fc_norm_fn!r}: no published file has a norm there")
        self.img_size = img_size
        self.config = {"dim": dim, "norm_fn": norm_fn, "fc_dim": fc_dim, "n_layers": n_layers, "img_size": img_size, "n_attrs": n_attrs}
        channels = [3, *(min(dim * 2**i, MOST_CHANNELS) for i in range(n_layers))]
        self.conv = nn.Sequential(*(_convolution(nn.Conv2d, *pair, norm_fn, acti_fn) for pair in zip(channels, channels[1:])))
        features = channels[-1] * (img_size // 2**n_layers) ** 2
        self.fc_adv = nn.Sequential(_linear(features, fc_dim, fc_acti_fn), _linear(fc_dim, 1, "none"))
        self.fc_cls = nn.Sequential(_linear(features, fc_dim, fc_acti_fn), _linear(fc_dim, n_attrs, "none"))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.shape[1:] != (3, self.img_size, self.img_size):
            raise ValueError(f"expected images (B, 3, {self.img_size}, {self.img_size}), got {tuple(images.shape)}")
        features = self.conv(images).flatten(1)
        return self.fc_adv(features), self.fc_cls(features)


def attgan(checkpoint: str | Path | None = None, **config: Any) -> AttGANGenerator:
    """An AttGAN generator; with a checkpoint, the widths, norms, shortcuts and injections are inferred from the tensors, and arguments given explicitly must agree.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if checkpoint is None:
        return AttGANGenerator(**config)
    tensors = load_tensors(checkpoint, forms=(("enc_layers.0.layers.0.weight", "dec_layers.0.layers.0.weight"),), entries=("G", "state_dict"))
    network = AttGANGenerator(**agree(_read_generator(tensors, checkpoint), config, checkpoint))
    load_state(network, tensors, source=str(checkpoint), optional=("num_batches_tracked",))
    return network


def attgan_discriminators(checkpoint: str | Path | None = None, **config: Any) -> AttGANDiscriminators:
    """The discriminators of an AttGAN, the entry ``D`` of a training checkpoint; the widths are inferred from it. Raises as `attgan` does."""
    config = {"fc_acti_fn": "relu", **config}
    if checkpoint is None:
        return AttGANDiscriminators(**config)
    tensors = load_tensors(checkpoint, forms=(("conv.0.layers.0.weight", "fc_cls.1.layers.0.weight"),), entries=("D", "state_dict"), role="discriminator")
    trunk = numbered_kernels(tensors, r"conv\.(\d+)\.layers\.0\.weight")
    hidden, logits = tensors.get("fc_cls.0.layers.0.weight"), tensors.get("fc_cls.1.layers.0.weight")
    if not trunk or hidden is None or logits is None:
        raise ValueError(
            f"{checkpoint} is not a checkpoint of AttGANDiscriminators: expected conv.0.layers.0.weight, …, found {list(tensors)[:3]}"
        )
    side = math.isqrt(hidden.shape[1] // trunk[-1].shape[0])
    found = {
        "dim": trunk[0].shape[0],
        "norm_fn": _norm_of(tensors, "conv.0"),
        "fc_dim": hidden.shape[0],
        "n_layers": len(trunk),
        "img_size": side * 2 ** len(trunk),
        "n_attrs": logits.shape[0],
    }
    network = AttGANDiscriminators(**agree(found, config, checkpoint))
    load_state(network, tensors, source=str(checkpoint), optional=("num_batches_tracked",))
    return network


def _read_generator(tensors: Mapping[str, Tensor], source: str | Path) -> dict[str, Any]:
    """Constructor arguments inferred from the tensors."""
    down, up = (
        numbered_kernels(tensors, r"enc_layers\.(\d+)\.layers\.0\.weight"),
        numbered_kernels(tensors, r"dec_layers\.(\d+)\.layers\.0\.weight"),
    )
    if len(down) < 2 or len(up) < 2:
        raise ValueError(
            f"{source} is not a checkpoint of AttGANGenerator: expected enc_layers.0.layers.0.weight, …, found {list(tensors)[:3]}"
        )
    n_attrs = up[0].shape[0] - down[-1].shape[0]
    shortcuts = injections = 0
    for i, (layer, following) in enumerate(zip(up, up[1:])):  # channels concatenated with a layer's output
        joined = following.shape[0] - layer.shape[1]
        skip = down[-2 - i].shape[0] if len(down) >= 2 + i else 0
        shortcuts += joined in (skip, skip + n_attrs) and joined > 0
        injections += joined in (n_attrs, skip + n_attrs) and joined > 0
    return {
        "enc_dim": down[0].shape[0],
        "enc_layers": len(down),
        "enc_norm_fn": _norm_of(tensors, "enc_layers.0"),
        "dec_dim": up[-2].shape[1] // 2,
        "dec_layers": len(up),
        "dec_norm_fn": _norm_of(tensors, "dec_layers.0"),
        "n_attrs": n_attrs,
        "shortcut_layers": shortcuts,
        "inject_layers": injections,
    }


def _norm_of(tensors: Mapping[str, Tensor], block: str) -> str:
    if f"{block}.layers.1.running_mean" in tensors:
        return "batchnorm"
    return "instancenorm" if f"{block}.layers.1.weight" in tensors else "none"

"""STGAN: a unified selective transfer network for arbitrary image attribute editing (Liu et al., CVPR 2019).

There are two implementations, with different keys and different arithmetic; both are supported:

    the port       https://github.com/bluestyle97/STGAN-pytorch (no licence file; no weights released): `STGANGenerator` in this module
    the authors'   https://github.com/csmliu/STGAN (MIT), TensorFlow; MaLP was trained on this one: `generators.stgan_official`

Written from the paper and the key lists, with the port's state-dict keys: its ``G_<iter>.pth.tar`` and ``D_<iter>.pth.tar`` load directly.

Note:
    STGAN's condition is the change of the labels, desired − current, where 0 leaves an attribute unchanged. Desired labels alone are therefore no
    valid target; see `STGANGenerator.manipulate`. The commands compute the change, because `target_kind` asks for it. The state passed to the next
    unit is the reset one, r·s, not the unit's output. The discriminator's instance norms have running averages, but always use the statistics of
    each image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generators import stgan_official
from generators.attributes import check_condition, difference, tell
from generators.images import check_input, in_float32
from generators.loading import agree, numbered_kernels
from generators.norms import InstanceNorm
from malp_disc.serialization.state_dicts import load_state, load_tensors


class SelectiveTransferUnit(nn.Module):
    """Selective transfer unit (Section 3.2): a GRU-like cell that selects which encoder features are passed to the decoder.

    forward: encoder features f (B, C, 2h, 2w), state (B, 2C, h, w), difference (B, A) -> transferred features and new state, both
    (B, C, 2h, 2w).
    """

    def __init__(self, channels: int, attributes: int, kernel_size: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(2 * channels + attributes, channels, 4, 2, 1, bias=False)
        self.reset_gate = self._gate(channels, kernel_size, nn.Sigmoid())
        self.update_gate = self._gate(channels, kernel_size, nn.Sigmoid())
        self.hidden = self._gate(channels, kernel_size, nn.Tanh())

    @staticmethod
    def _gate(channels: int, kernel_size: int, activation: nn.Module) -> nn.Sequential:
        convolution = nn.Conv2d(2 * channels, channels, kernel_size, 1, (kernel_size - 1) // 2, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(channels), activation)

    def forward(self, features: Tensor, state: Tensor, difference: Tensor) -> tuple[Tensor, Tensor]:
        state = self.upsample(tell(state, difference))
        both = torch.cat([features, state], dim=1)
        update = self.update_gate(both)
        kept = self.reset_gate(both) * state
        new = self.hidden(torch.cat([features, kept], dim=1))
        return (1 - update) * state + update * new, kept


class STGANGenerator(nn.Module):
    """G(x, a) of the PyTorch port: encoder, selective transfer units, decoder.

    Args:
        attr_dim: number of attributes.
        conv_dim: channels of the first layer.
        n_layers: downsampling layers.
        shortcut_layers: number of decoder layers with skip connections.
        stu_kernel_size: kernel size of the gates.
        use_stu: pass the skip connections through selective transfer units.
        one_more_conv: the last decoder layer consists of two, the first with conv_dim / 4 channels.

    Shape:
        images (B, 3, H, W) in [-1, 1] with H and W divisible by 2^n_layers (32), difference (B, attr_dim) -> (B, 3, H, W) in [-1, 1].
    """

    target_kind = "change"

    def __init__(
        self,
        *,
        attr_dim: int = 10,
        conv_dim: int = 64,
        n_layers: int = 5,
        shortcut_layers: int = 3,
        stu_kernel_size: int = 3,
        use_stu: bool = True,
        one_more_conv: bool = True,
    ) -> None:
        super().__init__()
        shortcut_layers = min(shortcut_layers, n_layers - 1)
        self.n_attrs, self.n_layers, self.shortcut_layers = attr_dim, n_layers, shortcut_layers
        self.config = {
            "attr_dim": attr_dim, "conv_dim": conv_dim, "n_layers": n_layers, "shortcut_layers": shortcut_layers,
            "stu_kernel_size": stu_kernel_size, "use_stu": use_stu, "one_more_conv": one_more_conv,
        }  # fmt: skip
        widths = [conv_dim * 2**i for i in range(n_layers)]
        self.encoder = nn.ModuleList(_down(*pair) for pair in zip([3, *widths], widths))
        if use_stu:
            passed = reversed(widths[n_layers - 1 - shortcut_layers : -1])
            self.stu = nn.ModuleList(SelectiveTransferUnit(width, attr_dim, stu_kernel_size) for width in passed)
        else:
            self.stu = None
        self.decoder = nn.ModuleList()
        channels = widths[-1] + attr_dim
        for i, width in enumerate(reversed(widths[1:])):
            self.decoder.append(
                nn.Sequential(nn.ConvTranspose2d(channels, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
            )
            channels = width + (width // 2 if i < shortcut_layers else 0)
        self.decoder.append(nn.Sequential(*_last_layers(channels, conv_dim // 4, one_more_conv)))

    def forward(self, images: Tensor, difference: Tensor) -> Tensor:
        check_input(images, "STGAN", divisor=2**self.n_layers)
        check_condition(difference, (len(images), self.n_attrs), "attribute")
        encoded = [images]
        for layer in self.encoder:
            encoded.append(layer(encoded[-1]))
        state = encoded[-1]
        x = tell(state, difference)
        for i, layer in enumerate(self.decoder[:-1]):
            x = layer(x)
            if i < self.shortcut_layers:
                features = encoded[-2 - i]
                if self.stu is not None:
                    features, state = self.stu[i](features, state, difference)
                x = torch.cat([x, features], dim=1)
        last = self.decoder[-1]
        return in_float32(last[-2:], last[:-2](x))

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: images in [-1, 1] -> edited images in [-1, 1].

        Args:
            target: the change of the attributes: (B, A) in [-1, 1], where 1 adds an attribute, -1 removes it and 0 keeps it; or (B, 2, A)
                in [0, 1], desired and current labels, ``torch.stack([wanted, present], dim=1)``, whose difference is taken. None: no change
                (a reconstruction).

        Note:
            Desired labels alone, as for StarGAN, don't say what to remove: passed as (B, A) they mean "add every attribute that is 1, keep the others".

        Raises:
            ValueError: another shape, or a number outside these ranges.
        """
        check_input(images, "STGAN", divisor=2**self.n_layers)
        return self(images, difference(target, images, self.n_attrs))


class STGANDiscriminator(nn.Module):
    """D(x) of the PyTorch port: the critic's value and one logit per attribute.

    Args:
        image_size: side of the images, a multiple of 2^n_layers.
        attr_dim, conv_dim, fc_dim, n_layers: attributes, channels of the first layer, width of the heads, stride-2 layers.

    Shape:
        (B, 3, N, N) -> values (B, 1) without a sigmoid, logits (B, attr_dim).
    """

    def __init__(self, *, image_size: int = 128, attr_dim: int = 10, conv_dim: int = 64, fc_dim: int = 1024, n_layers: int = 5) -> None:
        super().__init__()
        if image_size % 2**n_layers:
            raise ValueError(f"expected an image size divisible by 2^{n_layers} = {2**n_layers}, got {image_size}")
        self.image_size = image_size
        self.config = {"image_size": image_size, "attr_dim": attr_dim, "conv_dim": conv_dim, "fc_dim": fc_dim, "n_layers": n_layers}
        widths = [conv_dim * 2**i for i in range(n_layers)]
        self.conv = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 4, 2, 1), InstanceNorm(b, affine=True, tracked=True), nn.LeakyReLU(0.2))
                for a, b in zip([3, *widths], widths)
            ),
        )
        features = widths[-1] * (image_size // 2**n_layers) ** 2
        self.fc_adv = nn.Sequential(nn.Linear(features, fc_dim), nn.LeakyReLU(0.2), nn.Linear(fc_dim, 1))
        self.fc_att = nn.Sequential(nn.Linear(features, fc_dim), nn.LeakyReLU(0.2), nn.Linear(fc_dim, attr_dim))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.shape[1:] != (3, self.image_size, self.image_size):
            raise ValueError(f"expected images (B, 3, {self.image_size}, {self.image_size}), got {tuple(images.shape)}")
        features = self.conv(images).flatten(1)
        return self.fc_adv(features), self.fc_att(features)


def _down(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 4, 2, 1, bias=False), nn.BatchNorm2d(channels_out), nn.LeakyReLU(0.2))


def _last_layers(channels: int, between: int, one_more_conv: bool) -> list[nn.Module]:
    if not one_more_conv:
        return [nn.ConvTranspose2d(channels, 3, 4, 2, 1, bias=False), nn.Tanh()]
    first = nn.ConvTranspose2d(channels, between, 4, 2, 1, bias=False)
    return [first, nn.BatchNorm2d(between), nn.ReLU(inplace=True), nn.ConvTranspose2d(between, 3, 3, 1, 1, bias=False), nn.Tanh()]


def stgan(checkpoint: str | Path | None = None, *, form: str | None = None, **config: Any) -> nn.Module:
    """Build an STGAN generator of either implementation; with a checkpoint, the form and the widths are inferred from the tensors, and arguments given explicitly must agree.

    Args:
        form: "port" (the default) or "official".

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if form not in (None, "port", "official"):
        raise ValueError(f"unknown form {form!r} of STGAN; choose 'port' or 'official'")
    if checkpoint is None:
        return stgan_official.STGANOfficialGenerator(**config) if form == "official" else STGANGenerator(**config)
    tensors = stgan_official.load(checkpoint)
    found_form = next(
        (name for start, name in (("Genc.", "official"), ("encoder.", "port")) if any(key.startswith(start) for key in tensors)),
        form or "port",
    )
    agree({"form": found_form}, {"form": form} if form else {}, checkpoint)
    if found_form == "official":
        return stgan_official.from_tensors(tensors, config, checkpoint)
    network = STGANGenerator(**agree(_read_generator(tensors, checkpoint), config, checkpoint))
    load_state(network, tensors, source=str(checkpoint), optional=("num_batches_tracked",))
    return network


def stgan_discriminator(checkpoint: str | Path | None = None, **config: int) -> STGANDiscriminator:
    """Build the port's STGAN discriminator; with a checkpoint, widths and image size are inferred from the tensors. Raises as `stgan` does."""
    if checkpoint is None:
        return STGANDiscriminator(**config)
    tensors = load_tensors(checkpoint, forms=(("conv.0.0.weight", "fc_att.2.weight"),), entries=("state_dict", "D"), role="discriminator")
    trunk = numbered_kernels(tensors, r"conv\.(\d+)\.0\.weight")
    hidden, logits = tensors.get("fc_att.0.weight"), tensors.get("fc_att.2.weight")
    if not trunk or hidden is None or logits is None:
        raise ValueError(f"{checkpoint} is not a checkpoint of STGANDiscriminator: expected conv.0.0.weight, …, found {list(tensors)[:3]}")
    found = {
        "image_size": math.isqrt(hidden.shape[1] // trunk[-1].shape[0]) * 2 ** len(trunk),
        "attr_dim": logits.shape[0],
        "conv_dim": trunk[0].shape[0],
        "fc_dim": hidden.shape[0],
        "n_layers": len(trunk),
    }
    network = STGANDiscriminator(**agree(found, config, checkpoint))
    load_state(network, tensors, source=str(checkpoint), optional=("num_batches_tracked",))
    return network


def _read_generator(tensors: Mapping[str, Tensor], source: str | Path) -> dict[str, Any]:
    """Constructor arguments inferred from the tensors."""
    down, up = numbered_kernels(tensors, r"encoder\.(\d+)\.0\.weight"), numbered_kernels(tensors, r"decoder\.(\d+)\.0\.weight")
    if len(down) < 2 or len(up) < 2:
        raise ValueError(f"{source} is not a checkpoint of STGANGenerator: expected encoder.0.0.weight, …, found {list(tensors)[:3]}")
    shortcuts = sum(following.shape[0] > layer.shape[1] for layer, following in zip(up, up[1:]))
    found = {
        "attr_dim": up[0].shape[0] - down[-1].shape[0],
        "conv_dim": down[0].shape[0],
        "n_layers": len(down),
        "shortcut_layers": shortcuts,
        "one_more_conv": f"decoder.{len(up) - 1}.3.weight" in tensors,
    }
    gate = tensors.get("stu.0.hidden.0.weight")
    if shortcuts:  # without shortcuts, transfer units can't be inferred
        found["use_stu"] = gate is not None
    return found if gate is None else {**found, "stu_kernel_size": gate.shape[-1]}

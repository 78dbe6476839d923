"""RRDBNet, the network of ESRGAN and Real-ESRGAN: residual in residual dense blocks (Wang et al., ECCV workshops 2018, Section 3.1).

There are three naming schemes for its state-dict keys. `RRDBNet` is built with the requested one, and `renamed` converts between them:

    NEW     body.0.rdb1.conv1      conv_body          conv_up1, conv_up2     conv_hr     BasicSR, Real-ESRGAN
    OLD     RRDB_trunk.0.RDB1.…    trunk_conv         upconv1, upconv2       HRconv      the ESRGAN repository
    oldest  model.1.sub.0.RDB1.…   model.1.sub.N      model.3, model.6       model.8     its files named …_old_arch
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.images import in_float32

UNSHUFFLED = {4: 1, 2: 2, 1: 4}
"""scale: by how much the image is unshuffled first. What follows enlarges 4-fold in any case."""


@dataclass(frozen=True)
class Naming:
    trunk: str
    dense: str
    trunk_conv: str
    up: str
    high: str


NEW = Naming("body", "rdb", "conv_body", "conv_up", "conv_hr")
FORMS = (("conv_first.weight", "conv_last.weight"), ("model.0.weight", "model.10.weight"))
"""Keys by which a file of this network is known: of both namings, and of the oldest."""
OLD = Naming("RRDB_trunk", "RDB", "trunk_conv", "upconv", "HRconv")


class DenseBlock(nn.Module):
    """Dense block: x + 0.2 · conv5(…), where every convolution gets the features of all previous ones."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        for k in range(4):
            self.add_module(f"conv{k + 1}", nn.Conv2d(channels + k * growth, growth, 3, padding=1))
        self.conv5 = nn.Conv2d(channels + 4 * growth, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        maps = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            maps = torch.cat([maps, F.leaky_relu(conv(maps), 0.2)], dim=1)
        return x + 0.2 * self.conv5(maps)


class RRDB(nn.Module):
    """Residual in residual dense block: x + 0.2 · three dense blocks of x."""

    def __init__(self, channels: int, growth: int, naming: Naming) -> None:
        super().__init__()
        for k in (1, 2, 3):
            self.add_module(f"{naming.dense}{k}", DenseBlock(channels, growth))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for block in self.children():
            y = block(y)
        return x + 0.2 * y


class RRDBNet(nn.Module):
    """The network: RGB in [0, 1] -> roughly [0, 1], not clamped.

    Args:
        scale: 4, or 2 or 1, for which pixels are first unshuffled into channels.
        features, growth, blocks: channels of the trunk, growth channels of a dense block, number of RRDBs.

    Shape:
        (B, 3, h, w) -> (B, 3, scale · h, scale · w). Sides that can't be unshuffled are padded by reflection, and the result is cropped.
    """

    def __init__(self, *, scale: int, features: int, growth: int, blocks: int, naming: Naming) -> None:
        super().__init__()
        if scale not in UNSHUFFLED:
            raise ValueError(f"RRDBNet enlarges by 4, 2 or 1, got scale {scale}")
        self.scale, self.naming = scale, naming
        self.conv_first = nn.Conv2d(3 * UNSHUFFLED[scale] ** 2, features, 3, padding=1)
        self.add_module(naming.trunk, nn.Sequential(*[RRDB(features, growth, naming) for _ in range(blocks)]))
        for name in (naming.trunk_conv, f"{naming.up}1", f"{naming.up}2", naming.high):
            self.add_module(name, nn.Conv2d(features, features, 3, padding=1))
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)
        nn.init.constant_(self.conv_last.bias, 0.5)  # a fresh network starts at grey: around black half of the pixels would be clamped

    def forward(self, x: Tensor) -> Tensor:
        names, by, (height, width) = self.naming, UNSHUFFLED[self.scale], x.shape[2:]
        if height % by or width % by:
            x = F.pad(x, (0, -width % by, 0, -height % by), mode="reflect")
        first = self.conv_first(F.pixel_unshuffle(x, by))
        features = first + self._part(names.trunk_conv)(self._part(names.trunk)(first))
        for k in (1, 2):
            features = F.leaky_relu(self._part(f"{names.up}{k}")(F.interpolate(features, scale_factor=2, mode="nearest")), 0.2)
        features = F.leaky_relu(self._part(names.high)(features), 0.2)
        return in_float32(self.conv_last, features)[..., : self.scale * height, : self.scale * width]

    def _part(self, name: str) -> nn.Module:
        return getattr(self, name)


def renamed(tensors: Mapping[str, Tensor], naming: Naming) -> dict[str, Tensor]:
    """Convert a state dict from any naming scheme to `naming`. Unknown keys are kept."""
    return {_rename(key, naming): value for key, value in tensors.items()}


def _rename(key: str, to: Naming) -> str:
    oldest = {r"0": "conv_first", r"1\.sub\.\d+": to.trunk_conv, r"3": f"{to.up}1", r"6": f"{to.up}2", r"8": to.high, r"10": "conv_last"}
    for number, name in oldest.items():
        if match := re.fullmatch(rf"model\.{number}\.(weight|bias)", key):
            return f"{name}.{match[1]}"
    if match := re.fullmatch(r"(?:model\.1\.sub|RRDB_trunk|body)\.(\d+)\.(?:RDB|rdb)(\d)\.conv(\d)(?:\.0)?\.(weight|bias)", key):
        return f"{to.trunk}.{match[1]}.{to.dense}{match[2]}.conv{match[3]}.{match[4]}"
    for naming in (NEW, OLD):
        for own, other in (
            (naming.trunk_conv, to.trunk_conv),
            (f"{naming.up}1", f"{to.up}1"),
            (f"{naming.up}2", f"{to.up}2"),
            (naming.high, to.high),
        ):
            if key.startswith(own + "."):
                return other + key.removeprefix(own)
    return key


def widths(tensors: Mapping[str, Tensor], naming: Naming) -> dict[str, Any]:
    """Constructor arguments of `RRDBNet` inferred from a state dict in `naming`."""
    found: dict[str, Any] = {}
    first, grown = tensors.get("conv_first.weight"), tensors.get(f"{naming.trunk}.0.{naming.dense}1.conv1.weight")
    if first is not None and first.ndim == 4:
        found["features"] = first.shape[0]
        found["scale"] = {12: 2, 48: 1}.get(first.shape[1], 4)
    if grown is not None and grown.ndim == 4:
        found["growth"] = grown.shape[0]
    found["blocks"] = len({key.split(".")[1] for key in tensors if key.startswith(f"{naming.trunk}.")})
    return found

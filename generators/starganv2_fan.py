"""The face masks of StarGAN v2: a landmark network, and the masks computed from its heat maps.

The network is the face alignment network of "adaptive wing loss for robust face alignment via heatmap regression" (Wang, Bo, Fuxin, ICCV
2019); official code of its use in StarGAN v2: ``core/wing.py`` of https://github.com/clovaai/stargan-v2 (parts BSD-3 and Apache). Written from a
description; the keys are those of the ``fan`` entry of StarGAN v2's checkpoints and of ``wing.ckpt``.

Note:
    The network is never trained: its parameters require no gradient, and it stays in evaluation mode when its parent is set to training mode.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from malp_disc.serialization.state_dicts import load_state, load_tensors

LANDMARKS = 98
SIZE = 256  # input size of the network, and the height for which the shifts below are given


def with_coordinates(x: Tensor) -> Tensor:
    """Append three channels: row and column, from -1 to 1, and the distance from the centre, up to 1."""
    height, width = x.shape[2:]
    rows = torch.linspace(-1, 1, height, device=x.device)[:, None].expand(height, width)
    columns = torch.linspace(-1, 1, width, device=x.device)[None, :].expand(height, width)
    radius = (rows.square() + columns.square()).sqrt()
    coordinates = torch.stack([rows, columns, radius / radius.max()])
    return torch.cat([x, coordinates.to(x.dtype).expand(len(x), -1, -1, -1)], dim=1)


class CoordConv(nn.Module):
    """CoordConv: a convolution of the features and their coordinates."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs + 3, outputs, kernel, stride, kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(with_coordinates(x))


class ConvBlock(nn.Module):
    """Hierarchical residual block: three convolutions in sequence, their outputs concatenated, plus the input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        widths = (inputs, outputs // 2, outputs // 4, outputs // 4)
        for i in (1, 2, 3):
            self.add_module(f"bn{i}", nn.BatchNorm2d(widths[i - 1]))
            self.add_module(f"conv{i}", nn.Conv2d(widths[i - 1], widths[i], 3, 1, 1, bias=False))
        self.downsample = None
        if inputs != outputs:
            self.downsample = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(self.bn1(x).relu())
        second = self.conv2(self.bn2(first).relu())
        third = self.conv3(self.bn3(second).relu())
        return torch.cat([first, second, third], dim=1) + (x if self.downsample is None else self.downsample(x))


class HourGlass(nn.Module):
    """Hourglass: downsampling `depth` times and upsampling again, with a skip connection at every resolution."""

    def __init__(self, depth: int, channels: int) -> None:
        super().__init__()
        self.depth = depth
        self.coordconv = CoordConv(channels, channels, 1)
        for level in range(depth, 0, -1):
            for block in ("b1", "b2", "b3"):
                self.add_module(f"{block}_{level}", ConvBlock(channels, channels))
        self.b2_plus_1 = ConvBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self._level(self.depth, self.coordconv(x))

    def _level(self, level: int, x: Tensor) -> Tensor:
        across, down, up = (getattr(self, f"{block}_{level}") for block in ("b1", "b2", "b3"))
        low = down(F.avg_pool2d(x, 2))
        low = self._level(level - 1, low) if level > 1 else self.b2_plus_1(low)
        return across(x) + F.interpolate(up(low), scale_factor=2, mode="nearest")


class FAN(nn.Module):
    """Face alignment network: heat maps of facial landmarks, and StarGAN v2's masks computed from them.

    Args:
        num_landmarks: number of heat maps, without the additional one of the face's boundary. The masks require 98.
    """

    def __init__(self, *, num_landmarks: int = LANDMARKS) -> None:
        super().__init__()
        self.num_landmarks = num_landmarks
        self.conv1 = CoordConv(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2, self.conv3, self.conv4 = ConvBlock(64, 128), ConvBlock(128, 128), ConvBlock(128, 256)
        self.m0 = HourGlass(4, 256)
        self.top_m_0 = ConvBlock(256, 256)
        self.conv_last0 = nn.Conv2d(256, 256, 1)
        self.bn_end0 = nn.BatchNorm2d(256)
        self.l0 = nn.Conv2d(256, num_landmarks + 1, 1)
        self.requires_grad_(False).train(False)

    def train(self, mode: bool = True) -> FAN:
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 256, 256) in [0, 1] -> (B, num_landmarks + 1, 64, 64)."""
        x = self.bn1(self.conv1(images)).relu()
        x = self.conv4(self.conv3(F.avg_pool2d(self.conv2(x), 2)))
        x = self.top_m_0(self.m0(x))
        return self.l0(self.bn_end0(self.conv_last0(x)).relu())

    def heatmaps(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], any size -> (B, num_landmarks + 1, 64, 64)."""
        return self((F.interpolate(images, (SIZE, SIZE), mode="bilinear", align_corners=False) + 1) / 2)

    @torch.no_grad()
    def masks(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] -> `face_masks`. In float32 and without a gradient."""
        with torch.autocast(images.device.type, enabled=False):
            return face_masks(self.heatmaps(images.float())[:, : self.num_landmarks])


# landmarks [first, end), number of rows by which their maps are shifted up, exponent; applied in this order
_PARTS = {
    "chin": (8, 25, 0, 3),
    "eyebrows": (33, 51, -7, 2),
    "nostrils": (55, 60, 8, 4),
    "upper lip": (77, 82, -8, 4),
    "lower lip": (83, 88, 8, 4),
    "inner lip": (88, 96, -2, 3),
}
_UNUSED = (*range(8), *range(25, 34), 46, 76, 82)
_NOSE_BRIDGE = (52, 55, 4)
_EYES = (60, 76)
_FINE_ONLY = ((8, 25), (33, 51), (76, 96))  # chin, eyebrows, mouth: not in the second mask


def shifted(x: Tensor, rows: int) -> Tensor:
    """Circular shift up by `rows`, down if negative."""
    return torch.roll(x, -rows, dims=2)


def face_masks(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Where high-pass features of the input are added, for features of height 32, and of heights 64 and 128.

    Shape:
        (B, 98, h, w) -> two masks (B, 1, 4h, 4w) in [0, 1].
    """
    x = F.interpolate(heatmaps, scale_factor=4, mode="bilinear", align_corners=True)
    x = torch.where(x < 0.1, 0.0, x)
    low, high = x.amin(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
    x = (x - low) / (high - low + 1e-6)
    scale = x.shape[2] // SIZE
    for first, end, rows, power in _PARTS.values():
        x[:, first:end] = shifted(x[:, first:end], rows * scale).pow(power)
    x[:, _UNUSED] = 0
    first, end, rows = _NOSE_BRIDGE
    x[:, first:end] = shifted(x[:, first:end], rows * scale)
    first, end = _EYES
    x[:, first:end] = shifted(x[:, first:end], -8).pow(3) + shifted(x[:, first:end], -24)  # not scaled with the size, as in the authors' code
    fine = x.clone()
    for first, end in _FINE_ONLY:
        fine[:, first:end] = 0
    return tuple(part.sum(dim=1, keepdim=True).nan_to_num(0).clamp(0, 1) for part in (x, fine))


def face_alignment(checkpoint: str | Path, *, num_landmarks: int = LANDMARKS) -> FAN:
    """The landmark network of ``wing.ckpt``, or of the entry ``fan`` of a StarGAN v2; other entries are ignored.

    Raises:
        FileNotFoundError, ValueError: no such file, an unsafe file, a checkpoint of another network.
    """
    network = FAN(num_landmarks=num_landmarks)
    tensors = load_tensors(checkpoint, forms=(("conv1.conv.weight", "l0.weight"),), entries=("fan", "state_dict"))
    known = {key: value for key, value in tensors.items() if key in network.state_dict()}
    load_state(network, known or tensors, source=str(checkpoint), optional=("num_batches_tracked",))
    return network

"""Convolutions with TensorFlow's SAME padding: the output has ceil(n / stride) rows, and odd padding has its extra row at the end."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Numbers of padding rows before and after a side of `size`."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride)); keys and weights of `nn.Conv2d`."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        vertical, horizontal = (same_padding(x.shape[2 + i], self.kernel_size[i], self.stride[i]) for i in range(2))
        return super().forward(F.pad(x, (*horizontal, *vertical)))


class SameConvTranspose2d(nn.ConvTranspose2d):
    """The transpose of `SameConv2d`: (B, C, h, w) -> (B, C', H, W) for the given `size` (H, W), by default stride · (h, w).

    Raises:
        ValueError: a `size` that `SameConv2d` wouldn't map to (h, w).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 2, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, bias=bias)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        size = size or tuple(stride * side for stride, side in zip(self.stride, x.shape[2:]))
        if tuple(-(-side // stride) for stride, side in zip(self.stride, size)) != tuple(x.shape[2:]):
            raise ValueError(f"a convolution of stride {self.stride} doesn't bring {tuple(size)} to {tuple(x.shape[2:])}")
        top, left = (same_padding(size[i], self.kernel_size[i], self.stride[i])[0] for i in range(2))
        whole = super().forward(x)
        return whole[:, :, top : top + size[0], left : left + size[1]]

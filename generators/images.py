"""Conversion of a generator's input and output images: checks, channels, precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey: ITU-R BT.601, as in PIL, and in TensorFlow, which rounds the first to 0.2989."""


def check_input(images: Tensor, network: str, *, divisor: int = 1, least: int = 1) -> None:
    """Check that `images` is a batch of RGB images of a size that `network` accepts.

    Raises:
        ValueError: not (B, 3, H, W), a side that `divisor` doesn't divide, or one below `least`.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"expected images (B, 3, H, W), got {tuple(images.shape)}")
    height, width = images.shape[2:]
    if height % divisor or width % divisor or min(height, width) < least:
        wanted = f"sides divisible by {divisor}" + (f" and at least {least}" if least > divisor else "")
        raise ValueError(f"{network}: expected {wanted}, got {height}x{width}; resize, or pad by reflection and crop the result")


def check_channels(x: Tensor, channels: int, network: str) -> None:
    """Raises: ValueError: not (B, channels, H, W)."""
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"{network}: expected an input (B, {channels}, H, W), got {tuple(x.shape)}")


def luminance(images: Tensor) -> Tensor:
    """(B, 3, H, W) RGB -> (B, 1, H, W), same range."""
    red, green, blue = images.unbind(1)
    return (LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue)[:, None]


def from_rgb(images: Tensor, channels: int) -> Tensor:
    """RGB images converted for a network of 3 or 1 input channels. Raises: ValueError: for other numbers of channels."""
    if channels == 3:
        return images
    if channels == 1:
        return luminance(images)
    raise ValueError(f"this network takes {channels} channels, and no image in RGB tells what to give it; call its forward")


def to_rgb(output: Tensor) -> Tensor:
    """The output of a network of 3 or 1 channels as RGB. Raises: ValueError: for other numbers of channels."""
    if output.shape[1] == 3:
        return output
    if output.shape[1] == 1:
        return output.expand(-1, 3, -1, -1)
    raise ValueError(f"this network paints {output.shape[1]} channels, which are no image in RGB; call its forward")


def in_float32(layers: nn.Module, x: Tensor) -> Tensor:
    """Apply the last layers without autocast: bf16 output would be quantized coarsely, which a detector could learn to recognize."""
    with torch.autocast(x.device.type, enabled=False):
        return layers(x.to(next(layers.parameters()).dtype))

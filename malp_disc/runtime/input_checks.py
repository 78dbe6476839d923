"""Checks of the images and loss weights that a user passes, and how to leave out those of the images' values.

Shapes, dtypes and devices are known to Python. Values are not: whoever looks at those of a tensor on a GPU waits for all work that was queued there before, and
meanwhile queues no more. A training loop that knows its values to be valid leaves these checks out:

    with without_value_checks():
        losses = disc.generator_loss(fake, index)
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

TOLERATED = 1.5
"""Largest value of an image. Dequantized images and outputs of generators without tanh exceed [-1, 1] slightly; images on another scale exceed this by far."""

_look_at_values = contextvars.ContextVar("look_at_values", default=True)


@contextlib.contextmanager
def without_value_checks() -> Iterator[None]:
    """Within this context, functions of this library don't check the values of images, maps, labels and template numbers. Shapes, dtypes and devices are checked.

    It changes no result. On a GPU it saves a wait per check; on a CPU there is little to save. Invalid values end in meaningless results, or in an error of torch, which
    on a GPU ends the process: use it where they are known to be valid, and not in the first step of a loop.
    """
    token = _look_at_values.set(False)
    try:
        yield
    finally:
        _look_at_values.reset(token)


def looks_at_values(values: Tensor) -> bool:
    """Whether the values of this tensor are to be checked: there are some, and it isn't within `without_value_checks`."""
    return values.numel() > 0 and not values.is_meta and _look_at_values.get()


def check_image_pair(images: Tensor, fake: Tensor, names: tuple[str, str] = ("images", "fake")) -> None:
    """Raise ValueError unless both are images in [-1, 1] of one shape (B, 3, H, W) on one device."""
    check_images(images, names[0])
    check_images(fake, names[1])
    check_batches(dict(zip(names, (images, fake))))


def check_images(images: Tensor, name: str = "images") -> None:
    """Raise ValueError unless `images` is a floating-point batch (B, 3, H, W) in about [-1, 1]. An empty batch is valid."""
    check_batches({name: images})
    if not looks_at_values(images):
        return
    low, high = torch.stack(torch.aminmax(images.detach().float())).tolist()
    if not (math.isfinite(low) and math.isfinite(high)):
        wrong = (~torch.isfinite(images.detach())).sum().item()
        raise ValueError(
            f"expected {name} in [-1, 1], got min {low:.4g} max {high:.4g}: {wrong} of {images.numel()} values aren't finite; check what made them (a learning rate that is too "
            "high, an overflow in float16, a division by 0)"
        )
    if not (low >= -TOLERATED and high <= TOLERATED):
        scale = "; divide by 127.5 and subtract 1" if low >= 0 and high <= 255 else ""
        raise ValueError(f"expected {name} in [-1, 1], got min {low:.4g} max {high:.4g}{scale}")


def check_batches(batches: Mapping[str, Tensor], *, device: torch.device | None = None, nonempty: bool = False) -> None:
    """Raise ValueError unless each is a floating-point batch (B, 3, H, W), all of one shape and on one device. Values aren't checked.

    Args:
        batches: batches by their name in the message.
        device: the network's device, for a further check; None for no check.
        nonempty: refuse empty batches.
    """
    for name, images in batches.items():
        if not isinstance(images, Tensor):
            raise ValueError(f"expected {name} as a torch.Tensor (B, 3, H, W) in [-1, 1], got {type(images).__name__}")
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
            raise ValueError(f"expected {name} of shape (B, 3, H, W), got {tuple(images.shape)}")
        if not images.is_floating_point():
            raise ValueError(f"expected {name} in floating point in [-1, 1], got {images.dtype}; convert with x.float() / 127.5 - 1")
        if device is not None and images.device != device:
            raise ValueError(f"expected {name} on {device}, where the network is, got {images.device}; move one of them with .to(device)")
        if nonempty and images.numel() == 0:
            raise ValueError(f"expected at least one image in {name}, got shape {tuple(images.shape)}")
    names, shapes = " and ".join(batches), [tuple(images.shape) for images in batches.values()]
    if len(set(shapes)) > 1:
        raise ValueError(f"expected {names} of one shape, got {' and '.join(map(str, shapes))}; resize the originals to the generator's output")
    devices = [str(images.device) for images in batches.values()]
    if len(set(devices)) > 1:
        raise ValueError(f"expected {names} on one device, got {' and '.join(devices)}; move them with .to(device)")


def check_loss_weights(weights: object) -> None:
    """Raise ValueError unless every attribute of a dataclass of loss weights is finite and 0 or more."""
    for name, value in vars(weights).items():
        if not 0 <= value < math.inf:  # written so that NaN fails
            raise ValueError(f"expected {name} of {type(weights).__name__} to be finite and 0 or more, got {value}; 0 disables a term")

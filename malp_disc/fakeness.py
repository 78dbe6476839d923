"""The fakeness map: how much the generator changed each pixel (paper, Eq. 2 and 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

# Grey from RGB, ITU-R BT.601, as in the authors' code, PIL and OpenCV.
GREY_WEIGHTS = (0.299, 0.587, 0.114)

# Dequantized images and outputs of generators without tanh exceed [-1, 1] slightly; images on another scale exceed this by far.
_TOLERATED = 1.5


def fakeness_map(images: Tensor, fake: Tensor) -> Tensor:
    """M_GT = Gray|I − G(T(I))| / 255, the ground-truth fakeness map of Eq. 5; with `fake` = G(I), that of Eq. 2 (passive).

    Eq. 5 is on the 0..255 scale, so for images in [-1, 1] the factor is 127.5 / 255: a pixel that changes from black to white has 1.
    Differentiable; where the images are equal, the gradient is 0 (torch's subgradient of ``abs``).

    Shapes: images and fake (B, 3, H, W) in [-1, 1] -> (B, 1, H, W) in [0, 1].

    Raises:
        ValueError: shapes differ or aren't (B, 3, H, W), or values are not floating point, not finite or on another scale.

    Note:
        The absolute value is taken before the conversion to grey, as printed, so that a change of hue at equal brightness counts. The
        authors' code uses the signed difference of the grey images instead, see `signed_fakeness_map_official`.

    Example:
        >>> black, white = -torch.ones(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
        >>> fakeness_map(black, white)[0, 0, 0, 0].item()
        1.0
    """
    check_image_pair(images, fake)
    return (_grey((images.float() - fake.float()).abs()) * (127.5 / 255)).clamp(max=1)


def signed_fakeness_map_official(images: Tensor, fake: Tensor) -> Tensor:
    """Signed grey difference ``Gray(fake) − Gray(images)`` of the authors' released code (not the paper).

    Shapes: images and fake (B, 3, H, W) in [-1, 1] -> (B, 1, H, W) in [-2, 2], 0 where nothing changed.
    The authors' metric min-max normalizes it per image, see `malp_disc.metrics.localization`.

    Raises:
        ValueError: as for `fakeness_map`.
    """
    check_image_pair(images, fake)
    return _grey(fake.float() - images.float())


def check_image_pair(images: Tensor, fake: Tensor, names: tuple[str, str] = ("images", "fake")) -> None:
    """Raise ValueError unless both are images in [-1, 1] of one shape (B, 3, H, W) on one device."""
    check_images(images, names[0])
    check_images(fake, names[1])
    check_batches(dict(zip(names, (images, fake))))


def check_images(images: Tensor, name: str = "images") -> None:
    """Raise ValueError unless `images` is a floating-point batch (B, 3, H, W) in about [-1, 1]. An empty batch is valid."""
    check_batches({name: images})
    if images.numel() == 0 or images.is_meta:
        return
    low, high = torch.stack(torch.aminmax(images.detach().float())).tolist()
    if not (math.isfinite(low) and math.isfinite(high)):
        wrong = (~torch.isfinite(images.detach())).sum().item()
        raise ValueError(
            f"expected {name} in [-1, 1], got min {low:.4g} max {high:.4g}: {wrong} of {images.numel()} values aren't finite; check what made them (a learning rate that is too "
            "high, an overflow in float16, a division by 0)"
        )
    if not (low >= -_TOLERATED and high <= _TOLERATED):
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


def _grey(rgb: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W)."""
    weights = torch.tensor(GREY_WEIGHTS, dtype=rgb.dtype, device=rgb.device).view(1, 3, 1, 1)
    return (rgb * weights).sum(dim=1, keepdim=True)

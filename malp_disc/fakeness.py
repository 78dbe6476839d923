"""The fakeness map: how much the generator changed each pixel (paper, Eq. 2 and 5)."""

from __future__ import annotations

from torch import Tensor

from malp_disc.runtime.input_checks import check_image_pair

# Grey from RGB, ITU-R BT.601, as in the authors' code, PIL and OpenCV.
GREY_WEIGHTS = (0.299, 0.587, 0.114)


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


def _grey(rgb: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W)."""
    red, green, blue = rgb.unbind(1)
    return (GREY_WEIGHTS[0] * red + GREY_WEIGHTS[1] * green + GREY_WEIGHTS[2] * blue)[:, None]

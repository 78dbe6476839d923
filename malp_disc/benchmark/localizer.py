"""The contract of the benchmark: a localizer predicts which pixels of an image were manipulated (a map) and whether the image was (a score).

Your own joins with one method; ``my_module:make`` names it on the command line:

    class Brightness:
        name = "brightness"

        def localize(self, images):                          # (B, 3, H, W) in [-1, 1]
            grey = (images.mean(1, keepdim=True) + 1) / 2
            return grey, grey.mean((1, 2, 3))                # map (B, 1, H, W) in [0, 1] or None, score (B,)

    def make():
        return Brightness()

A proactive method also has ``protect(images)``, which returns the images as they are published, before anybody manipulates them. An `nn.Module` is moved to the
benchmark's device and set to evaluation mode; any other object has to take images of any device.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from malp_disc.benchmark.failures import named_failures
from malp_disc.import_object import call_by_name
from malp_disc.runtime.input_checks import check_batches, check_images

Family = Literal["passive", "proactive"]
_TOLERATED = 1e-3  # of a map outside [0, 1], as resampling or half precision leaves it
Object = TypeVar("Object")


class Localization(NamedTuple):
    """Predictions of a localizer for a batch of images."""

    map: Tensor | None
    """Fakeness map (B, 1, H, W) in [0, 1], at the resolution of the images; 0 means unchanged. None for a binary detector."""
    score: Tensor
    """(B,), higher for manipulated images; finite, on any scale."""


@runtime_checkable
class Localizer(Protocol):
    """What the benchmark needs. Optional: ``name`` (default: the class's), ``family``, and ``protect(images)`` of a proactive method; ``threshold`` and
    ``score_threshold`` (default: 0.5), at which a pixel counts as marked and an image as manipulated. A map on the scale of M_GT has the threshold 0.1."""

    def localize(self, images: Tensor) -> Localization | tuple[Tensor | None, Tensor]:
        """Map and score of images (B, 3, H, W) in [-1, 1]. An image's prediction may not depend on the others of its batch."""


def name_of(localizer: Localizer) -> str:
    """The localizer's name in tables."""
    return str(getattr(localizer, "name", None) or type(localizer).__name__)


def family_of(localizer: Localizer) -> Family:
    """ "proactive" for a method that protects images before they are published, otherwise "passive".

    Raises:
        ValueError: it calls itself something else.
    """
    family = getattr(localizer, "family", None) or ("proactive" if hasattr(localizer, "protect") else "passive")
    if family not in ("passive", "proactive"):
        raise ValueError(f"expected the family of {name_of(localizer)} to be passive or proactive, got {family!r}")
    return family


def thresholds_of(localizer: Localizer) -> tuple[float, float]:
    """The localizer's fixed thresholds of its map and of its score, 0.5 where it names none."""
    threshold, score_threshold = (getattr(localizer, name, None) for name in ("threshold", "score_threshold"))
    return float(threshold or 0.5), 0.5 if score_threshold is None else float(score_threshold)


@torch.no_grad()
def protect(localizer: Localizer, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] as their owner publishes them: encrypted by a proactive method, the same by a passive one. A new tensor.

    Raises:
        ValueError: the method failed, or returned something else than images of the same shape in [-1, 1].
    """
    check_images(images)
    method = getattr(localizer, "protect", None)
    if method is None:
        return images.clone()
    with named_failures(f"protect of {name_of(localizer)}"):
        protected = method(images.clone())
    try:
        check_images(protected, "protected images")
        check_batches({"images": images, "protected images": protected})
    except ValueError as error:
        raise ValueError(f"protect of {name_of(localizer)}: {error}") from error
    return protected.float().clamp(-1, 1).clone()


@torch.no_grad()
def predict(localizer: Localizer, images: Tensor) -> Localization:
    """`localize` on a copy of images (B, 3, H, W) in [-1, 1], checked: map float32 in [0, 1] or None, score (B,) float32, both on the images' device.

    Raises:
        ValueError: `localize` failed, or its result isn't a map (or None) and a score as the contract says.
    """
    check_images(images)
    name = name_of(localizer)
    with named_failures(f"localize of {name}"):
        result = localizer.localize(images.clone())
    if not isinstance(result, tuple) or len(result) != 2:
        raise ValueError(f"localize of {name} returned {type(result).__name__}; expected a pair (map, score), with None for the map of a binary detector")
    return Localization(_checked_map(result[0], images, name), _checked_score(result[1], images, name))


def _checked_map(values: Any, images: Tensor, name: str) -> Tensor | None:
    if values is None:
        return None
    expected = (len(images), 1, *images.shape[2:])
    if not isinstance(values, Tensor) or tuple(values.shape) != expected or not values.is_floating_point():
        found = f"{values.dtype} {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"the map of {name} is {found}; expected a floating-point tensor {expected} in [0, 1], resized to the images, or None")
    values = values.detach().to(images.device, torch.float32)
    if values.numel():
        low, high = torch.stack(torch.aminmax(values)).tolist()
        if not (low >= -_TOLERATED and high <= 1 + _TOLERATED):  # written so that NaN fails
            raise ValueError(f"the map of {name} has values from {low:.4g} to {high:.4g}; expected them in [0, 1], where 1 is a change from black to white")
    return values.clamp(0, 1)


def _checked_score(values: Any, images: Tensor, name: str) -> Tensor:
    if not isinstance(values, Tensor) or values.shape != (len(images),):
        found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"the score of {name} is {found}; expected a tensor ({len(images)},), one number per image, higher for manipulated")
    values = values.detach().to(images.device, torch.float32)
    if not values.isfinite().all():
        raise ValueError(f"the score of {name} isn't finite for {int((~values.isfinite()).sum())} of {len(values)} images")
    return values


def check_localizer(localizer: Any, source: str) -> Localizer:
    """The object itself.

    Args:
        source: where it comes from, for the error: "my_module:make".

    Raises:
        ValueError: it has no method localize, or an unknown family.
    """
    if not isinstance(localizer, Localizer) or not callable(localizer.localize):
        raise ValueError(f"{source} is no localizer: {type(localizer).__name__} has no method localize(images) that returns a map and a score")
    family_of(localizer)
    return localizer


def import_localizer(spec: str) -> Localizer:
    """The localizer that a user's function ``module:function`` or ``path/to/file.py:function`` returns.

    Raises:
        ValueError: as `malp_disc.import_object.call_by_name`, or its return value is no localizer.
    """
    return check_localizer(call_by_name(spec), spec)


def ready(localizer: Object, device: torch.device | str = "cpu") -> Object:
    """The localizer on a device and in evaluation mode, where it is an `nn.Module`; any other object as it is."""
    return localizer.to(device).eval() if isinstance(localizer, nn.Module) else localizer

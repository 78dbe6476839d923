"""Safe calls of a generator's `manipulate`: it is given the target that it declares (`malp_disc.target_kind`), arguments are copied, and the result is checked.

A generator is user code. One that edits its input in place (``x.mul_(0.5).add_(0.5)``) would otherwise change the evaluation images for every later
measurement, and one that returns its input or an internal buffer would return a tensor that changes later.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from malp_disc.target_kind import target_for, target_kind_of

Manipulate = Callable[[Tensor, Tensor | None], Tensor]
"""(images (B, 3, H, W) in [-1, 1], target) -> images of the same shape and range: the interface of all generators. The target is of their `target_kind`."""

_SHAPE = "return the images alone, a floating-point tensor (B, 3, H, W) in [-1, 1]"


class ResultError(ValueError):
    """The return value of `manipulate` can't be used.

    Attributes:
        said: description of the returned value.
        advice: what to change.
    """

    def __init__(self, said: str, advice: str) -> None:
        super().__init__(f"{said}; {advice}")
        self.said, self.advice = said, advice


def call_manipulate(manipulate: Manipulate, images: Tensor, desired: Tensor | None, *, current: Tensor | None) -> Tensor:
    """G(I) with the labels `desired`: `manipulate` on copies of `images` (B, 3, H, W) and of the target that its generator takes, as `run_manipulate`.

    Args:
        manipulate: a generator's method, whose `target_kind` says what it is given.
        desired, current: labels that the result is to have, and those of `images`, (B, A) in {0, 1}; None where there are none.

    Raises:
        ValueError: the generator's target can't be made from these labels, or it declares an unknown `target_kind`.
        ResultError: as `run_manipulate`.
    """
    return run_manipulate(manipulate, images, target_for(target_kind_of(manipulate), desired, current))


class Editor(nn.Module):
    """`call_manipulate` of a generator as a forward pass, so that DistributedDataParallel can wrap it. Also the `edit` that a generator's own losses are given.

    forward: images (B, 3, H, W), desired and current labels (B, A) -> (B, 3, H, W) in float32. Only a generator that takes the change needs the current ones.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, images: Tensor, desired: Tensor | None, current: Tensor | None = None) -> Tensor:
        return call_manipulate(self.generator.manipulate, images, desired, current=current)


def run_manipulate(manipulate: Manipulate, images: Tensor, target: Tensor | None) -> Tensor:
    """`manipulate` on copies of `images` (B, 3, H, W) and of `target`, given as it is, as a new float32 tensor of the images' shape.

    Gradients pass to `images` and to the generator's weights. Neither argument is changed, and the result shares memory with nothing. The
    caller's gradient mode is the caller's again afterwards.

    Raises:
        ResultError: the result isn't one floating-point tensor of the images' shape on their device.
    """
    with torch.set_grad_enabled(torch.is_grad_enabled()):  # a generator may call torch.set_grad_enabled itself
        result = manipulate(images.clone(), None if target is None else target.clone())
    check_result(result, images)
    return result.to(torch.float32, copy=True)


def check_result(result: Any, images: Tensor) -> None:
    """Raise `ResultError` unless `result` is a floating-point tensor of the shape and on the device of `images`."""
    if not isinstance(result, Tensor):
        raise ResultError(f"manipulate returns {describe(result)}", _advice_for(result, images))
    if result.shape != images.shape:
        raise ResultError(f"manipulate got {tuple(images.shape)} in, {tuple(result.shape)} out", _shape_advice(result, images))
    if not result.is_floating_point():
        kind = str(result.dtype).removeprefix("torch.")
        raise ResultError(f"manipulate returns {kind} values", "return floating point in [-1, 1], before any rounding: rounding has no gradient")
    if result.device != images.device:
        raise ResultError(
            f"manipulate got images on {images.device} and returns them on {result.device}",
            "keep to images.device, and register networks and constants as submodules and buffers, so that .to(device) moves them",
        )


def describe(value: Any) -> str:
    """A short description of a value: its type, and the contents of a container."""
    kind = type(value).__name__
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    article = "an" if kind[0].lower() in "aeiou" else "a"
    if isinstance(value, (tuple, list)):
        inside = ", ".join(describe(item) for item in value[:3]) + (" …" if len(value) > 3 else "")
        return f"{article} {kind} ({inside})" if value else f"an empty {kind}"
    if fields := _fields(value):
        return f"{article} {kind} with {', '.join(list(fields)[:5])}"
    return f"{article} {kind}"


def _fields(value: Any) -> dict[str, Any]:
    """The named entries of a mapping, a dataclass or a model output."""
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {}


def _advice_for(result: Any, images: Tensor) -> str:
    """Advice on how to return the images from another kind of result."""
    if result is None:
        return "is a `return` missing? " + _SHAPE
    first = result[0] if isinstance(result, (tuple, list)) and result else result
    if type(first).__module__.partition(".")[0] in ("PIL", "numpy"):
        return "gradients end where a tensor becomes a NumPy array or a PIL image: " + _SHAPE
    if isinstance(result, (tuple, list)):
        places = [f"[{i}]" for i, item in enumerate(result) if isinstance(item, Tensor) and item.shape == images.shape]
    else:
        kind = "['{}']" if isinstance(result, Mapping) else ".{}"
        places = [kind.format(name) for name, item in _fields(result).items() if isinstance(item, Tensor) and item.shape == images.shape]
    return _SHAPE + (f": `return result{places[0]}`, it seems" if len(places) == 1 else "")


def _shape_advice(result: Tensor, images: Tensor) -> str:
    count, channels, *size = images.shape
    if result.ndim == 4 and result.shape[-1] == channels and result.shape[1] != channels:
        return "the channels are last: return y.permute(0, 3, 1, 2)"
    if result.shape == images.shape[1:]:
        return "the batch dimension is gone: take .squeeze() out of manipulate, a batch may have one image"
    if result.ndim == 4 and result.shape[1] != channels and list(result.shape[2:]) == size:
        more = {1: "repeat a grey image with y.expand(-1, 3, -1, -1)", 4: "leave out the alpha channel with y[:, :3]"}
        return more.get(result.shape[1], "return the three channels red, green and blue alone")
    if result.ndim == 4 and result.shape[1] == channels and len(result) != count:
        return "return as many images as came in"
    if result.ndim == 4 and result.shape[1] == channels:
        return "resize inside manipulate, so that M_GT = |I - G(I)| can be taken"
    return _SHAPE

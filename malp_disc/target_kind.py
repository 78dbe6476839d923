"""What a generator's `manipulate` is given as its target: the desired labels, their change, a domain's number, or nothing.

Data sets, training, evaluation and reports speak of desired labels, (B, A) in {0, 1}. Not every generator does: STGAN is given the change of the labels, desired − current.
A generator declares what it takes with the attribute `target_kind`, here of a class:

    class Mine(nn.Module):
        target_kind = "change"                              # without it, the target is the desired labels

        def manipulate(self, images, target): ...           # target (B, A) in {-1, 0, 1}

`malp_disc.manipulate.call_manipulate`, through which every command calls a generator, converts the desired labels accordingly.
"""

from __future__ import annotations

import difflib
import functools
import types
from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import Tensor

TargetKind = Literal["labels", "change", "domain", "none"]
"""The target of `manipulate`, for desired and current labels (B, A) in {0, 1}:

labels    the desired labels, (B, A): StarGAN, AttGAN, and generators that ignore the target.
change    desired − current, (B, A) in {-1, 0, 1}, where 1 adds an attribute, -1 removes it and 0 keeps it: STGAN.
domain    the column of the desired domain, (B,) integers in 0 … A - 1, for labels that name one domain each: StarGAN v2. None without labels (A = 0).
none      None: a generator whose target can't be made from labels, such as a style code, and that has a default.
"""


def target_kind_of(generator: Any) -> TargetKind:
    """The `target_kind` that a generator declares, "labels" if it declares none.

    Args:
        generator: a generator or its `manipulate`: a method, also if it is compiled or in a `functools.partial`, or a function with the attribute.

    Raises:
        ValueError: it declares another value.
    """
    owner = _owner(generator)
    kind = getattr(owner, "target_kind", "labels")
    if not isinstance(kind, str) or kind not in get_args(TargetKind):
        near = difflib.get_close_matches(str(kind), get_args(TargetKind), n=1)
        raise ValueError(
            f"{type(owner).__name__} declares target_kind = {kind!r}{f' (did you mean {near[0]!r}?)' if near else ''}; expected one of "
            f"{', '.join(map(repr, get_args(TargetKind)))}, what its manipulate is given; without target_kind it is given the desired labels"
        )
    return kind


def target_for(kind: TargetKind, desired: Tensor | None, current: Tensor | None) -> Tensor | None:
    """The target of `manipulate` that asks for the labels `desired`; see `TargetKind` for its shape and values.

    Args:
        desired: labels that the edited images are to have, (B, A) in {0, 1}; None asks for nothing and gives None.
        current: labels of the images before the edit, (B, A). Only "change" needs them.

    Raises:
        ValueError: the current labels are missing or of another shape, or the desired ones don't name one domain each.
    """
    if desired is None or kind == "none":
        return None
    if kind == "labels":
        return desired
    if kind == "domain":
        return _domain(desired)
    if current is None:
        raise ValueError(
            'this generator takes the change of the labels (target_kind = "change"), which can\'t be told from the desired labels alone; pass the current ones as '
            "well: in a generator's own losses edit(images, desired, current), such as edit(fake, batch.labels, batch.target)"
        )
    if current.shape != desired.shape:
        raise ValueError(f"expected current labels of the shape of the desired ones, {tuple(desired.shape)}, got {tuple(current.shape)}")
    return desired.float() - current.float()


def exclusive_names(generator: Any, dataset: Any) -> tuple[str, ...] | None:
    """Labels of which the desired ones must have exactly one, as `malp_disc.metrics.editing` takes them: all of the data set for a generator that takes a domain, or
    images in one folder per domain (``exclusive_labels``); else None."""
    return tuple(dataset.attribute_names) if target_kind_of(generator) == "domain" else exclusive_labels(dataset)


def exclusive_labels(dataset: Any) -> tuple[str, ...] | None:
    """All labels of a data set whose images have exactly one each, such as one folder per domain; None for any other."""
    return tuple(dataset.attribute_names) if getattr(dataset, "exclusive_labels", False) else None


def check_attribute_count(taken: int, selected: int, source: str, names: Sequence[str] = ()) -> None:
    """Raise ValueError unless a generator takes as many attributes as are selected.

    Args:
        source: the generator in the message.
        names: of the selected attributes, for the message, where they are known.
    """
    if taken != selected:
        shown = f" ({' '.join(names)})" if names else ""
        raise ValueError(f"{source} takes {taken} attributes, but {selected} are selected{shown}; give --selected-attributes in the order it was trained with")


def label_options(generator: Any, dataset: Any) -> dict[str, tuple[str, ...] | None]:
    """The options `attribute_names` and `exclusive` of a step that edits the images of `dataset` with `generator`."""
    return {"attribute_names": tuple(dataset.attribute_names), "exclusive": exclusive_names(generator, dataset)}


def describe_target(kind: TargetKind, target: Tensor | None) -> str:
    """What `manipulate` is given, in words, with shape and values."""
    if target is None:
        return "None, no target" if kind != "none" else 'None, as it declares with target_kind = "none"'
    shape = tuple(target.shape)
    return {
        "labels": f"the desired labels, {shape} of 0 and 1",
        "change": f"the change of the labels, desired - current, {shape} of -1, 0 and 1",
        "domain": f"the number of the desired domain, {shape} of integers",
    }[kind]


def _owner(called: Any) -> Any:
    """What may declare a `target_kind`: `called` itself, or the object whose method it is, without the wrappers of `functools` and ``torch.compile``."""
    while not isinstance(called, types.MethodType):  # torch.compile traces this test, but takes hasattr(method, "__self__") for false
        inner = called.func if isinstance(called, functools.partial) else getattr(called, "__wrapped__", None)
        if inner is None or hasattr(called, "target_kind"):
            return called
        called = inner
    return called.__self__


def _domain(desired: Tensor) -> Tensor | None:
    if desired.shape[1] == 0:
        return None
    if not (((desired == 0) | (desired == 1)).all() and (desired.sum(dim=1) == 1).all()):
        raise ValueError(
            f'this generator takes a domain (target_kind = "domain"), so exactly one label of every image must be 1, got {desired[:3].tolist()}; '
            "its data is --data folder with one sub-folder per domain"
        )
    return desired.argmax(dim=1)

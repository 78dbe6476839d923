"""Edit accuracy: does the edited image have the target attributes? Reported with every FID, since a generator that edits less has a lower FID."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from malp_disc.runtime.input_checks import check_image_pair

# Mutually exclusive in StarGAN (solver.py, create_labels): an image has at most one of them.
HAIR_COLOURS = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")


@dataclass(frozen=True)
class EditScores:
    """Shares in [0, 1]; None if there are no entries to average."""

    images: int
    edited: float | None  # images in which all requested attributes are predicted as in the target
    kept: float | None  # entries not requested that are predicted as in the target, which for them is the label
    per_attribute: dict[str, float | None]  # requested entries of one attribute that are predicted as in the target
    each: Tensor  # whether all requested attributes are predicted as in the target, (N,) of bool, for the N images of which something is requested


def edit_accuracy(logits: Tensor, target: Tensor, requested: Tensor, *, attribute_names: Sequence[str] | None = None) -> EditScores:
    """Edit accuracy from an independent classifier's predictions for the edited images.

    Args:
        logits: (B, A), the classifier's output for the edited images; above 0 means present.
        target: (B, A) in {0, 1}, the target label given to the generator.
        requested: (B, A) bool, the entries to change: ``target != labels``. A change of hair colour has two requested entries, and both
            must match the target.
        attribute_names: keys of `per_attribute`; column numbers if None.

    Raises:
        ValueError: different shapes, a target other than 0 and 1, another number of names, or logits that are not finite.
    """
    if logits.ndim != 2 or logits.shape != target.shape or logits.shape != requested.shape or len(logits) == 0:
        shapes = f"{tuple(logits.shape)}, {tuple(target.shape)} and {tuple(requested.shape)}"
        raise ValueError(f"expected logits, target and requested of one shape (B, A), got {shapes}")
    if requested.dtype != torch.bool:
        raise ValueError(f"expected requested to be bool, got {requested.dtype}; pass target != labels")
    _check_labels(target, "target")
    if not logits.isfinite().all():
        raise ValueError("the classifier's logits are not finite; check the edited images")
    names = [str(i) for i in range(logits.shape[1])] if attribute_names is None else list(attribute_names)
    if len(names) != logits.shape[1]:
        raise ValueError(f"expected {logits.shape[1]} attribute names, got {len(names)}")
    right = (logits > 0) == (target > 0.5)
    each = (right | ~requested).all(dim=1)[requested.any(dim=1)]
    return EditScores(
        images=len(logits),
        edited=_share(each),
        kept=_share(right[~requested]),
        per_attribute={name: _share(right[:, i][requested[:, i]]) for i, name in enumerate(names)},
        each=each,
    )


def identity_l1(images: Tensor, edited: Tensor) -> float:
    """Mean |x − G(x)| over all values of images in [-1, 1]: 0 for a generator that copies its input, at most 2.

    Shapes: (B, 3, H, W) both.

    Raises:
        ValueError: no images, different shapes or another scale.
    """
    check_image_pair(images, edited)
    if images.numel() == 0:
        raise ValueError("expected at least one image")
    return (images.float() - edited.float()).abs().flatten(1).mean(dim=1).cpu().double().mean().item()


def single_attribute_targets(
    labels: Tensor,
    attribute_names: Sequence[str],
    *,
    exclusive: Sequence[str] | None = None,
    first: int = 0,
    official: bool = False,
) -> tuple[Tensor, Tensor]:
    """One edit per image, cycling through the attributes: image i gets attribute ``(first + i) mod A``, as in StarGAN's test.

    An exclusive attribute (a hair colour) is set to 1 and the rest of its group to 0; any other attribute is flipped.
    StarGAN's rule sometimes requests the hair colour that a person already has. This is no edit, raises edit accuracy and moves FID towards
    that of the inputs. Therefore such an image gets the next colour of the group, so that every image is edited. `official` uses
    StarGAN's rule.

    Args:
        labels: (B, A) in {0, 1}.
        attribute_names: A names.
        exclusive: mutually exclusive names. None: the hair colours among the names. For one folder per domain,
            pass all names: each image is then translated to another domain.
        first: index of the first image, so that the edits don't depend on how a set is divided into batches.
        official: use StarGAN's rule.

    Returns:
        target (B, A), of the dtype of `labels`, and the index (B,) long of the edited attribute.

    Raises:
        ValueError: labels of another shape or other than 0 and 1, or unknown exclusive names.
    """
    names = list(attribute_names)
    if labels.ndim != 2 or labels.shape[1] != len(names) or not names:
        raise ValueError(f"expected labels (B, {len(names)}) for {names}, got {tuple(labels.shape)}")
    _check_labels(labels, "labels")
    unknown = [name for name in exclusive or () if name not in names]
    if unknown:
        raise ValueError(f"exclusive names {unknown} are not among the attributes {names}")
    group = [i for i, name in enumerate(names) if name in (HAIR_COLOURS if exclusive is None else exclusive)]
    if len(group) < 2 and not official:
        group = []  # a single hair colour has no alternative: it is flipped like any other attribute

    target = labels.clone()
    edited = (torch.arange(len(labels), device=labels.device) + first) % len(names)
    for row, attribute in enumerate(edited.tolist()):
        if attribute not in group:
            target[row, attribute] = 1 - labels[row, attribute]
            continue
        target[row, group] = 0
        target[row, attribute] = 1
        if not official and torch.equal(target[row], labels[row]):
            target[row, attribute] = 0
            attribute = group[(group.index(attribute) + 1) % len(group)]
            target[row, attribute] = 1
            edited[row] = attribute
    return target, edited


def one_attribute_targets(
    labels: Tensor, attribute_names: Sequence[str], attribute: str, *, exclusive: Sequence[str] | None = None
) -> Tensor:
    """The same edit for every image: an exclusive attribute (a hair colour) is set and the others cleared, any other attribute is flipped.

    Args:
        labels: (B, A) in {0, 1}.
        attribute_names: A names.
        attribute: the attribute to edit.
        exclusive: mutually exclusive names. None: the hair colours among the names.

    Returns:
        target (B, A), of the dtype of `labels`. An image that already has the exclusive attribute keeps its labels.

    Raises:
        ValueError: labels of another shape or other than 0 and 1, or an unknown attribute.
    """
    names = list(attribute_names)
    if labels.ndim != 2 or labels.shape[1] != len(names):
        raise ValueError(f"expected labels (B, {len(names)}) for {names}, got {tuple(labels.shape)}")
    _check_labels(labels, "labels")
    if attribute not in names:
        raise ValueError(f"unknown attribute {attribute!r}; choose from {names}")
    column = names.index(attribute)
    group = [i for i, name in enumerate(names) if name in (HAIR_COLOURS if exclusive is None else exclusive)]
    target = labels.clone()
    if column in group and len(group) > 1:
        target[:, group] = 0
        target[:, column] = 1
    else:
        target[:, column] = 1 - labels[:, column]
    return target


def _share(right: Tensor) -> float | None:
    return right.double().mean().item() if right.numel() else None


def _check_labels(labels: Tensor, name: str) -> None:
    if not ((labels == 0) | (labels == 1)).all():
        raise ValueError(f"expected {name} of 0 and 1, got {labels.unique()[:5].tolist()}; CelebA's -1 means 0")

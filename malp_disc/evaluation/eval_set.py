"""The inputs of an evaluation, and the edits of a generator on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm

from malp_disc.manipulate import Manipulate, call_manipulate
from malp_disc.metrics.editing import one_attribute_targets, single_attribute_targets
from malp_disc.target_kind import exclusive_labels

BATCH = 32


@dataclass
class EvalSet:
    """The inputs that every arm edits.

    Attributes:
        images: (N, 3, H, W) in [-1, 1].
        labels, targets: attributes of the images, and those requested, (N, A) in {0, 1}.
        edited: index of the attribute to edit, (N,).
        perfect: the images that a perfect generator would return, (N, 3, H, W), where the data set knows them (drawn faces).
        exclusive: labels of which every target has exactly one, or None.
    """

    images: Tensor
    labels: Tensor
    targets: Tensor
    edited: Tensor
    attribute_names: tuple[str, ...]
    perfect: Tensor | None = None
    exclusive: Sequence[str] | None = None
    logits: tuple[nn.Module, Tensor] | None = field(default=None, init=False, repr=False)
    """An attribute classifier and its logits of the images (N, A), once they were computed."""

    @classmethod
    def take(cls, dataset: Dataset, count: int, *, exclusive: Sequence[str] | None = None) -> EvalSet:
        """The first `count` images of a data set, each with one attribute to edit (`single_attribute_targets`).

        For a data set without attributes, targets are (N, 0) and `edited` is -1.

        Args:
            exclusive: labels of which an edit must leave exactly one. None: those of a data set with ``exclusive_labels``, otherwise the hair colours.
        """
        images, labels = load_all(dataset, count, "inputs")
        if not dataset.attribute_names:
            return cls(images, labels, labels, torch.full((len(images),), -1), ())
        names = tuple(dataset.attribute_names)
        exclusive = exclusive or exclusive_labels(dataset)
        targets, edited = single_attribute_targets(labels, names, exclusive=exclusive)
        return cls(images, labels, targets, edited, names, _perfect_edits(dataset, targets), exclusive)

    def of_one_attribute(self, attribute: str) -> EvalSet:
        """The same images, all with the same edit, without those that have the attribute already (a hair colour)."""
        targets = one_attribute_targets(self.labels, self.attribute_names, attribute, exclusive=self.exclusive)
        rows = (targets != self.labels).any(dim=1)
        edited = torch.full_like(self.edited, self.attribute_names.index(attribute))
        return EvalSet(self.images[rows], self.labels[rows], targets[rows], edited[rows], self.attribute_names, exclusive=self.exclusive)

    def first(self, count: int) -> EvalSet:
        """The first `count` of them."""
        perfect = None if self.perfect is None else self.perfect[:count]
        return EvalSet(self.images[:count], self.labels[:count], self.targets[:count], self.edited[:count], self.attribute_names, perfect, self.exclusive)


def _perfect_edits(dataset: Dataset, targets: Tensor) -> Tensor | None:
    """The first images of a data set with the attributes `targets`, or None if it doesn't know how they would look."""
    if not hasattr(dataset, "perfect_edits"):
        return None
    parts = zip(torch.arange(len(targets)).split(BATCH), targets.split(BATCH))
    return torch.cat([dataset.perfect_edits(rows.tolist(), part) for rows, part in parts])


def load_all(dataset: Dataset, count: int, label: str) -> tuple[Tensor, Tensor]:
    """The first `count` images and labels of a data set in memory, with a progress bar where it takes long."""
    count = min(count, len(dataset))
    loader = DataLoader(Subset(dataset, range(count)), batch_size=BATCH)
    images, labels = zip(*tqdm(loader, desc=f"load {label}", leave=False, disable=count < 500))
    return torch.cat(images), torch.cat(labels)


@torch.no_grad()
def edit(
    manipulate: Manipulate,
    images: Tensor,
    targets: Tensor,
    *,
    current: Tensor,
    device: torch.device | str = "cpu",
    label: str | None = None,
) -> Tensor:
    """Every image through a generator, in batches: (N, 3, H, W) -> (N, 3, H, W), clamped to [-1, 1], on the CPU; NaN where its value isn't finite.

    Args:
        targets, current: desired labels, and those of `images`, (N, A); `call_manipulate` gives the generator the target that it takes.
        label: shows a progress bar.
    """
    bar = tqdm(list(zip(images.split(BATCH), targets.split(BATCH), current.split(BATCH))), desc=label, leave=False, disable=label is None)
    parts = ([part.to(device) for part in batch] for batch in bar)
    edited = torch.cat([call_manipulate(manipulate, part, target, current=labels).cpu() for part, target, labels in parts])
    return edited.masked_fill(~edited.isfinite(), math.nan).clamp(-1, 1)  # else infinity would become 1, and a generator that diverged would be measured

"""Checks of a generator and of its own losses before any long work, the same as in `malp-disc doctor`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch.utils.data import Dataset

from malp_disc.data.sampling import StepRandom
from malp_disc.generator_objective import check_losses
from malp_disc.manipulate import Editor
from malp_disc.training.batches import Batch
from malp_disc.training.diff_augment import NUMBERS
from malp_disc.training.generator_checks.interface import require_usable

logger = logging.getLogger("malp_disc")
_IMAGES = 4


def check_contract(
    generator: Any,
    dataset: Dataset,
    device: torch.device | str,
    *,
    source: str,
    training: bool = False,
    tolerated: Collection[str] = ("edit",),
    tell: Callable[[str], None] = logger.warning,
) -> None:
    """Check the generator on the first images of `dataset`, each with the attributes of another one; see `require_usable`.

    Raises:
        ValueError: the generator can't be used; the message says why, and what to change.
    """
    images, labels = first_images(dataset, device)[:2]
    require_usable(generator, images, labels.roll(1, 0), current=labels, source=source, training=training, tolerated=tolerated, tell=tell)


def check_objective(objective: Any, generator: torch.nn.Module, dataset: Dataset, device: torch.device | str, *, source: str) -> None:
    """Check a generator's own losses on the first images of `dataset`.

    Raises:
        ValueError: they can't be used; the message says why.
    """
    images, labels, *reference = first_images(dataset, device)
    noise = StepRandom(0, 0, batch_size=len(images), device=device)
    batch = Batch(images, labels, labels.roll(1, 0), reference[0] if reference else None, noise, shown=images, numbers=noise.uniform(NUMBERS))
    check_losses(objective, batch, Editor(generator), source=source)


def first_images(dataset: Dataset, device: torch.device | str) -> list[torch.Tensor]:
    """Batches of the first images of a data set, their labels and, if it has any, their references."""
    return [torch.stack(part).to(device) for part in zip(*(dataset[i] for i in range(min(_IMAGES, len(dataset)))))]

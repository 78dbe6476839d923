"""Which images are for training and which are held back: a function of the file names alone.

Names are ordered by their sha256, so neither the file system's order nor sorted names with a meaning (dates, domains, the
same person in a row) decide, and a few images more or less move a few images, not all of them.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Literal

logger = logging.getLogger(__name__)

Split = Literal["train", "valid", "test"]
SPLIT_NAMES = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}


def split_indices(
    names: Sequence[str],
    split: Split,
    *,
    given: Sequence[Split] | None = None,
    test_size: int = 1000,
    train_size: int | None = None,
) -> list[int]:
    """Indices into `names` of one split, ascending.

    Args:
        names: file names; of equal ones the earlier comes first.
        split: ``"train"``, ``"test"``, or ``"valid"``, which only `given` can hold.
        given: each image's split as the data set's authors made it; it overrules `test_size`. ``"valid"`` images serve as the
            test set where no ``"test"`` images exist, and are left out otherwise. All ``"train"`` counts as not given.
        test_size: how many names, those first by sha256, are held back where no split is given; exact.
        train_size: cap on the training images; a smaller cap takes a subset of what a larger one takes.

    Raises:
        ValueError: the split is empty or unknown, or a size leaves nothing.
    """
    if split not in ("train", "valid", "test"):
        raise ValueError(f'expected split "train", "valid" or "test", got {split!r}')
    if train_size is not None and train_size < 1:
        raise ValueError(f"expected a training size of at least 1, got {train_size}; leave --train-size out to use every image")
    if test_size < 0:
        raise ValueError(f"expected a test size of at least 0, got {test_size}")
    order = sorted(range(len(names)), key=lambda index: hashlib.sha256(names[index].encode("utf-8", "surrogateescape")).digest())
    kinds = set(given or ()) - {"train"}
    if given is not None and kinds:
        wanted = "valid" if split == "test" and "test" not in kinds else split
        chosen = [index for index in order if given[index] == wanted]
        if not chosen:
            raise ValueError(f"no {split} images: the {len(names)} images come with a split of their own, {_counts(given)}")
    elif split == "valid":
        raise ValueError("no valid images: the data set comes without a split of its own, only train and test are made")
    else:
        if test_size >= len(names):
            raise ValueError(f"--test-size {test_size} leaves nothing to train on: there are {len(names)} images; give a smaller one")
        if split == "test" and test_size == 0:
            raise ValueError("no test images: --test-size is 0; hold some back")
        if 2 * test_size > len(names):
            logger.warning("holding back %d of only %d images; --test-size sets how many", test_size, len(names))
        chosen = order[:test_size] if split == "test" else order[test_size:]
    if split == "train":
        chosen = chosen[:train_size]
    return sorted(chosen)


def _counts(given: Sequence[Split]) -> str:
    return ", ".join(f"{list(given).count(kind)} {kind}" for kind in ("train", "valid", "test") if kind in given)

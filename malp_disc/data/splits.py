"""Splits images into training and test set as a function of their file names alone.

Names are ordered by their sha256. So the split depends neither on the file system nor on meaningful orders of names (dates, domains,
consecutive images of one person), and adding a few images changes the split of few. The images of a split have this order too: the first n of them, such as
those that an evaluation reads, are a random sample, and not the first domain.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from typing import Literal

logger = logging.getLogger(__name__)
_logged: set[str] = set()  # warnings of this process: every data set of a run makes the split anew

Split = Literal["train", "valid", "test"]
SPLIT_NAMES = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}


def split_indices(
    names: Sequence[str],
    split: Split,
    *,
    given: Sequence[Split] | None = None,
    test_size: int = 1000,
    train_size: int | None = None,
    flag: str = "--test-size",
) -> list[int]:
    """Indices into `names` of one split, in the order of the names' sha256.

    Args:
        names: file names; equal names keep their order.
        split: ``"train"``, ``"test"``, or, if in `given`, ``"valid"``.
        given: split of each image in the published data set, used instead of `test_size`. ``"valid"`` images are the test set if there
            are no ``"test"`` images, and unused otherwise. If all are ``"train"``, `given` is ignored.
        test_size: exact number of test images, the first by sha256, if no split is given.
        train_size: upper limit for the number of training images; a smaller limit selects a subset of a larger one's images.
        flag: the command-line option that sets `test_size`, for messages.

    Raises:
        ValueError: the split is empty or unknown, or the sizes leave no images.
    """
    if split not in ("train", "valid", "test"):
        raise ValueError(f'expected split "train", "valid" or "test", got {split!r}')
    if train_size is not None and train_size < 1:
        raise ValueError(f"expected a training size of at least 1, got {train_size}; leave --train-size out to use every image")
    if test_size < 0:
        raise ValueError(f"expected {flag} of at least 0, got {test_size}")
    order = sorted(range(len(names)), key=lambda index: hashlib.sha256(names[index].encode("utf-8", "surrogateescape")).digest())
    kinds = set(given or ()) - {"train"}
    if given is not None and kinds:
        wanted = "valid" if split == "test" and "test" not in kinds else split
        chosen = [index for index in order if given[index] == wanted]
        if not chosen:
            raise ValueError(f"no {split} images: the {len(names)} images come with a split of their own, {_counts(given)}")
    elif split == "valid":
        raise ValueError("no valid images: the data set has no split of its own and is divided into train and test only")
    else:
        if test_size >= len(names):
            raise ValueError(f"{flag} {test_size} leaves nothing to train on: there are {len(names)} images; give a smaller one")
        if split == "test" and test_size == 0:
            raise ValueError(f"no test images: {flag} is 0; give a larger number")
        if 2 * test_size > len(names):
            _warn_once(f"holding out {test_size} of only {len(names)} images; {flag} sets how many")
        chosen = order[:test_size] if split == "test" else order[test_size:]
    if split == "train":
        chosen = chosen[:train_size]
    return chosen


def _warn_once(line: str) -> None:
    """Log a warning, once per run: in the first of several processes only, also before they are connected."""
    if line not in _logged and os.environ.get("RANK", "0") == "0":
        _logged.add(line)
        logger.warning("%s", line)


def _counts(given: Sequence[Split]) -> str:
    return ", ".join(f"{list(given).count(kind)} {kind}" for kind in ("train", "valid", "test") if kind in given)

"""Data sets of your own images: with a table of attributes, with a sub-folder per domain, or without labels."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from .attributes import check_selected, read_attributes
from .images import ImageFiles, OnBroken, check_sizes
from .listing import IMAGE_SUFFIXES, SYSTEM_FOLDERS, ImageListing, check_folder, list_images
from .locating import ImageLocator, names_for_split
from .splits import SPLIT_NAMES, Split, split_indices

logger = logging.getLogger(__name__)

_CYCLEGAN = re.compile(r"(train|valid|val|test)_?([A-Z])")  # trainA, trainB, testA, testB


class _Entry(NamedTuple):
    split: Split | None
    domain: str
    inner: str
    """Path below the domain's folder."""
    place: str
    """Path below the root."""


class AttributeFolder(ImageFiles):
    """Images anywhere below a folder, labelled by a table (see `read_attributes` for its two formats).

    The table may name an image by any path suffix that is unique below `root`, or by an absolute path (see `malp_disc.data.locating`).
    Images that it doesn't list are ignored.

    The split is the first of these that applies: the table's ``split`` column; folders ``train`` and ``test`` (or ``val``) directly below
    `root`, if they hold all listed images; `test_size` images held out by the hash of their names (see `split_indices`).

    Args:
        root: the folder.
        attributes: the table.
        split: ``"train"`` or ``"test"``.
        selected_attributes: names, in the order of the label; empty for every column.
        crop_size: side of the centre crop; None for the largest centred square.
        test_size: exact number of test images if the data set has no split of its own.
        train_size: upper limit for the number of training images.

    Raises:
        FileNotFoundError: no such folder or table.
        ValueError: an unknown attribute, a listed image that is absent or ambiguous, or invalid arguments of `ImageFiles`.
    """

    def __init__(
        self,
        root: str | Path,
        attributes: str | Path,
        *,
        split: Split = "train",
        selected_attributes: Sequence[str] = (),
        image_size: int = 64,
        crop_size: int | None = None,
        test_size: int = 1000,
        train_size: int | None = None,
        on_broken: OnBroken = "raise",
    ) -> None:
        check_sizes(image_size, crop_size)
        root = Path(root).expanduser()
        check_folder(root, "--data-root")
        table = read_attributes(attributes, selected_attributes)
        listing = list_images(root)
        listing.warn()
        places = ImageLocator(listing, attributes).find_all(table.files)
        given = table.split or _split_of_folders(places)
        chosen = split_indices(names_for_split(table.files, places), split, given=given, test_size=test_size, train_size=train_size)
        super().__init__(
            [os.path.join(root, places[index]) for index in chosen],
            table.labels[chosen],
            attribute_names=table.attribute_names,
            image_size=image_size,
            crop_size=crop_size,
            on_broken=on_broken,
            name=f"{root.resolve().name} {split} split",
        )


class DomainFolder(ImageFiles):
    """One sub-folder per domain with images at any depth. Labels are one-hot; `attribute_names` are the sorted names of the sub-folders.

    The split is the first of these that applies: ``train/<domain>`` and ``test/<domain>`` (or ``val``); ``trainA trainB testA testB`` with
    domains A and B, as in CycleGAN's data sets; `test_size` images of all domains together, held out by the hash of their path below the
    domain's folder, so that images of the same name in several domains are in the same split (except for at most one name).

    Args:
        root: the folder.
        split: ``"train"`` or ``"test"``.
        selected_attributes: names of the domains, in the order of the label; empty for all.
        crop_size: side of the centre crop; None for the largest centred square.
        test_size: exact number of test images if the data set has no split of its own.
        train_size: upper limit for the number of training images.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no images, fewer than two domains, an unknown or empty domain, or invalid arguments of `ImageFiles`.
    """

    exclusive_labels = True

    def __init__(
        self,
        root: str | Path,
        *,
        split: Split = "train",
        selected_attributes: Sequence[str] = (),
        image_size: int = 64,
        crop_size: int | None = None,
        test_size: int = 1000,
        train_size: int | None = None,
        on_broken: OnBroken = "raise",
    ) -> None:
        check_sizes(image_size, crop_size)
        root = Path(root).expanduser()
        places = _listed(root, "a sub-folder per domain with").names
        entries = _by_domain(places)
        if len(entries) < len(places):
            logger.warning("%s: ignoring %d images that aren't in a domain's sub-folder", root, len(places) - len(entries))
        used = {place.partition("/")[0] for place in places}
        unused = sorted(
            p.name for p in root.iterdir() if p.is_dir() and p.name not in (*used, *SYSTEM_FOLDERS) and not p.name.startswith((".", "__"))
        )
        if unused:
            logger.warning("%s: no image files in %s; not used as a domain", root, ", ".join(unused))
        found = sorted({entry.domain for entry in entries})
        if len(found) < 2:
            raise ValueError(
                f"expected at least two domains, that is sub-folders with images, in {root}; found {found or 'none'}. "
                "A folder with a table of attributes needs --attributes FILE"
            )
        domains = tuple(selected_attributes) or tuple(found)
        check_selected(domains, found, source=f"the domains (sub-folders) of {root}")
        if len(domains) < 2:
            raise ValueError(f"expected at least two domains, got --selected-attributes {domains[0]}; select from {found}")
        kept = [entry for entry in entries if entry.domain in domains]
        given = None if kept[0].split is None else [entry.split for entry in kept]
        chosen = split_indices([entry.inner for entry in kept], split, given=given, test_size=test_size, train_size=train_size)
        column = torch.tensor([domains.index(kept[index].domain) for index in chosen])
        empty = [domain for i, domain in enumerate(domains) if not (column == i).any()]
        if empty and split == "train":
            raise ValueError(
                f"the {split} split ({len(chosen)} images) of {root} has no image of domain {empty[0]!r}; "
                "give it more images, change --test-size or --train-size, or leave it out with --selected-attributes"
            )
        super().__init__(
            [os.path.join(root, kept[index].place) for index in chosen],
            torch.nn.functional.one_hot(column, len(domains)).float(),
            attribute_names=domains,
            image_size=image_size,
            crop_size=crop_size,
            on_broken=on_broken,
            name=f"{root.resolve().name} {split} split",
        )


class PlainFolder(ImageFiles):
    """Images below a folder without attributes: labels have shape (0,), for generators that take no target.

    The split is given by folders ``train`` and ``test`` (or ``val``) directly below `root`, if they hold all images; otherwise
    `test_size` images are held out by the hash of their names (see `split_indices`).

    Args:
        root: the folder.
        split: ``"train"`` or ``"test"``.
        crop_size: side of the centre crop; None for the largest centred square.
        test_size: exact number of test images if the data set has no split of its own.
        train_size: upper limit for the number of training images.
        flag: the command-line option that sets `test_size`, for messages.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no images, or invalid arguments of `ImageFiles`.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: Split = "train",
        image_size: int = 64,
        crop_size: int | None = None,
        test_size: int = 1000,
        train_size: int | None = None,
        on_broken: OnBroken = "raise",
        flag: str = "--test-size",
    ) -> None:
        check_sizes(image_size, crop_size)
        root = Path(root).expanduser()
        places = _listed(root).names
        chosen = split_indices(places, split, given=_split_of_folders(places), test_size=test_size, train_size=train_size, flag=flag)
        super().__init__(
            [os.path.join(root, places[index]) for index in chosen],
            torch.zeros(len(chosen), 0),
            attribute_names=(),
            image_size=image_size,
            crop_size=crop_size,
            on_broken=on_broken,
            name=f"{root.resolve().name} {split} split",
        )


def _listed(root: Path, what: str = "") -> ImageListing:
    check_folder(root, "--data-root")
    listing = list_images(root)
    if not listing.names:
        raise ValueError(
            f"no images below {root}; expected {what}{' ' * bool(what)}{' '.join(sorted(IMAGE_SUFFIXES))} files"
            f"{'; ' * bool(listing.left_out)}{listing.left_out}"
        )
    listing.warn()
    return listing


def _split_of_folders(places: Sequence[str]) -> list[Split] | None:
    """The split of each image if all are below train/, val/ or test/; otherwise None."""
    tops = [place.partition("/")[0] for place in places]
    return [SPLIT_NAMES[top] for top in tops] if all(top in SPLIT_NAMES for top in set(tops)) else None


def _by_domain(places: Sequence[str]) -> list[_Entry]:
    """Assign images to domains (and splits) by their folders, without those that are in none."""
    parts = [(place.split("/"), place) for place in places]
    tops = {part[0] for part, _ in parts if len(part) > 1}
    if tops and tops <= SPLIT_NAMES.keys():
        return [_Entry(SPLIT_NAMES[part[0]], part[1], "/".join(part[2:]), place) for part, place in parts if len(part) > 2]
    parts = [(part, place) for part, place in parts if len(part) > 1]
    matches = {top: _CYCLEGAN.fullmatch(top) for top in tops}
    if tops and all(matches.values()):
        return [_Entry(SPLIT_NAMES[matches[part[0]][1]], matches[part[0]][2], "/".join(part[1:]), place) for part, place in parts]
    return [_Entry(None, part[0], "/".join(part[1:]), place) for part, place in parts]

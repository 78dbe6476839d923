"""CelebA in its official layout, and in the layouts it is passed around in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .attributes import read_attributes, read_table_text
from .images import ImageFiles, OnBroken, check_sizes
from .listing import ImageListing, check_folder, list_images
from .locating import ImageLocator, names_for_split
from .splits import Split, split_indices

DEFAULT_SELECTION = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young")
CROP_SIZE = 178  # the images' width: 178x218

_FOLDERS = ("", "celeba", "CelebA", "Img", "Anno", "Eval")
_PICTURES = ("img_align_celeba/img_align_celeba", "img_align_celeba", "images")  # Kaggle nests it; StarGAN's script calls it images
_ATTRIBUTES = ("list_attr_celeba.txt", "list_attr_celeba.csv")
_PARTITION = ("list_eval_partition.txt", "list_eval_partition.csv")
_PARTS: dict[str, Split] = {"0": "train", "1": "valid", "2": "test"}


class CelebA(ImageFiles):
    """CelebA: ``img_align_celeba/*.jpg``, ``list_attr_celeba.txt`` and, if there, ``list_eval_partition.txt``.

    Each is looked for in `root` and in its sub-folders ``celeba`` (torchvision), ``Img``, ``Anno`` and ``Eval`` (the official download); CSV
    tables and a nested image folder (Kaggle) and ``images`` (StarGAN's script) are taken too.

    Without the partition file, `test_size` images are held back by the hash of their names (see `split_indices`). The official
    partition separates people and that one can't: one person's images may then be on both sides.

    Args:
        root: where CelebA lies.
        split: ``"train"``, ``"test"``, or with the partition file ``"valid"``.
        selected_attributes: names, in the order of the label.
        crop_size: side of the centre crop; None for the largest centred square, which is the same for the official size.
        attributes: the attribute file, where it lies elsewhere.
        test_size: how many images are held back where there is no partition file.
        train_size: cap on the training images.

    Raises:
        FileNotFoundError: a part wasn't found; the message says where it was looked for.
        ValueError: an unknown attribute, a listed image that is absent, and what `ImageFiles` refuses.

    Note:
        torchvision's ``CelebA`` is not used: it checks md5 sums of, and insists on, five more files than are needed here (boxes, landmarks,
        identities), under one folder name, and takes no subset.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: Split = "train",
        selected_attributes: Sequence[str] = DEFAULT_SELECTION,
        image_size: int = 64,
        crop_size: int | None = CROP_SIZE,
        attributes: str | Path | None = None,
        test_size: int = 1000,
        train_size: int | None = None,
        on_broken: OnBroken = "raise",
    ) -> None:
        check_sizes(image_size, crop_size)
        root = Path(root).expanduser()
        check_folder(root, "--data-root")
        folder = _find(root, _PICTURES, "the images")
        attributes = attributes or _find(root, _ATTRIBUTES, "the attributes")
        table = read_attributes(attributes, selected_attributes)
        listing = list_images(folder)
        listing.warn()
        places = ImageLocator(listing, attributes).find_all(table.files)
        partition = _find(root, _PARTITION)
        given = _read_partition(partition, places, listing) if partition else table.split
        chosen = split_indices(names_for_split(table.files, places), split, given=given, test_size=test_size, train_size=train_size)
        super().__init__(
            [os.path.join(folder, places[index]) for index in chosen],  # folder / name takes seconds for 200,000
            table.labels[chosen],
            attribute_names=table.attribute_names,
            image_size=image_size,
            crop_size=crop_size,
            on_broken=on_broken,
            name=f"CelebA {split} split",
        )


def _find(root: Path, names: Sequence[str], what: str = "") -> Path | None:
    """The first of `names` that exists in the usual places; without one an error if it has to exist, which is when `what` says what it is."""
    tried = [root / folder / name for folder in _FOLDERS for name in names]
    for path in tried:
        if path.exists():
            return path
    if not what:
        return None
    zipped = [path for folder in _FOLDERS if (path := root / folder / "img_align_celeba.zip").exists()]
    hint = f". Unpack {zipped[0]} first" if zipped and names is _PICTURES else ""
    places = ", ".join(folder or "." for folder in _FOLDERS)
    raise FileNotFoundError(f"CelebA: {what} not found under {root}: looked for {' or '.join(names)} in {places}{hint}")


def _read_partition(path: Path, places: Sequence[str], listing: ImageListing) -> list[Split]:
    """The official split of the images at `places`: rows ``000001.jpg 0`` (or with a comma), 0 train, 1 valid, 2 test."""
    parts: dict[str, Split] = {}
    locator = ImageLocator(listing, path)
    for number, line in enumerate(read_table_text(path).splitlines(), start=1):
        cells = line.replace(",", " ").split()
        if not cells or (number == 1 and cells[-1] == "partition"):
            continue
        if len(cells) != 2 or cells[1] not in _PARTS:
            raise ValueError(f"{path} line {number}: {line[:80]!r}; expected a file name and 0, 1 or 2 (train, valid, test)")
        place = locator.find(cells[0]) or cells[0]
        if parts.get(place, _PARTS[cells[1]]) != _PARTS[cells[1]]:
            raise ValueError(f"{path} line {number}: {cells[0]} is in {_PARTS[cells[1]]}, and further up in {parts[place]}; keep one row")
        parts[place] = _PARTS[cells[1]]
    missing = [place for place in places if place not in parts]
    if missing:
        raise ValueError(
            f"{path} lacks {len(missing)} of the {len(places)} images of the attribute file, first {missing[:3]}; "
            "complete it, or remove it to hold images back by name"
        )
    return [parts[place] for place in places]

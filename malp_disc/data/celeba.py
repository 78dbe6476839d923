"""CelebA in the official layout and the layouts of torchvision, Kaggle and StarGAN's download script."""

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
_IMAGES = ("img_align_celeba/img_align_celeba", "img_align_celeba", "images")  # Kaggle nests it; StarGAN's script calls it images
_ATTRIBUTES = ("list_attr_celeba.txt", "list_attr_celeba.csv")
_PARTITION = ("list_eval_partition.txt", "list_eval_partition.csv")
_PARTS: dict[str, Split] = {"0": "train", "1": "valid", "2": "test"}


class CelebA(ImageFiles):
    """CelebA: ``img_align_celeba/*.jpg``, ``list_attr_celeba.txt`` and, optionally, ``list_eval_partition.txt``.

    Each is searched for in `root` and in its sub-folders ``celeba`` (torchvision), ``Img``, ``Anno`` and ``Eval`` (the official download).
    CSV tables and a nested image folder (Kaggle) and a folder ``images`` (StarGAN's script) are accepted, too.

    Without the partition file, `test_size` images are held out by the hash of their names (see `split_indices`). Unlike the official
    partition, this doesn't separate identities: images of one person may be in both splits.

    Args:
        root: the folder of CelebA.
        split: ``"train"``, ``"test"``, or, with the partition file, ``"valid"``.
        selected_attributes: names, in the order of the label.
        crop_size: side of the centre crop; None for the largest centred square, which for images of the official size is the same.
        attributes: path of the attribute file if it is elsewhere.
        test_size: number of test images, held out by name, if there is no partition file.
        train_size: upper limit for the number of training images.

    Raises:
        FileNotFoundError: the images or the attributes weren't found; the message lists the places searched.
        ValueError: an unknown attribute, a listed image that is absent, or invalid arguments of `ImageFiles`.

    Note:
        torchvision's ``CelebA`` is not used: it requires and checksums further files (boxes, landmarks, identities), allows one folder
        name only, and accepts no subset of the images.
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
        folder = _find(root, _IMAGES, "the images")
        attributes = attributes or _find(root, _ATTRIBUTES, "the attributes")
        table = read_attributes(attributes, selected_attributes)
        listing = list_images(folder)
        listing.warn()
        places = ImageLocator(listing, attributes).find_all(table.files)
        partition = _find(root, _PARTITION)
        given = _read_partition(partition, places, listing) if partition else table.split
        chosen = split_indices(names_for_split(table.files, places), split, given=given, test_size=test_size, train_size=train_size)
        super().__init__(
            [os.path.join(folder, places[index]) for index in chosen],  # Path's / would take seconds for 200,000 files
            table.labels[chosen],
            attribute_names=table.attribute_names,
            image_size=image_size,
            crop_size=crop_size,
            on_broken=on_broken,
            name=f"CelebA {split} split",
        )


def _find(root: Path, names: Sequence[str], what: str = "") -> Path | None:
    """The first of `names` that exists in the known folders. If none does: None, or FileNotFoundError if `what` describes a required part."""
    tried = [root / folder / name for folder in _FOLDERS for name in names]
    for path in tried:
        if path.exists():
            return path
    if not what:
        return None
    zipped = [path for folder in _FOLDERS if (path := root / folder / "img_align_celeba.zip").exists()]
    hint = f". Unpack {zipped[0]} first" if zipped and names is _IMAGES else ""
    places = ", ".join(folder or "." for folder in _FOLDERS)
    raise FileNotFoundError(f"CelebA: {what} not found in {root}: searched for {' or '.join(names)} in {places}{hint}")


def _read_partition(path: Path, places: Sequence[str], listing: ImageListing) -> list[Split]:
    """The official split of the images at `places`, from rows ``000001.jpg 0`` (or with a comma): 0 train, 1 valid, 2 test."""
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
            raise ValueError(f"{path} line {number}: {cells[0]} is assigned to {_PARTS[cells[1]]}, and in an earlier row to {parts[place]}; keep one row")
        parts[place] = _PARTS[cells[1]]
    missing = [place for place in places if place not in parts]
    if missing:
        raise ValueError(
            f"{path} lacks {len(missing)} of the {len(places)} images of the attribute file, first {missing[:3]}; "
            "complete it, or remove it to split the images by the hash of their names"
        )
    return [parts[place] for place in places]

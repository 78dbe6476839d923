"""Which images: the command line's data flags, and the data sets made from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .attributes import check_selected
from .celeba import CROP_SIZE as CELEBA_CROP
from .celeba import DEFAULT_SELECTION as CELEBA_SELECTION
from .celeba import CelebA
from .faces import ATTRIBUTES as FACE_ATTRIBUTES
from .faces import DEFAULT_SELECTION as FACE_SELECTION
from .faces import ProceduralFaces
from .folder import AttributeFolder, DomainFolder, PlainFolder
from .images import ImageFiles, OnBroken, check_sizes

FACES_PER_RANGE = 10_000_000
FACE_RANGES = {"train": 0, "test": 10_000_000, "reference": 20_000_000, "features": 30_000_000}
"""First index of each range of drawn faces. ``features`` is for networks that judge (attribute classifier, feature network): no split holds it."""

_DEFAULT_FACES = 20_000


# tyro takes each flag's help from the string below the field.
@dataclass
class DataOptions:
    """Which images to train and to judge on."""

    data: Literal["faces", "celeba", "folder", "pictures"] = "faces"
    """faces: drawn on the fly, nothing to download. celeba: CelebA as it is distributed. folder: your images, with a table of
    attributes (--attributes) or else one sub-folder per domain. images: your images without attributes, for generators that take no target."""

    data_root: Path | None = None
    """Folder that holds the images (celeba, folder, images)."""

    attributes: Path | None = None
    """Table of attributes: a CSV file,Attr1,Attr2,... with 1/-1, 1/0 or true/false, or a list_attr_celeba.txt. It names images by paths below
    --data-root, by absolute paths, or by their names alone where these are unique. celeba finds its own."""

    selected_attributes: tuple[str, ...] = ()
    """Attributes (or domains) to edit, in the order of the label. Default: faces: three hair colours, Smiling, Eyeglasses; celeba: three hair
    colours, Male, Young; folder: all columns or all domains."""

    image_size: int = 64
    """Pixels, a multiple of 4."""

    crop_size: int | None = None
    """Side of the centre crop taken before resizing. Default: 178 for celeba, the largest centred square for folder."""

    train_size: int | None = None
    """faces: how many to train on, 20000 by default. celeba, folder: at most so many of the training images."""

    test_size: int = 1000
    """How many images are held back from training. Without effect where the data set comes with a split of its own: celeba's partition
    file, a column split in the table, folders train/ and test/."""

    on_broken: OnBroken = "raise"
    """An image that can't be decoded: raise stops when it is met; skip decodes all of them at the start (a minute or more for 200,000) and
    drops it."""


def build_dataset(options: DataOptions, split: Literal["train", "test", "reference"]) -> ImageFiles | ProceduralFaces:
    """The images of one split, with `attribute_names`, `image_size` and a one-line `description`.

    ``"train"`` and ``"test"`` share no image. ``"reference"`` is the set FID is measured against: the training images, as is usual, except
    for drawn faces, of which it holds as many as ``"train"`` from a range of its own (`FACE_RANGES`).

    Raises:
        FileNotFoundError: a folder or table isn't there.
        ValueError: options that don't fit each other or the images. Both come before any long work.
    """
    if split not in ("train", "test", "reference"):
        raise ValueError(f'expected split "train", "test" or "reference", got {split!r}')
    check_sizes(options.image_size, options.crop_size)
    if options.data == "faces":
        return _faces(options, split)
    if options.data not in ("celeba", "folder", "pictures"):
        raise ValueError(f"expected --data faces, celeba, folder or pictures, got {options.data!r}")
    if options.data_root is None:
        raise ValueError(f"--data {options.data} needs --data-root, the folder that holds the pictures")
    shared = {
        "split": "test" if split == "test" else "train",
        "image_size": options.image_size,
        "test_size": options.test_size,
        "train_size": options.train_size,
        "on_broken": options.on_broken,
    }
    if options.data == "celeba":
        crop_size = options.crop_size or CELEBA_CROP
        selected = options.selected_attributes or CELEBA_SELECTION
        return CelebA(options.data_root, selected_attributes=selected, crop_size=crop_size, attributes=options.attributes, **shared)
    if options.data == "pictures":
        for flag in ("attributes", "selected_attributes"):
            if getattr(options, flag):
                raise ValueError(f"--{flag.replace('_', '-')} has no effect with --data pictures; use --data folder")
        return PlainFolder(options.data_root, crop_size=options.crop_size, **shared)
    shared |= {"selected_attributes": options.selected_attributes, "crop_size": options.crop_size}
    if options.attributes is not None:
        return AttributeFolder(options.data_root, options.attributes, **shared)
    return DomainFolder(options.data_root, **shared)


def _faces(options: DataOptions, split: str) -> ProceduralFaces:
    for flag in ("data_root", "attributes", "crop_size"):
        if getattr(options, flag) is not None:
            name = "--" + flag.replace("_", "-")
            raise ValueError(f"{name} has no effect on drawn faces; add --data folder or --data celeba, or leave {name} out")
    train_size = _DEFAULT_FACES if options.train_size is None else options.train_size
    for flag, size in (("--train-size", train_size), ("--test-size", options.test_size)):
        if not 1 <= size <= FACES_PER_RANGE:
            raise ValueError(f"expected {flag} between 1 and {FACES_PER_RANGE} for drawn faces, got {size}")
    check_selected(options.selected_attributes, FACE_ATTRIBUTES, source="the drawn faces")
    return ProceduralFaces(
        options.test_size if split == "test" else train_size,
        image_size=options.image_size,
        selected_attributes=options.selected_attributes or FACE_SELECTION,
        first_index=FACE_RANGES[split],
    )

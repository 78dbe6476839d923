"""Data options of the command line, and the data sets that they describe."""

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
"""First index of each range of drawn faces. ``features`` is for the evaluation models (attribute classifier, feature extractor) and part of no split."""

_DEFAULT_FACES = 20_000


# tyro takes each flag's help from the string below the field.
@dataclass
class DataOptions:
    """Images for training and evaluation."""

    data: Literal["faces", "celeba", "folder", "images"] = "faces"
    """Kind of images.
    faces: drawn on the fly, nothing to download. celeba: CelebA as it is distributed.
    folder: your images, with a table of attributes (--attributes), or else one sub-folder per domain.
    images: your images without labels, for generators that take no target."""
    data_root: Path | None = None
    """Folder that holds the images (celeba, folder, images)."""
    attributes: Path | None = None
    """Table of attributes: a CSV file,Attr1,Attr2,... with 1/-1, 1/0 or true/false, or a list_attr_celeba.txt.
    It names images by paths below --data-root, by absolute paths, or by their names alone where these are unique.
    celeba finds its own."""
    selected_attributes: tuple[str, ...] = ()
    """Attributes (or domains) to edit, in the order of the label. The default depends on --data.
    faces: three hair colours, Smiling, Eyeglasses. celeba: three hair colours, Male, Young. folder: all columns or all domains."""
    image_size: int = 64
    """Side of the images in pixels, a multiple of 4."""
    crop_size: int | None = None
    """Side of the centre crop taken before resizing. By default, 178 for celeba, the largest centred square for folder."""
    train_size: int | None = None
    """Number of training images. faces: 20000 by default. celeba, folder, images: an upper limit, by default all."""
    test_size: int = 1000
    """Number of images held out from training.
    It has no effect on a data set with a split of its own: celeba's partition file, a column split in the table, folders train/ and test/."""
    on_broken: OnBroken = "raise"
    """What to do with an image that can't be decoded.
    raise: stop, at the start for a file that is empty, cut short or no image, and when it is read for one that is damaged inside.
    skip: decode all images at the start (a minute or more for 200,000) and drop those that fail."""


def build_dataset(options: DataOptions, split: Literal["train", "test", "reference"]) -> ImageFiles | ProceduralFaces:
    """The data set of one split, with `attribute_names`, `image_size` and a one-line `description`.

    ``"train"`` and ``"test"`` share no image. ``"reference"`` is a set that FID can be computed against: the training images, or for drawn faces as many
    as in ``"train"``, from a range of their own (`FACE_RANGES`). An evaluation compares with held-out images instead where there are enough (`malp_disc.evaluation.evaluator.evaluation_sets`).

    Raises:
        FileNotFoundError: missing folder or table.
        ValueError: options that contradict each other or don't fit the images. Both are raised before any long computation.
    """
    if split not in ("train", "test", "reference"):
        raise ValueError(f'expected split "train", "test" or "reference", got {split!r}')
    check_sizes(options.image_size, options.crop_size)
    if options.data == "faces":
        return _faces(options, split)
    if options.data not in ("celeba", "folder", "images"):
        raise ValueError(f"expected --data faces, celeba, folder or images, got {options.data!r}")
    if options.data_root is None:
        raise ValueError(f"--data {options.data} needs --data-root, the folder that holds the images")
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
    if options.data == "images":
        for flag in ("attributes", "selected_attributes"):
            if getattr(options, flag):
                raise ValueError(f"--{flag.replace('_', '-')} has no effect with --data images; use --data folder")
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

"""Reference images of the target domain beside the source images, for the adversarial or pixel loss of a generator."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .folder import PlainFolder
from .images import ImageFiles, load_image
from .intact import check_whole
from .listing import list_images
from .overlap import count_same_files

_FLAG = "--reference-test-size"


class WithReferences(Dataset):
    """Adds a reference image to each item of a data set: ``(image, label, reference)``, the reference (3, N, N) in [-1, 1].

    Args:
        dataset: a data set of image files.
        folder: the folder of the reference images.
        paired: if True, the reference of ``a/x.jpg`` is the image ``x`` of the folder, whatever its suffix. Otherwise each image gets references by the hash of its
            name: in the first epoch one, and where there are more references than images, others in the next, so that all are used equally often.
        test_size: unpaired references that are not used, so that an evaluation may compare with them: the split of `PlainFolder`.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no references; with `paired`, an image with no reference or with several; or a data set that isn't made of files.
    """

    def __init__(self, dataset: ImageFiles, folder: str | Path, *, paired: bool = False, test_size: int = 0) -> None:
        _check_made_of_files(dataset)
        folder = Path(folder).expanduser()
        self.dataset, self.paired = dataset, paired
        self.attribute_names, self.image_size, self.exclusive_labels = dataset.attribute_names, dataset.image_size, dataset.exclusive_labels
        names = [Path(path).stem for path in dataset.paths]
        if paired:
            listing = list_images(folder)
            listing.warn()
            found = [str(folder / name) for name in listing.names]
            self.references = _partners(names, found, folder)
            check_whole(self.references, droppable=False)
        else:
            found = PlainFolder(folder, test_size=test_size, flag=_FLAG, on_broken=dataset.on_broken, **_sizes(dataset)).paths
            order = sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode("utf-8", "surrogateescape")).digest())
            self._rank = [0] * len(names)
            for rank, index in enumerate(order):
                self._rank[index] = rank
            self.references = [found[rank % len(found)] for rank in self._rank]
            self._found = found
        inputs_too = count_same_files(dataset.paths, self.all_references)
        self.description = (
            f"{dataset.description}, with {'their' if paired else 'unpaired'} references of {folder.resolve().name} "
            f"({len(found)} images{f', of which {inputs_too} are inputs of the generator as well' * bool(inputs_too)})"
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return (self[row] for row in range(len(self)))  # of the first epoch: without this, Python would go on with the next ones

    @property
    def all_references(self) -> list[str]:
        """The files of all references, of all epochs."""
        return self.references if self.paired else self._found

    @property
    def distinguishes_epochs(self) -> bool:
        """Whether ``self[row + epoch · len(self)]`` is row `row` with the reference of an epoch; `references` has those of the first."""
        return not self.paired

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        epoch, row = divmod(index, len(self)) if self.distinguishes_epochs and index >= 0 else (0, index)
        image, label = self.dataset[row]
        reference = self._found[(self._rank[row] + epoch * len(self)) % len(self._found)] if epoch else self.references[row]
        return image, label, load_image(reference, image_size=self.image_size, crop_size=self.dataset.crop_size)


def known_attributes(dataset: Dataset) -> int:
    """Number of attributes that a data set's real images are labelled with: 0 where these are references, which have no labels."""
    return 0 if isinstance(dataset, WithReferences) else len(dataset.attribute_names)


def held_out_references(held_out: ImageFiles, folder: str | Path, *, paired: bool = False, test_size: int = 0) -> ImageFiles:
    """The reference images that an evaluation compares with: none of them is a reference in training.

    Args:
        held_out: the images that the evaluation edits.
        paired: the partners of `held_out`.
        test_size: number of unpaired references that are held out from training; 0 gives those of training.

    Raises:
        FileNotFoundError, ValueError: as `WithReferences`.
    """
    _check_made_of_files(held_out)
    folder = Path(folder).expanduser()
    if paired:
        partners = WithReferences(held_out, folder, paired=True)
        labels = torch.zeros(len(partners), 0)
        return ImageFiles(partners.references, labels, attribute_names=(), name=f"{folder.resolve().name}, partners of the held-out images", **_sizes(held_out))
    return PlainFolder(folder, split="test" if test_size else "train", test_size=test_size, flag=_FLAG, on_broken=held_out.on_broken, **_sizes(held_out))


def default_reference_test_size(folder: Path, *, most: int) -> int:
    """How many unpaired references to hold out where nothing else is said: half the images of the folder, at most `most`."""
    return min(len(list_images(folder).names) // 2, most)


def _check_made_of_files(dataset: Dataset) -> None:
    if not isinstance(dataset, ImageFiles):
        raise ValueError("reference images need a data set of image files; use --data images, folder or celeba")


def _sizes(dataset: ImageFiles) -> dict[str, int | None]:
    return {"image_size": dataset.image_size, "crop_size": dataset.crop_size}


def _partners(names: list[str], found: list[str], folder: Path) -> list[str]:
    by_name: dict[str, list[str]] = {}
    for place in found:
        by_name.setdefault(Path(place).stem, []).append(place)
    missing = [name for name in names if name not in by_name]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(names)} images have no partner in {folder}, first {missing[:3]}; leave --paired out if they aren't pairs"
        )
    several = [name for name in names if len(by_name[name]) > 1]
    if several:
        raise ValueError(f"{several[0]} has {len(by_name[several[0]])} partners in {folder}: {' and '.join(by_name[several[0]][:2])}")
    return [by_name[name][0] for name in names]

"""Reference images of the target domain beside the source images, for the adversarial or pixel loss of a generator."""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from .images import ImageFiles, load_image
from .listing import list_images


class WithReferences(Dataset):
    """Adds a reference image to each item of a data set: ``(image, label, reference)``, the reference (3, N, N) in [-1, 1].

    Args:
        dataset: a data set of image files.
        folder: the folder of the reference images.
        paired: if True, the reference of ``a/x.jpg`` is the image ``x`` of the folder, whatever its suffix. Otherwise each image gets a fixed
            reference, assigned by the hash of the image's name such that all references are used equally often.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no references; with `paired`, an image with no reference or with several; or a data set that isn't made of files.
    """

    def __init__(self, dataset: ImageFiles, folder: str | Path, *, paired: bool = False) -> None:
        if not isinstance(dataset, ImageFiles):
            raise ValueError("reference images need a data set of image files; use --data images, folder or celeba")
        folder = Path(folder).expanduser()
        listing = list_images(folder)
        if not listing.names:
            raise ValueError(f"no images below {folder}; expected the references there{'; ' * bool(listing.left_out)}{listing.left_out}")
        listing.warn()
        found = list(listing.names)
        self.dataset = dataset
        self.attribute_names, self.image_size = dataset.attribute_names, dataset.image_size
        names = [Path(path).stem for path in dataset.paths]
        if paired:
            chosen = _partners(names, found, folder)
        else:
            order = sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode("utf-8", "surrogateescape")).digest())
            chosen = [""] * len(names)
            for rank, index in enumerate(order):
                chosen[index] = found[rank % len(found)]
        self.references = [str(folder / place) for place in chosen]
        self.description = (
            f"{dataset.description}, with {'their' if paired else 'unpaired'} references of {folder.resolve().name} ({len(found)} images)"
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        image, label = self.dataset[index]
        return image, label, load_image(self.references[index], image_size=self.image_size, crop_size=self.dataset.crop_size)


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

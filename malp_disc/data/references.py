"""Images of the domain that a generator leads to, beside those it starts from: what an adversarial or a pixel loss of its own compares with."""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from .images import ImageFiles, load_image
from .listing import list_images


class WithReferences(Dataset):
    """A data set whose rows have a third entry: ``(image, label, reference)``, the reference (3, N, N) in [-1, 1].

    Args:
        dataset: of image files.
        folder: the references.
        paired: the reference of ``a/x.jpg`` is the image ``x`` of the folder, whatever its suffix. Else each image gets a fixed other one, spread
            evenly by the hash of its name.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no references, or, when paired, an image without its own or with several; or a data set that isn't made of files.
    """

    def __init__(self, dataset: ImageFiles, folder: str | Path, *, paired: bool = False) -> None:
        if not isinstance(dataset, ImageFiles):
            raise ValueError("references go with image files; use --data pictures, folder or celeba")
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
            for turn, index in enumerate(order):
                chosen[index] = found[turn % len(found)]
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

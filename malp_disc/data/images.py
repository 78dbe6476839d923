"""The data set of labelled image files.

Construction is cheap: it reads the first and last bytes of every file (`malp_disc.data.intact`), unless ``on_broken="skip"`` requests a full check.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from malp_disc.levels import as_images

from .decoding import BrokenImageError, decode_image, read_header
from .intact import check_whole

logger = logging.getLogger(__name__)

OnBroken = Literal["raise", "skip"]

_HEADERS = 8  # images whose header is read at construction, evenly spaced, to detect wrong settings early
_NAMED = 20  # images named in a warning


class ImageFiles(Dataset):
    """Image files with labels: ``(image (3, N, N) float32 in [-1, 1], label (A,) float32 in {0, 1})``.

    Args:
        paths: the files.
        labels: (len(paths), A) in {0, 1}.
        attribute_names: A names, in the order of the label.
        image_size: N, pixels.
        crop_size: side of the centre crop taken before resizing; None takes the largest centred square.
        on_broken: ``"raise"`` raises at construction for files that are visibly damaged (empty, cut short, or no images), and for others when they are read;
            ``"skip"`` decodes every image at construction, moves those that fail to `dropped`, and logs a warning.
        name: name of the data set, for `description` and messages.

    Raises:
        ValueError: invalid sizes, a crop larger than the images, labels of another shape, no (decodable) images,
            or, with ``on_broken="raise"``, a damaged one (`BrokenImageError`).
    """

    exclusive_labels = False
    """Whether the labels name domains, of which every image has exactly one (`DomainFolder`)."""

    def __init__(
        self,
        paths: Sequence[str | Path],
        labels: Tensor,
        *,
        attribute_names: Sequence[str],
        image_size: int = 64,
        crop_size: int | None = None,
        on_broken: OnBroken = "raise",
        name: str = "images",
    ) -> None:
        check_sizes(image_size, crop_size)
        if on_broken not in ("raise", "skip"):
            raise ValueError(f'expected on_broken "raise" or "skip", got {on_broken!r}')
        if not paths:
            raise ValueError(f"{name}: no images")
        if labels.shape != (len(paths), len(attribute_names)):
            raise ValueError(
                f"expected labels of shape ({len(paths)}, {len(attribute_names)}), images by attributes, got {tuple(labels.shape)}"
            )
        self.paths = [str(path) for path in paths]
        self.labels = labels.float()
        self.attribute_names = tuple(attribute_names)
        self.image_size = image_size
        self.crop_size = crop_size
        self.name = name
        self.on_broken = on_broken
        self.dropped: dict[str, str] = {}
        if on_broken == "raise":
            check_whole(self.paths)
        self._read_headers(skip_broken=on_broken == "skip")
        if on_broken == "skip":
            self._drop_broken()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside 0..{len(self) - 1}")
        return load_image(self.paths[index], image_size=self.image_size, crop_size=self.crop_size), self.labels[index]

    @property
    def description(self) -> str:
        """One line for reports: name, number of images, crop and size."""
        crop = "largest centred square" if self.crop_size is None else f"centre crop {self.crop_size}"
        return f"{self.name}, {len(self)} images, {crop}, {self.image_size}x{self.image_size}"

    def _read_headers(self, *, skip_broken: bool) -> None:
        for index in np.unique(np.linspace(0, len(self) - 1, _HEADERS).astype(int)):
            try:
                with read_header(self.paths[index]) as image:
                    _check_crop(image, self.paths[index], self.crop_size)
            except BrokenImageError:
                if not skip_broken:
                    raise

    def _drop_broken(self) -> None:
        self.dropped = find_broken(self.paths)
        if not self.dropped:
            return
        if len(self.dropped) == len(self):
            raise ValueError(f"{self.name}: none of the {len(self)} images can be decoded, first: {next(iter(self.dropped.values()))}")
        kept = [index for index, path in enumerate(self.paths) if path not in self.dropped]
        total = len(self)
        self.paths, self.labels = [self.paths[index] for index in kept], self.labels[kept]
        named = "; ".join(list(self.dropped.values())[:_NAMED])
        more = f"; and {len(self.dropped) - _NAMED} more" if len(self.dropped) > _NAMED else ""
        logger.warning("%s: dropped %d of %d images: %s%s", self.name, len(self.dropped), total, named, more)


def load_image(path: str | Path, *, image_size: int, crop_size: int | None = None) -> Tensor:
    """Decode, apply the EXIF orientation, centre crop, resize: (3, N, N) float32 in [-1, 1], rounded to 8 bits.

    The resize is Pillow's antialiased bilinear filter and the crop is torchvision's `CenterCrop`: the published StarGAN weights were
    trained on exactly these pixels. Transparent pixels are composited over white.

    Raises:
        BrokenImageError: the file can't be decoded (a ValueError that names it).
        ValueError: the image is smaller than the crop.
    """
    image = decode_image(path)
    _check_crop(image, path, crop_size)
    side = min(image.size) if crop_size is None else crop_size
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    image = image.crop((left, top, left + side, top + side))
    if side != image_size:
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return as_images(torch.from_numpy(np.array(image, np.float32).transpose(2, 0, 1).copy()))


def find_broken(paths: Sequence[str]) -> dict[str, str]:
    """Decode every file in threads, with a progress bar: error message by path for those that fail, in the order of `paths`."""

    def complaint(path: str) -> str | None:
        try:
            decode_image(path, advice=False)  # its caller drops them
        except BrokenImageError as error:
            return str(error)
        return None

    # Truncation is found only by decoding the pixels: Image.verify() accepts a JPEG without its second half.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        complaints = list(tqdm(pool.map(complaint, paths), total=len(paths), desc="checking images", unit="", disable=None))
    return {path: text for path, text in zip(paths, complaints) if text is not None}


def check_sizes(image_size: int, crop_size: int | None) -> None:
    """Check the image size and the crop size.

    Raises:
        ValueError: an image size below 16 or not divisible by 4 (the networks downsample twice by 2), or a crop below 1.
    """
    if image_size < 16 or image_size % 4:
        raise ValueError(f"expected an image size of at least 16 and divisible by 4, got {image_size}; give --image-size 64 or 128")
    if crop_size is not None and crop_size < 1:
        raise ValueError(f"expected a crop size of at least 1, got {crop_size}; leave --crop-size out for the largest centred square")


def _check_crop(image: Image.Image, path: str | Path, crop_size: int | None) -> None:
    if crop_size is not None and crop_size > min(image.size):
        raise ValueError(
            f"the centre crop of {crop_size} is larger than {path}, which is {image.width}x{image.height}; "
            f"give --crop-size {min(image.size)} or less"
        )

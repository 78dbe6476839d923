"""A folder of image files, read as by pytorch-fid and clean-fid, and identified by its content."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from malp_disc.data.decoding import count_frames, decode_image, read_header
from malp_disc.data.intact import looks_whole
from malp_disc.data.listing import PACKAGE_SUFFIXES, ImageListing, list_images, printable
from malp_disc.levels import as_images
from malp_disc.metrics.extractor import MixedSizes

_THREADS = 4  # Pillow releases the GIL while decoding


@dataclass(frozen=True)
class ImageFolder:
    """Image files, ordered by the sha256 of their contents, so that the rows don't depend on file names.

    As in pytorch-fid and clean-fid, images are decoded by Pillow's ``convert("RGB")``, without EXIF orientation or compositing over white.
    `malp_disc.data.listing` defines which files are images; sub-folders are searched, as in clean-fid (pytorch-fid doesn't).
    Sizes may differ; extractors resize each image separately, as in clean-fid.
    """

    name: str
    """The folder as given by the user."""
    paths: tuple[Path, ...]
    digests: tuple[str, ...]
    """sha256 of each file."""
    sizes: tuple[tuple[int, int], ...]
    """Width and height of each."""
    animations: int = 0
    """Number of files with several frames, of which the first is used."""
    left_out: str = ""
    """Summary of skipped files, see `ImageListing.left_out`."""

    @classmethod
    def scan(cls, folder: str | Path, *, fewest: int = 2, quiet: bool = False) -> ImageFolder:
        """List a folder and read every file once, for hash and header.

        Raises:
            FileNotFoundError: no such folder.
            ValueError: fewer than `fewest` images, or files that aren't images or were cut short.
        """
        listing = list_images(folder)
        listing.check_enough(fewest)
        return cls._read(listing, quiet)

    @classmethod
    def _read(cls, listing: ImageListing, quiet: bool) -> ImageFolder:
        paths = [listing.root / name for name in listing.names]
        with ThreadPoolExecutor(_THREADS) as pool:
            what = f"reading {printable(listing.root.name)}"
            read = list(tqdm(pool.map(_read_header, paths), total=len(paths), desc=what, unit="file", leave=False, disable=quiet))
        ordered = sorted((digest, path, size) for path, (digest, size, _) in zip(paths, read))
        digests, paths, sizes = zip(*ordered)
        frames = sum(frames > 1 for *_, frames in read)
        return cls(printable(listing.root), paths, digests, sizes, frames, listing.left_out)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def digest(self) -> str:
        """sha256 of the set of contents; independent of file names and location."""
        return hashlib.sha256("".join(self.digests).encode()).hexdigest()

    @property
    def copies(self) -> int:
        """Number of files that are exact duplicates of another one."""
        return len(self) - len(set(self.digests))

    @property
    def unlisted(self) -> int:
        """Number of images whose suffix pytorch-fid and clean-fid ignore."""
        return sum(path.suffix.lower() not in PACKAGE_SUFFIXES for path in self.paths)

    def batches(self, batch_size: int, *, rank: int = 0, world: int = 1) -> Iterator[Tensor | MixedSizes]:
        """Batches of images (B, 3, H, W) in [-1, 1], every `world`-th from `rank` on, read lazily; `MixedSizes` if the sizes differ.

        Raises:
            ValueError: a file can't be decoded.
        """
        mine = self.paths[rank::world]
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(mine), batch_size):
                images = [
                    as_images(torch.from_numpy(levels).permute(2, 0, 1))
                    for levels in pool.map(_levels, mine[start : start + batch_size])
                ]
                yield torch.stack(images) if len({image.shape for image in images}) == 1 else MixedSizes(images)

    def describe_sizes(self) -> str:
        """The most frequent sizes, with number and first file of each."""
        counted = Counter(self.sizes)
        if len(counted) == 1:
            return "{}x{}".format(*self.sizes[0])
        first = {size: path for path, size in sorted(zip(self.paths, self.sizes), reverse=True)}
        named = [f"{count} of {size[0]}x{size[1]} ({printable(first[size].name)} …)" for size, count in counted.most_common(3)]
        return ", ".join(named) + (f" and {len(counted) - 3} more" if len(counted) > 3 else "")


def _read_header(path: Path) -> tuple[str, tuple[int, int], int]:
    """sha256, size and number of frames of an image file, without decoding its pixels unless it looks damaged."""
    content = path.read_bytes()
    with read_header(path, io.BytesIO(content), as_stored=True) as image:
        if not looks_whole(path):
            decode_image(path, as_stored=True)  # now, and not when the others have been
        return hashlib.sha256(content).hexdigest(), image.size, count_frames(image)


def _levels(path: Path) -> np.ndarray:
    """(H, W, 3) uint8."""
    return np.array(decode_image(path, as_stored=True))

"""A folder of picture files as the FID packages read it, known by its content."""

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
from PIL import Image
from torch import Tensor
from tqdm import tqdm

# What both pytorch-fid and clean-fid look for; here in either case, as clean-fid nearly does.
SUFFIXES = (".bmp", ".jpg", ".jpeg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_THREADS = 4  # Pillow lets go of the interpreter while it decodes


@dataclass(frozen=True)
class ImageFolder:
    """Picture files of one size, in the order of their contents' sha256: copies under other names are the same set, row by row.

    Pictures are taken as pytorch-fid and clean-fid take them: what Pillow's ``convert("RGB")`` makes of the file, so neither turned by EXIF
    nor put on white. Sub-folders count (as in clean-fid; pytorch-fid looks at the top only), names with a leading dot don't.
    """

    name: str
    """The folder as it was given."""
    paths: tuple[Path, ...]
    digests: tuple[str, ...]
    """sha256 of each file."""
    size: tuple[int, int]
    """Width and height of all of them."""

    @classmethod
    def scan(cls, folder: str | Path, *, fewest: int = 2, quiet: bool = False) -> ImageFolder:
        """Read every file once, for its hash and its header.

        Raises:
            FileNotFoundError: no such folder.
            ValueError: fewer than `fewest` pictures, files that are no pictures, or pictures of more than one size.
        """
        folder = Path(folder).expanduser()
        if not folder.exists():
            raise FileNotFoundError(f"no folder at {folder}; give one that holds pictures ({' '.join(SUFFIXES)})")
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder; give one that holds pictures ({' '.join(SUFFIXES)})")
        paths = sorted(
            path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not _hidden(path, folder) and path.is_file()
        )
        if len(paths) < fewest:
            found = f"{len(paths)} picture{'s' * (len(paths) != 1)}" if paths else "no pictures"
            raise ValueError(f"{found} in {folder}, expected at least {fewest} ({' '.join(SUFFIXES)})")
        with ThreadPoolExecutor(_THREADS) as pool:
            read = list(
                tqdm(pool.map(_glance, paths), total=len(paths), desc=f"reading {folder.name}", unit="file", leave=False, disable=quiet)
            )
        sizes = Counter(size for _, size in read)
        if len(sizes) > 1:
            raise ValueError(
                f"{folder} mixes pictures of {len(sizes)} sizes: {_examples(sizes, paths, read)}; a distance compares pictures of one "
                "size, so sort them into folders, or bring all to one size first (and the other folder's in the same way)"
            )
        ordered = sorted((digest, path) for path, (digest, _) in zip(paths, read))

        return cls(str(folder), tuple(path for _, path in ordered), tuple(digest for digest, _ in ordered), next(iter(sizes)))

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def digest(self) -> str:
        """sha256 of the set: of the contents, whatever the files are called and wherever they lie."""
        return hashlib.sha256("".join(self.digests).encode()).hexdigest()

    @property
    def copies(self) -> int:
        """How many files repeat another one byte by byte."""
        return len(self) - len(set(self.digests))

    def batches(self, batch_size: int, *, rank: int = 0, world: int = 1) -> Iterator[Tensor]:
        """Images (B, 3, H, W) in [-1, 1], every `world`-th from `rank` on, read as they are asked for.

        Raises:
            ValueError: a file that can't be decoded, by name.
        """
        mine = self.paths[rank::world]
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(mine), batch_size):
                levels = np.stack(list(pool.map(_levels, mine[start : start + batch_size])))  # (B, H, W, 3)
                yield torch.from_numpy(levels).permute(0, 3, 1, 2).float() / 127.5 - 1


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path.relative_to(folder).parts)


def _glance(path: Path) -> tuple[str, tuple[int, int]]:
    """sha256 and size of a picture file, its pixels not yet decoded."""
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content)) as image:
            mode, size = image.mode, image.size
    except Exception as error:  # a damaged file can make Pillow raise nearly anything
        raise ValueError(f"{path} is no picture that can be read ({_reason(error, path)}); replace or delete it") from error
    if mode.startswith(("I", "F")):  # Pillow would clip these to white without a word
        raise ValueError(f"{path} has more than 8 bits per channel (mode {mode}); save it with 8 bits, or delete it")
    return hashlib.sha256(content).hexdigest(), size


def _levels(path: Path) -> np.ndarray:
    """(H, W, 3) uint8."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except Exception as error:
        raise ValueError(f"{path} can't be decoded ({_reason(error, path)}); replace or delete it") from error


def _reason(error: Exception, path: Path) -> str:
    return "empty file" if path.stat().st_size == 0 else str(error) if "BytesIO" not in str(error) else "unknown format"


def _examples(sizes: Counter[tuple[int, int]], paths: list[Path], read: list[tuple[str, tuple[int, int]]]) -> str:
    """The commonest sizes, with how many and the first file of each."""
    first = {size: path for path, (_, size) in reversed(list(zip(paths, read)))}
    named = [f"{count} of {size[0]}x{size[1]} ({first[size].name} …)" for size, count in sizes.most_common(3)]
    return ", ".join(named) + (f" and {len(sizes) - 3} more" if len(sizes) > 3 else "")

"""Strips of images for the report: the same inputs through every generator."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from malp_disc.levels import quantize, quantize_maps
from malp_disc.run_folder.schema import read_lines
from malp_disc.serialization.files import atomic_path, write_text
from malp_disc.serialization.typed_json import from_json, to_json

ROWS = 10
"""The most images in a strip; fewer of large ones, so that the page stays small."""


OF_INPUTS = ("real", "encrypted", "map_encrypted", "perfect")
"""Kinds of strips that belong to the inputs, and are the same for every arm."""


@dataclass(frozen=True)
class StripFile:
    """A line of ``gallery.jsonl``: a file with `count` images below each other; ``arm`` is None for the inputs."""

    seed: int
    arm: str | None
    kind: str
    file: str
    count: int
    captions: tuple[str | None, ...]


@dataclass(frozen=True)
class Strip:
    """Images (N, H, W, 3) or maps (N, H, W), uint8, each with a caption or None."""

    kind: str
    arm: str | None
    seed: int
    images: np.ndarray
    captions: list[str | None]


def write_strips(folder: Path, arm: str, strips: Mapping[str, tuple[Tensor, Sequence[str | None]]], *, seed: int = 0) -> None:
    """Write an arm's strips and their lines, replacing those of an earlier run."""
    path = folder / "gallery.jsonl"
    lines = [line for _, line in _read_files(path)]
    for kind, (images, captions) in strips.items():
        owner = None if kind in OF_INPUTS else arm
        file = f"gallery/{seed}/{kind if owner is None else f'{arm}-{kind}'}.png"
        lines = [line for line in lines if line.file != file]
        lines.append(StripFile(seed, owner, kind, file, len(images), tuple(captions)))
        with atomic_path(folder / file) as temporary:
            Image.fromarray(_stacked(images)).save(temporary, format="PNG", optimize=True)
    write_text(path, "".join(json.dumps(to_json(line)) + "\n" for line in lines))


def read_strips(folder: Path, *, seed: int | None = None) -> list[Strip]:
    """The strips of one seed, and those of the generator before fine-tuning; missing files are left out.

    Args:
        seed: by default, the first one with a fine-tuned generator.

    Raises:
        ValueError: a damaged line or image; the message names it.
    """
    lines = _read_files(folder / "gallery.jsonl")
    if not lines:
        return []
    tuned = [line.seed for _, line in lines if line.arm not in (None, "before")]  # "before" is that of all seeds, written as one of seed 0
    wanted = min(tuned or [line.seed for _, line in lines]) if seed is None else seed
    own = [(where, line) for where, line in lines if line.seed == wanted or line.arm == "before"]
    for where, line in own:
        if Path(line.file).parts[:1] != ("gallery",) or ".." in Path(line.file).parts:
            raise ValueError(f"{where}: expected a file in gallery/, got {line.file!r}; delete the line")
    return [_read_strip(folder, line, where) for where, line in own if (folder / line.file).is_file()]


def _read_files(path: Path) -> list[tuple[str, StripFile]]:
    return [(where, from_json(StripFile, line, where)) for where, line in read_lines(path)] if path.is_file() else []


def _read_strip(folder: Path, line: StripFile, where: str) -> Strip:
    try:
        with Image.open(folder / line.file) as image:
            levels = np.asarray(image.convert("L" if image.mode == "L" else "RGB"))
    except OSError as error:
        raise ValueError(
            f"{where}: {line.file} can't be read as an image ({error}); measure {line.arm} again, or delete the line"
        ) from error
    count = line.count
    if not count or len(levels) % count:
        raise ValueError(
            f"{where}: {line.file} is {len(levels)} pixels high, which {count} images of one height don't fill; delete the line"
        )
    images = levels.reshape(count, len(levels) // count, *levels.shape[1:])
    return Strip(line.kind, line.arm, line.seed, images, list(line.captions))


def _stacked(images: Tensor) -> np.ndarray:
    """(N, C, H, W) -> (N * H, W, 3) of images in [-1, 1], (N * H, W) of maps in [0, 1], uint8."""
    maps = images.shape[1] == 1
    levels = quantize_maps(images.detach().cpu()) if maps else quantize(images.detach().cpu())
    array = levels.permute(0, 2, 3, 1).reshape(-1, images.shape[3], images.shape[1]).numpy()
    return array[..., 0] if maps else array

"""Tiny data sets on disk, made with Pillow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def make_image() -> Callable[..., Path]:
    """Write one image: noise, or the pixels given (H, W, 3) uint8."""

    def make(path: Path, pixels: np.ndarray | None = None, *, width: int = 20, height: int = 24) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if pixels is None:
            pixels = np.random.default_rng(len(path.name)).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return make


@pytest.fixture
def make_celeba(make_image) -> Callable[..., Path]:
    """CelebA in small: image i (from 1) is Male where i is even, Young where i divides by 3, and has black hair otherwise."""

    def make(
        root: Path,
        count: int = 12,
        *,
        images: str = "img_align_celeba",
        attributes: str = "list_attr_celeba.txt",
        partition: str | None = None,
        parts: Sequence[int] = (),
    ) -> Path:
        names = [f"{i:06d}.jpg" for i in range(1, count + 1)]
        for name in names:
            make_image(root / images / name, width=178, height=218)
        columns = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young")
        rows = [(1 if i % 2 and i % 3 else -1, -1, -1, -1 if i % 2 else 1, -1 if i % 3 else 1) for i in range(1, count + 1)]
        (root / attributes).parent.mkdir(parents=True, exist_ok=True)
        if attributes.endswith(".csv"):
            lines = ["image_id," + ",".join(columns)] + [name + "," + ",".join(map(str, row)) for name, row in zip(names, rows)]
        else:
            lines = [str(count), " ".join(columns) + " "] + [name + " " + " ".join(f"{v:2d}" for v in row) for name, row in zip(names, rows)]
        (root / attributes).write_text("\n".join(lines) + "\n")
        if partition:
            (root / partition).parent.mkdir(parents=True, exist_ok=True)
            comma = partition.endswith(".csv")
            lines = ["image_id,partition"] * comma + [name + (",", " ")[not comma] + str(part) for name, part in zip(names, parts)]
            (root / partition).write_text("\n".join(lines) + "\n")
        return root

    return make


@pytest.fixture
def make_table(make_image) -> Callable[..., Path]:
    """A folder of images ``images/000.png ...`` with ``list.csv``: column Even holds for even numbers, Early for the first half."""

    def make(root: Path, count: int = 10) -> Path:
        rows = ["file,Even,Early"]
        for i in range(count):
            make_image(root / "images" / f"{i:03d}.png")
            rows.append(f"{i:03d}.png,{1 if i % 2 == 0 else -1},{1 if i < count // 2 else -1}")
        (root / "list.csv").write_text("\n".join(rows) + "\n")
        return root

    return make

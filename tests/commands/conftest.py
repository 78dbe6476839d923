"""A saved MaLP, image files of every kind, and the command line in this process."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from malp_disc import cli
from tests.tiny import tiny_malp


@pytest.fixture(scope="session")
def malp_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("malp") / "malp"
    tiny_malp(set_size=3).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def command():
    """``command("protect", …)``; gives the message or status it ends with, None if it ends well."""

    def call(*arguments: object) -> str | int | None:
        with mock.patch.object(sys, "argv", ["malp-disc", *map(str, arguments)]):
            try:
                cli.main()
            except SystemExit as stopped:
                return stopped.code
        return None

    return call


def levels(height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8, far enough from black and white to take any template."""
    return np.random.default_rng(seed).integers(80, 176, (height, width, 3), np.uint8)


@pytest.fixture
def photos(tmp_path) -> Path:
    """Folder with a.png, b.jpg and sub/c.png."""
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "b.jpg", "sub/c.png")):
        Image.fromarray(levels(seed=seed)).save(root / name)
    return root

"""Real images for the generators whose published weights are at hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from malp_disc.data.images import load_image


@pytest.fixture(scope="session")
def photographs(shared) -> Callable[..., Tensor]:
    """``photographs("celeba_crop144/test", 8)``: images spread over a shared folder, (8, 3, 128, 128); the same ones every time."""

    def load(folder: str, count: int, image_size: int = 128) -> Tensor:
        paths = sorted(path for path in shared(f"data/{folder}").iterdir() if path.suffix == ".jpg")
        return torch.stack([load_image(path, image_size=image_size) for path in paths[:: len(paths) // count][:count]])

    return load

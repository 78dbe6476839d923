"""Folders of small images, a stand-in for Inception, and the packages' own way to a Fréchet distance."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from malp_disc.metrics import inception
from malp_disc.metrics.extractor import FeatureExtractor


@pytest.fixture
def packages_sqrtm(monkeypatch):
    """`scipy.linalg.sqrtm` as pytorch-fid and clean-fid call it, with ``disp=False`` and two results, which SciPy 1.18 no longer takes."""
    if "disp" in inspect.signature(scipy.linalg.sqrtm).parameters:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
        return
    own = scipy.linalg.sqrtm
    monkeypatch.setattr(scipy.linalg, "sqrtm", lambda matrix, disp=True: own(matrix) if disp else (own(matrix), None))
    yield


class StandIn(nn.Module):
    """64 features in place of Inception's, hardly dependent on each other: (B, 3, 299, 299) in [-1, 1] -> (B, 64, 1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        self.register_parameter("weight", nn.Parameter(weight / 4, requires_grad=False))

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[1:] == (3, 299, 299)
        return F.conv2d(F.adaptive_avg_pool2d(images, 16), self.weight).sin()


@pytest.fixture
def stand_in(monkeypatch) -> StandIn:
    """In the place of the weights file's network, whatever file is given."""
    net = StandIn()
    monkeypatch.setattr(inception, "load_inception", lambda dims, path: net)
    return net


class Colours(FeatureExtractor):
    """Mean red, green and blue, and how often it was asked for them."""

    label, resize, dims = "FD-colours", "none", 3

    def __init__(self, name: str = "colours") -> None:
        super().__init__()
        self.name, self.seen = name, 0
        self.anchor = nn.Parameter(torch.zeros(1))

    def _features(self, levels: Tensor) -> Tensor:
        self.seen += len(levels)
        return levels.float().mean(dim=(2, 3))


@pytest.fixture
def colours() -> Colours:
    return Colours()


@pytest.fixture(scope="session")
def make_folder() -> Callable[..., Path]:
    """``make_folder(path, count, seed)``: PNG files 24 wide and 20 high, noise brightened by `shift` grey levels."""

    def make(
        folder: Path, count: int = 10, seed: int = 0, *, shift: float = 0, size: tuple[int, int] = (24, 20), suffix: str = ".png"
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        for index in range(count):
            levels = (rng.normal(120 + shift, 40, (size[1], size[0], 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(levels).save(folder / f"{index:03d}{suffix}")
        return folder

    return make


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("MALP_DISC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"

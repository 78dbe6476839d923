"""A keyed MaLP on a small reference grid, and images with detail at all scales, as photographs have it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from malp_disc.keyed import KeyedConfig, KeyedMaLP


def natural_images(count: int, height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    """Noise with the spectrum of natural images (amplitude 1 / frequency), in [-1, 1]."""
    noise = torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))
    noise = 0.3 * noise + noise.mean(1, keepdim=True)
    radius = (torch.fft.fftfreq(height)[:, None].square() + torch.fft.rfftfreq(width).square()).sqrt().clamp(min=1 / max(height, width))
    images = torch.fft.irfft2(torch.fft.rfft2(noise) / radius, s=(height, width))
    return (0.3 * images / images.std((1, 2, 3), keepdim=True)).clamp(-0.95, 0.95)


@pytest.fixture(scope="session")
def malp() -> KeyedMaLP:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return KeyedMaLP(KeyedConfig(image_size=64, width=4), secret=bytes(range(32))).eval()


@pytest.fixture(scope="session")
def images() -> Tensor:
    return natural_images(6)

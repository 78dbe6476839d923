"""Small objects that many tests share: a MaLP of a few thousand weights, a generator, images, and a who-moved check."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from malp_disc import MaLP, MaLPConfig

SIZE = 32
OUTPUTS = ("map", "template", "logit", "similarity", "score", "branch_map")
"""What a MaLP with the transformer predicts; branch_logit is a pretrained branch's."""


def tiny_malp(seed: int = 0, **config) -> MaLP:
    """Width 8, 32×32, no transformer branch unless asked for; the same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MaLP(MaLPConfig(**{"image_size": SIZE, "width": 8, "branch": None, **config}))


def small_generator(seed: int = 0) -> nn.Module:
    """Two convolutions; images (B, 3, H, W) in [-1, 1]."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1), nn.Tanh())


def sample_images(count: int, height: int = SIZE, width: int = SIZE, *, seed: int = 0) -> Tensor:
    """Smooth images with some noise, (count, 3, height, width), well inside [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator) * 1.4 - 0.7
    fine = torch.rand(count, 3, height, width, generator=generator) * 0.2 - 0.1
    return nn.functional.interpolate(coarse, (height, width), mode="bilinear") + fine


def with_rectangles(images: Tensor, *, seed: int = 0) -> Tensor:
    """A stand-in for a generator: in each image one rectangle gets another colour. The rest stays as it is."""
    generator = torch.Generator().manual_seed(seed)
    changed = images.clone()
    height, width = images.shape[2:]
    for image in changed:
        top, left = (int(torch.randint(side // 2, (), generator=generator)) for side in (height, width))
        colour = torch.rand(3, 1, 1, generator=generator).round() * 1.6 - 0.8
        image[:, top : top + height // 3, left : left + width // 3] = colour
    return changed


def coloured_share(path: Path) -> float:
    """Share of an image file's pixels that aren't grey: 0 for axes and text into which nothing was drawn."""
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=int)
    return float((pixels.max(2) - pixels.min(2) > 40).mean())


def gradients(network: nn.Module) -> set[str]:
    """Names of the parameters that have a gradient."""
    return {name for name, parameter in network.named_parameters() if parameter.grad is not None}


class Snapshot:
    """Remembers the weights of a network; `moved()` tells which have changed since."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._before = {name: value.detach().clone() for name, value in network.named_parameters()}

    def moved(self) -> set[str]:
        return {name for name, value in self._network.named_parameters() if not torch.equal(value.detach(), self._before[name])}

    @property
    def names(self) -> set[str]:
        return set(self._before)

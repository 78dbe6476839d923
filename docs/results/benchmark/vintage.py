"""vintagify's CycleGAN, modern to vintage photographs (PyPI vintagify 0.1.2, MIT), as a generator of the benchmark."""

from pathlib import Path

import torch
import vintagify
from torch import nn
from vintagify.generator import ResnetGenerator


class Vintage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = ResnetGenerator()
        weights = Path(vintagify.__file__).parent / "resources" / "G_A2B_epoch33.pth"
        self.network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))

    def manipulate(self, images, target=None):  # (B, 3, H, W) in [-1, 1]
        return self.network(images)


def make() -> Vintage:
    return Vintage()

"""Fast-SRGAN, a small SRGAN ×4: photo-realistic single image super-resolution using a GAN (Ledig et al., CVPR 2017).

Official code: https://github.com/HasnainRaz/Fast-SRGAN (MIT); the network has no paper of its own. Written from SRGAN's paper and the
published key list, with the authors' state-dict keys: ``models/model.pt`` of the repository loads directly.

Note:
    Where SRGAN has batch norm, the published network has instance norm without parameters (eps 1e-5), so training and evaluation mode are the
    same. The file was saved from a compiled module: its keys begin with ``_orig_mod.``.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.images import check_input
from generators.super_resolution import shrink
from malp_disc.serialization.state_dicts import load_state, load_tensors


class ResidualBlock(nn.Module):
    """x + conv-norm-prelu-conv-norm(x), SRGAN's Figure 4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.InstanceNorm2d(channels)
        self.relu1 = nn.PReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.InstanceNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))


class UpsamplingBlock(nn.Module):
    """Upsampling by 2: convolution, pixel shuffle, PReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * channels, 3, padding=1)
        self.relu = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(F.pixel_shuffle(self.conv(x), 2))


class FastSRGANGenerator(nn.Module):
    """G(shrink(x)): downsamples image x by 4 and super-resolves it. The network alone is `upscale`.

    Args:
        n_filters: channels of every layer (64 in the published network, as in SRGAN).
        n_layers: residual blocks (8 in the published network, 16 in SRGAN).

    Shape:
        images (B, 3, H, W) in [-1, 1] with H and W divisible by 4, at least 8 -> (B, 3, H, W) in [-1, 1].

    Note:
        `target` is accepted and ignored, so that all generators share one interface.
    """

    def __init__(self, *, n_filters: int = 64, n_layers: int = 8) -> None:
        super().__init__()
        self.config = {"n_filters": n_filters, "n_layers": n_layers}
        self.neck = nn.Sequential(nn.Conv2d(3, n_filters, 3, padding=1), nn.PReLU())
        self.stem = nn.Sequential(*[ResidualBlock(n_filters) for _ in range(n_layers)])
        self.bottleneck = nn.Sequential(nn.Conv2d(n_filters, n_filters, 3, padding=1, bias=False), nn.InstanceNorm2d(n_filters))
        self.upsampling = nn.Sequential(UpsamplingBlock(n_filters), UpsamplingBlock(n_filters))
        self.head = nn.Sequential(nn.Conv2d(n_filters, 3, 3, padding=1), nn.Tanh())

    def forward(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        return self.upscale(shrink(images))

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: images in [-1, 1] -> images in [-1, 1], same size; the same as `forward`. `target` is ignored."""
        return self(images, target)

    def upscale(self, images: Tensor) -> Tensor:
        """Super-resolution ×4: (B, 3, h, w) -> (B, 3, 4h, 4w), both in [-1, 1]; any sides of 2 and more.

        Raises:
            ValueError: for other shapes.
        """
        check_input(images, "Fast-SRGAN", least=2)
        features = self.neck(images)
        features = features + self.bottleneck(self.stem(features))
        features = self.upsampling(features)
        # In float32 also under autocast: rounding to bf16 would leave a pattern that a detector could learn.
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features.to(self.head[0].weight.dtype))


def fast_srgan(checkpoint: str | Path | None = None, **config: int) -> FastSRGANGenerator:
    """A Fast-SRGAN generator; with a checkpoint, the widths are inferred from the tensors, and arguments given explicitly must agree.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if checkpoint is None:
        return FastSRGANGenerator(**config)
    tensors = load_tensors(checkpoint, forms=(("neck.0.weight", "head.0.weight"),), entries=("state_dict", "G"))
    found = {"n_layers": sum(re.fullmatch(r"stem\.\d+\.conv1\.weight", key) is not None for key in tensors)}
    first = tensors.get("neck.0.weight")
    if first is not None and first.ndim == 4:
        found["n_filters"] = first.shape[0]
    network = FastSRGANGenerator(**{**found, **config})
    load_state(network, tensors, source=str(checkpoint))
    return network

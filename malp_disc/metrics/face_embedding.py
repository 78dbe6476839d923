"""MobileFaceNet: face embeddings of 128 numbers, to measure whether an edit preserves the identity.

    Chen, Liu, Gao, Han: MobileFaceNets, CCBR 2018, arXiv:1804.07573. Implemented from the paper's Table 1 for faces of 112×96.

State-dict keys are those of the PyTorch training code Xiaoccer/MobileFaceNet_Pytorch, whose checkpoints nest them under
``net_state_dict``. Its weights have no stated licence, so they aren't part of the package.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from malp_disc.levels import quantize
from malp_disc.runtime.freezing import Float32Module
from malp_disc.runtime.input_checks import check_images
from malp_disc.runtime.precision import full_precision
from malp_disc.serialization.files import file_sha256
from malp_disc.serialization.state_dicts import load_state, load_tensors

# Table 1: expansion, channels, repeats, stride of the first block.
_BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
HEIGHT, WIDTH = 112, 96


class MobileFaceNet(Float32Module):
    """Embeddings (B, 128) of faces (B, 3, H, W) in [-1, 1], centre-cropped to 7:6 and resized to 112×96.

    Note:
        The network was trained on faces aligned by landmarks. No alignment is done here; CelebA's aligned images are close enough to compare
        a face with its edit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _Convolution(3, 64, 3, stride=2, padding=1)
        self.dw_conv1 = _Convolution(64, 64, 3, padding=1, groups=64)
        channels, blocks = 64, []
        for expansion, outputs, repeats, stride in _BOTTLENECKS:
            for i in range(repeats):
                blocks.append(_Bottleneck(channels, outputs, stride if i == 0 else 1, expansion))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = _Convolution(128, 512, 1)
        self.linear7 = _Convolution(512, 512, (7, 6), groups=512, linear=True)
        self.linear1 = _Convolution(512, 128, 1, linear=True)
        self.name = "MobileFaceNet"

    @classmethod
    def load(cls, path: str | Path) -> MobileFaceNet:
        """Load a checkpoint, in evaluation mode, with gradients disabled.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a checkpoint of another network.
        """
        net = cls()
        tensors = load_tensors(path, forms=(("conv1.conv.weight", "linear1.conv.weight"),), entries=("net_state_dict", "state_dict"))
        load_state(net, tensors, source=str(path), optional=("num_batches_tracked",))
        net.name = f"MobileFaceNet, weights sha256 {file_sha256(path)[:8]}"
        return net.eval().requires_grad_(False)

    @full_precision
    def forward(self, images: Tensor) -> Tensor:
        check_images(images)
        levels = quantize(images).float()
        height, width = levels.shape[2:]
        tall, wide = min(height, round(width * HEIGHT / WIDTH)), min(width, round(height * WIDTH / HEIGHT))
        top, left = (height - tall) // 2, (width - wide) // 2
        faces = levels[..., top : top + tall, left : left + wide]
        faces = F.interpolate(faces, (HEIGHT, WIDTH), mode="bilinear", align_corners=False, antialias=True)
        x = self.blocks(self.dw_conv1(self.conv1((faces - 127.5) / 128)))
        return self.linear1(self.linear7(self.conv2(x))).flatten(1)


@torch.no_grad()
def identity_similarity(net: nn.Module, images: Tensor, edited: Tensor, *, batch: int = 32, device: torch.device | str = "cpu") -> float:
    """Mean cosine of the embeddings of images (N, 3, H, W) and their edits: 1 for an unchanged identity, about 0 for another person."""
    pairs = zip(images.split(batch), edited.split(batch))
    return torch.cat([F.cosine_similarity(net(a.to(device)), net(b.to(device))).cpu() for a, b in pairs]).double().mean().item()


class _Convolution(nn.Module):
    """Convolution, batch norm, and PReLU unless `linear`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.prelu = nn.Identity() if linear else nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.prelu(self.bn(self.conv(x)))


class _Bottleneck(nn.Module):
    """Inverted bottleneck: expansion, depthwise convolution, projection; residual if the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.PReLU(wide),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.PReLU(wide),
            nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.added = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.added else self.conv(x)

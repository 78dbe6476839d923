"""Localization (paper, section 3.2.2): which pixels did a generator change?

`ShallowCNN` is E_C, the branch used in inference; its trunk is shared with E_E, which recovers the template (section 3.2.3; shared in the
authors' code as well). `GlobalTransformer` is E_T, the branch used in training only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from malp_disc.runtime.freezing import Float32Module
from malp_disc.runtime.precision import full_precision

START_BIAS = -2.0  # initial maps are about sigmoid(-2) = 0.12, since most pixels are unchanged


def conv_block(inputs: int, outputs: int) -> nn.Sequential:
    """3×3 convolution, group norm and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.GroupNorm(max(1, outputs // 8), outputs), nn.ReLU(inplace=True))


class ShallowCNN(Float32Module):
    """E_C and E_E: ten layers to the fakeness map at full resolution, and three more blocks to the recovered template.

    Shape:
        images (B, 3, H, W) in [-1, 1] -> map (B, 1, H, W) in (0, 1), template (B, 1, H, W) unbounded.

    Note:
        The paper gives the depth only; width 64 and 3×3 kernels are from the authors' code. Two things differ from it. The map ends in a
        sigmoid, because an output of batch norm and ReLU can become zero everywhere, without gradient. And normalization is per image
        (group norm): maps don't depend on the other images of the batch, batch statistics of encrypted and manipulated images can't reveal
        the class, training and evaluation mode agree, and two processes agree with one.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(inplace=True), *[conv_block(width, width) for _ in range(8)])
        self.map_head = nn.Conv2d(width, 1, 3, padding=1)
        self.recovery = nn.Sequential(*[conv_block(width, width) for _ in range(3)], nn.Conv2d(width, 1, 3, padding=1))
        nn.init.constant_(self.map_head.bias, START_BIAS)

    @full_precision
    def forward(self, images: Tensor, *, recovery: bool = True) -> tuple[Tensor, Tensor | None]:
        """Map and template; with ``recovery=False`` the map alone, and None."""
        features = self.trunk(images.float().contiguous(memory_format=torch.channels_last))  # same results, 25 % less time on a CPU
        return torch.sigmoid(self.map_head(features)), self.recovery(features) if recovery else None


class GlobalTransformer(Float32Module):
    """E_T: a ViT whose patch tokens are mapped to the 8×8 pixels of their patch in the fakeness map.

    Shape:
        images (B, 3, H, W) in [-1, 1], H and W divisible by `patch_size` -> map (B, 1, H, W) in (0, 1).

    Raises:
        ValueError: in `forward`, a side that isn't divisible by `patch_size`.

    Note:
        The authors' code detaches the tokens, so that their ViT isn't trained, and reshapes them row by row, so that a token covers half an
        image row. Here gradients reach the ViT, and each token covers its patch. Depth, heads and widths are the authors'.
    """

    def __init__(self, image_size: int, *, patch_size: int = 8, dim: int = 64, depth: int = 6, heads: int = 4, dropout: float = 0.1) -> None:
        from timm.models import VisionTransformer  # imported late: it imports torchvision and takes as long as torch

        super().__init__()
        self.patch_size = patch_size
        self.vit = VisionTransformer(
            img_size=image_size,
            patch_size=patch_size,
            embed_dim=dim,
            depth=depth,
            num_heads=heads,
            mlp_ratio=8,
            num_classes=0,
            global_pool="",
            class_token=False,
            drop_rate=dropout,
            pos_drop_rate=dropout,
            dynamic_img_size=True,
        )
        self.to_pixels = nn.Linear(dim, patch_size**2)
        nn.init.constant_(self.to_pixels.bias, START_BIAS)

    @full_precision
    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"the transformer branch needs sides divisible by its patch of {self.patch_size}, got {height}x{width}")
        pieces = self.to_pixels(self.vit.forward_features(images.float()))  # (B, patches, patch²)
        grid = pieces.transpose(1, 2).unflatten(2, (height // self.patch_size, width // self.patch_size))
        return torch.sigmoid(F.pixel_shuffle(grid, self.patch_size))  # (B, patch², rows, columns) -> (B, 1, H, W)

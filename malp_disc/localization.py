"""Localization (paper, section 3.2.2): which pixels did a generator change?

`ShallowCNN` is E_C, the branch that stays; its trunk also feeds E_E, which recovers the template (section 3.2.3; the authors' code shares the
trunk too). `GlobalTransformer` is E_T, the branch that helps in training and is switched off in inference.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from malp_disc.freezing import Float32Module
from malp_disc.precision import full_precision

_START_BIAS = -2.0  # maps start near sigmoid(-2) = 0.12: most pixels are unchanged


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.GroupNorm(max(1, outputs // 8), outputs), nn.ReLU(inplace=True))


class ShallowCNN(Float32Module):
    """E_C and E_E: ten layers to the fakeness map at full resolution; three more blocks lead to the recovered template.

    Shape:
        images (B, 3, H, W) in [-1, 1] -> map (B, 1, H, W) in (0, 1), template (B, 1, H, W) unbounded.

    Note:
        The paper gives the depth only. Width 64 and 3×3 kernels are the authors'. Two things differ from their code: the map ends in a
        sigmoid, because a batch-norm-ReLU end can die for good (all zero, no gradient); and norms are per image (group norm), so that a
        image's map doesn't depend on its neighbours in the batch, the statistics of real and fake halves can't leak the class,
        training equals evaluation, and two processes equal one.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(inplace=True), *[_block(width, width) for _ in range(8)])
        self.map_head = nn.Conv2d(width, 1, 3, padding=1)
        self.recovery = nn.Sequential(*[_block(width, width) for _ in range(3)], nn.Conv2d(width, 1, 3, padding=1))
        nn.init.constant_(self.map_head.bias, _START_BIAS)

    @full_precision
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(images.float().contiguous(memory_format=torch.channels_last))  # the same numbers, in three quarters of the time on a CPU
        return torch.sigmoid(self.map_head(features)), self.recovery(features)


class GlobalTransformer(Float32Module):
    """E_T: a ViT whose patch tokens are put back in their places as 8×8 pieces of the map.

    Shape:
        images (B, 3, H, W) in [-1, 1], H and W divisible by `patch_size` -> map (B, 1, H, W) in (0, 1).

    Note:
        The authors' code detaches the tokens (their ViT never learns) and reshapes them row by row, which smears a token over half an
        image row. Here gradients flow, and each token becomes its own patch. Depth, heads and widths are theirs.
    """

    def __init__(self, image_size: int, *, patch_size: int = 8, dim: int = 64, depth: int = 6, heads: int = 4, dropout: float = 0.1) -> None:
        from timm.models import VisionTransformer  # late: brings in torchvision, and takes as long as torch to import

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
        nn.init.constant_(self.to_pixels.bias, _START_BIAS)

    @full_precision
    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"the transformer branch needs sides divisible by its patch of {self.patch_size}, got {height}x{width}")
        pieces = self.to_pixels(self.vit.forward_features(images.float()))  # (B, patches, patch²)
        grid = pieces.transpose(1, 2).unflatten(2, (height // self.patch_size, width // self.patch_size))
        return torch.sigmoid(F.pixel_shuffle(grid, self.patch_size))  # (B, patch², rows, columns) -> (B, 1, H, W)

"""The co-occurrence detector (Nataraj et al.: Detecting GAN generated fake images using co-occurrence matrices, Electronic Imaging 2019; the paper's [35])."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from malp_disc.benchmark.baseline import Baseline, both, labels_like
from malp_disc.benchmark.localizer import Localization
from malp_disc.levels import quantize
from malp_disc.runtime.precision import full_precision

_LEVELS = 256
_SCALE = 2048.0  # with it the values along the diagonal, where nearly all neighbours are, are around 1


class NatarajDetector(Baseline):
    """A small CNN on the co-occurrence matrices of horizontal neighbours, one for each colour. The score is P(fake); there is no map.

    Images may have any size, as the matrices have 256×256 entries. Three pairs of convolutions (3×3, then 5×5) with 32, 64 and 128 channels, each followed by a
    max-pool, then two layers of 256 units and a sigmoid.

    Note:
        There is no code. The paper gives the layers but neither padding (here: none is lost) nor the scale of the matrices (here: shares of the neighbours times
        2048) nor the optimizer (here: Adam).
    """

    name = "nataraj"
    learning_rate = 1e-4

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(outputs, outputs, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        side = _LEVELS // 8
        dense = [nn.Flatten(), nn.Linear(128 * side**2, 256), nn.ReLU(inplace=True), nn.Linear(256, 256), nn.ReLU(inplace=True), nn.Linear(256, 1)]
        super().__init__(nn.Sequential(*layers, *dense))

    def localize(self, images: Tensor) -> Localization:
        return Localization(None, torch.sigmoid(self.network(co_occurrence(images) * _SCALE).float())[:, 0])

    def losses(self, real: Tensor, manipulated: Tensor, truth: Tensor) -> dict[str, Tensor]:
        logits = both(self.network, co_occurrence(real) * _SCALE, co_occurrence(manipulated) * _SCALE).float()[:, 0]
        return {"classification": F.binary_cross_entropy_with_logits(logits, labels_like(real).float())}


@full_precision
def co_occurrence(images: Tensor) -> Tensor:
    """How often each pair of 8-bit levels occurs as left and right neighbour, as shares: (B, 3, H, W) in [-1, 1] -> (B, 3, 256, 256), of sum 1 in each channel.

    Row: level of the left pixel; column: of the right one. No gradient reaches the images.
    """
    levels = quantize(images.detach()).long()
    pairs = (levels[..., :-1] * _LEVELS + levels[..., 1:]).flatten(2)
    counts = torch.zeros(*pairs.shape[:2], _LEVELS**2, device=images.device)
    counts.scatter_add_(2, pairs, torch.ones_like(pairs, dtype=counts.dtype))
    return (counts / pairs.shape[2]).view(*pairs.shape[:2], _LEVELS, _LEVELS)

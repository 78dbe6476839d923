"""FakeLocator (Huang, Juefei-Xu, Guo, Liu, Pu: Robust localization of GAN-based face manipulations, TIFS 2022; the paper's [21])."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from malp_disc.benchmark.baseline import Baseline, both, check_side, imagenet_normalized, resized, true_maps
from malp_disc.benchmark.localizer import Localization
from malp_disc.metrics.pixels import CHANGED

_START_BIAS = -2.0  # initial maps are about sigmoid(-2) = 0.12, since most pixels are unchanged


class FakeLocator(Baseline):
    """DeepLabv3 on ResNet-101 with one output, a grey-scale map at full resolution, by the L1 distance to M_GT of Eq. 2, zero for real images.

    The score is the mean of the map. The network is torchvision's, without its auxiliary classifier.

    Args:
        side: images are resized to it; None for their own size.

    Note:
        The authors published no code. Not here, since they need a face-parsing network or belong to the choice of training data: their attention to parts of the
        face, partial data augmentation, and single-sample clustering, which they add for other attributes and generators. The sigmoid on the map is ours.
    """

    name = "fakelocator"
    learning_rate = 1e-4
    threshold = CHANGED
    head = ("classifier",)

    def __init__(self, *, side: int | None = None) -> None:
        check_side(side, 32, self.name)
        network = torchvision.models.segmentation.deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=1, aux_loss=False)
        nn.init.constant_(network.classifier[4].bias, _START_BIAS)
        super().__init__(network, {"side": side})
        self.side = side

    def localize(self, images: Tensor) -> Localization:
        maps = F.interpolate(self._maps(self.network(self._inputs(images))), images.shape[2:], mode="bilinear", align_corners=False)
        return Localization(maps, maps.mean((1, 2, 3)))

    def losses(self, real: Tensor, manipulated: Tensor, truth: Tensor) -> dict[str, Tensor]:
        maps = self._maps(both(self.network, self._inputs(real), self._inputs(manipulated)))
        return {"map": F.l1_loss(maps, resized(true_maps(truth), self.side))}

    def translate_initial(self, key: str) -> str:
        """The keys of a ResNet-101, or of a DeepLabv3, of which the backbone is taken."""
        return key if key.startswith("backbone.") else f"backbone.{key}"

    @staticmethod
    def _maps(output: dict[str, Tensor]) -> Tensor:
        return torch.sigmoid(output["out"].float())

    def _inputs(self, images: Tensor) -> Tensor:
        return imagenet_normalized(resized(images, self.side))

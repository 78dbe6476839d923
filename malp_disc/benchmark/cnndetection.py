"""CNNDetection (Wang, Wang, Zhang, Owens, Efros: CNN-generated images are surprisingly easy to spot … for now, CVPR 2020; the paper's [53])."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from malp_disc.benchmark.baseline import Baseline, both, check_side, imagenet_normalized, labels_like, resized
from malp_disc.benchmark.localizer import Localization
from malp_disc.degradations import blurred, jpeg
from malp_disc.runtime.input_checks import check_images

_BLUR = 3.0  # pixels, the largest sigma
_JPEG = (30, 100)


class CNNDetection(Baseline):
    """torchvision's ResNet-50 with one logit, trained on images that are blurred and compressed at random. The score is P(synthetic); there is no map.

    Checkpoints: ``blur_jpg_prob0.1.pth`` and ``blur_jpg_prob0.5.pth`` of github.com/PeterWang512/CNNDetection.

    Args:
        side: images are resized to it; None for their own size, as the authors recommend.
        augmentation: probability of the blur, and of the compression, 0.1 or 0.5 in the paper.
    """

    name = "cnndetection"
    learning_rate = 1e-4
    entries = ("model",)
    head = ("fc",)
    numbers = 4

    def __init__(self, *, side: int | None = None, augmentation: float = 0.5) -> None:
        check_side(side, 32, self.name)
        if not 0 <= augmentation <= 1:
            raise ValueError(f"expected a probability of the augmentation in [0, 1], got {augmentation}")
        super().__init__(torchvision.models.resnet50(num_classes=1), {"side": side, "augmentation": augmentation})
        self.side, self.augmentation = side, augmentation

    def localize(self, images: Tensor) -> Localization:
        return Localization(None, torch.sigmoid(self.network(self._inputs(images)).float())[:, 0])

    def losses(self, real: Tensor, manipulated: Tensor, truth: Tensor) -> dict[str, Tensor]:
        logits = both(self.network, self._inputs(real), self._inputs(manipulated)).float()[:, 0]
        return {"classification": F.binary_cross_entropy_with_logits(logits, labels_like(real).float())}

    @torch.no_grad()
    def augment(self, images: Tensor, numbers: Tensor) -> Tensor:
        """A blur of up to 3 pixels, and JPEG of quality 30 to 100, each with the probability `augmentation`. `numbers` (B, 4)."""
        check_images(images)
        changed = []
        for image, (blur, sigma, compress, quality) in zip(images.split(1), numbers.tolist()):
            if blur < self.augmentation:
                largest = min(_BLUR, (min(image.shape[2:]) - 1) // 3)  # the kernel has to fit into the image
                image = blurred(image, largest * sigma)
            if compress < self.augmentation:
                image = jpeg(image, _JPEG[0] + int(quality * (_JPEG[1] - _JPEG[0] + 1)))
            changed.append(image.float())
        return torch.cat(changed)

    def _inputs(self, images: Tensor) -> Tensor:
        return imagenet_normalized(resized(images, self.side))

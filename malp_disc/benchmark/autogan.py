"""The spectrum detector of AutoGAN (Zhang, Karaman, Chang: Detecting and simulating artifacts in GAN fake images, WIFS 2019; the paper's [59])."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from malp_disc.benchmark.baseline import Baseline, both, labels_like, resized
from malp_disc.benchmark.localizer import Localization
from malp_disc.runtime.precision import full_precision

Band = Literal["full", "low", "mid", "high"]
_SIDE, _CROP = 256, 224  # images, and the centre of them that is looked at
_OFFSET = 1e-3  # in the logarithm
_LOW, _MID = (57, 177), (21, 203)  # rows and columns of the shifted spectrum, of 224


class AutoGANDetector(Baseline):
    """torchvision's ResNet-34 on the logarithmic spectrum of the image's centre, trained by SGD. The score is P(fake); there is no map.

    Checkpoints: ``checkpoint_N.pth`` of github.com/ColumbiaDVMM/AutoGAN, whose file headers say BSD; written from a description. Images of other sizes than
    256×256 are resized to it, as in the authors' code.

    Args:
        band: of the spectrum; the others are set to 0. The paper's results are on the full one.

    Note:
        AutoGAN itself, a generator that simulates the artifacts of others, so that no images of them are needed for training, isn't here: this detector is
        trained on the same pairs as the other methods.
    """

    name = "autogan"
    learning_rate = 0.01
    entries = ("state_dict",)
    head = ("fc",)

    def __init__(self, *, band: Band = "full") -> None:
        if band not in ("full", "low", "mid", "high"):
            raise ValueError(f"expected a band of the spectrum out of full, low, mid, high, got {band!r}")
        super().__init__(torchvision.models.resnet34(num_classes=2), {"band": band})
        self.band = band

    def localize(self, images: Tensor) -> Localization:
        return Localization(None, self.network(self._inputs(images)).float().softmax(1)[:, 1])

    def losses(self, real: Tensor, manipulated: Tensor, truth: Tensor) -> dict[str, Tensor]:
        logits = both(self.network, self._inputs(real), self._inputs(manipulated)).float()
        return {"classification": F.cross_entropy(logits, labels_like(real))}

    def make_optimizer(self, learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=learning_rate, momentum=0.9, dampening=0.9, weight_decay=1e-4)

    def _inputs(self, images: Tensor) -> Tensor:
        return spectrum_feature(centre(resized(images, _SIDE)), self.band)


def centre(images: Tensor) -> Tensor:
    """The middle 224×224 of images (B, 3, 256, 256)."""
    start = (_SIDE - _CROP) // 2
    return images[..., start : start + _CROP, start : start + _CROP]


@full_precision
def spectrum_feature(images: Tensor, band: Band = "full") -> Tensor:
    """log(|F| + 0.001) of every channel in [0, 1], scaled so that its 5th and 95th percentile become -1 and 1, and clipped.

    Shape: images (B, 3, 224, 224) in [-1, 1] -> the same, in [-1, 1]; frequency 0 is in the corner. Values outside the band are 0.
    """
    magnitude = torch.log(torch.fft.fft2((images.float() + 1) / 2).abs() + _OFFSET)
    low, high = torch.quantile(magnitude.flatten(2), torch.tensor([0.05, 0.95], device=images.device, dtype=magnitude.dtype), dim=2)[..., None, None]
    scaled = (2 * (magnitude - low) / (high - low).clamp(min=1e-12) - 1).clamp(-1, 1)
    return scaled if band == "full" else scaled * _band_mask(band, images.shape[2:]).to(scaled)


def _band_mask(band: Band, size: torch.Size) -> Tensor:
    """(H, W), 1 in the band, with frequency 0 in the corner."""
    if tuple(size) != (_CROP, _CROP):
        raise ValueError(f"bands are defined for spectra of {_CROP}x{_CROP}, got {size[1]}x{size[0]}")
    low, mid = torch.zeros(size), torch.zeros(size)
    low[slice(*_LOW), slice(*_LOW)], mid[slice(*_MID), slice(*_MID)] = 1, 1
    mask = {"low": low, "mid": mid - low, "high": 1 - mid}[band]
    return torch.fft.ifftshift(mask)

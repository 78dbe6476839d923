"""`KeyedMaLP` as a method of the benchmark, and as one that `malp_disc.training.localizer` trains."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from malp_disc.benchmark.localizer import Family, Localization
from malp_disc.keyed import KeyedMaLP
from malp_disc.keyed.alignment import LEAST_SHARE, Alignment
from malp_disc.keyed.spectrum import reference_size
from malp_disc.metrics.pixels import CHANGED

CROPPED = 0.25
"""Share of the batches that are cropped after all else."""


class KeyedMethod(nn.Module):
    """M̂ and P(manipulated) of a `KeyedMaLP`, of which the detector's network is trained. Training uses a key from a set that everybody knows, another in each step, so that the weights fit every key."""

    name = "malp_keyed"
    family: Family = "proactive"
    threshold = CHANGED
    learning_rate = 1e-3
    set_size = 64
    """Numbers of the training keys, and of the templates of each."""
    loss_draws = 4
    """Random numbers per image that `losses` takes."""
    takes_regions = True
    """`losses` takes the edited regions."""

    def __init__(self, malp: KeyedMaLP) -> None:
        super().__init__()
        self.malp = malp
        malp.cnn.requires_grad_(True)
        if malp.change is not None:
            malp.change.requires_grad_(False)

    def protect(self, images: Tensor) -> Tensor:
        """T(I) with the MaLP's own key. All images get its template 0: what the benchmark measures doesn't depend on the number, only forgers do."""
        return self.malp.encrypt(images, torch.zeros(len(images), dtype=torch.long))[0]

    def localize(self, images: Tensor) -> Localization:
        out = self.malp(images, 0)
        return Localization(out.map, out.score)

    def encrypt(self, images: Tensor, index: Tensor) -> Tensor:
        """T(I) with the templates of these numbers of the batch's training key, that of its first number."""
        return self.malp.encrypt(images, index, secret=training_key(index))[0]

    def losses(self, real: Tensor, manipulated: Tensor, truth: Tensor, index: Tensor, edited: Tensor, draws: Tensor) -> dict[str, Tensor]:
        """As `KeyedMaLP.losses`, with the training key of `encrypt`, of a crop in one of four batches; draws (B, `loss_draws`) in [0, 1), of which the first row counts."""
        images, alignment = self.cropped((real, manipulated, truth, edited), draws)
        return self.malp.losses(*images, index, alignment=alignment, secret=training_key(index))

    def cropped(self, images: Sequence[Tensor], draws: Tensor) -> tuple[Sequence[Tensor], Alignment]:
        """The images, in one of four batches the same random crop of all, and where it lies."""
        if draws[0, 0] < CROPPED:
            return random_crops(images, self.malp.config.image_size, draws[0, 1:].tolist())
        return images, Alignment()


class KeyedChangeMethod(KeyedMethod):
    """The same, of which the `ChangeNet` is trained, on what was edited everywhere. The rest of the detector stays as it is."""

    def __init__(self, malp: KeyedMaLP) -> None:
        super().__init__(malp)
        malp.cnn.requires_grad_(False)
        malp.change.requires_grad_(True)

    def losses(self, real: Tensor, manipulated: Tensor, truth: Tensor, index: Tensor, edited: Tensor, draws: Tensor) -> dict[str, Tensor]:
        (manipulated, truth), alignment = self.cropped((manipulated, truth), draws)
        return {"map": self.malp.change_loss(manipulated, truth, alignment)}


def random_crops(images: Sequence[Tensor], size: int, draws: Sequence[float]) -> tuple[list[Tensor], Alignment]:
    """The same random crop of several batches (B, C, H, W), of `LEAST_SHARE` of the sides or more and of their aspect, and where it lies.

    Args:
        size: side of the reference grid.
        draws: three numbers in [0, 1).
    """
    height, width = images[0].shape[2:]
    share = LEAST_SHARE + (1 - LEAST_SHARE) * draws[0]
    h, w = max(1, round(height * share)), max(1, round(width * share))
    top, left = int(draws[1] * (height - h + 1)), int(draws[2] * (width - w + 1))
    whole = reference_size(height, width, size)
    parts = [image[:, :, top : top + h, left : left + w] for image in images]
    return parts, Alignment(math.sqrt(h * w / (height * width)), (top * whole[0] / height, left * whole[1] / width))


def training_key(index: Tensor) -> bytes:
    """The training key of the first number."""
    return hashlib.sha256(b"malp-disc training key %d" % int(index[0])).digest()

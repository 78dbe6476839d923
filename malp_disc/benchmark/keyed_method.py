"""`KeyedMaLP` as a method of the benchmark, and as one that `malp_disc.training.localizer` trains."""

from __future__ import annotations

import hashlib

from torch import Tensor, nn

from malp_disc.benchmark.localizer import Family, Localization
from malp_disc.benchmark.pixels import CHANGED
from malp_disc.keyed import KeyedMaLP


class KeyedMethod(nn.Module):
    """M̂ and P(manipulated) of a `KeyedMaLP`. Training uses a key from a set that everybody knows, another in each step, so that the weights fit every key."""

    name = "malp_keyed"
    family: Family = "proactive"
    threshold = CHANGED
    learning_rate = 1e-3
    set_size = 64
    """Number of training keys."""
    takes_regions = True
    """`losses` takes the edited regions, and `encrypt` the number of a training key."""

    def __init__(self, malp: KeyedMaLP) -> None:
        super().__init__()
        self.malp = malp

    def protect(self, images: Tensor) -> Tensor:
        """T(I) with the MaLP's own key."""
        return self.malp.encrypt(images)[0]

    def localize(self, images: Tensor) -> Localization:
        out = self.malp(images)
        return Localization(out.map, out.score)

    def encrypt(self, images: Tensor, index: Tensor) -> Tensor:
        """T(I) with the training key of the batch: that of its first image's number."""
        return self.malp.encrypt(images, secret=training_key(index))[0]

    def losses(self, real: Tensor, manipulated: Tensor, truth: Tensor, index: Tensor, edited: Tensor) -> dict[str, Tensor]:
        """As `KeyedMaLP.losses`, with the training key of `encrypt`."""
        return self.malp.losses(real, manipulated, truth, edited, secret=training_key(index))


def training_key(index: Tensor) -> bytes:
    """The training key of the first number."""
    return hashlib.sha256(b"malp-disc training key %d" % int(index[0])).digest()

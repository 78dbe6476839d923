"""Proactive image manipulation detection as a detector of the benchmark (Asnani et al., CVPR 2022; the paper's [1])."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from malp_disc.benchmark.baseline import Baseline, both
from malp_disc.benchmark.localizer import Localization
from malp_disc.benchmark.template_choice import template_of
from malp_disc.official.imd_losses import imd_losses
from malp_disc.official.proactive_imd import IMD_STRENGTH, ProactiveIMD


class IMDDetector(Baseline):
    """1 − CS of an image's recovered template with the most similar one of the set; there is no map.

    Args:
        set_size: number of templates.
        strength: m.

    Note:
        In the authors' code generated images aren't normalized before the encoder and encrypted ones are. Whoever has to decide doesn't know which of them an
        image is, so here all are normalized, in training as well.
    """

    name = "proactive_imd"
    family = "proactive"
    learning_rate = 1e-5

    def __init__(self, *, set_size: int = 1, strength: float = IMD_STRENGTH) -> None:
        super().__init__(ProactiveIMD(set_size, strength=strength), {"set_size": set_size, "strength": strength})

    @property
    def set_size(self) -> int:
        return len(self.network.templates)

    def load_checkpoint(self, path: str | Path) -> None:
        """Load ``<epoch>_model.pickle`` of the authors; the number of templates is the file's."""
        self.network = ProactiveIMD.from_official(path, strength=self.network.strength).train(self.training)
        self.options["set_size"] = self.set_size

    def protect(self, images: Tensor) -> Tensor:
        """Encrypted images, with the template that `template_of` gives each."""
        return self.encrypt(images, template_of(images, self.set_size))

    def encrypt(self, images: Tensor, index: Tensor) -> Tensor:
        """Encrypted images (B, 3, H, W) with the templates `index` (B,), in [-1, 1]; gradients reach the templates."""
        return self.network.encrypt(images, index)[0]

    def localize(self, images: Tensor) -> Localization:
        return Localization(None, 1 - self.network.score(ProactiveIMD.normalized(images)))

    def losses(self, real: Tensor, manipulated: Tensor, truth: Tensor, index: Tensor | None = None) -> dict[str, Tensor]:
        """The authors' five terms (`malp_disc.official.imd_losses`), for encrypted images `real` and the templates `index` (B,) that were added to them."""
        if index is None:
            raise ValueError("proactive_imd needs the index of the templates that were added, of encrypt(images, index)")
        recovered = both(self.network.recover, ProactiveIMD.normalized(real), ProactiveIMD.normalized(manipulated))
        return imd_losses(self.network.templates, index, self.network.strength, *recovered.split(len(real)))

    def load_initial_weights(self, path: str | Path) -> None:
        raise ValueError("proactive_imd starts from random weights; leave the initial weights out")

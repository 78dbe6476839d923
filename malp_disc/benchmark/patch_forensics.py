"""Patch-forensics as a localizer, and its whole-image classifiers as detectors (Chai et al., ECCV 2020; the paper's [4])."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from malp_disc.benchmark.baseline import Baseline, at_size, both, check_side, labels_like
from malp_disc.benchmark.lanczos import lanczos_resize
from malp_disc.benchmark.localizer import Localization
from malp_disc.benchmark.patch_networks import FAKE, PATCH_NETWORKS, WHOLE_NETWORKS, initialize


class PatchForensics(Baseline):
    """A classifier of patches: every location of a truncated network says whether its patch is fake.

    The map is P(fake) of the patches, resampled to the images; the score is its mean over patches ("after softmax" in the authors' code). Their other two ways of
    pooling, the mean of logits and the share of votes, aren't here.

    Args:
        network: one of `PATCH_NETWORKS`, or of `WHOLE_NETWORKS`, which have a score but no map.
        side: images are resized to it (Lanczos, as the authors do); by default to the side of the authors' training, 299 or 224.

    Note:
        All patches of a manipulated image are trained as fake, also those that the generator left as they were, since the method knows labels of images only. So
        the map tells where evidence is, and not by how much a pixel changed.
    """

    learning_rate = 1e-3
    entries = ("state_dict",)
    head = ("convout", "last_linear", "fc", "pblock")

    def __init__(self, network: str = "xception_block2", *, side: int | None = None) -> None:
        known = PATCH_NETWORKS | WHOLE_NETWORKS
        if network not in known:
            raise ValueError(f"expected a network of patch-forensics out of {', '.join(known)}, got {network!r}")
        check_side(side, 32, "patch-forensics")
        make, authors_side = known[network]
        options: dict[str, Any] = {"network": network, "side": side or authors_side}
        super().__init__(make(), options)
        self.name, self.side, self.has_map = f"patch_forensics_{network}", options["side"], network in PATCH_NETWORKS
        initialize(self.network)

    def localize(self, images: Tensor) -> Localization:
        fake = self._logits(self.network(self._resized(images))).softmax(1)[:, FAKE : FAKE + 1]  # (B, 1, h, w)
        return Localization(at_size(fake, images) if self.has_map else None, fake.mean((1, 2, 3)))

    def losses(self, real: Tensor, manipulated: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """The mean cross-entropy of all patches."""
        logits = self._logits(both(self.network, self._resized(real), self._resized(manipulated)))
        classes = torch.where(labels_like(real) == 1, FAKE, 1 - FAKE)
        return {"patches": F.cross_entropy(logits, classes.view(-1, 1, 1).expand(-1, *logits.shape[2:]))}

    def _resized(self, images: Tensor) -> Tensor:
        return lanczos_resize(images.float(), (self.side, self.side)).clamp(-1, 1)

    @staticmethod
    def _logits(values: Tensor) -> Tensor:
        """(B, 2, h, w) in float32; one location for a whole image."""
        return values.float() if values.ndim == 4 else values.float()[:, :, None, None]

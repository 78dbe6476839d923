"""`KeyedMaLP`: encryption, localization and detection with templates that follow from a secret key and the image (see `malp_disc.keyed.template`).

malp = KeyedMaLP(KeyedConfig(image_size=128))            # with a new key
protected, _ = malp.encrypt(images)                      # what you publish
out = malp(found)                                        # out.map, out.edited, out.score, out.presence
out = malp(crop, malp.align(crop))                       # of a part of a protected image
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from malp_disc.encryption import NO_TEMPLATE, check_index
from malp_disc.freezing import Float32Module
from malp_disc.input_checks import check_batches, check_images
from malp_disc.keyed.alignment import LEAST_SHARE, TRIMMED, Alignment, find_alignment, grid_size
from malp_disc.keyed.config import KeyedConfig
from malp_disc.keyed.evidence import CHANNELS, evidence
from malp_disc.keyed.network import ChangeNet, EvidenceNet
from malp_disc.keyed.saving import KeyedHubMixin
from malp_disc.keyed.secret import check_secret, new_secret
from malp_disc.keyed.spectrum import resampled
from malp_disc.keyed.template import masked_template
from malp_disc.losses import LossWeights, localization_loss_encrypted, localization_loss_manipulated
from malp_disc.precision import full_precision

BELIEVED = 7.0
"""`Alignment.strength` above which a crop's alignment is believed: by chance, the largest of two million correlations stays below it."""

_BETTER = 1.1
"""Ratio of presences above which an alignment replaces that of the whole image. It was at most 1.09 in 1,000 whole images, degraded or edited."""


@dataclass
class KeyedOutput:
    """Predictions for a batch of images.

    Attributes:
        map: fakeness map M̂, (B, 1, H, W) in [0, 1]: how much a pixel was changed (Eq. 5). With a `ChangeNet`, how much a pixel was changed if it was edited, where
            `edited` is above `config.edited_above`, and less in proportion below.
        edited: P(this pixel belongs to an edited region), (B, 1, H, W), whether it changed much or little. After a generator that redraws the image, 1 everywhere.
        logit: "manipulated", (B,).
        score: P(manipulated), (B,). It supposes that the image was protected: an unprotected one looks manipulated.
        similarity: correlation with the template, (B,) in [-1, 1].
        presence: the same in standard deviations without a template, (B,): whether the image was protected with this key at all.
    """

    map: Tensor
    edited: Tensor
    logit: Tensor
    score: Tensor
    similarity: Tensor
    presence: Tensor


class KeyedMaLP(
    Float32Module,
    KeyedHubMixin,
    library_name="malp-disc",
    license="mit",
    paper_url="https://arxiv.org/abs/2303.16976",
    tags=["manipulation-localization", "gan"],
):
    """MaLP with keyed templates; images (B, 3, H, W) in [-1, 1] of any size.

    The network is the same for every key: it is trained with many, and gets the evidence of the template (`malp_disc.keyed.evidence`) as input. A published detector
    therefore reveals no key, and is of use only to somebody who has one.

    Args:
        secret: 32 bytes; new random ones if None.
    """

    passive = False

    def __init__(self, config: KeyedConfig | dict[str, Any] | None = None, *, secret: bytes | None = None) -> None:
        super().__init__()
        self.config = KeyedConfig(**config) if isinstance(config, dict) else config or KeyedConfig()
        self.secret = new_secret() if secret is None else check_secret(secret)
        self.cnn = EvidenceNet(3 + CHANNELS, self.config.width)
        self.change = ChangeNet(self.config.change_width) if self.config.change_width else None
        self.float()

    @property
    def strength(self) -> float:
        """Root mean square of what protection adds at most, in units of [-1, 1]."""
        return 2 * 10 ** (-self.config.psnr / 20)

    @property
    def device(self) -> torch.device:
        """The device of the weights, on which images are expected."""
        return self.cnn.heads.weight.device

    @torch.no_grad()
    @full_precision
    def encrypt(
        self, images: Tensor, index: Tensor | None = None, generator: torch.Generator | None = None, *, secret: bytes | None = None
    ) -> tuple[Tensor, Tensor]:
        """T(I), Eq. 3, with the image's own template, at `config.psnr` or above.

        Args:
            index: (B,), `NO_TEMPLATE` for images to leave as they are and 0 for all others; all get a template if None.
            generator: unused, since nothing is random; for the interface of `MaLP.encrypt`.
            secret: a key to use in place of the MaLP's.

        Returns:
            Protected images, clamped to [-1, 1], and the index (B,).

        Raises:
            ValueError: wrong shape, range, dtype or device, or another index.
        """
        check_batches({"images": images}, device=self.device)
        check_images(images)
        index = check_index(torch.zeros(len(images), dtype=torch.long) if index is None else index, len(images), 1, self.device)
        images = images.float()
        added = masked_template(images, secret or self.secret, self.config.image_size, self.config.psnr)
        return (images + added * (index != NO_TEMPLATE).view(-1, 1, 1, 1)).clamp(-1, 1), index

    @full_precision
    def forward(self, images: Tensor, alignment: Alignment | None = None, *, secret: bytes | None = None, coarse: bool = False) -> KeyedOutput:
        """Predictions, see `KeyedOutput`.

        Args:
            alignment: of `align`, one for all images; whole images need none.
            secret: a key to use in place of the MaLP's.
            coarse: give the map of the detector's network, at half the resolution, also where there is a `ChangeNet`.

        Raises:
            ValueError: wrong shape, range, dtype or device.
        """
        check_batches({"images": images}, device=self.device)
        check_images(images)
        self.check_weights()
        alignment = alignment or Alignment()
        size = self.config.image_size
        seen = self.on_grid(images, alignment)
        with torch.no_grad():
            found = evidence(seen.mean(1, keepdim=True), secret or self.secret, size, alignment.offset)
        maps, edited, logit = self.cnn(torch.cat([seen, found.channels], 1))
        maps, edited = (_probability(part, images.shape[2:]) for part in (maps, edited))
        if self.change is not None and not coarse:
            maps = (edited / self.config.edited_above).clamp(max=1) * _probability(self.change(seen), images.shape[2:])
        return KeyedOutput(maps, edited, logit, torch.sigmoid(logit), found.similarity, found.presence)

    @torch.no_grad()
    def on_grid(self, images: Tensor, alignment: Alignment) -> Tensor:
        """The images as the networks see them, (B, 3, h, w) on the reference grid."""
        return resampled(images.float(), grid_size(*images.shape[2:], self.config.image_size, alignment.share))

    @full_precision
    def change_loss(self, manipulated: Tensor, truth: Tensor, alignment: Alignment | None = None, *, weights: LossWeights | None = None) -> Tensor:
        """J_L of Eq. 8 for manipulated images, of what `ChangeNet` alone predicts: images edited everywhere (B, 3, H, W), and M_GT (B, 1, H, W)."""
        found = _probability(self.change(self.on_grid(manipulated, alignment or Alignment())), manipulated.shape[2:])
        return localization_loss_manipulated(found, truth, weights or LossWeights())

    @torch.no_grad()
    @full_precision
    def align(self, images: Tensor) -> Alignment:
        """Where on its original an image (1, 3, H, W) was cut from. The whole image unless a crop's alignment is strong enough to be believed, and the presence higher with it.

        Where the whole image matches already, only shares near 1 are tried: trimmed by one pixel of the grid, an image keeps its presence, but no longer its local evidence.

        Raises:
            ValueError: more than one image, or wrong shape, range, dtype or device.
        """
        check_batches({"images": images}, device=self.device)
        check_images(images)
        if len(images) != 1:
            raise ValueError(f"expected one image to align, got {len(images)}; call align for each")
        grey, size = images.float().mean(1, keepdim=True), self.config.image_size
        whole = self._presence(grey, Alignment())
        found = find_alignment(grey, self.secret, size, least_share=TRIMMED if whole > 2 * self.config.present_above else LEAST_SHARE)
        better = found.strength > BELIEVED and self._presence(grey, found) > _BETTER * whole
        return found if better else Alignment()

    def _presence(self, grey: Tensor, alignment: Alignment) -> float:
        """`KeyedOutput.presence` of one grey image with this alignment."""
        size = self.config.image_size
        return evidence(resampled(grey, grid_size(*grey.shape[2:], size, alignment.share)), self.secret, size, alignment.offset).presence.item()

    def losses(
        self,
        real: Tensor,
        manipulated: Tensor,
        truth: Tensor,
        edited: Tensor,
        *,
        alignment: Alignment | None = None,
        secret: bytes | None = None,
        weights: LossWeights | None = None,
    ) -> dict[str, Tensor]:
        """The terms of the loss of the detector's network: J_L of Eq. 8 for its coarse map, cross-entropy and Dice loss for the edited region, and J_C, cross-entropy of the
        score. A `ChangeNet` has `change_loss`.

        Args:
            real, manipulated: protected images before and after the edit, (B, 3, H, W) in [-1, 1], perhaps degraded.
            truth: M_GT, (B, 1, H, W) in [0, 1].
            edited: the edited regions, (B, 1, H, W) of bool.
            alignment: where the images were cut from, if they are crops of protected ones.
        """
        weights, count = weights or LossWeights(), len(real)
        out = self(torch.cat([real, manipulated]), alignment, secret=secret, coarse=True)
        target = torch.cat([torch.zeros_like(edited), edited]).float()
        share = out.edited.clamp(1e-5, 1 - 1e-5)
        region = -(target * share.log() + (1 - target) * (1 - share).log()).mean()
        overlap = (share[count:] * target[count:]).sum((1, 2, 3)), share[count:].sum((1, 2, 3)) + target[count:].sum((1, 2, 3))
        dice = (1 - (2 * overlap[0] + 1) / (overlap[1] + 1)).mean()
        label = torch.arange(2, device=real.device, dtype=torch.float32).repeat_interleave(count)
        return {
            "map": localization_loss_encrypted(out.map[:count], truth, weights) + localization_loss_manipulated(out.map[count:], truth, weights),
            "edited": 3 * region + dice,
            "classification": F.binary_cross_entropy_with_logits(out.logit, label),
        }


def _probability(logits: Tensor, size: torch.Size) -> Tensor:
    """Logits on the reference grid as probabilities at the image's size."""
    return F.interpolate(torch.sigmoid(logits), size=size, mode="bilinear", align_corners=False)

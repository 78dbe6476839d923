"""`KeyedMaLP`: encryption, localization and detection with templates that follow from a secret key and the image (see `malp_disc.keyed.template`).

malp = KeyedMaLP(KeyedConfig(image_size=128))            # with a new key
protected, index = malp.encrypt(images)                  # what you publish, and the numbers of their templates, which you keep
out = malp(protected, index)                             # out.map, out.edited, out.score, out.presence

which = malp.identify(found, index.tolist())             # of an image or a crop (1, 3, H, W) of which you don't know which one it is
out = malp(found, which.number, which.alignment)         # if which.protected
traced = malp.trace(found, issued)                       # the same of images that may have been mirrored, stretched or changed in tone, with `malp_disc.keyed.issued.Issued`
out = malp(traced.image, traced.found.number, traced.found.alignment)
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from malp_disc.data.masks import SHARES
from malp_disc.encryption import NO_TEMPLATE, check_index
from malp_disc.keyed.alignment import Alignment, grid_size
from malp_disc.keyed.config import KeyedConfig
from malp_disc.keyed.evidence import CHANNELS, evidence
from malp_disc.keyed.identification import Identification, identify
from malp_disc.keyed.issued import TEMPLATES, Issued
from malp_disc.keyed.network import ChangeNet, EvidenceNet
from malp_disc.keyed.saving import KeyedHubMixin
from malp_disc.keyed.secret import check_secret, new_secret
from malp_disc.keyed.spectrum import resampled
from malp_disc.keyed.template import masked_template
from malp_disc.keyed.trace import Trace, trace
from malp_disc.losses import LossWeights, localization_loss_encrypted, localization_loss_manipulated
from malp_disc.runtime.freezing import Float32Module
from malp_disc.runtime.input_checks import check_batches, check_images
from malp_disc.runtime.precision import full_precision


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
        presence: the same in standard deviations without a template, (B,): whether the image has this template at all.
    """

    map: Tensor
    edited: Tensor
    logit: Tensor
    score: Tensor
    similarity: Tensor
    presence: Tensor


class KeyedMaLP(Float32Module, KeyedHubMixin, library_name="malp-disc", tags=["manipulation-localization", "gan"]):
    """MaLP with keyed templates, another one for every image; images (B, 3, H, W) in [-1, 1] of any size.

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
        """T(I), Eq. 3, each image with a template of its own, at `config.psnr` or above.

        Args:
            index: numbers of the templates, (B,), `NO_TEMPLATE` for images to leave as they are. **Use no number twice**: who has several images with the same one can forge
                templates (`malp_disc.keyed.template`). `malp_disc.keyed.issued.IssuedTemplates` keeps a list; if None, they are drawn at random, from 2^53.
            generator: to draw the numbers with, for tests; if None, the operating system's random numbers.
            secret: a key to use in place of the MaLP's.

        Returns:
            Protected images, clamped to [-1, 1], and the index (B,), which is needed to examine them.

        Raises:
            ValueError: no images; wrong shape, range, dtype or device; or another index.
        """
        check_batches({"images": images}, device=self.device, nonempty=True)
        check_images(images)
        index = check_index(_drawn(len(images), generator) if index is None else index, len(images), TEMPLATES, self.device)
        images = images.float()
        added = masked_template(images, secret or self.secret, index.clamp(min=0).tolist(), self.config.image_size, self.config.psnr)
        return (images + added * (index != NO_TEMPLATE).view(-1, 1, 1, 1)).clamp(-1, 1), index

    @full_precision
    def forward(self, images: Tensor, index: Tensor | int, alignment: Alignment | None = None, *, secret: bytes | None = None, coarse: bool = False) -> KeyedOutput:
        """Predictions, see `KeyedOutput`.

        Args:
            index: numbers of the images' templates, (B,), or that of all; `identify` finds out an unknown one.
            alignment: of `identify`, one for all images; whole images need none.
            secret: a key to use in place of the MaLP's.
            coarse: give the map of the detector's network, at half the resolution, also where there is a `ChangeNet`.

        Raises:
            ValueError: wrong shape, range, dtype or device.
        """
        check_batches({"images": images}, device=self.device, nonempty=True)
        check_images(images)
        if isinstance(index, int) and not 0 <= index < TEMPLATES:
            raise ValueError(f"expected a template number of 0 … {TEMPLATES - 1}, got {index}")
        index = torch.full((len(images),), index) if isinstance(index, int) else index
        index = check_index(index, len(images), TEMPLATES, self.device, first=0)
        self.check_weights()
        alignment = alignment or Alignment()
        size = self.config.image_size
        seen = self.on_grid(images, alignment)
        with torch.no_grad():
            found = evidence(seen, secret or self.secret, index.tolist(), size, alignment.offset)
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
    def identify(self, images: Tensor, numbers: Sequence[int]) -> Identification:
        """Which template an image (1, 3, H, W) has, of a protected image or of a crop of one, and where it was cut from.

        Args:
            numbers: of all templates that it may have. A thousand take 0.1 seconds on a CPU, and five where none is found: then it may be a crop of each.

        Raises:
            ValueError: more than one image, wrong shape, range, dtype or device, or no numbers.
        """
        self._check_one(images, numbers)
        return identify(images.float(), self.secret, numbers, self.config.image_size, present_above=self.config.present_above)

    @torch.no_grad()
    @full_precision
    def trace(self, images: Tensor, issued: Issued, *, among: Sequence[int] | None = None, crops: bool = True) -> Trace:
        """As `identify`, of an image (1, 3, H, W) that may also have been mirrored, stretched, or changed in tone as a whole since, where it resembles its original; see `malp_disc.keyed.trace.trace`.

        Raises:
            ValueError: as for `identify`.
        """
        self._check_one(images, issued.numbers)
        return trace(images.float(), self.secret, issued, self.config.image_size, present_above=self.config.present_above, among=among, crops=crops)

    def _check_one(self, images: Tensor, numbers: Sequence[int]) -> None:
        check_batches({"images": images}, device=self.device)
        check_images(images)
        if wrong := [number for number in numbers if not isinstance(number, int) or not 0 <= number < TEMPLATES]:
            raise ValueError(f"expected template numbers 0 … {TEMPLATES - 1}, got {wrong[0]!r}")
        if len(images) != 1:
            raise ValueError(f"expected one image to identify, got {len(images)}; call this for each")

    def losses(
        self,
        real: Tensor,
        manipulated: Tensor,
        truth: Tensor,
        edited: Tensor,
        index: Tensor | int,
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
            index: numbers of the templates, (B,), or that of all.
            alignment: where the images were cut from, if they are crops of protected ones.
        """
        weights, count = weights or LossWeights(), len(real)
        out = self(torch.cat([real, manipulated]), index if isinstance(index, int) else torch.cat([index, index]), alignment, secret=secret, coarse=True)
        target = torch.cat([torch.zeros_like(edited), edited]).float()
        share = out.edited.clamp(1e-5, 1 - 1e-5)
        region = -(target * share.log() + (1 - target) * (1 - share).log()).mean()
        overlap = (share[count:] * target[count:]).sum((1, 2, 3)), share[count:].sum((1, 2, 3)) + target[count:].sum((1, 2, 3))
        large = (target[count:].mean((1, 2, 3)) / SHARES[0]).clamp(max=1)  # the Dice loss of small regions, each pixel of which counts much, would have all regions found too large
        dice = (large * (1 - (2 * overlap[0] + 1) / (overlap[1] + 1))).mean()
        label = torch.arange(2, device=real.device, dtype=torch.float32).repeat_interleave(count)
        return {
            "map": localization_loss_encrypted(out.map[:count], truth, weights) + localization_loss_manipulated(out.map[count:], truth, weights),
            "edited": 3 * region + dice,
            "classification": F.binary_cross_entropy_with_logits(out.logit, label),
        }


def _drawn(count: int, generator: torch.Generator | None) -> Tensor:
    """Numbers of templates, (count,)."""
    if generator is None:
        return torch.tensor([secrets.randbelow(TEMPLATES) for _ in range(count)])
    return torch.randint(TEMPLATES, (count,), generator=generator, device=generator.device)


def _probability(logits: Tensor, size: torch.Size) -> Tensor:
    """Logits on the reference grid as probabilities at the image's size."""
    return F.interpolate(torch.sigmoid(logits), size=size, mode="bilinear", align_corners=False)

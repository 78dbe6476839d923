"""Proactive image manipulation detection (Asnani, Yin, Hassner, Liu, CVPR 2022): the method MaLP grew out of, for comparison.

Official code: https://github.com/vishal3477/proactive_IMD (MIT). Written from a description of the code; the state-dict keys of the networks are
the authors', so that ``<epoch>_model.pickle`` loads as it is. A template is added to a real image; an encoder recovers it from whatever the image has
become; the cosine of both says whether a generator has been at work. There is no map.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from malp_disc.detection import template_similarity
from malp_disc.encryption import check_index
from malp_disc.fakeness import check_batches, check_images
from malp_disc.freezing import Float32Module
from malp_disc.official.networks import OFFICIAL_SIZE, OFFICIAL_WIDTH, OfficialClassifier, block, convolution, official_templates
from malp_disc.precision import full_precision
from malp_disc.serialization.state_dicts import load_entries, load_state

IMD_STRENGTH = 0.3  # the authors' for StarGAN and GauGAN; 0.08 for CycleGAN

_MEAN, _DEVIATION = 0.6490, 0.1269  # of their images in [0, 1], the same for every channel


class RecoveryEncoder(Float32Module):
    """Their encoder2: ten layers from an image to the template in it, (B, 3, H, W) -> (B, 1, H, W), >= 0 and unbounded."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(convolution(3, OFFICIAL_WIDTH), *[block(OFFICIAL_WIDTH, OFFICIAL_WIDTH) for _ in range(8)])
        self.layer_2 = block(OFFICIAL_WIDTH, 1)

    @full_precision
    def forward(self, images: Tensor) -> Tensor:
        return self.layer_2(self.layers(images.float()))


class ImageClassifier(OfficialClassifier):
    """Their encoder1: real or fake by the image alone, (B, 3, H, W) -> logit (B,). It is in no checkpoint and their training doesn't use it."""

    def __init__(self) -> None:
        super().__init__(channels=3, depth=10)


class ProactiveIMD(Float32Module):
    """Template set and recovery encoder, always in float32, as `malp_disc.MaLP`: casts leave the weights as they are, images of any floating-point dtype are converted.

    Args:
        set_size: templates in the set.
        strength: m.

    Note:
        The authors work on three scales. A template is added to the *normalised* image, ((x + 1)/2 − 0.6490)/0.1269 for x in [-1, 1]; the
        generator gets it de-normalised; the encoder sees encrypted images normalised, and what a generator returns as it returns it. `encrypt`
        hides the first two; for the third, give `recover` and `score` what `normalized` makes of an image that no generator has touched.

    Example:
        >>> imd = ProactiveIMD(set_size=3).eval()
        >>> encrypted, index = imd.encrypt(torch.zeros(2, 3, 128, 128))
        >>> imd.score(imd.normalized(encrypted)).shape
        torch.Size([2])
    """

    def __init__(self, set_size: int = 1, *, strength: float = IMD_STRENGTH) -> None:
        super().__init__()
        if set_size < 1:
            raise ValueError(f"expected a template set of at least 1, got {set_size}")
        if not 0 < strength <= 1:
            raise ValueError(f"expected a template strength in (0, 1], got {strength}; the authors' are 0.3 and 0.08")
        self.strength = strength
        self.templates = nn.Parameter(torch.rand(set_size, 1, OFFICIAL_SIZE, OFFICIAL_SIZE))
        self.encoder = RecoveryEncoder()
        self.float()  # also under another torch.set_default_dtype

    @classmethod
    def from_official(cls, path: str | Path, *, strength: float = IMD_STRENGTH) -> ProactiveIMD:
        """A checkpoint the authors published, in evaluation mode. The set size is read from it, `strength` isn't in it.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is damaged, needs code to be read, or isn't such a checkpoint; the message names the first difference.
        """
        encoder, signal = "state_dict_encoder2", "state_dict_signal_set"
        found = load_entries(path, (encoder, signal), what="a proactive-IMD checkpoint of the authors")
        templates = official_templates(found[signal], (1, OFFICIAL_SIZE, OFFICIAL_SIZE), source=f"{signal} of {path}")
        imd = cls(len(templates), strength=strength)
        load_state(imd.encoder, found[encoder], source=str(path), optional=("num_batches_tracked",))
        with torch.no_grad():
            imd.templates.copy_(templates)
        return imd.eval()

    @staticmethod
    def normalized(images: Tensor) -> Tensor:
        """Images in [-1, 1] on the scale of the authors' data loader."""
        check_images(images)
        return ((images.float() + 1) / 2 - _MEAN) / _DEVIATION

    @full_precision
    def encrypt(self, images: Tensor, index: Tensor | None = None, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Images with a template added, and which; the template is resampled (nearest, as theirs) where the size differs.

        Args:
            images: (B, 3, H, W) in [-1, 1].
            index: (B,) long, the templates to add; drawn at random if None.
            generator: where the draw comes from.

        Returns:
            Encrypted images, clamped to [-1, 1] (theirs aren't), float32, and the index (B,).

        Raises:
            ValueError: wrong shape, range, dtype or device, or an index outside the set.
        """
        self.check_weights()
        check_batches({"images": images}, device=self.templates.device)
        check_images(images)
        if index is None:
            where = generator.device if generator is not None else "cpu"
            index = torch.randint(len(self.templates), (len(images),), generator=generator, device=where)
        index = check_index(index, len(images), len(self.templates), self.templates.device, first=0)
        templates = F.interpolate(self.templates.float(), images.shape[2:], mode="nearest")
        step = 2 * _DEVIATION * self.strength  # added on the normalised scale, seen on that of [-1, 1]
        return (images.float() + step * templates[index]).clamp(-1, 1), index

    @full_precision
    def recover(self, images: Tensor) -> Tensor:
        """The template in what a generator returned, or in a `normalized` image: (B, 3, H, W) -> (B, 1, 128, 128).

        Raises:
            ValueError: wrong shape, dtype or device, or values that are not finite. (Their range isn't looked at: it differs between the two.)
        """
        self.check_weights()
        check_batches({"images": images}, device=self.templates.device)
        if not images.is_meta and not images.isfinite().all():
            raise ValueError("expected finite images, got NaN or infinity in them")
        return self.encoder(F.interpolate(images.float(), (OFFICIAL_SIZE, OFFICIAL_SIZE), mode="nearest"))

    def score(self, images: Tensor) -> Tensor:
        """Largest CS(m·A_i, recovered) over the set, (B, 3, H, W) as for `recover` -> (B,); high for an encrypted image nobody has changed."""
        return template_similarity(self.recover(images), self.templates).amax(dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """`score`."""
        return self.score(images)

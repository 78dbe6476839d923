"""Proactive image manipulation detection (Asnani, Yin, Hassner, Liu, CVPR 2022): the predecessor of MaLP, for comparison.

Official code: https://github.com/vishal3477/proactive_IMD (MIT). Written from a description of the code; the state-dict keys of the networks are
the authors', so that ``<epoch>_model.pickle`` loads unchanged. A template is added to a real image; an encoder recovers it from the image, which
may have been manipulated; the cosine of both is the detection score. There is no fakeness map.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from malp_disc.detection import template_similarity
from malp_disc.encryption import check_index
from malp_disc.official.networks import OFFICIAL_SIZE, OFFICIAL_WIDTH, OfficialClassifier, block, convolution, official_templates
from malp_disc.runtime.freezing import Float32Module
from malp_disc.runtime.input_checks import check_batches, check_images
from malp_disc.runtime.precision import full_precision
from malp_disc.serialization.state_dicts import load_entries, load_state

IMD_STRENGTH = 0.3  # the authors' for StarGAN and GauGAN; 0.08 for CycleGAN

_MEAN, _DEVIATION = 0.6490, 0.1269  # of the authors' images in [0, 1], the same for every channel


class RecoveryEncoder(Float32Module):
    """The authors' encoder2: ten layers that recover the template from an image, (B, 3, H, W) -> (B, 1, H, W), >= 0 and unbounded."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(convolution(3, OFFICIAL_WIDTH), *[block(OFFICIAL_WIDTH, OFFICIAL_WIDTH) for _ in range(8)])
        self.layer_2 = block(OFFICIAL_WIDTH, 1)

    @full_precision
    def forward(self, images: Tensor) -> Tensor:
        return self.layer_2(self.layers(images.float()))


class ImageClassifier(OfficialClassifier):
    """The authors' encoder1: a real/fake classifier of the image, (B, 3, H, W) -> logit (B,). Neither used in their training nor in their checkpoints."""

    def __init__(self) -> None:
        super().__init__(channels=3, depth=10)


class ProactiveIMD(Float32Module):
    """Template set and recovery encoder, always in float32 like `malp_disc.MaLP`: casts don't change the weights, and images are converted.

    Args:
        set_size: number of templates.
        strength: m.

    Note:
        The authors' code uses images on several scales. A template is added to the *normalized* image, ((x + 1)/2 − 0.6490)/0.1269 for x in
        [-1, 1]; the generator gets the result in [-1, 1]; the encoder gets encrypted images normalized, but generated images in [-1, 1].
        `encrypt` takes and returns images in [-1, 1]; apply `normalized` to images that aren't generated before `recover` and `score`.

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
        """Load a checkpoint published by the authors, in evaluation mode. The file has the template set, but not `strength`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is damaged, contains objects other than tensors, or isn't such a checkpoint; the message names the first
                difference.
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
        """Images in [-1, 1], normalized as in the authors' data loader."""
        check_images(images)
        return ((images.float() + 1) / 2 - _MEAN) / _DEVIATION

    @full_precision
    def encrypt(self, images: Tensor, index: Tensor | None = None, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Add a template to each image; for other image sizes it is resampled (nearest neighbour, as in the authors' code).

        Args:
            images: (B, 3, H, W) in [-1, 1].
            index: (B,) long, the templates to add; random if None.
            generator: random number generator for the choice of templates.

        Returns:
            Encrypted images, float32, clamped to [-1, 1] (not clamped in the authors' code), and the index (B,).

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
        step = 2 * _DEVIATION * self.strength  # m on the normalized scale, converted to that of [-1, 1]
        return (images.float() + step * templates[index]).clamp(-1, 1), index

    @full_precision
    def recover(self, images: Tensor) -> Tensor:
        """Recover the template from a generated image, or from a `normalized` one: (B, 3, H, W) -> (B, 1, 128, 128).

        Raises:
            ValueError: wrong shape, dtype or device, or values that are not finite. The range isn't checked, since it differs between the two.
        """
        self.check_weights()
        check_batches({"images": images}, device=self.templates.device)
        if not images.is_meta and not images.isfinite().all():
            raise ValueError("expected finite images, got NaN or infinity in them")
        return self.encoder(F.interpolate(images.float(), (OFFICIAL_SIZE, OFFICIAL_SIZE), mode="nearest"))

    def score(self, images: Tensor) -> Tensor:
        """Largest CS(m·A_i, recovered) over the set, (B, 3, H, W) as for `recover` -> (B,); high for an encrypted, unmanipulated image."""
        return template_similarity(self.recover(images), self.templates).amax(dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """`score`."""
        return self.score(images)

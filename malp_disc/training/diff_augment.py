"""Differentiable augmentation before a discriminator (Zhao et al., NeurIPS 2020): removes cues that the discriminator could overfit to.

The real, encrypted and manipulated version of an image need the same random numbers; otherwise the fakeness map of the pair would be wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

Augmentation = Literal["color", "translation"]
NUMBERS = 5
"""Random numbers per image that `augment` takes."""
_SHIFT = 0.125  # of the side, at most, as in the paper


def check_augmentation(kinds: Sequence[Augmentation]) -> None:
    """Raise ValueError for an unknown kind, or for a translation if kornia isn't installed."""
    unknown = [kind for kind in kinds if kind not in get_args(Augmentation)]
    if unknown:
        raise ValueError(f"expected augmentations out of {get_args(Augmentation)}, got {unknown}")
    if "translation" in kinds:
        try:
            import kornia  # noqa: F401
        except ImportError as error:
            raise ValueError("the augmentation translation needs kornia; install it with: pip install 'malp-disc[augment]', or -e '.[augment]' in the repository") from error


def augment(images: Tensor, numbers: Tensor, kinds: Sequence[Augmentation]) -> Tensor:
    """Augmented images: random brightness, contrast and saturation, or a random translation; differentiable.

    Args:
        images: (B, 3, H, W) in [-1, 1].
        numbers: (B, 5), uniform in [0, 1); equal numbers give the same augmentation.
        kinds: "color": saturation, the distance from the pixel's mean over the channels, by a factor of 0 to 2; contrast, the distance from the image's mean, by 0.5 to
            1.5; brightness by ±0.5. "translation": up to an eighth of the side each way, whole pixels, mirrored at the border.

    Returns:
        (B, 3, H, W) in [-1, 1]; `images` themselves where `kinds` is empty.

    Note:
        The paper doesn't clamp, and fills with zeros. MaLP expects images in [-1, 1], and mirroring leaves no grey border.
    """
    if "color" in kinds:
        saturation, contrast, brightness = numbers[:, :3, None, None, None].unbind(1)
        images = images.float()
        images = torch.lerp(images.mean(1, keepdim=True), images, 2 * saturation)
        images = torch.lerp(images.mean((1, 2, 3), keepdim=True), images, 0.5 + contrast)
        images = (images + brightness - 0.5).clamp(-1, 1)
    if "translation" in kinds:
        from kornia.geometry.transform import translate

        sides = torch.tensor([images.shape[3], images.shape[2]], device=images.device)
        pixels = ((2 * numbers[:, 3:5] - 1) * _SHIFT * sides).round()
        images = translate(images.float(), pixels, padding_mode="reflection").clamp(-1, 1)
    return images

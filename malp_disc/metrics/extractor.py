"""What every feature extractor is, and how features are taken of many images: in batches, and shared out over processes.

Images in [-1, 1] go in, features (B, D) float32 come out. Distances are comparable only within one extractor, one resize and one number
of images, so each extractor says what it is (`name`), how it resizes (`resize`), and what a Fréchet distance on it may be called (`label`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from malp_disc.distributed import gather_objects, rank_and_world_size
from malp_disc.fakeness import check_images
from malp_disc.freezing import Float32Module, Freezable
from malp_disc.precision import full_float32


class MixedSizes(Sequence[Tensor]):
    """A batch of images (3, H, W) whose sizes differ, so that they can't be stacked before they are resized."""

    def __init__(self, images: Sequence[Tensor]) -> None:
        self.images = tuple(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]

    def to(self, device: torch.device) -> MixedSizes:
        return MixedSizes([image.to(device) for image in self.images])


INCEPTION_DIMS = (64, 192, 768, 2048)
"""Numbers of features that the layers of FID's Inception give."""


class FeatureExtractor(Freezable, Float32Module):
    """A fixed network that takes images (B, 3, H, W) in [-1, 1], any size, and gives features (B, dims) float32. ``.half()`` and the like leave it in float32.

    Images of several sizes (`MixedSizes`) are resized one by one. A subclass says how: by `_resized` and `_embedded`, which lets the network have
    them in one batch, or, where the two aren't apart, by `_features`, which then gets each size's images in a batch of their own.

    Attributes:
        label: what a Fréchet distance on these features is called: "FID" for Inception's 2048 only.
        name: network and weights, the latter by the first digits of their file's sha256.
        resize: how images reach the network's size.
        dims: number of features.
    """

    label: str
    name: str
    resize: str
    dims: int

    @torch.no_grad()
    def forward(self, images: Tensor | MixedSizes) -> Tensor:
        """Features of images as a saved PNG would hold them, see `quantize`; in full float32 (no TF32) whatever the autocast and the settings around."""
        mixed = isinstance(images, MixedSizes)
        for image in images if mixed else [images]:
            check_images(image[None] if mixed else image)
        with torch.autocast(images[0].device.type, enabled=False), full_float32():
            if mixed:
                return self._mixed_features([quantize(image)[None] for image in images]).float()
            return self._features(quantize(images)).float()

    def _features(self, levels: Tensor) -> Tensor:
        """Features (B, dims) of 8-bit images (B, 3, H, W) uint8."""
        return self._embedded(self._resized(levels))

    def _resized(self, levels: Tensor) -> Tensor:
        """8-bit images (B, 3, H, W) uint8 at the network's size, float."""
        raise NotImplementedError

    def _embedded(self, resized: Tensor) -> Tensor:
        """Features (B, dims) of images at the network's size."""
        raise NotImplementedError

    def _mixed_features(self, images: Sequence[Tensor]) -> Tensor:
        """Features (B, dims) of 8-bit images (1, 3, H, W), in their order."""
        if type(self)._features is FeatureExtractor._features:
            return self._embedded(torch.cat([self._resized(image) for image in images]))
        rows: dict[int, Tensor] = {}
        for size in {image.shape for image in images}:
            alike = [index for index, image in enumerate(images) if image.shape == size]
            rows |= zip(alike, self._features(torch.cat([images[index] for index in alike])))
        return torch.stack([rows[index] for index in range(len(images))])


def extract_features(
    extractor: FeatureExtractor,
    batches: Iterable[Tensor | MixedSizes | Sequence[Tensor]],
    *,
    device: torch.device | str | None = None,
    progress: Callable[[int], object] | None = None,
) -> np.ndarray:
    """Features (N, D) float32 of all images of `batches`, in their order.

    Args:
        batches: image batches (B, 3, H, W) in [-1, 1], alone or first in a tuple, as a `DataLoader` gives them; `MixedSizes` where they differ.
        device: where to compute; None for where the extractor is.
        progress: called with the number of images after each batch (tqdm's `update` fits).

    Raises:
        ValueError: no batches, or images as refused by the extractor.
    """
    device = torch.device(device) if device is not None else next(extractor.parameters()).device
    extractor = extractor.to(device).eval()
    features = []
    for batch in batches:
        images = batch if isinstance(batch, (Tensor, MixedSizes)) else batch[0]
        features.append(extractor(images.to(device)).cpu().numpy())
        if progress is not None:
            progress(len(images))
    if not features:
        raise ValueError("no images to take features of")
    return np.concatenate(features).astype(np.float32, copy=False)


def gather_features(features: np.ndarray, count: int) -> np.ndarray:
    """The features (count, D) of a set that was dealt out like cards: process r of w took images r, r + w, r + 2w … and has their features.

    Every process must call it, and each gets all rows, in the order of the whole set. Alone, a process has them already.

    Args:
        features: (⌈(count − r) / w⌉, D) of this process; (0, D) where there are more processes than images.
        count: images of all processes together.

    Raises:
        ValueError: another number of rows than this process's share.
    """
    rank, world = rank_and_world_size()
    share = len(range(rank, count, world))
    if len(features) != share:
        raise ValueError(f"expected features of {share} images from process {rank} of {world} ({count} in all), got {len(features)}")
    whole = np.empty((count, features.shape[1]), features.dtype)
    for process, part in enumerate(gather_objects(features)):
        whole[process::world] = part
    return whole


def quantize(images: Tensor) -> Tensor:
    """Images in [-1, 1] -> uint8 (same shape), rounded as saving a PNG does.

    A generator gives floats, the real images lie on the 8-bit grid; compared without rounding, the grid itself tells them apart.
    """
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)

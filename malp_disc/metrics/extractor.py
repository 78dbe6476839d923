"""The base class of feature extractors, and the extraction of features in batches and over several processes.

Extractors map images in [-1, 1] to features (B, D) float32. Distances are comparable only at the same extractor, resize and number of images,
so each extractor has a `name`, a description of its `resize`, and a `label` for Fréchet distances of its features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from malp_disc.distributed import gather_objects, rank_and_world_size
from malp_disc.levels import quantize
from malp_disc.runtime.freezing import Float32Module, Freezable
from malp_disc.runtime.input_checks import check_images
from malp_disc.runtime.precision import full_float32
from malp_disc.runtime.threaded import map_batches


class MixedSizes(Sequence[Tensor]):
    """A batch of images (3, H, W) of different sizes, which can't be stacked before they are resized."""

    def __init__(self, images: Sequence[Tensor]) -> None:
        self.images = tuple(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]

    def to(self, device: torch.device) -> MixedSizes:
        return MixedSizes([image.to(device) for image in self.images])


INCEPTION_DIMS = (64, 192, 768, 2048)
"""Numbers of features of the layers of FID's Inception."""


class FeatureExtractor(Freezable, Float32Module):
    """A fixed network that maps images (B, 3, H, W) in [-1, 1] of any size to features (B, dims) float32. Casts leave it in float32.

    Images of several sizes (`MixedSizes`) are resized one by one. A subclass implements `_resized` and `_embedded`, so that the network gets
    the resized images in one batch; or, if the two can't be separated, `_features`, which gets one batch per image size.

    Attributes:
        label: name of a Fréchet distance of these features: "FID" only for the 2048 of Inception.
        name: network and weights, the latter by the first digits of the file's sha256.
        resize: how images are resized to the network's input.
        dims: number of features.
        backbone: architecture of the network, by timm's or torchvision's name where it has one.
        fingerprint: `malp_disc.serialization.state_dicts.values_fingerprint` of its weights. With `backbone`, it tells whether the network that evaluates a
            generator also trained it.
    """

    label: str
    name: str
    resize: str
    dims: int
    backbone: str = ""
    fingerprint: str = ""

    @torch.no_grad()
    def forward(self, images: Tensor | MixedSizes) -> Tensor:
        """Features (B, dims) of images rounded to 8 bits (see `quantize`), in full float32, without autocast or TF32."""
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
        """8-bit images (B, 3, H, W) uint8 resized to the network's input, as float."""
        raise NotImplementedError

    def _embedded(self, resized: Tensor) -> Tensor:
        """Features (B, dims) of images at the network's input size."""
        raise NotImplementedError

    def _mixed_features(self, images: Sequence[Tensor]) -> Tensor:
        """Features (B, dims) of 8-bit images (1, 3, H, W) of different sizes, in their order."""
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
        batches: image batches (B, 3, H, W) in [-1, 1], or tuples that start with one, as from a `DataLoader`; `MixedSizes` for different sizes.
        device: device of the computation; None for that of the extractor.
        progress: called after each batch with its number of images, like tqdm's `update`.

    Raises:
        ValueError: no batches, or images that the extractor refuses.
    """
    device = torch.device(device) if device is not None else next(extractor.parameters()).device
    extractor = extractor.to(device).eval()
    features = []
    images_of = (batch if isinstance(batch, (Tensor, MixedSizes)) else batch[0] for batch in batches)
    for rows in map_batches(lambda images: extractor(images.to(device)).cpu().numpy(), images_of, device=device):
        features.append(rows)
        if progress is not None:
            progress(len(rows))
    if not features:
        raise ValueError("no images to compute features of")
    return np.concatenate(features).astype(np.float32, copy=False)


def gather_features(features: np.ndarray, count: int) -> np.ndarray:
    """Features (count, D) of a set that is divided over processes: process r of w has the features of images r, r + w, r + 2w …

    Every process must call it, and each gets all rows, in the order of the whole set.

    Args:
        features: (⌈(count − r) / w⌉, D), those of this process; (0, D) if there are more processes than images.
        count: number of images of all processes.

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

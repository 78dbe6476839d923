"""Feature extractors for Fréchet and kernel distances, behind one interface: images in [-1, 1] in, features (B, D) float32 out.

Distances are comparable only within one extractor, one resize and one number of images, so each extractor says what it is
(`name`), how it resizes (`resize`), and what a Fréchet distance on it may be called (`label`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from malp_disc.checkpoint import file_sha256
from malp_disc.fakeness import check_images
from malp_disc.metrics.attribute_net import INPUT_SIZE, AttributeNet, shipped_weights
from malp_disc.metrics.download import CLEAN_FID_INCEPTION, PYTORCH_FID_INCEPTION, check_content, fetch
from malp_disc.metrics.inception import load_inception

EXTRACTORS = ("faces", "clean", "inception-64", "inception-192", "inception-768", "inception-2048")


class FeatureExtractor(nn.Module):
    """A frozen network that takes images (B, 3, H, W) in [-1, 1], any size, and gives features (B, dims) float32.

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
    def forward(self, images: Tensor) -> Tensor:
        """Features of images as a saved PNG would hold them, see `quantize`; computed in float32 whatever the autocast around."""
        check_images(images)
        with torch.autocast(images.device.type, enabled=False):
            return self._features(quantize(images)).float()

    def _features(self, levels: Tensor) -> Tensor:
        """Features (B, dims) of 8-bit images (B, 3, H, W) uint8."""
        raise NotImplementedError


class FacesExtractor(FeatureExtractor):
    """Whitened features of an `AttributeNet`: quick, embedded, made for the drawn faces. Not Inception, so never called FID."""

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        path = shipped_weights("faces_features") if weights is None else Path(weights)
        self.net = AttributeNet.load(path)
        self.dims = self.net.dims
        self.label = "FD-faces" if weights is None else f"FD-{path.stem}"
        self.name = f"AttributeNet {path.stem} ({self.dims} features), weights sha256 {file_sha256(path)[:8]}"
        self.resize = f"antialiased bilinear to {INPUT_SIZE}, in float"

    def _features(self, levels: Tensor) -> Tensor:
        return self.net.features(levels.float() / 127.5 - 1)


class InceptionExtractor(FeatureExtractor):
    """pytorch-fid's Inception and its resize: the same features as pytorch-fid gets from these images saved as PNG."""

    def __init__(self, dims: int, weights: str | Path | None = None) -> None:
        super().__init__()
        path = fetch(PYTORCH_FID_INCEPTION) if weights is None else Path(weights)
        self.net = load_inception(dims, path)
        self.dims = dims
        self.label = "FID" if dims == 2048 else f"FID-{dims}"
        self.name = f"pytorch-fid InceptionV3 ({dims} features), weights sha256 {file_sha256(path)[:8]}"
        self.resize = "bilinear to 299 without antialiasing (pytorch-fid's)"

    def _features(self, levels: Tensor) -> Tensor:
        images = F.interpolate(levels.float() / 255, size=(299, 299), mode="bilinear", align_corners=False)
        return self.net(2 * images - 1).mean(dim=(2, 3))


class CleanExtractor(FeatureExtractor):
    """clean-fid's Inception on its antialiased resize. The file is TorchScript, which is code: only the published one is run."""

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        from cleanfid.inception_torchscript import InceptionV3W  # late: brings in PIL and requests
        from cleanfid.resize import build_resizer

        path = fetch(CLEAN_FID_INCEPTION) if weights is None else Path(weights)
        if path.name != CLEAN_FID_INCEPTION.name:
            raise ValueError(
                f"clean-fid reads a file named {CLEAN_FID_INCEPTION.name}, got {path.name}; rename it, or take the extractor inception-2048 "
                "for weights of pytorch-fid"
            )
        if not path.is_file():
            raise FileNotFoundError(f"no weights at {path}; get {CLEAN_FID_INCEPTION.url}")
        check_content(path, CLEAN_FID_INCEPTION)
        self.net = InceptionV3W(str(path.parent), download=False, resize_inside=False).eval().requires_grad_(False)
        self._resize_one = build_resizer("clean")
        self.dims = 2048
        self.label = "FID"
        self.name = f"clean-fid InceptionV3 (2048 features), weights sha256 {CLEAN_FID_INCEPTION.sha256[:8]}"
        self.resize = "antialiased bicubic to 299, in float (clean-fid's)"

    def _features(self, levels: Tensor) -> Tensor:
        pictures = levels.permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, 3) uint8, one at a time through PIL
        resized = np.stack([self._resize_one(picture) for picture in pictures])
        return self.net(torch.from_numpy(resized).permute(0, 3, 1, 2).to(levels.device))


def create_extractor(name: str, *, weights: str | Path | None = None, device: torch.device | str | None = None) -> FeatureExtractor:
    """An extractor by name, in evaluation mode.

    Args:
        name: "faces" (ships with the library), "clean" (clean-fid), or "inception-64", "-192", "-768", "-2048" (pytorch-fid).
        weights: path of the weights; None takes the shipped ones, the cache, or the internet, in this order.

    Raises:
        ValueError: unknown name, or weights that don't fit it.
        FileNotFoundError: weights that are not there and can't be downloaded.
    """
    if name == "faces":
        extractor: FeatureExtractor = FacesExtractor(weights)
    elif name == "clean":
        extractor = CleanExtractor(weights)
    elif name in EXTRACTORS:
        extractor = InceptionExtractor(int(name.removeprefix("inception-")), weights)
    else:
        raise ValueError(f"no feature extractor {name!r}; choose from {', '.join(EXTRACTORS)}")
    return extractor.to(device).eval()


def extract_features(
    extractor: FeatureExtractor,
    batches: Iterable[Tensor | Sequence[Tensor]],
    *,
    device: torch.device | str | None = None,
    progress: Callable[[int], object] | None = None,
) -> np.ndarray:
    """Features (N, D) float32 of all images of `batches`, in their order.

    Args:
        batches: image batches (B, 3, H, W) in [-1, 1], alone or first in a tuple, as a `DataLoader` gives them.
        device: where to compute; None for where the extractor is.
        progress: called with the number of images after each batch (tqdm's `update` fits).

    Raises:
        ValueError: no batches, or images as refused by the extractor.
    """
    device = torch.device(device) if device is not None else next(extractor.parameters()).device
    extractor = extractor.to(device).eval()
    features = []
    for batch in batches:
        images = batch if isinstance(batch, Tensor) else batch[0]
        features.append(extractor(images.to(device)).cpu().numpy())
        if progress is not None:
            progress(len(images))
    if not features:
        raise ValueError("no images to take features of")
    return np.concatenate(features).astype(np.float32, copy=False)


def quantize(images: Tensor) -> Tensor:
    """Images in [-1, 1] -> uint8 (same shape), rounded as saving a PNG does.

    A generator gives floats, the real pictures lie on the 8-bit grid; compared without rounding, the grid itself tells them apart.
    """
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)

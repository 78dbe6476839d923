"""Feature extractors and image scales used in evaluation: features of every view, and the power spectrum, in one pass over the images.

A *view* is an extractor at an image scale: "frechet", "second", "third", and the first extractor at reduced sizes.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from malp_disc.levels import quantize
from malp_disc.malp import MaLP
from malp_disc.metrics.features import FeatureExtractor
from malp_disc.metrics.fid_infinity import extrapolated_frechet
from malp_disc.metrics.frechet import frechet_distance
from malp_disc.metrics.spectrum import power_spectrum
from malp_disc.run_folder.arms import FURTHER, SMALLER
from malp_disc.run_folder.measurement import Distance
from malp_disc.runtime.threaded import map_batches
from malp_disc.serialization.files import atomic_path

_SMALLEST = 8  # pixels: images aren't reduced below this shorter side


@dataclass
class EvaluationModels:
    """The evaluation models; all but the first are optional.

    Attributes:
        extractor: feature extractor of the Fréchet distance.
        classifier: independent attribute classifier, (B, 3, H, W) -> logits (B, A).
        malp: localizes and detects edits.
        second, third: other feature extractors, to check that a result doesn't depend on the first.
        embedding: face embedding (B, 3, H, W) -> (B, D), with a `name`, which measures whether an edit preserves the identity.
        smaller: factors of the views at reduced size, out of 2 and 4.
    """

    extractor: FeatureExtractor
    classifier: nn.Module | None
    malp: MaLP | None
    second: FeatureExtractor | None = None
    third: FeatureExtractor | None = None
    embedding: nn.Module | None = None
    smaller: tuple[int, ...] = tuple(SMALLER.values())

    def of(self, view: str) -> FeatureExtractor:
        """The extractor of a view."""
        return getattr(self, view) if view in FURTHER else self.extractor

    def views(self, height: int, width: int) -> list[str]:
        """The views of images of this size."""
        names = ["frechet", *(view for view in FURTHER if self.of(view) is not None)]
        return names + [view for view, factor in SMALLER.items() if factor in self.smaller and min(height, width) // factor >= _SMALLEST]


@dataclass
class FeatureCache:
    """Features (N, D) of a set of images by view, their power spectrum (H, W), and a hash of the images' bytes."""

    features: dict[str, np.ndarray]
    power: np.ndarray
    sha256: str
    text: str = field(default="")

    def __len__(self) -> int:
        return len(self.features["frechet"])


@torch.no_grad()
def extract_views(
    models: EvaluationModels, batches: Iterable[Tensor], *, device: torch.device | str = "cpu", label: str = "features", count: int | None = None
) -> FeatureCache:
    """Features and power spectrum of images (B, 3, H, W) in [-1, 1], batch by batch, in every view.

    Args:
        label, count: text and number of images for the progress bar.

    Raises:
        ValueError: no images.
    """
    features: dict[str, list[np.ndarray]] = {}
    digest = hashlib.sha256()
    for extractor in (models.extractor, models.second, models.third):
        if extractor is not None:
            extractor.to(device).eval()

    def of_batch(images: Tensor) -> tuple[Tensor, dict[str, np.ndarray]]:
        own = images.to(device)
        return images, {view: models.of(view)(downsample_antialiased(own, SMALLER.get(view, 1))).cpu().numpy() for view in models.views(*images.shape[2:])}

    def with_features() -> Iterable[Tensor]:
        for images, found in map_batches(of_batch, batches, device=device):
            for view, rows in found.items():
                features.setdefault(view, []).append(rows)
            digest.update(quantize(images).cpu().numpy().tobytes())
            bar.update(len(images))
            yield images

    with tqdm(desc=label, total=count, unit="image", leave=False) as bar:
        power = power_spectrum(with_features())
    return FeatureCache(
        {view: np.concatenate(parts).astype(np.float32, copy=False) for view, parts in features.items()}, power, digest.hexdigest()[:16]
    )


def save_feature_cache(models: EvaluationModels, extracted: FeatureCache, path: Path) -> None:
    """Write features and spectrum to an .npz file, together with the names of the extractors."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:  # a name without .npz would get one
        features = {f"features_{view}": values for view, values in extracted.features.items()}
        np.savez(file, power=extracted.power, made_from=np.array(_made_from(models, extracted.sha256)), **features)


def load_feature_cache(models: EvaluationModels, batches: Iterable[tuple[Tensor, Tensor]], path: Path | None) -> FeatureCache | None:
    """What `save_feature_cache` wrote, if it is of these images and extractors; None otherwise, and for a damaged file."""
    if path is None or not path.exists():
        return None
    shape = (0, 0)

    def images_of() -> Iterable[Tensor]:
        nonlocal shape
        for images, _ in batches:
            shape = images.shape[2:]
            yield images

    sha256 = images_sha256(images_of())
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["made_from"]) != _made_from(models, sha256):
                return None
            return FeatureCache({view: file[f"features_{view}"] for view in models.views(*shape)}, file["power"], sha256)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
        return None


def images_sha256(batches: Iterable[Tensor]) -> str:
    """The hash of images (B, 3, H, W) in [-1, 1] that `FeatureCache` has: of their 8-bit values, one after the other."""
    digest = hashlib.sha256()
    for images in batches:
        digest.update(quantize(images).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _made_from(models: EvaluationModels, sha256: str) -> str:
    further = [None if extractor is None else (extractor.name, extractor.resize) for extractor in (models.second, models.third)]
    return json.dumps([sha256, models.extractor.name, models.extractor.resize, *further])


def downsample_antialiased(images: Tensor, factor: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H // factor, W // factor) by an antialiased bilinear resize; the images themselves for 1.

    The filter suppresses what lies above the new Nyquist frequency, which box averaging lets alias into the
    image: what a distance at half size measures must be structure and not folded texture.
    """
    if factor == 1:
        return images
    size = (images.shape[2] // factor, images.shape[3] // factor)
    return F.interpolate(images.float(), size, mode="bilinear", align_corners=False, antialias=True)


def describe(view: str, features: np.ndarray, reference: FeatureCache, extractor: FeatureExtractor) -> Distance:
    """A Fréchet distance with everything needed to compare it with another one: label, extractor, resize, and both sample sizes."""
    factor, real = SMALLER.get(view), reference.features[view]
    downsampling = "" if factor is None else f"antialiased downsampling by {factor}, then "
    return Distance(
        label=extractor.label if factor is None else f"{extractor.label} at 1/{factor} size",
        value=frechet_distance(real, features),
        n=len(features),
        dims=features.shape[1],
        extractor=extractor.name,
        backbone=extractor.backbone,
        fingerprint=extractor.fingerprint,
        resize=downsampling + extractor.resize,
        reference=reference.text,
        reference_n=len(real),
        infinity=extrapolated_frechet(real, features) if view == "frechet" else None,
    )

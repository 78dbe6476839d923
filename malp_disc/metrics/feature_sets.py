"""Features of image folders, cached by content, and feature statistics saved by pytorch-fid or clean-fid."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import torch
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from malp_disc.distributed import gather_objects, rank_and_world_size
from malp_disc.metrics.download import cache_folder
from malp_disc.metrics.extractor import FeatureExtractor, extract_features, gather_features
from malp_disc.metrics.frechet import feature_statistics, frechet_distance, frechet_distance_from_statistics
from malp_disc.metrics.image_folder import ImageFolder
from malp_disc.serialization.file_kinds import file_kind
from malp_disc.serialization.reading import read_arrays
from malp_disc.serialization.state_dicts import save_tensors

logger = logging.getLogger(__name__)

_KIND = "malp-disc features 1"


@dataclass(frozen=True)
class FeatureSet:
    """Features (N, D) of N images, or only their mean (D,) and covariance (D, D)."""

    text: str
    """Description for the user."""
    n: int | None
    """Number of images, including duplicates; None if unknown."""
    features: np.ndarray | None
    given: tuple[np.ndarray, np.ndarray] | None = None

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return self.given if self.features is None else feature_statistics(self.features)

    def frechet_from(self, other: FeatureSet) -> float:
        """Fréchet distance, see `malp_disc.metrics.frechet`."""
        if self.features is not None and other.features is not None:
            return frechet_distance(self.features, other.features)
        return frechet_distance_from_statistics(*self.statistics(), *other.statistics())


def folder_features(
    images: ImageFolder, extractor: FeatureExtractor, *, batch_size: int = 32, keep: bool = False, quiet: bool = False
) -> FeatureSet:
    """Features of a folder, cached or computed. If torch.distributed is initialized, the images are divided over the processes.

    Every process must call it, and each gets all rows, in the folder's order.

    Args:
        keep: write them to the cache; for references, which are used repeatedly.
        quiet: no progress bar.

    Raises:
        ValueError: an image that can't be decoded.
    """
    rank, world = rank_and_world_size()
    path = cache_path(images, extractor)
    features = _from_cache(path, len(images), extractor)
    if not all(gather_objects(features is not None)):  # all compute if one of them lacks the file
        share = len(range(rank, len(images), world))
        bar = tqdm(total=share, desc=f"features of {Path(images.name).name}", unit="image", disable=quiet or rank > 0)
        batches = images.batches(batch_size, rank=rank, world=world)
        with bar:
            own = extract_features(extractor, batches, progress=bar.update) if share else np.zeros((0, extractor.dims), np.float32)
        features = gather_features(own, len(images))
        if keep and rank == 0:
            _write_cache(path, features, images, extractor)
    return FeatureSet(f"{images.name} ({len(images)} images)", len(images), features)


def cache_path(images: ImageFolder, extractor: FeatureExtractor) -> Path:
    """Path of the cached features, a hash of the images' content, network, weights, resize, and Pillow's version."""
    key = json.dumps([_KIND, images.digest, extractor.name, extractor.resize, PIL.__version__])
    return cache_folder() / "features" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"


def read_features(path: str | Path, extractor: FeatureExtractor) -> FeatureSet:
    """Read a file of the cache, or statistics saved by pytorch-fid or clean-fid (.npz).

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or features of another extractor, resize or dimension.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"nothing at {path}; give a folder of images, a features file (.safetensors) or statistics (.npz)")
    if path.suffix == ".npz" or (path.is_file() and file_kind(path).name == "npz"):
        return _statistics(path, extractor)
    try:
        features, metadata = _read(path)
    except (SafetensorError, KeyError, OSError) as error:
        kind = file_kind(path)
        reason = f"it is {kind.text}; {kind.advice}" if kind.name != "safetensors" else str(error).strip("'")
        raise ValueError(f"{path} is neither a folder of images nor a feature file of malp-disc ({reason})") from error
    for what, own in (("extractor", extractor.name), ("resize", extractor.resize)):
        if metadata.get(what) != own:
            raise ValueError(
                f"{path} has features of another {what}: {metadata.get(what)!r}, expected {own!r}; they aren't comparable, so use the "
                "--mode, --dims and --fid-weights that the file was made with"
            )
    if features.ndim != 2 or features.shape[1] != extractor.dims or not np.isfinite(features).all():
        raise ValueError(f"{path} has features of shape {features.shape}, expected (n, {extractor.dims}) of finite numbers; delete it and compute them again")
    return FeatureSet(f"{metadata.get('images', path.name)} ({len(features)} images), from {path.name}", len(features), features)


def _statistics(path: Path, extractor: FeatureExtractor) -> FeatureSet:
    arrays = read_arrays(path, what="statistics as pytorch-fid saves them, mu (D,) and sigma (D, D)")
    if missing := [name for name in ("mu", "sigma") if name not in arrays]:
        raise ValueError(f"{path} holds no statistics as pytorch-fid saves them, mu (D,) and sigma (D, D): it has {list(arrays)[:5]}, {missing} is missing")
    mean, covariance = (arrays[name].astype(np.float64) for name in ("mu", "sigma"))
    if mean.shape != (extractor.dims,) or covariance.shape != (extractor.dims, extractor.dims):
        raise ValueError(
            f"{path} has statistics of shapes {mean.shape} and {covariance.shape}, expected ({extractor.dims},) and "
            f"({extractor.dims}, {extractor.dims}); use the --dims that the file was made with"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError(f"{path} has statistics that are not finite; compute them again")
    return FeatureSet(f"statistics from {path.name}, of unknown weights, resize and n", None, None, (mean, covariance))


def _from_cache(path: Path, n: int, extractor: FeatureExtractor) -> np.ndarray | None:
    if not path.is_file():
        return None
    try:
        features, _ = _read(path)
        if features.shape != (n, extractor.dims):
            raise ValueError(f"shape {features.shape}")
    except (SafetensorError, KeyError, OSError, ValueError) as error:
        logger.warning("%s in the cache is damaged (%s); computing it again", path.name, error)
        return None
    return features


def _read(path: Path) -> tuple[np.ndarray, dict[str, str]]:
    with safe_open(str(path), framework="np") as file:
        metadata = file.metadata() or {}
        if metadata.get("kind") != _KIND:
            raise KeyError("no features in it")
        return file.get_tensor("features"), metadata


def _write_cache(path: Path, features: np.ndarray, images: ImageFolder, extractor: FeatureExtractor) -> None:
    metadata = {
        "kind": _KIND,
        "images": Path(images.name).name,
        "extractor": extractor.name,
        "resize": extractor.resize,
        "digest": images.digest,
    }
    try:
        save_tensors(path, {"features": torch.from_numpy(features)}, metadata)
    except OSError as error:  # a full or read-only disk: the cache is optional
        logger.warning("can't write features to the cache %s (%s); MALP_DISC_CACHE names another folder", path.parent, error.strerror or error)
    else:
        logger.info("written to the cache: %s", path)

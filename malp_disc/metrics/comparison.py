"""Distances between two sets of features for `malp-disc fid`, as JSON with everything needed to compare them with other results."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from malp_disc.metrics.extractor import FeatureExtractor
from malp_disc.metrics.feature_sets import FeatureSet
from malp_disc.metrics.kid import kernel_distance
from malp_disc.metrics.precision_recall import precision_recall

NEIGHBOURS = 5
_SUBSET = 1000  # images per subset of KID, as in clean-fid


def describe_frechet(images: FeatureSet, reference: FeatureSet, extractor: FeatureExtractor) -> dict[str, Any]:
    """Fréchet distance, with extractor, resize and numbers of images."""
    return {
        "label": extractor.label,
        "value": images.frechet_from(reference),
        "n": images.n,
        "n_reference": reference.n,
        "dims": extractor.dims,
        "extractor": extractor.name,
        "resize": extractor.resize,
        "images": images.text,
        "reference": reference.text,
    }


def describe_kernel(images: FeatureSet, reference: FeatureSet, extractor: FeatureExtractor, *, seed: int = 0) -> dict[str, Any]:
    """Kernel distance over 100 subsets of 1000 images, as in clean-fid.

    If neither set has more images than a subset, one subset holds all of them and there is no standard deviation. Both sets need features.
    """
    size = min(_SUBSET, images.n, reference.n)
    subsets = 100 if size < max(images.n, reference.n) else 1
    value, std = kernel_distance(reference.features, images.features, subsets=subsets, subset_size=size, seed=seed)
    label = extractor.label.replace("FID", "KID")
    return {"label": label, "value": value, "std": std if subsets > 1 else None, "subsets": subsets, "subset_size": size, "seed": seed}


def describe_precision_recall(images: FeatureSet, reference: FeatureSet) -> dict[str, Any]:
    """Precision, recall, density and coverage. Both sets need features."""
    return {**asdict(precision_recall(reference.features, images.features, k=NEIGHBOURS)), "k": NEIGHBOURS}

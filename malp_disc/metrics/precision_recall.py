"""Precision, recall, density and coverage of generated images: fidelity and diversity from nearest neighbours in feature space.

    precision, recall     Kynkäänniemi et al., NeurIPS 2019, arXiv:1904.06991
    density, coverage     Naeem et al., ICML 2020, arXiv:2002.09797

Each image is the centre of a ball whose radius is the distance to its k-th nearest neighbour in its own set. Implemented here with
scikit-learn's nearest neighbours, since torch-fidelity has precision and recall only, and prdc's last release was in 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from malp_disc.metrics.frechet import check_features, check_same_width


@dataclass(frozen=True)
class PrecisionRecall:
    """All in [0, 1] except density, which may exceed 1."""

    precision: float
    """Share of generated images in at least one ball of a real image."""
    recall: float
    """Share of real images in at least one ball of a generated image."""
    density: float
    """Mean number of real images' balls that contain a generated image, divided by k; its expectation is 1 for equal distributions."""
    coverage: float
    """Share of real images whose ball contains a generated image."""


def precision_recall(real: ArrayLike, generated: ArrayLike, *, k: int = 5) -> PrecisionRecall:
    """Precision, recall, density and coverage from features (N, D) of real and (M, D) of generated images.

    Args:
        k: number of the neighbour that defines the radii; 5 as in Naeem et al. (Kynkäänniemi et al.: 3). Scores are comparable only at
            equal k, N and M.

    Raises:
        ValueError: features of different width, or a set with at most k rows.
    """
    from sklearn.metrics import pairwise_distances_chunked  # late: takes a second to import
    from sklearn.neighbors import NearestNeighbors

    real, generated = check_features(real, "real"), check_features(generated, "generated")
    check_same_width(real, generated)
    if not 1 <= k < min(len(real), len(generated)):
        raise ValueError(f"expected k of 1 to {min(len(real), len(generated)) - 1}, less than the smaller set has rows, got {k}")

    def radii(x: np.ndarray) -> np.ndarray:  # kneighbors() without arguments excludes each row itself
        return NearestNeighbors(n_neighbors=k).fit(x).kneighbors()[0][:, -1]

    real_radii, generated_radii = radii(real), radii(generated)
    balls = np.zeros(len(generated))  # number of real balls that contain each generated image
    recalled, covered, start = [], [], 0
    for distances in pairwise_distances_chunked(real, generated):  # (rows, M) at a time, since (N, M) may not fit into memory
        inside = distances <= real_radii[start : start + len(distances), None]
        balls += inside.sum(axis=0)
        covered.append(inside.any(axis=1))
        recalled.append((distances <= generated_radii).any(axis=1))
        start += len(distances)
    return PrecisionRecall(
        precision=float((balls > 0).mean()),
        recall=float(np.concatenate(recalled).mean()),
        density=float(balls.mean() / k),
        coverage=float(np.concatenate(covered).mean()),
    )

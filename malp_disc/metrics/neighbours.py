"""Precision, recall, density and coverage: are the generated images real-looking, and do they cover what is real?

    precision, recall     Kynkäänniemi et al., NeurIPS 2019, arXiv:1904.06991
    density, coverage     Naeem et al., ICML 2020, arXiv:2002.09797

Each real (or generated) image has a ball in feature space that reaches to its k-th nearest neighbour of its own set. Own code, on
scikit-learn's neighbours: torch-fidelity has only the first two, and prdc, which has all four, had its last release in 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from malp_disc.metrics.frechet import check_features, check_same_width


@dataclass(frozen=True)
class NeighbourScores:
    """All in [0, 1] but density, which may pass 1."""

    precision: float
    """Share of generated images inside at least one real ball."""
    recall: float
    """Share of real images inside at least one generated ball."""
    density: float
    """In how many real balls a generated image lies, on average, divided by k: 1 is expected where the sets are alike."""
    coverage: float
    """Share of real balls that hold a generated image."""


def neighbour_scores(real: ArrayLike, generated: ArrayLike, *, k: int = 5) -> NeighbourScores:
    """Scores of features (N, D) of real and (M, D) of generated images.

    k: which neighbour a ball reaches to; 5 as in the second paper (the first takes 3). Scores at different k, N or M don't compare.

    Raises:
        ValueError: features of different width, or a set with no more than k rows.
    """
    from sklearn.metrics import pairwise_distances_chunked  # late: takes a second to import
    from sklearn.neighbors import NearestNeighbors

    real, generated = check_features(real, "real"), check_features(generated, "generated")
    check_same_width(real, generated)
    if not 1 <= k < min(len(real), len(generated)):
        raise ValueError(f"expected k of 1 to {min(len(real), len(generated)) - 1}, less than the smaller set has rows, got {k}")

    def radii(x: np.ndarray) -> np.ndarray:  # kneighbors() of nothing leaves each row itself out
        return NearestNeighbors(n_neighbors=k).fit(x).kneighbors()[0][:, -1]

    real_radii, generated_radii = radii(real), radii(generated)
    balls = np.zeros(len(generated))  # in how many real balls each generated image lies
    recalled, covered, start = [], [], 0
    for distances in pairwise_distances_chunked(real, generated):  # (rows, M), so that N x M need not fit into memory
        inside = distances <= real_radii[start : start + len(distances), None]
        balls += inside.sum(axis=0)
        covered.append(inside.any(axis=1))
        recalled.append((distances <= generated_radii).any(axis=1))
        start += len(distances)
    return NeighbourScores(
        precision=float((balls > 0).mean()),
        recall=float(np.concatenate(recalled).mean()),
        density=float(balls.mean() / k),
        coverage=float(np.concatenate(covered).mean()),
    )

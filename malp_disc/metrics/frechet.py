"""The Fréchet distance between two sets of features, in float64.

    d²(N(μ₁, Σ₁), N(μ₂, Σ₂)) = ‖μ₁ − μ₂‖² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁^½ Σ₂ Σ₁^½)^½

It is called FID only for the 2048 features of Inception (Heusel et al., NeurIPS 2017, arXiv:1706.08500).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from malp_disc.metrics.arrays import as_float64


def frechet_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Fréchet distance between Gaussians fitted to two sets of features, (N, D) and (M, D): equal in value to pytorch-fid.

    Computed by `frechet_distance_low_rank` if a set has at most D rows, otherwise by `frechet_distance_from_statistics`.

    Raises:
        ValueError: not two-dimensional, different D, fewer than 2 rows, or values that are not finite.

    Note:
        Biased upward for finite sets: the distance between two samples of one distribution is above 0 and grows with D / N.
        Compare values only at equal N, and with the distance between two halves of the real set.
    """
    x, y = check_features(x, "x"), check_features(y, "y")
    check_same_width(x, y)
    if min(len(x), len(y)) <= x.shape[1]:
        return frechet_distance_low_rank(x, y)
    return frechet_distance_from_statistics(*feature_statistics(x), *feature_statistics(y))


def feature_statistics(x: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and unbiased covariance (D, D) of features (N, D), as ``np.cov(x, rowvar=False)``, in float64."""
    x = check_features(x, "x")
    return x.mean(axis=0), np.atleast_2d(np.cov(x, rowvar=False))


def frechet_distance_from_statistics(mu1: ArrayLike, sigma1: ArrayLike, mu2: ArrayLike, sigma2: ArrayLike) -> float:
    """Fréchet distance from means (D,) and covariances (D, D).

    The trace term is the sum of the square roots of the eigenvalues of Σ₁^½ Σ₂ Σ₁^½. This matrix is symmetric, so the result is real,
    and singular covariances need no offset. (``scipy.linalg.sqrtm`` of Σ₁Σ₂, used by pytorch-fid and clean-fid, has both problems, and
    SciPy 1.18 removes the argument that they pass.)

    Raises:
        ValueError: shapes that don't fit together, values that are not finite, or a covariance that is not symmetric.
    """
    mu1, mu2 = (np.atleast_1d(as_float64(mu)) for mu in (mu1, mu2))
    sigma1, sigma2 = (np.atleast_2d(as_float64(sigma)) for sigma in (sigma1, sigma2))
    d = mu1.size
    if not mu1.shape == mu2.shape == (d,) or not sigma1.shape == sigma2.shape == (d, d):
        shapes = f"{mu1.shape}, {sigma1.shape}, {mu2.shape} and {sigma2.shape}"
        raise ValueError(f"expected means (D,) and covariances (D, D) of one D, got {shapes}")
    for name, array in (("mu1", mu1), ("sigma1", sigma1), ("mu2", mu2), ("sigma2", sigma2)):
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds values that are not finite")
    for name, sigma in (("sigma1", sigma1), ("sigma2", sigma2)):
        if not np.allclose(sigma, sigma.T, rtol=1e-6, atol=1e-8 * np.abs(sigma).max()):
            raise ValueError(f"{name} is not symmetric and therefore not a covariance")
    values, vectors = np.linalg.eigh(sigma1)
    root = vectors * np.sqrt(values.clip(min=0))  # root @ root.T == sigma1
    product = root.T @ sigma2 @ root
    trace = np.sqrt(np.linalg.eigvalsh((product + product.T) / 2).clip(min=0)).sum()
    return float(_assemble(mu1, np.trace(sigma1), mu2, np.trace(sigma2), trace))


def frechet_distance_low_rank(x: ArrayLike, y: ArrayLike) -> float:
    """Fréchet distance from features (N, D) and (M, D) without D×D matrices: efficient for N, M < D, correct for all.

    With X̃ the centred features over √(N − 1), Σ₁ = X̃ᵀX̃, and tr (Σ₁^½ Σ₂ Σ₁^½)^½ is the nuclear norm (sum of the singular
    values) of X̃Ỹᵀ, an N×M matrix.

    Raises:
        ValueError: as `frechet_distance`.
    """
    x, y = check_features(x, "x"), check_features(y, "y")
    check_same_width(x, y)
    return _distance(_Gaussian.fit(x), _Gaussian.fit(y))


@dataclass(frozen=True)
class _Gaussian:
    """A fitted Gaussian: mean (D,), and a factor (R, D), R <= D, with covariance = factorᵀ·factor."""

    mean: np.ndarray
    factor: np.ndarray

    @classmethod
    def fit(cls, rows: np.ndarray) -> _Gaussian:
        """Fit to `rows` (N, D); if N > D, a QR decomposition reduces the factor to D rows."""
        mean = rows.mean(axis=0)
        factor = (rows - mean) / np.sqrt(len(rows) - 1)
        return cls(mean, np.linalg.qr(factor, mode="r") if len(factor) > factor.shape[1] else factor)


def _distance(p: _Gaussian, q: _Gaussian) -> float:
    trace = np.linalg.svd(p.factor @ q.factor.T, compute_uv=False).sum()
    return float(_assemble(p.mean, (p.factor**2).sum(), q.mean, (q.factor**2).sum(), trace))


def _assemble(mu1: np.ndarray, trace1: float, mu2: np.ndarray, trace2: float, trace_of_root: float) -> float:
    """The distance from its terms, clipped at 0, since rounding may give a tiny negative number."""
    return max(0.0, ((mu1 - mu2) ** 2).sum() + trace1 + trace2 - 2 * trace_of_root)


def check_features(x: ArrayLike, name: str) -> np.ndarray:
    """Features as float64 (N, D); ValueError unless N >= 2 and all values are finite."""
    x = as_float64(x)
    if x.ndim != 2 or len(x) < 2 or x.shape[1] < 1:
        raise ValueError(f"expected {name} to be features (N, D) with N >= 2, got shape {x.shape}")
    if not np.isfinite(x).all():
        rows = np.count_nonzero(~np.isfinite(x).all(axis=1))
        raise ValueError(f"{name} has {rows} rows with values that are not finite; check the images that they were computed from")
    return x


def check_same_width(x: np.ndarray, y: np.ndarray) -> None:
    """ValueError unless both have the same number of columns."""
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"expected features of one extractor, got {x.shape[1]} and {y.shape[1]} columns")

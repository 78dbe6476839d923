"""Fréchet distances of several generators to one reference on a bootstrap resample, which is given as the number of times that each row was drawn.

The costly term is tr (Σ₁^½ Σ₂ Σ₁^½)^½, the sum of the singular values of XYᵀ, where X and Y are the centred rows of the reference and the generator
with Σ₁ = XᵀX and Σ₂ = YᵀY. A row that was drawn c times enters X or Y once, multiplied by √c, so a resample of n rows needs the 0.63 n distinct ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_DISTINCT = 1 - np.exp(-1)  # expected share of distinct rows in a resample


def make_resampler(reference: np.ndarray, arms: Sequence[np.ndarray]) -> FromCovariances | FromProducts:
    """The faster kind for a reference (M, D) and generators (N, D); both give the same values."""
    n, d = arms[0].shape
    return (FromProducts if _DISTINCT * min(len(reference), n) <= d else FromCovariances)(reference, arms)


class _Moments:
    """What both kinds share: means, traces of the covariances, and centred rows of a set of features."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.squared_lengths = (rows**2).sum(axis=1)

    def mean(self, counts: np.ndarray) -> np.ndarray:
        return counts @ self.rows / counts.sum()

    def trace(self, counts: np.ndarray, mean: np.ndarray) -> float:
        n = counts.sum()
        return float((counts @ self.squared_lengths - n * (mean @ mean)) / (n - 1))


class FromCovariances:
    """For more distinct rows than features: the reference's covariance (D, D) is shared by all generators.

    With Σ₁ = LLᵀ, the singular values of XYᵀ are those of YL.

    Args:
        reference: features (M, D), with a mean near 0.
        arms: features (N, D) of each generator, shifted alike.

    Note:
        `distances` may be called from several threads.
    """

    def __init__(self, reference: np.ndarray, arms: Sequence[np.ndarray]) -> None:
        self.reference = _Moments(reference)
        self.arms = [_Moments(features) for features in arms]
        basis = _range(reference)
        self.real = reference @ basis  # directions in which the reference is constant add nothing to XYᵀ
        self.generated = [features @ basis for features in arms]

    def distances(self, real: np.ndarray, generated: np.ndarray) -> list[float]:
        """The distance of each generator, with the reference's rows drawn `real` (M,) times and each generator's `generated` (N,) times."""
        mean = self.reference.mean(real)
        trace = self.reference.trace(real, mean)
        root = _root(_centred(self.real, real))
        found = []
        for arm, rows in zip(self.arms, self.generated):
            own = arm.mean(generated)
            found.append(_distance(((mean - own) ** 2).sum() + trace + arm.trace(generated, own), _centred(rows, generated) @ root))
        return found


class FromProducts:
    """For fewer distinct rows than features: all products of rows, (N, M) for each generator, are computed once.

    Args:
        reference, arms: as for `FromCovariances`.
    """

    def __init__(self, reference: np.ndarray, arms: Sequence[np.ndarray]) -> None:
        self.reference = _Moments(reference)
        self.arms = [_Moments(features) for features in arms]
        self.products = [features @ reference.T for features in arms]

    def distances(self, real: np.ndarray, generated: np.ndarray) -> list[float]:
        """As those of `FromCovariances`."""
        mean = self.reference.mean(real)
        trace = self.reference.trace(real, mean)
        i, j = np.flatnonzero(generated), np.flatnonzero(real)
        weights = np.sqrt(generated[i] / (generated.sum() - 1)), np.sqrt(real[j] / (real.sum() - 1))
        found = []
        for arm, products in zip(self.arms, self.products):
            own = arm.mean(generated)
            centred = products[np.ix_(i, j)]  # (x - mean x)·(y - mean y) = x·y - mean x·y - x·mean y + mean x·mean y
            centred -= (arm.rows @ mean)[i, None]
            centred -= (self.reference.rows @ own)[j] - mean @ own
            centred *= weights[0][:, None]
            centred *= weights[1]
            found.append(_distance(((mean - own) ** 2).sum() + trace + arm.trace(generated, own), centred))
        return found


def _distance(rest: float, product: np.ndarray) -> float:
    """`rest` minus twice the sum of the singular values of `product`; clipped at 0, since rounding may give a tiny negative number."""
    square = product @ product.T if len(product) <= product.shape[1] else product.T @ product
    return max(0.0, float(rest - 2 * np.sqrt(np.linalg.eigvalsh(square).clip(min=0)).sum()))


def _centred(rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Weighted, centred distinct rows (K, D), whose product with themselves is the unbiased covariance."""
    n, drawn = counts.sum(), np.flatnonzero(counts)
    centred = rows[drawn] - counts @ rows / n
    centred *= np.sqrt(counts[drawn] / (n - 1))[:, None]
    return centred


def _range(rows: np.ndarray) -> np.ndarray:
    """Orthonormal basis (D, R) of the directions in which centred rows vary, the strongest last."""
    centred = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    return vectors[:, values > max(rows.shape) * np.finfo(values.dtype).eps * values[-1]]


def _root(centred: np.ndarray) -> np.ndarray:
    """A square root (D, D) of the covariance of `centred` (K, D), root @ root.T: lower triangular, or any for a singular covariance."""
    covariance = centred.T @ centred
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
        return vectors * np.sqrt(values.clip(min=0))

"""The Fréchet distance, against closed forms and against others' code; the bootstrap, against distributions we know."""

from __future__ import annotations

import importlib
import math
import warnings

import numpy as np
import pytest
import scipy.linalg

from malp_disc.metrics.frechet import (
    feature_statistics,
    frechet_distance,
    frechet_distance_from_statistics,
    frechet_distance_low_rank,
)
from malp_disc.metrics.paired_bootstrap import paired_frechet_delta


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def both_forms(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    return frechet_distance_from_statistics(*feature_statistics(x), *feature_statistics(y)), frechet_distance_low_rank(x, y)


def literal_reference(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
    """The formula as it stands in the paper, with SciPy's general matrix root."""
    root = scipy.linalg.sqrtm(sigma1 @ sigma2)
    return float(((mu1 - mu2) ** 2).sum() + np.trace(sigma1 + sigma2 - 2 * root.real))


@pytest.mark.parametrize("rows", [10, 60])
def test_a_set_has_no_distance_from_itself(rng, rows):
    x = rng.standard_normal((rows, 20))
    assert both_forms(x, x) == pytest.approx((0, 0), abs=1e-9)


@pytest.mark.parametrize("rows", [10, 60])
def test_a_shift_by_v_costs_its_squared_length(rng, rows):
    """Equal covariances: the trace terms cancel, ‖v‖² stays."""
    x, v = rng.standard_normal((rows, 20)), rng.standard_normal(20)
    assert both_forms(x, x + v) == pytest.approx((v @ v, v @ v))


@pytest.mark.parametrize("rows", [10, 60])
def test_scaling_by_c_about_the_mean_costs_one_minus_c_squared_times_the_variance(rng, rows):
    """Σ₂ = c²Σ₁, so (Σ₁Σ₂)^½ = cΣ₁ and tr(Σ₁ + c²Σ₁ − 2cΣ₁) = (1 − c)² tr Σ₁."""
    x = rng.standard_normal((rows, 20))
    mean = x.mean(axis=0)
    expected = (1 - 0.7) ** 2 * np.var(x, axis=0, ddof=1).sum()
    assert both_forms(x, mean + 0.7 * (x - mean)) == pytest.approx((expected, expected))


def test_diagonal_gaussians_have_a_distance_per_axis():
    """Commuting covariances: Σᵢ (σ₁ᵢ − σ₂ᵢ)²."""
    s1, s2, zero = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5, 2.0]), np.zeros(3)
    assert frechet_distance_from_statistics(zero, np.diag(s1**2), zero, np.diag(s2**2)) == pytest.approx(((s1 - s2) ** 2).sum())


def test_one_dimension_by_hand():
    """{0, 2} and {3, 7}: means 1 and 5, unbiased variances 2 and 8, so 16 + 2 + 8 − 2·√16 = 18."""
    x, y = [[0.0], [2.0]], [[3.0], [7.0]]
    assert frechet_distance(x, y) == pytest.approx(18)
    assert both_forms(np.array(x), np.array(y)) == pytest.approx((18, 18))


def test_orthogonal_sets_share_nothing():
    """Where one set varies only in axes in which the other is still, X̃Ỹᵀ = 0 and the distance is tr Σ₁ + tr Σ₂."""
    x, y = np.zeros((4, 6)), np.zeros((4, 6))
    x[:, 0], y[:, 5] = [1, -1, 2, -2], [3, -3, 1, -1]
    expected = np.var(x[:, 0], ddof=1) + np.var(y[:, 5], ddof=1)
    assert both_forms(x, y) == pytest.approx((expected, expected))


@pytest.mark.parametrize(("n", "m", "d"), [(12, 9, 30), (12, 80, 30), (80, 90, 30), (31, 30, 30)])
def test_the_low_rank_form_equals_the_full_one(rng, n, m, d):
    x, y = rng.standard_normal((n, d)) @ rng.standard_normal((d, d)), rng.standard_normal((m, d)) + 0.3
    full, low_rank = both_forms(x, y)
    assert low_rank == pytest.approx(full, rel=1e-6)  # a singular Σ costs the full form half of its digits
    assert frechet_distance(x, y) in (full, low_rank)


def test_symmetric_and_unmoved_by_rotation(rng):
    x, y = rng.standard_normal((50, 8)), 2 * rng.standard_normal((40, 8)) + 1
    rotation = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y))
    assert frechet_distance(x @ rotation, y @ rotation) == pytest.approx(frechet_distance(x, y))


def test_equal_to_the_literal_formula(rng):
    statistics = (*feature_statistics(rng.standard_normal((90, 16))), *feature_statistics(rng.gamma(2.0, size=(70, 16))))
    assert frechet_distance_from_statistics(*statistics) == pytest.approx(literal_reference(*statistics), rel=1e-9)


@pytest.mark.parametrize("package", ["pytorch_fid.fid_score.calculate_frechet_distance", "cleanfid.fid.frechet_distance"])
def test_equal_to_the_packages_own_distance(package, rng, packages_sqrtm):
    module, _, name = package.rpartition(".")
    statistics = (*feature_statistics(rng.standard_normal((90, 16))), *feature_statistics(rng.gamma(2.0, size=(70, 16))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of their argument to sqrtm
        expected = getattr(importlib.import_module(module), name)(*statistics)
    assert frechet_distance_from_statistics(*statistics) == pytest.approx(expected, rel=1e-9)


def test_float32_features_are_summed_in_float64(rng):
    """Features around 1000 with spread 0.01: float32 statistics would lose the spread altogether."""
    x = (1000 + 0.01 * rng.standard_normal((200, 3))).astype(np.float32)
    assert frechet_distance(x, x + np.float32(0.5)) == pytest.approx(0.75, rel=1e-3)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((5, 3)), np.zeros((5, 4)), "one extractor, got 3 and 4"),
        (np.zeros((1, 3)), np.zeros((5, 3)), "N >= 2, got shape"),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), "x has 5 rows with values that are not finite"),
    ],
)
def test_unfit_features_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(x, y)


def test_a_matrix_that_is_no_covariance_is_refused():
    with pytest.raises(ValueError, match="sigma2 is not symmetric"):
        frechet_distance_from_statistics(np.zeros(2), np.eye(2), np.zeros(2), np.array([[1.0, 0.5], [0.0, 1.0]]))


def toy(rng: np.random.Generator, noise_a: float, noise_b: float, n: int = 150, d: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Real features, and two generators on the same inputs, each with its own noise."""
    inputs = rng.standard_normal((n, d))
    return rng.standard_normal((n, d)), inputs + noise_a * rng.standard_normal((n, d)), inputs + noise_b * rng.standard_normal((n, d))


def test_the_interval_says_which_generator_is_nearer(rng):
    reference, noisy, clean = toy(rng, 0.9, 0.3)
    delta = paired_frechet_delta(reference, noisy, clean)
    assert delta.value == pytest.approx(frechet_distance(reference, noisy) - frechet_distance(reference, clean))
    assert 0 < delta.low < delta.value < delta.high


def test_swapping_a_and_b_mirrors_the_interval(rng):
    reference, a, b = toy(rng, 0.9, 0.3)
    there, back = paired_frechet_delta(reference, a, b, resamples=20), paired_frechet_delta(reference, b, a, resamples=20)
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low))


def test_a_generator_does_not_differ_from_itself(rng):
    reference, a, _ = toy(rng, 0.5, 0.5)
    delta = paired_frechet_delta(reference, a, a, resamples=20)
    assert (delta.value, delta.low, delta.high) == (0, 0, 0)


def test_pairing_makes_the_interval_narrower(rng):
    """Two generators on the same inputs differ less by luck than on inputs of their own."""
    reference, a, b = toy(rng, 0.2, 0.2)
    paired = paired_frechet_delta(reference, a, b)
    unpaired = paired_frechet_delta(reference, a, b[rng.permutation(len(b))])
    assert paired.high - paired.low < 0.8 * (unpaired.high - unpaired.low)


def test_a_small_reference_makes_the_interval_wider(rng):
    """Of a shift δ, 2δ·mean(reference) depends on which real images there are; it does not cancel, so few of them must show."""
    reference, a, _ = toy(rng, 0.3, 0.3, n=400)
    widths = [paired_frechet_delta(real, a + 1, a).high - paired_frechet_delta(real, a + 1, a).low for real in (reference[:40], reference)]
    assert widths[0] > 1.5 * widths[1]


def test_the_interval_covers_the_true_difference():
    """Independent coordinates: FD(N(0, 1), N(0, 1 + s²)) = (√(1 + s²) − 1)² each, so the true difference is known.

    Of 60 intervals at 95 %, at least 53 hold it: fewer have probability 0.01 were coverage 0.95.
    """
    d, noisy, clean = 6, 0.9, 0.5
    true = d * ((math.sqrt(1 + noisy**2) - 1) ** 2 - (math.sqrt(1 + clean**2) - 1) ** 2)
    held = 0
    for seed in range(60):
        delta = paired_frechet_delta(*toy(np.random.default_rng(seed), noisy, clean), resamples=60, seed=seed)
        held += delta.low <= true <= delta.high
    assert held >= 53


def test_equal_generators_are_seldom_called_different():
    """At 95 %, 60 pairs without a difference; 8 or more false alarms have probability 0.01 were the rate 0.05."""
    found = [paired_frechet_delta(*toy(np.random.default_rng(seed), 0.5, 0.5), resamples=60) for seed in range(60)]
    assert sum(not delta.low <= 0 <= delta.high for delta in found) <= 7


def test_the_same_seed_gives_the_same_interval(rng):
    sets = toy(rng, 0.9, 0.3)
    assert paired_frechet_delta(*sets, resamples=10, seed=3) == paired_frechet_delta(*sets, resamples=10, seed=3)
    assert paired_frechet_delta(*sets, resamples=10, seed=3) != paired_frechet_delta(*sets, resamples=10, seed=4)


def test_unpaired_sets_are_refused(rng):
    with pytest.raises(ValueError, match="paired row by row"):
        paired_frechet_delta(rng.standard_normal((9, 3)), rng.standard_normal((9, 3)), rng.standard_normal((8, 3)))

"""The bootstrap of many generators against a literal one for two, and the interval of the kernel distance."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from malp_disc.metrics.frechet import frechet_distance
from malp_disc.metrics.paired_bootstrap import (
    Interval,
    bootstrap_delta,
    half_delta,
    halved_kernel,
    paired_frechet_delta,
    paired_mean_delta,
    resampled_frechet,
)
from tests.metrics.test_kid import squared_mmd


def toy(
    rng: np.random.Generator, noises: dict[str, float], n: int = 150, m: int = 150, d: int = 6
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Real features, and generators on the same inputs, each with its own noise."""
    inputs = rng.standard_normal((n, d)) + 3
    return rng.standard_normal((m, d)) + 3, {name: inputs + noise * rng.standard_normal((n, d)) for name, noise in noises.items()}


def literal_bootstrap(reference: np.ndarray, a: np.ndarray, b: np.ndarray, *, resamples: int, seed: int) -> tuple[float, float, float]:
    """Value, low and high of the 95 % interval: every resample is written out row by row."""

    def delta(real: np.ndarray, rows: np.ndarray) -> float:
        return frechet_distance(reference[real], a[rows]) - frechet_distance(reference[real], b[rows])

    rng = np.random.default_rng(seed)
    value = delta(np.arange(len(reference)), np.arange(len(a)))
    draws = [delta(rng.integers(len(reference), size=len(reference)), rng.integers(len(a), size=len(a))) for _ in range(resamples)]
    unbiased, margin = 2 * value - np.mean(draws), 1.959963984540054 * np.std(draws, ddof=1)
    return value, min(value, unbiased) - margin, max(value, unbiased) + margin


# More distinct rows than features, about as many (resampled covariances of the reference are singular), fewer on both sides, fewer on one, a single feature.
@pytest.mark.parametrize(("n", "m", "d"), [(60, 80, 5), (36, 36, 22), (20, 30, 40), (20, 90, 40), (30, 90, 30), (12, 9, 1)])
def test_equal_to_the_literal_bootstrap_of_two_generators(n, m, d):
    reference, arms = toy(np.random.default_rng(0), {"a": 0.9, "b": 0.3, "c": 0.1}, n, m, d)
    made = resampled_frechet(reference, arms, resamples=12, seed=3)
    for name, features in arms.items():
        assert made[name].value == pytest.approx(frechet_distance(reference, features), rel=1e-6)
    for a, b in (("a", "b"), ("c", "a")):
        literal = literal_bootstrap(reference, arms[a], arms[b], resamples=12, seed=3)
        for fast in (bootstrap_delta(made[a], made[b]), paired_frechet_delta(reference, arms[a], arms[b], resamples=12, seed=3)):
            assert (fast.value, fast.low, fast.high) == pytest.approx(literal, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("d", [5, 80])
def test_features_that_are_constant_on_the_reference_count_by_mean_and_variance_alone(d):
    """A covariance with zeros: d² grows by (μ₁ − μ₂)² + σ₂² of the added features, whose product with the reference is 0."""
    reference, arms = toy(np.random.default_rng(4), {"a": 0.9, "b": 0.3}, 60, 80, d)
    constant = np.hstack([reference, np.full((80, 2), 0.7)])
    varied = {name: np.hstack([features, np.random.default_rng(5).standard_normal((60, 2))]) for name, features in arms.items()}
    made = resampled_frechet(constant, varied, resamples=6, seed=3)
    rng = np.random.default_rng(3)
    literal = []
    for _ in range(6):
        real, rows = rng.integers(80, size=80), rng.integers(60, size=60)
        literal.append(frechet_distance(constant[real], varied["a"][rows]))
    assert made["a"].draws == pytest.approx(literal, rel=1e-6)


def test_the_number_of_threads_does_not_change_a_bit():
    reference, arms = toy(np.random.default_rng(6), {"a": 0.9, "b": 0.3}, 60, 80, 30)
    threads = torch.get_num_threads()
    try:
        found = [torch.set_num_threads(n) or resampled_frechet(reference, arms, resamples=9)["a"].draws for n in (1, 3)]
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(*found)


def test_an_arm_beside_others_gets_the_interval_it_gets_alone():
    reference, arms = toy(np.random.default_rng(1), {"a": 0.9, "b": 0.3, "c": 0.1})
    alone = resampled_frechet(reference, {"a": arms["a"], "b": arms["b"]}, resamples=8)
    beside = resampled_frechet(reference, arms, resamples=8)
    assert bootstrap_delta(alone["a"], alone["b"]) == bootstrap_delta(beside["a"], beside["b"])


@pytest.mark.parametrize("made", [resampled_frechet, halved_kernel])
def test_identical_arms_differ_by_nothing_and_a_worse_one_by_something(made):
    reference, arms = toy(np.random.default_rng(2), {"good": 0.1, "bad": 2.0})
    found = made(reference, arms | {"same": arms["good"]})
    delta = half_delta if made is halved_kernel else bootstrap_delta
    same, worse = delta(found["good"], found["same"]), delta(found["bad"], found["good"])
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert 0 < worse.low < worse.value < worse.high
    mirrored = delta(found["good"], found["bad"])
    assert (mirrored.low, mirrored.high) == pytest.approx((-worse.high, -worse.low))


def test_halves_are_kernel_distances_of_rows_drawn_without_replacement():
    """Four rows have six halves of two; the mean over many draws is the mean of `squared_mmd` over all of them."""
    reference, arms = toy(np.random.default_rng(3), {"a": 0.5}, 4, 4, 3)
    pairs = [list(pair) for pair in itertools.combinations(range(4), 2)]
    all_of_them = [squared_mmd(reference[i], arms["a"][j]) for i in pairs for j in pairs]
    made = halved_kernel(reference, arms, subsets=3000)["a"]
    assert set(made.draws.round(6)) == {round(value, 6) for value in all_of_them}
    assert made.value == pytest.approx(np.mean(all_of_them), abs=4 * np.std(all_of_them) / 3000**0.5)


def test_kernel_intervals_cover_the_true_difference_and_seldom_call_equals_different():
    """With k(u, v) = (uᵀv / D + 1)³ and D = 1, E k over two independent standard normals with deviations s and t is 1 + 3 s²t², so
    MMD²(N(0, 1), N(0, s²)) = 3 (1 − s²)². Of 40 intervals at 95 % at least 34 hold it: fewer have probability 0.02.
    """
    true = 3 * (1 - 1.5**2) ** 2 - 3 * (1 - 1.2**2) ** 2
    held = alarms = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        reference, inputs = rng.standard_normal((200, 1)), rng.standard_normal((200, 1))
        arms = {"a": 1.5 * inputs, "b": 1.2 * inputs, "c": 1.2 * (0.9 * inputs + (1 - 0.9**2) ** 0.5 * rng.standard_normal((200, 1)))}
        made = halved_kernel(reference, arms, subsets=50, seed=seed)
        delta = half_delta(made["a"], made["b"])
        held += delta.low <= true <= delta.high
        equal = half_delta(made["b"], made["c"])
        alarms += not equal.low <= 0 <= equal.high
    print(held, alarms)
    assert held >= 34
    assert alarms <= 6


@pytest.mark.parametrize(
    ("arms", "options", "message"),
    [
        ({"a": np.zeros((9, 3)), "b": np.zeros((8, 3))}, {}, "paired row by row"),
        ({"a": np.zeros((9, 4))}, {}, "got 3 and 4 columns"),
        ({"a": np.zeros((9, 3))}, {"resamples": 1}, "at least 2 resamples, got 1"),
    ],
)
def test_what_does_not_fit_is_refused(arms, options, message):
    with pytest.raises(ValueError, match=message):
        resampled_frechet(np.zeros((9, 3)), arms, **options)


def test_halves_need_four_rows():
    with pytest.raises(ValueError, match="at least 4 rows on either side, got 9 and 3"):
        halved_kernel(np.zeros((9, 2)), {"a": np.zeros((3, 2))})


def test_a_mean_of_paired_scores_is_known_better_than_the_scores():
    rng = np.random.default_rng(0)
    image = rng.normal(0, 5, 400)
    found = paired_mean_delta(image + 0.3, image + rng.normal(0, 0.1, 400))
    assert found.value == pytest.approx(0.3, abs=0.02) and 0.005 < found.high - found.low < 0.04
    assert paired_mean_delta(image, image) == Interval(0, 0, 0)
    error = rng.normal(0, 1, 400)
    assert (paired_mean_delta(image + error, image, resamples=2000).high - error.mean()) == pytest.approx(1.96 * error.std() / 20, rel=0.1)


@pytest.mark.parametrize(("a", "b", "options"), [((3,), (4,), {}), ((3, 1), (3, 1), {}), ((0,), (0,), {}), ((3,), (3,), {"resamples": 1})])
def test_scores_that_are_not_paired_are_refused(a, b, options):
    with pytest.raises(ValueError, match="expected"):
        paired_mean_delta(np.zeros(a), np.zeros(b), **options)

"""Whether a generator was tuned on the network that evaluates it: how far its changes move the extractor's features, compared with another network's.

A loss on a network's features, such as the Fréchet distance itself, finds changes that move these features far while other networks hardly notice them. An
honest change of the same images has no reason to prefer one network.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from malp_disc.metrics.frechet import check_features, check_same_width
from malp_disc.metrics.paired_bootstrap import Interval


def leverage(
    extractor: Sequence[ArrayLike], reference_extractor: Sequence[ArrayLike], *, resamples: int = 200, seed: int = 0, confidence: float = 0.95
) -> Interval | None:
    """How many times as far a generator's fine-tuning moved the extractor's features as a control's did, relative to a reference extractor's, as a logarithm.

        r(G) = ½ log (Σᵢ ‖J(Gᵢ) − J(G⁰ᵢ)‖² / Σᵢ ‖W(Gᵢ) − W(G⁰ᵢ)‖²),        leverage = r(G) − r(control)

    G⁰ is the generator before, i runs over images, J and W are the extractor and the reference extractor. It has no unit, is 0 for the control itself, doesn't depend on the
    scales of the features, and changes its sign if the two change places. log 2 = 0.69 means: twice as far.

    Args:
        extractor, reference_extractor: features (N, D) by either network, of the images of three generators: fine-tuned, control, and before; row i is input i in all of them.
        resamples, seed: of the bootstrap over images.
        confidence: coverage of the interval, ±z·s around the value.

    Returns:
        None if one of the two didn't change any image, by either network, so that there is no ratio.

    Raises:
        ValueError: features that aren't (N, D), of different widths within a network, or of different numbers of images.
    """
    squared = [_squared_displacements(*features) for features in (extractor, reference_extractor)]  # of either network: (2, N), generator and control
    if len({rows.shape for rows in squared}) > 1:
        raise ValueError(f"expected the same images in both networks, got {squared[0].shape[1]} and {squared[1].shape[1]}")
    counts = np.random.default_rng(seed).multinomial(squared[0].shape[1], np.full(squared[0].shape[1], 1 / squared[0].shape[1]), size=resamples)
    counts = np.concatenate([np.ones_like(counts[:1]), counts])  # (1 + R, N)
    sums = [counts @ rows.T for rows in squared]  # (1 + R, 2)
    if not all((moved > 0).all() for moved in sums):
        return None
    ratios = 0.5 * (np.log(sums[0]) - np.log(sums[1]))
    value, *draws = ratios[:, 0] - ratios[:, 1]
    margin = NormalDist().inv_cdf((1 + confidence) / 2) * float(np.std(draws, ddof=1))
    return Interval(float(value), float(value) - margin, float(value) + margin)


def _squared_displacements(arm: ArrayLike, control: ArrayLike, before: ArrayLike) -> np.ndarray:
    """‖φ(Gᵢ) − φ(G⁰ᵢ)‖² of the fine-tuned generator and of the control, (2, N)."""
    arm, control, before = (check_features(features, name) for features, name in ((arm, "arm"), (control, "control"), (before, "before")))
    check_same_width(arm, control)
    check_same_width(arm, before)
    if not len(arm) == len(control) == len(before):
        raise ValueError(f"expected the same inputs through all three generators, got {len(arm)}, {len(control)} and {len(before)} images")
    return np.stack([((features - before) ** 2).sum(axis=1) for features in (arm, control)])

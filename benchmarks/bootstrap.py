"""Time of the paired bootstrap of a difference of two Fréchet distances, against resamples written out row by row.

    python benchmarks/bootstrap.py                        # n = 1,000 images, 768 features, 1,000 resamples

The literal bootstrap draws the rows and computes both distances of every resample from means and covariances, as pytorch-fid and clean-fid compute one. It
is timed on a few resamples, before and after the other, and both must give the same differences.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import scipy
import torch
import tyro

from malp_disc.metrics.frechet import feature_statistics, frechet_distance_from_statistics
from malp_disc.metrics.paired_bootstrap import resampled_frechet


@dataclass
class Config:
    images: int = 1000
    references: int = 1000
    features: int = 768
    resamples: int = 1000
    literal_resamples: int = 4
    """Resamples of the literal bootstrap per measurement, of which there are two."""
    threads: int = 2


def main(config: Config) -> None:
    torch.set_num_threads(config.threads)
    rng = np.random.default_rng(0)
    spectrum = np.arange(1, config.features + 1) ** -0.5
    inputs = rng.standard_normal((config.images, config.features)) * spectrum
    reference = rng.standard_normal((config.references, config.features)) * spectrum
    arms = {name: inputs + noise * rng.standard_normal(inputs.shape) * spectrum for name, noise in (("a", 0.3), ("b", 0.1))}

    def literal() -> np.ndarray:
        draw = np.random.default_rng(0)
        found = []
        for _ in range(config.literal_resamples):
            real = feature_statistics(reference[draw.integers(len(reference), size=len(reference))])
            rows = draw.integers(len(inputs), size=len(inputs))
            a, b = (frechet_distance_from_statistics(*real, *feature_statistics(features[rows])) for features in arms.values())
            found.append(a - b)
        return np.array(found)

    def ours() -> np.ndarray:
        found = resampled_frechet(reference, arms, resamples=config.resamples)
        return found["a"].draws - found["b"].draws

    measured = [timed(function) for function in (literal, ours, literal)]
    expected, got = measured[0][0], measured[1][0][: config.literal_resamples]
    wall, cpu = ([(measured[0][i] + measured[2][i]) / 2 / config.literal_resamples, measured[1][i] / config.resamples] for i in (1, 2))
    print(f"torch {torch.__version__}, numpy {np.__version__}, scipy {scipy.__version__}, {config.threads} threads of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"n = {config.images} against {config.references}, {config.features} features, two generators; largest relative difference {abs(got / expected - 1).max():.1e}")
    print(f"literal   {wall[0] * 1e3:8.1f} ms per resample, {cpu[0] * 1e3:8.1f} ms of CPU time ({config.literal_resamples} resamples, twice)")
    print(f"malp-disc {wall[1] * 1e3:8.1f} ms per resample, {cpu[1] * 1e3:8.1f} ms of CPU time ({config.resamples} resamples in {measured[1][1]:.1f} s)")
    print(f"{wall[0] / wall[1]:.1f} times as fast, {cpu[0] / cpu[1]:.1f} times by CPU time")


def timed(function) -> tuple[np.ndarray, float, float]:
    """The result, seconds, and seconds of CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    return function(), time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))

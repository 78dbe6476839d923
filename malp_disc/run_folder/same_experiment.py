"""The check that arms are compared only within one experiment: the same data, evaluation and training, except for the arm itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from malp_disc.run_folder.measurement import Measurement

Runs = Mapping[int, Mapping[str, Measurement]]


def check_one_experiment(runs: Runs, where: str) -> None:
    """Refuse measurements of several experiments.

    Args:
        runs: measurements by seed and arm; their ``experiment`` and ``steps`` are compared where they are known.
        where: the folder or folders, for the message.

    Raises:
        ValueError: two of them differ; names the arms on either side.
    """
    by_experiment = _grouped(runs, "experiment")
    if len(by_experiment) > 1:
        raise ValueError(
            f"{where}: results of {len(by_experiment)} experiments, which don't compare: {_listed(by_experiment, 'experiment')}. "
            "Their options differ (config.json and experiment.json of each run's folder tell); report every experiment from a folder of its own"
        )
    by_steps = {steps: places for steps, places in _grouped(runs, "steps").items() if steps}  # before has 0
    if len(by_steps) > 1:
        raise ValueError(
            f"{where}: arms that were trained for different numbers of steps don't compare: {_listed(by_steps, 'steps')}. "
            "Train all with one --max-train-steps, and report them from a folder of their own"
        )


def _grouped(runs: Runs, key: str) -> dict[Any, list[str]]:
    found: dict[Any, list[str]] = {}
    for seed, arms in runs.items():
        for arm, line in arms.items():
            if (known := getattr(line, key)) is not None:
                found.setdefault(known, []).append(f"{arm} of seed {seed}")
    return found


def _listed(groups: Mapping[Any, list[str]], name: str) -> str:
    return "; ".join(f"{name} {key}: {', '.join(places)}" for key, places in groups.items())

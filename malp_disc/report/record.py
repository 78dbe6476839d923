"""Build the record of a run from its folder: means over seeds, differences with intervals, verdict and cautions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from malp_disc.report.compare import arm_of, compare_arms
from malp_disc.report.findings import cautions, localization_finding
from malp_disc.report.folders import without_folders
from malp_disc.report.results import Bootstrap, Deltas, Record, SeedResults
from malp_disc.report.seeds import CONFIDENCE, Delta, bonferroni_confidence, delta_over_seeds, half_widths, mean_over_seeds
from malp_disc.report.verdict import run_verdict
from malp_disc.report.verdict_rule import RULE
from malp_disc.run_folder.arms import ARMS, BASELINES, LEVERAGE, OF_IMAGES, SCORES, UNEDITED
from malp_disc.run_folder.environment import collect_environment
from malp_disc.run_folder.measurement import Difference, Measurement
from malp_disc.run_folder.same_experiment import check_one_experiment
from malp_disc.run_folder.schema import read_json, read_measurements, read_reference_points
from malp_disc.serialization.typed_json import from_json, to_json


def build_record(folder: str | Path, *, resamples: int = 200, seed: int = 0) -> Record:
    """Read a run's folder and compare its arms. The same folder gives the same record, also after its features were deleted if there was a
    report before.

    Args:
        resamples, seed: of the paired bootstrap, see `malp_disc.metrics.paired_bootstrap`.

    Raises:
        FileNotFoundError: no such folder, or no measurements in it.
        ValueError: a damaged file, whose line the message names, or results of several experiments.
    """
    return build_record_and_lines(folder, resamples=resamples, seed=seed)[0]


def build_record_and_lines(folder: str | Path, *, resamples: int = 200, seed: int = 0) -> tuple[Record, list[Difference]]:
    """`build_record`, and the lines of ``bootstrap.jsonl`` that it is computed from."""
    folder = Path(folder)
    runs = read_measurements(folder)
    check_one_experiment(runs, str(folder))
    reference_points = read_reference_points(folder)
    config, environment = read_json(folder / "config.json"), read_json(folder / "environment.json")
    lines = compare_arms(folder, runs, resamples=resamples, seed=seed)
    seeds_of = {arm: tuple(run for run in runs if arm in runs[run]) for arm in ARMS if any(arm in arms for arms in runs.values())}
    per_arm = {arm: [runs[run][arm] for run in seeds] for arm, seeds in seeds_of.items()}
    arms = {arm: _averaged(arm, measured) for arm, measured in per_arm.items()}
    scores = {score: _over_seeds(lines, seeds_of, score) for score in (*SCORES, LEVERAGE, *OF_IMAGES)}
    comparison = scores.pop("frechet")
    verdict, verdicts = run_verdict(arms, comparison, scores, seeds_of=seeds_of)
    record = Record(
        verdict=verdict,
        verdict_rule=RULE,
        verdict_confidence=bonferroni_confidence(max(1, len(verdicts))),
        verdicts=verdicts,
        arms=arms,
        half_widths={arm: from_json(Measurement, half_widths(to_json(measured)), arm) for arm, measured in per_arm.items()},
        reference_points=reference_points,
        comparison=comparison,
        views=scores,
        localization_findings={arm: found for arm in arms if (found := localization_finding(arm, arms)) is not None},
        seeds=tuple(runs),
        seeds_of=seeds_of,
        per_seed={str(run): _one_seed(lines, runs, run) for run in runs},
        bootstrap=_how(lines, resamples, seed),
        notes=(),
        config=None if config is None else without_folders(config),
        environment=environment or collect_environment(),
    )
    return replace(record, notes=tuple(cautions(record))), lines


def _averaged(arm: str, measured: Sequence[Measurement]) -> Measurement:
    """One measurement from those of all seeds. A seed that diverged has none, so the arm has none either."""
    if any(one.diverged for one in measured):
        return next(one for one in measured if one.diverged)
    return measured[0] if len(measured) == 1 else from_json(Measurement, mean_over_seeds(to_json(measured), arm), arm)


def _over_seeds(lines: Sequence[Difference], seeds_of: Mapping[str, Sequence[int]], score: str) -> dict[str, Deltas]:
    """Each arm but the control against its controls and baselines; None where a side was not measured. "before" is the same for every seed of
    the other side."""
    table = {(line.seed, line.arm, line.against): _delta(line) for line in lines if line.score == score and line.against is not None}

    def delta(arm: str, other: str) -> Delta | None:
        seeds = seeds_of[arm] if arm != "before" else seeds_of.get(other, seeds_of[arm])
        if arm == "before":  # measured once: negated from the other side's lines where those exist
            return delta_over_seeds([table.get((run, arm, other)) or _negated(table.get((run, other, arm))) for run in seeds])
        return delta_over_seeds([table.get((run, arm, other)) for run in seeds])

    shown = {
        arm: ["control", "before", *(other for other in BASELINES[1:-1] if other in seeds_of and other != arm)]
        for arm in seeds_of
        if arm != "control"
    }
    if "before" in shown:
        shown["before"].append(UNEDITED)
    return {arm: {f"delta_vs_{other}": None if arm == other else delta(arm, other) for other in others} for arm, others in shown.items()}


def _delta(line: Difference) -> Delta | None:
    return None if line.low is None or line.high is None else Delta(line.value, line.low, line.high)


def _negated(delta: Delta | None) -> Delta | None:
    return None if delta is None else Delta(-delta.value, -delta.high, -delta.low)


def _one_seed(lines: Sequence[Difference], runs: Mapping[int, Mapping[str, Measurement]], run: int) -> SeedResults:
    own = [line for line in lines if line.seed == run]
    scores: dict[str, dict[str, Deltas]] = {}
    for line in own:
        if line.against is not None:
            scores.setdefault(line.score, {}).setdefault(line.arm, {})[f"delta_vs_{line.against}"] = _delta(line)
    return SeedResults(
        arms={
            arm: runs[owner][arm]
            for arm in ARMS
            if (owner := arm_of(runs, run, arm) if arm in (*runs[run], "before") else None) is not None
        },
        comparison=scores.pop("frechet", {}),
        views=scores,
        from_features={line.arm: line.value for line in own if line.against is None and line.score == "frechet"},
    )


def _how(lines: Sequence[Difference], resamples: int, seed: int) -> Bootstrap:
    """How the intervals were computed, from the lines, which may be of an earlier report."""
    if not lines:
        return Bootstrap(resamples, seed, CONFIDENCE)
    return Bootstrap(lines[0].resamples, lines[0].bootstrap_seed, lines[0].confidence)

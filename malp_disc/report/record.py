"""The record: all results of a run as one JSON object, from which every rendering is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from malp_disc.report.compare import arm_of, compare_arms
from malp_disc.report.findings import cautions, localization_finding
from malp_disc.report.seeds import CONFIDENCE, bonferroni_confidence, delta_over_seeds, half_widths, mean_over_seeds
from malp_disc.report.verdict import run_verdict
from malp_disc.report.verdict_rule import RULE
from malp_disc.run_folder.arms import ARMS, BASELINES, SCORES, UNEDITED
from malp_disc.run_folder.environment import collect_environment
from malp_disc.run_folder.same_experiment import check_one_experiment
from malp_disc.run_folder.schema import REFERENCE_POINTS, complete, read_json, read_measurements


def build_record(folder: str | Path, *, resamples: int = 200, seed: int = 0) -> dict[str, Any]:
    """Read a run's folder and compare its arms. The same folder gives the same record, also after its features were deleted if there was a
    report before.

    Returns:
        JSON-ready, None where something was not measured:

        * ``verdict`` one sentence, ``verdict_rule``, ``verdicts.<arm>.{outcome, reason, where}``, and ``verdict_confidence``, that of the
          intervals against the controls, corrected for the number of candidates;
        * ``arms.<arm>``: means over seeds of ``malp_disc.run_folder.schema.MEASUREMENT``, and ``half_widths.<arm>`` half their intervals
          (Student's t);
        * ``reference_points``, reference points for every distance: the unedited inputs, and a real-vs-real split (two halves of the reference);
        * ``comparison.<arm>.{delta_vs_control, delta_vs_before, …}``, each ``{value, low, high, images, seeds, count}`` or None: the
          arm's Frechet distance minus the other's, see `malp_disc.report.seeds.delta_over_seeds`; ``views.<score>.<arm>`` the same for
          the other distances; ``"before"`` has ``delta_vs_unedited`` as well, its distance minus that of the unedited inputs;
        * ``localization_findings.<arm>``: whether its changes are harder to localize;
        * ``seeds``, ``seeds_of.<arm>`` and ``per_seed.<seed>.{arms, comparison, views, from_features}``;
        * ``bootstrap``, ``notes``, ``config``, ``environment``.

    Args:
        resamples, seed: of the paired bootstrap, see `malp_disc.metrics.paired_bootstrap`.

    Raises:
        FileNotFoundError: no such folder, or no measurements in it.
        ValueError: a damaged file, whose line the message names, or results of several experiments.
    """
    return build_record_and_lines(folder, resamples=resamples, seed=seed)[0]


def build_record_and_lines(folder: str | Path, *, resamples: int = 200, seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`build_record`, and the lines of ``bootstrap.jsonl`` that it is computed from."""
    folder = Path(folder)
    runs = read_measurements(folder)
    check_one_experiment(runs, str(folder))
    reference_points = complete(read_json(folder / "reference_points.json"), REFERENCE_POINTS, str(folder / "reference_points.json"))
    config, environment = read_json(folder / "config.json"), read_json(folder / "environment.json")
    lines = compare_arms(folder, runs, resamples=resamples, seed=seed)
    seeds_of = {arm: [run for run in runs if arm in runs[run]] for arm in ARMS if any(arm in arms for arms in runs.values())}
    per_arm = {arm: [runs[run][arm] for run in seeds] for arm, seeds in seeds_of.items()}
    arms = {arm: _averaged(arm, measured) for arm, measured in per_arm.items()}
    scores = {score: _over_seeds(lines, runs, seeds_of, score) for score in SCORES}
    views = {score: deltas for score, deltas in scores.items() if score != "frechet"}
    verdict, verdicts = run_verdict(arms, scores["frechet"], views)
    record = {
        "verdict": verdict,
        "verdict_rule": RULE,
        "verdict_confidence": bonferroni_confidence(max(1, len(verdicts))),
        "verdicts": {arm: dataclasses.asdict(judged) for arm, judged in verdicts.items()},
        "arms": arms,
        "half_widths": {arm: half_widths(measured) for arm, measured in per_arm.items()},
        "reference_points": reference_points,
        "comparison": scores["frechet"],
        "views": views,
        "localization_findings": {arm: found for arm in arms if (found := localization_finding(arm, arms)) is not None},
        "seeds": list(runs),
        "seeds_of": seeds_of,
        "per_seed": {str(run): _one_seed(lines, runs, run) for run in runs},
        "bootstrap": _how(lines, resamples, seed),
    }
    record["notes"] = cautions(record)
    record |= {"config": _without_folders(config), "environment": environment or collect_environment()}
    return record, lines


def _averaged(arm: str, measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One measurement from those of all seeds. A seed that diverged has none, so the arm has none either."""
    if any(one.get("diverged") for one in measured):
        measured = [next(one for one in measured if one.get("diverged"))]
    return mean_over_seeds(measured, arm)


def _over_seeds(
    lines: Sequence[Mapping[str, Any]], runs: Mapping[int, Any], seeds_of: Mapping[str, Sequence[int]], score: str
) -> dict[str, dict[str, Any]]:
    """Each arm but the control against its controls and baselines; None where a side was not measured. "before" is the same for every seed of
    the other side."""
    table = {(line["seed"], line["arm"], line["against"]): line for line in lines if line["score"] == score}

    def delta(arm: str, other: str) -> dict[str, Any] | None:
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


def _negated(line: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if line is None or line["low"] is None else {"value": -line["value"], "low": -line["high"], "high": -line["low"]}


def _one_seed(lines: Sequence[Mapping[str, Any]], runs: Mapping[int, Mapping[str, Any]], run: int) -> dict[str, Any]:
    own = [line for line in lines if line["seed"] == run]
    scores: dict[str, dict[str, dict[str, Any]]] = {}
    for line in own:
        if line["against"] is not None:
            entry = {end: line[end] for end in ("value", "low", "high")}
            scores.setdefault(line["score"], {}).setdefault(line["arm"], {})[f"delta_vs_{line['against']}"] = entry
    return {
        "arms": {
            arm: runs[owner][arm]
            for arm in ARMS
            if (owner := arm_of(runs, run, arm) if arm in (*runs[run], "before") else None) is not None
        },
        "comparison": scores.pop("frechet", {}),
        "views": scores,
        "from_features": {line["arm"]: line["value"] for line in own if line["against"] is None and line["score"] == "frechet"},
    }


def _how(lines: Sequence[Mapping[str, Any]], resamples: int, seed: int) -> dict[str, Any]:
    """How the intervals were computed, from the lines, which may be of an earlier report."""
    first = next(iter(lines), {})
    return {
        "resamples": first.get("resamples", resamples),
        "seed": first.get("bootstrap_seed", seed),
        "confidence": first.get("confidence", CONFIDENCE),
    }


def _without_folders(value: Any) -> Any:
    """Absolute paths cut to their last part, also within a command, because a report is passed on."""
    if isinstance(value, dict):
        return {key: _without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_folders(entry) for entry in value]
    if isinstance(value, str):
        return " ".join(_last_part(word) for word in value.split(" "))
    return value


def _last_part(word: str) -> str:
    flag, equals, path = word.partition("=") if word.startswith("-") else ("", "", word)
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(path).is_absolute():
            return flag + equals + kind(path).name
    return word

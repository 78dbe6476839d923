"""The verdict on a run: the rule applied to every candidate, and the result as one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from malp_disc.report.verdict_case import Deltas, Verdict
from malp_disc.report.verdict_rule import NO_FEATURES, arm_verdict
from malp_disc.run_folder.arms import CANDIDATES
from malp_disc.run_folder.measurement import Measurement

MOST_REASONS = 2
"""The most candidates whose reasons fit into one sentence with their numbers; a table has those of more."""


def run_verdict(
    arms: Mapping[str, Measurement],
    comparison: Mapping[str, Deltas],
    views: Mapping[str, Mapping[str, Deltas]] | None = None,
    *,
    seeds_of: Mapping[str, Sequence[int]] | None = None,
) -> tuple[str, dict[str, Verdict]]:
    """One sentence for the whole run, and the verdict on each candidate: every fine-tuned arm that isn't a control.

    The sentence begins with the best candidate (an improved one, then the lowest distance) and its reason. It has the reasons of the others
    as well, without the numbers if there are more than `MOST_REASONS` candidates.

    Args:
        arms, comparison, views: as for `arm_verdict`.
        seeds_of: the seeds that each arm was measured for, to say where the control lacks one.
    """
    candidates = [arm for arm in CANDIDATES if arm in arms]
    if not candidates:
        return f"No verdict: no generator was fine-tuned, apart from controls (measured: {', '.join(arms)}).", {}
    if "control" not in arms:
        return "No verdict: there is no control arm, so the effect of training longer is unknown; run the control arm as well.", {}
    verdicts = {arm: arm_verdict(arm, arms, comparison, views, candidates=len(candidates)) for arm in candidates}
    verdicts = {arm: _unpaired(verdict, arm, seeds_of or {}) for arm, verdict in verdicts.items()}
    return _sentence(verdicts, comparison), verdicts


def _unpaired(verdict: Verdict, arm: str, seeds_of: Mapping[str, Sequence[int]]) -> Verdict:
    """A verdict that finds nothing to compare with the control, with the reason where that is a seed that the control lacks."""
    lacking = sorted({*seeds_of.get(arm, ())} - {*seeds_of.get("control", ())})
    if verdict.reason != NO_FEATURES or not lacking:
        return verdict
    seeds = f"seed{'s' * (len(lacking) > 1)} {' '.join(map(str, lacking))}"
    return replace(verdict, reason=f"not decided: the control was not measured for {seeds}; measure it for every seed of {arm}")


def _sentence(verdicts: Mapping[str, Verdict], comparison: Mapping[str, Deltas]) -> str:
    def rank(arm: str) -> tuple[bool, float]:
        delta = comparison[arm].get("delta_vs_control")
        return verdicts[arm].outcome != "improved", math.inf if delta is None else delta.value

    best, *others = sorted(verdicts, key=rank)
    improved = verdicts[best].outcome == "improved"
    clauses = [f"{best} improved ({verdicts[best].reason})" if improved else f"{best}: {verdicts[best].reason}"]
    if len(verdicts) <= MOST_REASONS:
        clauses += [
            f"{arm} improved ({verdicts[arm].reason})" if verdicts[arm].outcome == "improved" else f"{arm}: {verdicts[arm].reason}" for arm in others
        ]
    else:
        also = [arm for arm in others if verdicts[arm].outcome == "improved"]
        clauses += [f"{', '.join(also)} improved as well"] if also else []
        clauses += [f"{arm}: {verdicts[arm].reason.partition(' (')[0]}" for arm in others if arm not in also]  # without the numbers
    return ("" if improved else "No improvement shown: ") + "; ".join(clauses) + "."

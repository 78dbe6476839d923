"""Tables and figure of a damage study from ``damages.jsonl``, and the rule by which extractors are compared.

An extractor *follows* a damage if no step from one strength to the next lowers its distance with a 95 % interval below zero, in any seed, and the
strongest damage is the furthest. It *sees* the damage if, at the moderate strength, the interval of the difference to undamaged images is above zero
and the distance is at least `MARGIN` times that of undamaged images, in every seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from malp_disc.plotting.line_panels import Line, Panel, lines_figure
from malp_disc.report.cells import NONE, Table
from malp_disc.report.markdown import markdown_table
from recipes.research.damages import DAMAGES, MODERATE

MARGIN = 1.25
Lines = Sequence[Mapping[str, Any]]


def study_tables(lines: Lines) -> str:
    """The results as Markdown: a summary per extractor, every damage at every strength, wrong edits, a reference with noise, and a generator that is repaired.

    Parts that weren't run are left out.
    """
    tables = {"damages": (_summary, _damages), "wrong edits": (_wrong_edits,), "cleaner": (_cleaner,), "repair": (_repair,)}
    found = [table(own) for part, makers in tables.items() if (own := [line for line in lines if line["part"] == part]) for table in makers]
    return "\n\n".join(found) + "\n"


def ranked(lines: Lines) -> list[str]:
    """The extractors from best to worst.

    First those that follow all damages and the generator's own errors; among them, and among the others, by how many they see; then by the moderate
    damages that they call worse than no noise; then by time.
    """

    def rank(extractor: str) -> tuple[float, ...]:
        own = [line for line in lines if line["judge"] == extractor]
        followed = sum(follows(lines, extractor, damage) for damage in DAMAGES) + follows_repair(lines, extractor)
        seen = sum(sees(lines, extractor, damage) for damage in DAMAGES) + sees_errors(lines, extractor)
        _, better = _compared_with_no_noise([line for line in own if line["part"] == "cleaner"])
        return followed <= len(DAMAGES), -seen, len(better), own[0]["seconds_per_1000"]

    return sorted(_extractors(lines), key=rank)


def follows_repair(lines: Lines, extractor: str) -> bool:
    """Whether the distance of the generator's edits falls as they are repaired: nowhere a rise with its interval above zero, and none above the start."""
    for own in _repairs(lines, extractor):
        if any(line["step"][1] > 0 for line in own) or max(line["value"] for line in own) != own[0]["value"]:
            return False
    return True


def sees_errors(lines: Lines, extractor: str) -> bool:
    """Whether half of the generator's errors are well above none, in every seed."""
    return all(own[2]["value"] >= MARGIN * own[-1]["value"] for own in _repairs(lines, extractor))


def _repairs(lines: Lines, extractor: str) -> list[list[Mapping[str, Any]]]:
    """Of each seed: the generator's edits as they are, and repaired by a quarter, a half, three quarters, and wholly."""
    own = [line for line in lines if line["judge"] == extractor and line["part"] == "repair" and line["case"].endswith(("as edited", "% repaired"))]
    return [[line for line in own if line["seed"] == seed] for seed in sorted({line["seed"] for line in own})]


def follows(lines: Lines, extractor: str, damage: str) -> bool:
    """Whether the extractor's distance rises with the damage, in every seed; see the module's docstring."""
    for own in _by_seed(lines, extractor, damage):
        values = [line["value"] for line in own]
        if any(line["step"][2] < 0 for line in own) or max(values) != values[-1]:
            return False
    return True


def sees(lines: Lines, extractor: str, damage: str) -> bool:
    """Whether the extractor's distance of moderate damage is well above that of undamaged images, in every seed."""
    own = [runs[MODERATE + 1] for runs in _by_seed(lines, extractor, damage)]
    undamaged = [runs[0]["value"] for runs in _by_seed(lines, extractor, damage)]
    return all(line["excess"][1] > 0 and line["value"] >= MARGIN * floor for line, floor in zip(own, undamaged))


def damage_figure(lines: Lines, path: str | Path) -> None:
    """Distance relative to undamaged images over the strength, one panel per damage, one line per extractor, mean over seeds.

    Nothing is drawn if the part wasn't run.
    """
    lines, panels = [line for line in lines if line["part"] == "damages"], []
    if not lines:
        return
    for damage, about in DAMAGES.items():
        curves = {}
        for extractor in _extractors(lines):
            ratios = _ratios(lines, extractor, damage)
            curves[extractor] = Line([math.log2(max(ratio, 1e-3)) for ratio in ratios])
        panels.append(Panel(["0", *(f"{level:g}" for level in about.levels)], curves, about.text, "log2 (distance / undamaged)", damage))
    lines_figure([panels[i : i + 3] for i in range(0, len(panels), 3)], path)


def _summary(lines: Lines) -> str:
    rows = []
    for extractor in _extractors(lines):
        own = [line for line in lines if line["judge"] == extractor]
        followed, seen = ([damage for damage in DAMAGES if test(lines, extractor, damage)] for test in (follows, sees))
        seeds = sorted({line["seed"] for line in own})
        rows.append(
            [
                extractor,
                f"{own[0]['n']} / {own[0]['reference_n']}",
                str(len(seeds)),
                _count(followed),
                _count(seen),
                f"{own[0]['seconds_per_1000']:.0f}",
            ]
        )
    header = [
        "extractor", "n / reference", "seeds", f"follows, of {len(DAMAGES)}", f"sees at moderate strength, of {len(DAMAGES)}",
        "CPU seconds per 1000 images",
    ]  # fmt: skip
    return markdown_table(Table(header, rows), left=(0, 3, 4))


def _count(found: Sequence[str]) -> str:
    """How many damages, and which ones are missing."""
    missing = [damage for damage in DAMAGES if damage not in found]
    return f"{len(found)}" + (f", not {', '.join(missing)}" if missing else "")


def _beaten(lines: Lines, extractor: str) -> str:
    """How many moderate damages, on top of the noise of the reference, the extractor calls worse than the same faces without noise (mean over seeds)."""
    worse, better = _compared_with_no_noise([line for line in lines if line["judge"] == extractor])
    return f"{len(worse)} of {len(worse) + len(better)} damages" + (f", not {', '.join(better)}" if better else "")


def _compared_with_no_noise(lines: Lines) -> tuple[list[str], list[str]]:
    """The moderate damages that are called worse than the missing noise, and the others."""
    means = _means(lines, "case")
    damaged = {case: value for case, value in means.items() if case in DAMAGES}
    worse = [case for case, value in damaged.items() if value > means["without noise"]]
    return worse, [case for case in damaged if case not in worse]


def _damages(lines: Lines) -> str:
    """Distance divided by that of undamaged images; the moderate strength is bold where the extractor sees it."""
    extractors, rows = _extractors(lines), []
    for damage in DAMAGES:
        cells = []
        for extractor in extractors:
            texts = [f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}" for ratio in _ratios(lines, extractor, damage)[1:]]
            if sees(lines, extractor, damage):
                texts[MODERATE] = f"**{texts[MODERATE]}**"
            cells.append(" ".join(texts))
        rows.append([damage, " ".join(f"{level:g}" for level in DAMAGES[damage].levels), *cells])
    floors = [_mean(line["value"] for line in lines if line["judge"] == extractor and line.get("strength") == 0) for extractor in extractors]
    halves = [_mean(line["value"] for line in lines if line["judge"] == extractor and line["damage"] is None) for extractor in extractors]
    rows += [["distance of undamaged images", "", *(f"{value:.4g}" for value in floors)], ["real-vs-real split of the reference", "", *(f"{value:.4g}" for value in halves)]]
    return markdown_table(Table(["damage", "strengths", *extractors], rows, frozenset({len(rows) - 2, len(rows) - 1})), left=(0, 1))


def _wrong_edits(lines: Lines) -> str:
    extractors, own = _extractors(lines), lines
    header = ["edits not made", "edit accuracy"] + [f"{extractor}{what}" for extractor in extractors for what in ("", ", per attribute")]
    rows = []
    for strength in sorted({line["strength"] for line in own}):
        here = [line for line in own if line["strength"] == strength]
        cells = []
        for extractor in extractors:
            for key in ("value", "conditional"):
                then = _mean(line[key] for line in own if line["judge"] == extractor and line["strength"] == 0)
                cells.append(f"{_mean(line[key] for line in here if line['judge'] == extractor) / then:.2f}")
        rows.append([f"{100 * here[0]['level']:g} %", f"{_mean(line['edit_accuracy'] for line in here):.3f}", *cells])
    return markdown_table(Table(header, rows))


def _cleaner(lines: Lines) -> str:
    counts = ["*moderate damages called worse than no noise*", *(_beaten(lines, extractor) for extractor in _extractors(lines))]
    return _cases(lines, "against a reference with noise", [counts])


def _repair(lines: Lines) -> str:
    verdicts = [f"{'follows' if follows_repair(lines, extractor) else 'does not follow'}, {'sees' if sees_errors(lines, extractor) else 'does not see'}" for extractor in _extractors(lines)]
    return _cases(lines, "the shipped generator's edits", [["*its own errors*", *verdicts]])


def _cases(lines: Lines, head: str, more: Sequence[Sequence[str]] = ()) -> str:
    """Distances of the cases of a part, divided by that of the first."""
    extractors = _extractors(lines)
    means = {extractor: _means([line for line in lines if line["judge"] == extractor], "case") for extractor in extractors}
    cases = list(dict.fromkeys(line["case"] for line in lines))
    rows = [[case, *(f"{means[extractor][case] / means[extractor][cases[0]]:.2f}" if case in means[extractor] else NONE for extractor in extractors)] for case in cases]
    return markdown_table(Table([head, *extractors], [*rows, *more]))


def _ratios(lines: Lines, extractor: str, damage: str) -> list[float]:
    """Distance of each strength, 0 first, divided by that of undamaged images; mean over seeds."""
    runs = _by_seed(lines, extractor, damage)
    return [_mean(run[step]["value"] / run[0]["value"] for run in runs) for step in range(len(runs[0]))]


def _by_seed(lines: Lines, extractor: str, damage: str) -> list[list[Mapping[str, Any]]]:
    """The lines of each seed in the order of the strengths."""
    own = [line for line in lines if line["judge"] == extractor and line.get("damage") == damage]
    seeds = sorted({line["seed"] for line in own})
    return [sorted((line for line in own if line["seed"] == seed), key=lambda line: line["strength"]) for seed in seeds]


def _means(lines: Lines, key: str) -> dict[str, float]:
    return {case: _mean(line["value"] for line in lines if line[key] == case) for case in dict.fromkeys(line[key] for line in lines)}


def _mean(values: Any) -> float:
    found = list(values)
    return sum(found) / len(found)


def _extractors(lines: Lines) -> list[str]:
    return list(dict.fromkeys(line["judge"] for line in lines))

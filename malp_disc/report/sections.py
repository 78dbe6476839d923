"""The report, part by part, in words and tables: what `markdown` and `page` set out, each in its own way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from malp_disc.report.cells import Table, label_of
from malp_disc.report.numbers import number, percent
from malp_disc.report.tables import (
    attributes_table,
    controls_table,
    described,
    detection_table,
    differences_table,
    edits_table,
    hashes_table,
    localization_table,
    quality_table,
    seeds_table,
    spectrum_table,
    verdicts_table,
    views_table,
)


@dataclass(frozen=True)
class Section:
    """A heading and what stands below: text, tables, then a list. ``key`` says which figures belong here."""

    key: str
    title: str
    text: str = ""
    tables: Sequence[tuple[str, Table]] = ()  # (caption, table)
    items: Sequence[str] = ()


def sections(record: Mapping[str, Any]) -> list[Section]:
    """Everything but the verdict and the cautions, which stand first, and how the run was made, which stands last."""
    psnr = record["anchors"]["encrypted_psnr"]
    harder = [f"{arm}: {finding}" for arm, finding in record["localization_findings"].items()]
    found = [
        Section("verdicts", "Verdict by arm", _multiple_candidates(record), [("", verdicts_table(record))]),
        Section(
            "quality",
            "Quality",
            tables=[("", quality_table(record)), ("Against every control", controls_table(record))],
            items=described(record),
        ),
        Section(
            "where",
            "Where a gain sits",
            "The same images through other eyes. What is gone at half the size was fine texture; what a second extractor doesn't see may be "
            "the first one's taste.",
            [("Distances", views_table(record)), ("Differences", differences_table(record)), ("Power spectrum", spectrum_table(record))],
        ),
        Section(
            "edits",
            "Edits",
            "Read by an independent classifier. A generator that edits less is nearer to real images, which is no gain; leakage is what "
            "changed without being asked for.",
            [
                ("", edits_table(record)),
                ("Edit accuracy by attribute", attributes_table(record)),
                ("Leakage by attribute", attributes_table(record, "leakage_per_attribute")),
            ],
        ),
        Section(
            "localization",
            "Localization and detection by MaLP",
            "" if psnr is None else f"Encrypted images keep a PSNR of {number(psnr)} dB.",
            [
                ("By the MaLP that tuning started with", localization_table(record)),
                ("Detection", detection_table(record)),
                ("By a fresh MaLP, trained against each tuned generator", localization_table(record, "localization_fresh")),
                ("Detection by a fresh MaLP", detection_table(record, "detection_fresh")),
            ],
            harder,
        ),
        Section("curves", "While training"),
        Section("seeds", "Seed by seed", tables=[("", seeds_table(record))]),
        Section("reading", "How to read this", items=reading(record)),
        Section("rule", "The rule of the verdict", record["verdict_rule"]),
    ]
    return [Section(s.key, s.title, s.text, [(caption, table) for caption, table in s.tables if not table.empty], s.items) for s in found]


def _multiple_candidates(record: Mapping[str, Any]) -> str:
    """How the rule corrects for several candidates; empty for one."""
    count = len(record["verdicts"])
    if count < 2:
        return ""
    return (
        f"{count} candidates were judged. So that luck doesn't make one of them look better, the intervals against the controls have a "
        f"confidence of {100 * record['verdict_confidence']:.3g} % here (Bonferroni) instead of the {percent(record['bootstrap']['confidence'])} of the tables below."
    )


def making(record: Mapping[str, Any]) -> Section:
    """Commands, versions and hashes."""
    environment = record["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in environment.items() if version is not None)
    return Section("making", "How it was made", f"Made with {versions}.", [("", hashes_table(record))])


def commands(record: Mapping[str, Any]) -> str:
    """What to type to get the run, and then the report, again."""
    made = (record["config"] or {}).get("command")
    again = "malp-disc report RUN     # this page, the tables and the figures again, from RUN's JSON lines"
    return f"{made}\n{again}" if made else again


def reading(record: Mapping[str, Any]) -> list[str]:
    """What each number protects against."""
    label, halves = label_of(record), record["anchors"]["halves"]["value"]
    kind = "" if label.endswith("FID") else f" It is not FID: only Inception's 2048 features give that, and {label} must not be compared with one."
    floor = (
        "" if halves is None else f" Even two halves of the real images are {number(halves)} apart; differences near that mean little."
    )
    return [
        f"{label} is how far the edited images are, as a set, from real ones in the eyes of one network. Lower is better.{kind}{floor}",
        "It grows as n shrinks, so compare only numbers of one n, extractor, resize and reference. “With n → ∞” follows the bias, which "
        "falls as 1/n, to its end.",
        "More training alone changes it, so the control counts, not the generator before. An interval that contains zero shows no "
        "difference.",
        "A generator that edits less scores lower: the unedited inputs show how low. Read it beside edit accuracy and mean abs(x - G(x)).",
        "Cosine similarity (CS) of maps is high even for a constant map; Pearson's correlation, 0 for one, tells methods apart. "
        "A lower score after fine-tuning says that this MaLP was fooled, not that the images are better; a fresh one tells more.",
    ]

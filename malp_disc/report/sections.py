"""The report's sections as text and tables, for the Markdown and the HTML rendering alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from malp_disc.report.cells import Table, label_of
from malp_disc.report.numbers import number, percent
from malp_disc.report.results import Record
from malp_disc.report.tables import (
    attributes_table,
    controls_table,
    described,
    detection_table,
    differences_table,
    edit_differences_table,
    edits_attributes,
    edits_table,
    hashes_table,
    leverage_table,
    localization_table,
    quality_table,
    seeds_table,
    spectrum_table,
    verdicts_table,
    views_table,
)
from malp_disc.run_folder.arms import PERFECT_EDIT


@dataclass(frozen=True)
class Section:
    """A heading with text, tables and a list; ``key`` decides which figures belong to it."""

    key: str
    title: str
    text: str = ""
    tables: Sequence[tuple[str, Table]] = ()  # (caption, table)
    items: Sequence[str] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing below the heading."""
        return not (self.text or self.tables or self.items)

    @property
    def findings_first(self) -> bool:
        """Whether the list stands before the tables on the page: it says what they mean."""
        return self.key == "localization"


def sections(record: Record) -> list[Section]:
    """All sections between the verdict with its cautions and `making`; tables in which nothing was measured are left out."""
    psnr = record.reference_points.encrypted_psnr
    harder = [f"{arm}: {finding}" for arm, finding in record.localization_findings.items()]
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
            "Texture or structure",
            "The same images at other sizes and through other feature extractors. A gain that is gone at half the size was fine texture; a gain "
            "that the others don't show may be specific to the first. If another trained extractor shows the opposite, or fine-tuning moved the first one's features "
            "much farther, relative to the second one's, than it did in the control, the generator was probably tuned on the first.",
            [
                ("Distances", views_table(record)),
                ("Differences", differences_table(record)),
                ("Overfitted to the extractor? Well above 1 where it was", leverage_table(record)),
                ("Power spectrum; Nyquist is that of patterns which alternate from pixel to pixel, where the figure averages over all directions", spectrum_table(record)),
            ],
        ),
        Section(
            "edits",
            "Edits",
            _edits_text(record),
            [
                ("", edits_table(record)),
                (_edit_differences_caption(record), edit_differences_table(record)),
                ("Edit accuracy by attribute", attributes_table(record)),
                ("Leakage by attribute", attributes_table(record, "leakage_per_attribute")),
            ],
        ),
        Section(
            "localization",
            "Localization and detection by MaLP",
            "" if psnr is None else f"Encrypted images have a PSNR of {number(psnr)} dB.",
            [
                ("By the MaLP that fine-tuning started with", localization_table(record)),
                ("Detection", detection_table(record)),
                ("By a MaLP trained from scratch against each fine-tuned generator", localization_table(record, "localization_fresh")),
                ("Detection by a MaLP trained from scratch", detection_table(record, "detection_fresh")),
            ],
            harder,
        ),
        Section("curves", "During training"),
        Section("seeds", "Seed by seed", tables=[("", seeds_table(record))]),
        Section("reading", "How to read this", items=reading(record)),
        Section("rule", "The rule of the verdict", record.verdict_rule),
    ]
    found = [replace(section, tables=[(caption, table) for caption, table in section.tables if not table.empty]) for section in found]
    return [replace(section, text="Not measured.") if section.key == "localization" and section.empty else section for section in found]


def _multiple_candidates(record: Record) -> str:
    """How the rule corrects for several candidates; empty for one."""
    count = len(record.verdicts)
    if count < 2:
        return ""
    return (
        f"{count} candidates are assessed. So that luck doesn't make one of them look better, the intervals against the controls have a "
        f"confidence of {100 * record.verdict_confidence:.3g} % here (Bonferroni) instead of the {percent(record.bootstrap.confidence)} of the tables below."
    )


def _edits_text(record: Record) -> str:
    """What the scores of edits mean; of attributes only where a classifier has read them."""
    less = "A generator that edits less is closer to real images, which is no gain"
    if all(measured.edit_accuracy is None and measured.leakage is None for measured in record.arms.values()):
        return f"{less}."
    return f"Measured by an independent classifier. {less}; leakage is the share of attributes that changed without being requested."


def _edit_differences_caption(record: Record) -> str:
    known = any(record.delta(arm, score=PERFECT_EDIT) is not None for arm in record.arms)
    return f"Differences of the same images{'; the perfect edits are drawn with the requested attributes' * known}"


_ENVIRONMENT = {"deterministic": "only deterministic kernels (any CPU run, or --deterministic)"}
"""Names of entries of environment.json that would be taken for a flag."""


def making(record: Record) -> Section:
    """Commands, versions and hashes."""
    environment = record.environment
    versions = ", ".join(f"{_ENVIRONMENT.get(name, name)} {version}" for name, version in environment.items() if version is not None)
    return Section("making", "How this was computed", f"Made with {versions}.", [("", hashes_table(record))])


def commands(record: Record) -> str:
    """The commands that reproduce the run and its report."""
    made = (record.config or {}).get("command")
    again = "malp-disc report RUN     # rebuilds this page, the tables and the figures from RUN's JSON lines"
    return f"{made}\n{again}" if made else again


def reading(record: Record) -> list[str]:
    """How to read the numbers, and what each protects against."""
    label, halves = label_of(record), record.reference_points.real_split.value
    kind = "" if label.endswith("FID") else f" It is not FID: only Inception's 2048 features give that, and {label} must not be compared with one."
    floor = (
        "" if halves is None else f" Even two halves of the real images have a distance of {number(halves)} (real-vs-real split); differences near that mean little."
    )
    return [
        f"{label} is the distance between the edited and the real images, as sets, in the features of one network. Lower is better.{kind}{floor}",
        "It grows as n shrinks, so compare only numbers of one n, extractor, resize and reference. “With n → ∞” is extrapolated: the bias "
        "falls as 1/n.",
        "More training alone changes it, so a gain is measured against the control; it must not be worse than before either. An interval that "
        "contains zero shows no difference.",
        "A generator that edits less scores lower: the unedited inputs show how low. Read it beside "
        f"{'edit accuracy and ' * edits_attributes(record)}mean abs(x - G(x)).",
        "Cosine similarity (CS) of maps is high even for a constant map; Pearson's correlation, 0 for one, tells methods apart. "
        "A lower score after fine-tuning means that this MaLP was fooled, not that the images are better; a MaLP trained from scratch shows more.",
    ]

"""The record as a page to read: the verdict first, then the numbers it rests on, then how to read them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from malp_disc.report.folder import ARMS
from malp_disc.report.numbers import MISSING, interval, number, percent, signed

FIGURES = {
    "comparison.png": "Every generator's distance from real pictures, and its difference from the control",
    "samples.png": "The same inputs through every generator",
    "fakeness.png": "What changed (M_GT), and what MaLP says changed",
    "curves.png": "While training",
}
_NONE = "–"
_ANCHORS = {"unedited": "*the unedited inputs*", "halves": "*two halves of the reference*"}


def render_markdown(record: Mapping[str, Any], *, figures: Sequence[str] = ()) -> str:
    """A record of `build_record` as Markdown.

    Args:
        figures: file names out of `FIGURES` that lie beside the page; the others are not shown.
    """
    shown = {name: f"![{text}]({name})\n\n*{text}.*" if name in figures else "" for name, text in FIGURES.items()}
    parts = [
        "# Before, control, after",
        f"**{record['verdict']}**",
        *(f"> Caution: {note}." for note in record["notes"]),
        shown["comparison.png"],
        shown["samples.png"],
        "## Quality",
        _quality(record),
        _described(record),
        "## Localization and detection by MaLP",
        _localization(record),
        _detection(record),
        shown["fakeness.png"],
        *_attributes(record),
        shown["curves.png"],
        "## How to read this",
        _reading(record),
        "## How it was made",
        _making(record),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _quality(record: Mapping[str, Any]) -> str:
    label = label_of(record)
    confidence = percent(record["bootstrap"]["confidence"])
    header = ["generator", f"{label} ↓", f"minus control ({confidence} interval)", f"minus before ({confidence} interval)", "KID ↓ (± over subsets)",
              "edit accuracy ↑", "others kept ↑", "mean abs(x - G(x))", "n", "steps", "seconds"]  # fmt: skip
    rows = []
    for arm, measured in record["arms"].items():
        deltas = record["comparison"].get(arm, {})
        kid = measured["kid"]
        rows.append([
            arm, _plain(measured["frechet"]["value"]), _delta(deltas.get("delta_vs_control")), _delta(deltas.get("delta_vs_before")),
            _plain(kid["value"]) + (f" ± {number(kid['std'])}" if kid["std"] is not None else ""),
            *(_plain(measured[key]) for key in ("edit_accuracy", "kept_accuracy", "identity_l1")),
            _plain(measured["frechet"]["n"]), _plain(measured["steps"]), _plain(measured["seconds"]),
        ])  # fmt: skip
    for name, words in _ANCHORS.items():
        anchor = record["anchors"][name]
        rows.append([words, _plain(anchor["value"]), *[""] * 6, _plain(anchor["n"]), "", ""])
    return _table(header, rows)


def _described(record: Mapping[str, Any]) -> str:
    """What the distances are: once if it is the same for all, else once per difference."""
    entries = {arm: measured["frechet"] for arm, measured in record["arms"].items()}
    entries |= {name: record["anchors"][name] for name in _ANCHORS}
    users: dict[str, list[str]] = {}
    for name, frechet in entries.items():
        if frechet["value"] is not None:
            text = f"{frechet['label']}, n = {number(frechet['n'])}: {frechet['extractor']}; resize: {frechet['resize']}; reference: {frechet['reference']}"
            users.setdefault(text, []).append({"unedited": "unedited inputs", "halves": "two halves"}.get(name, name))
    lines = [f"- {', '.join(names)}: {text}" for text, names in users.items()]
    lines += [f"- {arm}: {ARMS[arm]}" for arm in record["arms"]]
    boot = record["bootstrap"]
    lines.append(f"- intervals: paired bootstrap, {boot['resamples']} resamples, seed {boot['seed']}; pictures and reference are drawn anew together")
    return "\n".join(lines)


def _localization(record: Mapping[str, Any]) -> str:
    header = ["generator", "CS (Eq. 5)", "a constant map has", "CS (authors' code)", "a constant map has", "Pearson", "PSNR, dB", "SSIM"]
    keys = ("cs", "cs_constant", "cs_official", "cs_official_constant", "pearson", "psnr", "ssim")
    rows = [[arm, *(_plain(measured["localization"][key]) for key in keys)] for arm, measured in record["arms"].items()]
    rows = [row for row in rows if set(row[1:]) != {_NONE}]
    return _table(header, rows) if rows else "Not measured."


def _detection(record: Mapping[str, Any]) -> str:
    header = ["generator", "accuracy", "equal error rate", "AUC", "average precision"]
    keys = ("accuracy", "eer", "auc", "average_precision")
    rows = [[arm, *(_plain(measured["detection"][key]) for key in keys)] for arm, measured in record["arms"].items()]
    rows = [row for row in rows if set(row[1:]) != {_NONE}]
    psnr = record["anchors"]["encrypted_psnr"]
    text = "" if psnr is None else f"Encrypted pictures keep a PSNR of {number(psnr)} dB."
    return "\n\n".join(part for part in (_table(header, rows) if rows else "", text) if part)


def _attributes(record: Mapping[str, Any]) -> list[str]:
    arms = {arm: measured["edit_accuracy_per_attribute"] for arm, measured in record["arms"].items()}
    names = list(dict.fromkeys(name for scores in arms.values() for name in scores))
    if not names:
        return []
    rows = [[name, *(_plain(scores.get(name)) for scores in arms.values())] for name in names]
    return ["## Edit accuracy by attribute", _table(["attribute", *arms], rows)]


def _reading(record: Mapping[str, Any]) -> str:
    label, halves = label_of(record), record["anchors"]["halves"]["value"]
    kind = "" if label == "FID" else f" It is not FID: only Inception's 2048 features give that, and {label} must not be compared with one."
    floor = "" if halves is None else f" Even two halves of the real pictures are {number(halves)} apart; differences near that mean little."
    lines = [
        f"- {label} is how far the edited pictures are, as a set, from real ones in the eyes of one network. Lower is better.{kind}{floor}",
        "- It grows as n shrinks, so compare only numbers of one n, extractor, resize and reference.",
        "- More training alone changes it, so the control counts, not the generator before. An interval that contains zero shows no difference.",
        "- A generator that edits less scores lower: the unedited inputs show how low. Read it beside edit accuracy and mean abs(x - G(x)).",
        "- Cosine similarity (CS) of maps is high even for a constant map; Pearson's correlation, 0 for one, tells methods apart. "
        "A lower score after fine-tuning says that MaLP was fooled, not that the pictures are better.",
    ]
    return "\n".join(lines) + f"\n\nThe rule: {record['verdict_rule']}"


def _making(record: Mapping[str, Any]) -> str:
    config, environment = record["config"], record["environment"]
    parts = []
    if config and config.get("command"):
        parts.append(f"```\n{config['command']}\n```")
    versions = ", ".join(f"{name} {value}" for name, value in environment.items() if value is not None)
    parts.append(f"Made with {versions}.")
    if config:
        text = json.dumps(config, indent=2, ensure_ascii=False)
        parts.append(f"<details><summary>The resolved configuration</summary>\n\n```json\n{text}\n```\n\n</details>")
    parts.append("This page is made from `report.json`; `malp_disc.report.write_report(folder)` makes both again from this folder.")
    return "\n\n".join(parts)


def label_of(record: Mapping[str, Any]) -> str:
    """What the run's Frechet distance is called: FID for Inception's 2048 features only."""
    return next((m["frechet"]["label"] for m in record["arms"].values() if m["frechet"]["label"]), "Frechet distance")


def _delta(delta: Mapping[str, float] | None) -> str:
    return _NONE if delta is None else f"{signed(delta['value'])} ({interval(delta)})"


def _plain(value: float | None) -> str:
    return number(value, missing=_NONE)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column left and numbers right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    text = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return text + (f"\n\n{_NONE}: {MISSING}, or not defined." if any(_NONE in row for row in rows) else "")

"""Tables and figures of a probe from ``probe.jsonl``: robustness and generalization of trained MaLPs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from malp_disc.degradations import DEGRADATIONS
from malp_disc.plotting.line_panels import Line, Panel, interval_around, lines_figure
from malp_disc.report.cells import Table
from malp_disc.report.markdown import markdown_table
from malp_disc.report.seeds import mean_and_half_width
from recipes.research.ablation_report import cell, values_of

_COLUMNS: dict[str, tuple[tuple[str, str], int]] = {
    "CS (Eq. 5)": (("localization", "cs"), 3),
    "constant map": (("localization", "cs_constant"), 3),
    "Pearson": (("localization", "pearson"), 3),
    "mean map": (("localization", "pearson_mean_map"), 3),
    "AUC": (("detection", "auc"), 4),
    "accuracy": (("detection", "accuracy"), 3),
    "S_R encrypted": (("template", "encrypted"), 3),
    "S_R manipulated": (("template", "manipulated"), 3),
}
_TITLES = {
    "robustness": "Images degraded before MaLP",
    "files": "Published as files, then manipulated",
    "generators": "Other generators",
    "attributes": "One attribute at a time",
    "resolution": "Twice the size",
    "scale": "Predicted and true map blurred alike; ceiling: blurred against unblurred true map",
    "leak": "What averaging N encrypted images recovers of the template: |cosine|, mean over seeds",
}
_SCALE_COLUMNS: dict[str, tuple[tuple[str, str], int]] = {
    "Pearson at this scale": (("scale", "pearson"), 3),
    "ceiling": (("scale", "ceiling"), 3),
}
_MEASURES = {"Pearson of the map": ("localization", "pearson"), "CS (Eq. 5)": ("localization", "cs"), "detection AUC": ("detection", "auc")}
Lines = Sequence[Mapping[str, Any]]


def probe_tables(lines: Lines) -> str:
    """The results as Markdown, one table per part; mean over seeds ± half the 95 % interval (Student's t)."""
    parts = [part for part in _TITLES if any(line["part"] == part for line in lines)]
    tables = {part: (_leak_table if part == "leak" else _table)(_of(lines, part=part)) for part in parts}
    return "\n".join(text for part in parts for text in ["", f"**{_TITLES[part]}**", "", tables[part]]) + "\n"


def robustness_figure(lines: Lines, path: str | Path) -> None:
    """Figure 5: rows CS, Pearson, AUC; a column per degradation; a line per method. Nothing is drawn if the part wasn't run."""
    lines = _of(lines, part="robustness")
    if not lines:
        return
    rows = []
    for label, where in _MEASURES.items():
        row = []
        for kind, degradation in DEGRADATIONS.items():
            own = _of(lines, kind=kind)
            curves = {name: _line(_of(own, name=name), degradation.names, *where) for name in _names(own)}
            if where[1] == "cs":
                curves["constant map"] = _line(
                    _of(own, name=_names(own)[0]), degradation.names, "localization", "cs_constant", baseline=True
                )
            row.append(Panel(degradation.names, curves, degradation.label, label))
        rows.append(row)
    lines_figure(rows, path)


def leak_figure(lines: Lines, path: str | Path) -> None:
    """|Cosine| of the attackers' estimates with the template over the number of images; a panel per method and way of adding the template."""
    lines = _of(lines, part="leak")
    if not lines:
        return
    rows = []
    for way in dict.fromkeys(line["case"] for line in lines):
        row = []
        for name in _names(lines):
            own = _of(lines, case=way, name=name)
            counts = sorted({line["images"] for line in own})
            curves = {
                attacker: _leak_line(_of(own, attacker=attacker), counts, "cosine")
                for attacker in dict.fromkeys(line["attacker"] for line in own)
            }
            if own:
                curves["chance"] = _leak_line(_of(own, attacker=own[-1]["attacker"]), counts, "chance", baseline=True)
            row.append(
                Panel(counts, curves, "encrypted images", "|cosine| with the template", f"{name}: {way}", log_x=True, y_limits=(0, 1))
                if own
                else None
            )
        rows.append(row)
    lines_figure(rows, path)


def _table(lines: Lines) -> str:
    columns = _SCALE_COLUMNS if lines[0]["part"] == "scale" else _COLUMNS
    rows = []
    for case in dict.fromkeys((line.get("kind"), line["case"]) for line in lines):
        for name in _names(lines):
            own = [line for line in lines if (line.get("kind"), line["case"]) == case and line["name"] == name]
            if own:
                cells = [cell(values_of(own, *where), decimals) for where, decimals in columns.values()]
                rows.append([" ".join(filter(None, case)), name, str(own[0]["n"]), str(len(own)), *cells])
    return markdown_table(Table(["", "", "n", "seeds", *columns], rows), left=(0, 1))


def _leak_table(lines: Lines) -> str:
    counts = sorted({line["images"] for line in lines})
    rows = []
    for name, way, attacker in dict.fromkeys((line["name"], line["case"], line["attacker"]) for line in lines):
        own = _of(lines, name=name, case=way, attacker=attacker)
        cells = [cell([line["cosine"] for line in own if line["images"] == count], 2) for count in counts]
        rows.append([name, str(own[0]["set_size"]), way, attacker, *cells])
    header = ["", "templates", "added at a", "attacker", *(f"N = {count}" for count in counts)]
    return markdown_table(Table(header, rows), left=(0, 2, 3))


def _line(lines: Lines, cases: Sequence[str], part: str, name: str, *, baseline: bool = False) -> Line:
    pairs = [mean_and_half_width(values) if (values := values_of(_of(lines, case=case), part, name)) else (None, None) for case in cases]
    return Line([mean for mean, _ in pairs], None if baseline else [interval_around(*pair) for pair in pairs], baseline)


def _leak_line(lines: Lines, counts: Sequence[int], field: str, *, baseline: bool = False) -> Line:
    groups = [[line[field] for line in lines if line["images"] == count] for count in counts]
    return Line([sum(values) / len(values) if values else None for values in groups], baseline=baseline)


def _of(lines: Lines, **wanted: Any) -> list[Mapping[str, Any]]:
    return [line for line in lines if wanted.items() <= line.items()]


def _names(lines: Lines) -> list[str]:
    return list(dict.fromkeys(line["name"] for line in lines))

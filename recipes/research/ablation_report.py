"""The table of an ablation from the runs' JSON: one row per variant, mean over seeds with an interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from malp_disc.plotting.line_panels import Line, Panel, interval_around, lines_figure
from malp_disc.report.cells import NONE, Table
from malp_disc.report.markdown import markdown_table
from malp_disc.report.seeds import mean_and_half_width

COLUMNS: dict[str, tuple[tuple[str, str], int]] = {
    # heading: (where in a run's JSON, decimals)
    "CS (Eq. 5) ↑": (("localization", "cs"), 3),
    "constant map": (("localization", "cs_constant"), 3),
    "CS (authors' code)": (("localization", "cs_official"), 3),
    "constant map, theirs": (("localization", "cs_official_constant"), 3),
    "Pearson ↑": (("localization", "pearson"), 3),
    "mean map": (("localization", "pearson_mean_map"), 3),
    "PSNR ↑": (("localization", "psnr"), 1),
    "SSIM ↑": (("localization", "ssim"), 3),
    "accuracy ↑": (("detection", "accuracy"), 3),
    "EER ↓": (("detection", "eer"), 3),
    "AUC ↑": (("detection", "auc"), 4),
    "S_R encrypted ↑": (("template", "encrypted"), 3),
    "S_R manipulated": (("template", "manipulated"), 3),
    "between templates": (("template", "between"), 3),
    "encrypted PSNR, dB": (("encrypted_psnr", ""), 1),
}


def ablation_table(runs: Sequence[Mapping[str, Any]], rows: Mapping[str, tuple[str, str]]) -> str:
    """The results as Markdown, one table per group of rows.

    Args:
        runs: one per row and seed: ``row``, ``seed``, ``settings``, and the scores as `measure_malp` gives them.
        rows: group and text by row, in the order of the table; a row without a run is left out.

    Raises:
        ValueError: runs of different settings, whose scores don't compare.
    """
    settings = {tuple(sorted(run["settings"].items())) for run in runs}
    if len(settings) != 1:
        raise ValueError(f"expected runs of one setting, got {len(settings)}: {[dict(one) for one in settings][:2]}")
    what = dict(settings.pop())
    lines = [
        f"{what['data']}; {what['steps']} steps of {what['batch']} images, width {what['width']}; n = {what['n']} held-out images of either kind, 8-bit. "
        "Mean over seeds ± half the 95 % interval (Student's t).",
    ]
    for group in dict.fromkeys(group for group, _ in rows.values()):
        shown = [(text, [run for run in runs if run["row"] == name]) for name, (own, text) in rows.items() if own == group]
        shown = [(text, own) for text, own in shown if own]
        if not shown:
            continue
        cells = [
            [text, str(len(own)), *(cell(values_of(own, *where), decimals) for where, decimals in COLUMNS.values())] for text, own in shown
        ]
        lines += ["", f"**{group}**", "", markdown_table(Table(["", "seeds", *COLUMNS], cells))]
    return "\n".join(lines) + "\n"


def values_of(runs: Sequence[Mapping[str, Any]], part: str, name: str = "") -> list[float]:
    """One score of every run; none unless all have it, since a mean over some of a row's seeds wouldn't be what the row says."""
    found = [run.get(part) if not name else (run.get(part) or {}).get(name) for run in runs]
    return [] if any(value is None for value in found) else found


def strength_figure(runs: Sequence[Mapping[str, Any]], strengths: Mapping[str, float], path: str | Path) -> None:
    """Figure 6 b: localization scores and PSNR of the encrypted images over the template strength m, given by row."""
    percent = {name: 100 * m for name, m in strengths.items()}
    _sweep_figure(runs, percent, path, "m in %", "PSNR of encrypted images, dB", ("encrypted_psnr", ""))


def set_size_figure(runs: Sequence[Mapping[str, Any]], sizes: Mapping[str, int], path: str | Path) -> None:
    """Figure 6 a: localization scores and cosine similarity between templates over the size n of the template set, given by row."""
    _sweep_figure(runs, sizes, path, "templates in the set", "CS between templates", ("template", "between"))


def _sweep_figure(
    runs: Sequence[Mapping[str, Any]], values: Mapping[str, float], path: str | Path, x_label: str, third: str, where: tuple[str, str]
) -> None:
    """Three panels over one setting: Pearson, CS beside the constant map's, and a third score. Nothing is drawn from fewer than two values."""
    x, own = _ordered(runs, values)
    if len(x) < 2:
        return
    cosines = {"MaLP": _line(own, "localization", "cs"), "constant map": _line(own, "localization", "cs_constant", baseline=True)}
    pearson = {"MaLP": _line(own, "localization", "pearson"), "mean map": _line(own, "localization", "pearson_mean_map", baseline=True)}
    panels = [(pearson, "Pearson of the map"), (cosines, "CS (Eq. 5)"), ({"MaLP": _line(own, *where)}, third)]
    lines_figure([[Panel(x, lines, x_label, label) for lines, label in panels]], path)


def _ordered(runs: Sequence[Mapping[str, Any]], values: Mapping[str, float]) -> tuple[list[float], list[list[Mapping[str, Any]]]]:
    """The values that have runs in ascending order, and the runs of each."""
    groups = {value: [run for run in runs if run["row"] == name] for name, value in values.items()}
    x = sorted(value for value, own in groups.items() if own)
    return x, [groups[value] for value in x]


def _line(groups: Sequence[Sequence[Mapping[str, Any]]], part: str, name: str, *, baseline: bool = False) -> Line:
    found = [values_of(own, part, name) for own in groups]
    pairs = [mean_and_half_width(values) if values else (None, None) for values in found]
    return Line([mean for mean, _ in pairs], None if baseline else [interval_around(*pair) for pair in pairs], baseline)


def cell(values: Sequence[float], decimals: int) -> str:
    """Mean ± half-width as a table shows it; a dash without values."""
    if not values:
        return NONE
    mean, half = mean_and_half_width(values)
    return f"{mean:.{decimals}f}" + ("" if half is None else f" ± {half:.{decimals}f}")

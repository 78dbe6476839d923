"""The table of a search: one row per recipe, mean over seeds with an interval, and the difference from the control of the same seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from malp_disc.report.cells import NONE, Table
from malp_disc.report.markdown import markdown_table
from malp_disc.report.seeds import mean_and_half_width

COLUMNS: dict[str, tuple[tuple[str, ...], int]] = {
    # heading: (where in a run's JSON, decimals)
    "{second} ↓": (("second", "value"), 0),
    "at 1/2 size ↓": (("frechet_2x", "value"), 3),
    "fine texture": (("spectrum", "fine"), 2),
    "Nyquist": (("spectrum", "nyquist"), 2),
    "edit accuracy ↑": (("edit_accuracy",), 3),
    "leakage ↓": (("leakage",), 3),
    "same person ↑": (("identity", "value"), 3),
    "mean abs(x - G(x))": (("identity_l1",), 3),
    "MaLP: Pearson": (("localization", "pearson"), 3),
    "seconds": (("seconds",), 0),
}


def search_table(runs: Sequence[Mapping[str, Any]], rows: Mapping[str, tuple[str, str]]) -> str:
    """The results as Markdown, one table per group of rows.

    Args:
        runs: one per row and seed: ``row``, ``seed``, ``seconds`` and the scores as `measure_arm` gives them.
        rows: group and text by row, in the order of the table; a row without a run is left out. "control" is what the others are compared with.

    Raises:
        ValueError: no run of any row, or only diverged ones.
    """
    usable = [run for run in runs if not run.get("diverged")]
    if not any(run["row"] in rows for run in usable):
        raise ValueError("expected at least one measured run of the rows")
    first = usable[0]["frechet"]
    second = next((run["second"]["label"] for run in usable if run.get("second")), None)
    control = {run["seed"]: run for run in usable if run["row"] == "control"}
    shown = {name.format(second=second): at for name, at in COLUMNS.items() if any(_at(run, at[0]) is not None for run in usable)}
    lines = [
        f"{first['label']}, n = {first['n']} training images against {first['reference_n']} others. Mean over seeds ± half the 95 % interval "
        "(Student's t); differences from the control of the same seed."
    ]
    for group in dict.fromkeys(group for group, _ in rows.values()):
        own = [(text, [run for run in runs if run["row"] == name]) for name, (of, text) in rows.items() if of == group]
        own = [(text, found) for text, found in own if found]
        if not own:
            continue
        heads = ["", "seeds", f"{first['label']} ↓", "minus control", "relative", *shown]
        cells = []
        for text, found in own:
            if any(run.get("diverged") for run in found):
                cells.append([text, str(len(found)), "diverged", *[""] * (len(heads) - 3)])
                continue
            against = [(run["frechet"]["value"], control[run["seed"]]["frechet"]["value"]) for run in found if run["seed"] in control]
            if found[0]["row"] == "before" and control:  # one generator for all seeds
                against = [(found[0]["frechet"]["value"], run["frechet"]["value"]) for run in control.values()]
            row = [
                text,
                str(len(found)),
                _cell([run["frechet"]["value"] for run in found], 3),
                _cell([ours - theirs for ours, theirs in against], 3, sign=True),
                _cell([100 * (ours / theirs - 1) for ours, theirs in against], 1, sign=True, unit=" %"),
                *(_cell([_at(run, where) for run in found], decimals) for where, decimals in shown.values()),
            ]
            cells.append(row)
        lines += ["", f"**{group}**", "", markdown_table(Table(heads, cells))]
    return "\n".join(lines) + "\n"


def _at(run: Mapping[str, Any], where: Sequence[str]) -> float | None:
    value: Any = run
    for key in where:
        value = None if value is None else value.get(key)
    return value


def _cell(values: Sequence[float | None], decimals: int, *, sign: bool = False, unit: str = "") -> str:
    if not values or any(value is None for value in values):
        return NONE
    mean, half = mean_and_half_width(values)
    plus = "+" if sign else ""
    return f"{mean:{plus}.{decimals}f}{unit}" + (f" ± {half:.{decimals}f}" if half is not None else "")

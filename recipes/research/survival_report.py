"""Tables of docs/results/survival.md from the lines of recipes/evaluate_survival.py.

    python recipes/research/survival_report.py runs/survival-faces/survival.jsonl

prints Markdown. Every number is the mean over seeds, with the least (of AUC and F1) or the largest (of alarms and of what attackers reach) beside it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def main(path: str) -> None:
    lines = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    for part, names, columns in TABLES:
        rows = grouped([line for line in lines if line["part"] == part[0] and line.get("what", part[1]) == part[1]], names)
        if rows:
            print(f"\n**{part[2]}**\n\n| {' | '.join((*names, 'n', 'seeds', *columns))} |\n|{'---|' * len(names)}{'---:|' * (len(columns) + 2)}")
            for key, of_seeds in rows.items():
                cells = (str(sum(line.get("n", 0) for line in of_seeds) or "–"), str(len({line["seed"] for line in of_seeds})))
                print(f"| {' | '.join((*map(str, key), *cells, *(cell(of_seeds, column) for column in columns)))} |")


TABLES: tuple[tuple[tuple[str, str, str], tuple[str, ...], tuple[str, ...]], ...] = (
    (("fidelity", "", "Fidelity"), ("reference",), ("psnr", "psnr_least")),
    (("detection", "", "Detection"), ("condition", "when"), ("auc", "found", "gone", "resembling", "alarms", "auc_presence", "present", "claimed")),
    (("local", "", "Local edits"), ("edit", "degradation"), ("f1", "iou", "auc", "f1_all", "f1_random")),
    (("generated", "", "Fakeness map of the generator's edits"), ("degradation",), ("cs", "cs_constant", "pearson")),
    (("alarms", "", "False alarms, images"), ("part",), ("alarms", "lost", "claimed")),
    (("attacks", "forging", "Forging"), ("attacker", "images"), ("cosine", "presence", "claimed", "forged")),
    (("attacks", "hiding", "Hidden edits"), ("copied",), ("f1", "auc")),
    (("faint", "", "Faint edits"), ("edit",), ("f1", "untouched")),
    (("whole", "", "Changes of the whole image"), ("change",), ("kept", "manipulated", "gone", "resembling", "f1")),
)
"""(part, what, title), the columns that name a row, the measured ones."""
_WORST_IS_LARGE = ("alarms", "manipulated", "claimed", "lost", "gone", "cosine", "presence", "forged", "untouched")


def grouped(lines: Sequence[Line], names: Sequence[str]) -> dict[tuple[Any, ...], list[Line]]:
    """The lines of all seeds by the values of `names`, in their first order."""
    found: dict[tuple[Any, ...], list[Line]] = {}
    for line in lines:
        found.setdefault(tuple(line.get(name, "") for name in names), []).append(line)
    return found


def cell(lines: Sequence[Line], column: str) -> str:
    """Mean over the seeds, and the worst of them in brackets; – where nothing was measured."""
    values = [line[column] for line in lines if isinstance(line.get(column), (int, float))]
    if not values:
        return "–"
    worst = max(values) if column in _WORST_IS_LARGE else min(values)
    digits = 1 if column.startswith("psnr") else 3
    if all(isinstance(value, int) for value in values):
        return f"{sum(values)}"
    return f"{sum(values) / len(values):.{digits}f} ({worst:.{digits}f})"


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv):
        sys.exit(print(__doc__))
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(f"error: expected one file of JSON lines, got {' '.join(sys.argv[1:]) or 'nothing'}; see python {sys.argv[0]} --help")
    main(sys.argv[1])

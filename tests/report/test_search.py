"""The table of a search: means, pairs by seed, and what it leaves out."""

from __future__ import annotations

import pytest

from malp_disc.serialization.files import write_json
from recipes.research.search_finetuning import report
from recipes.research.search_report import search_table

ROWS = {
    "before": ("As it came", "before"),
    "control": ("Without", "control"),
    "fast": ("With", "cotrain: fast"),
    "slow": ("With", "cotrain: slow"),
}


def run(row: str, seed: int, value: float, **more) -> dict:
    frechet = {"label": "FID-768", "value": value, "n": 500, "reference_n": 1500}
    return {"row": row, "seed": seed, "seconds": 10, "frechet": frechet, "second": {"label": "FD-SqueezeNet", "value": 100 * value},
            "spectrum": {"fine": 0.5, "nyquist": 2.0}, "edit_accuracy": 0.3, "identity_l1": 0.1, **more}  # fmt: skip


def line(table: str, text: str) -> list[str]:
    (found,) = [row for row in table.splitlines() if row.startswith(f"| {text} |")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_differences_are_taken_seed_by_seed():
    runs = [run("before", 0, 3.5), run("control", 0, 4.0), run("control", 1, 5.0), run("fast", 0, 3.0), run("fast", 1, 4.0)]
    table = search_table(runs, ROWS)
    fast, control, before = (line(table, text) for text in ("cotrain: fast", "control", "before"))
    assert fast[1:4] == ["2", "3.500 ± 6.353", "-1.000 ± 0.000"], "Student's t of 3 and 4; both seeds are one below their control"
    assert fast[4].startswith("-22.5 %"), "the mean of -25 % and -20 %"
    assert control[3:5] == ["+0.000 ± 0.000", "+0.0 % ± 0.0"]
    assert before[3].startswith("-1.000"), "one generator before, against the control of every seed"
    assert "FD-SqueezeNet" in table and "same person" not in table, "columns that no run has are left out"
    assert "slow" not in table


def test_a_row_that_diverged_says_so_and_a_seed_without_control_has_no_difference():
    runs = [run("control", 0, 4.0), {"row": "fast", "seed": 0, "seconds": 1, "diverged": True}, run("slow", 3, 3.0)]
    table = search_table(runs, ROWS)
    assert line(table, "cotrain: fast")[2] == "diverged"
    assert len(line(table, "cotrain: fast")) == len(line(table, "cotrain: slow")), "as many cells as the others"
    assert line(table, "cotrain: slow")[2:5] == ["3.000", "–", "–"]


def test_a_file_that_another_command_is_writing_is_no_run(tmp_path):
    """Commands may share a folder, and a killed one leaves such a file."""
    write_json(tmp_path / "runs" / "control-0.json", run("control", 0, 4.0))
    (tmp_path / "runs" / ".cotrain-0.json.abcdefgh.partial.json").write_text("")
    assert "| control | 1 |" in report(tmp_path)


def test_nothing_measured_is_an_error():
    with pytest.raises(ValueError, match="at least one measured run"):
        search_table([{"row": "fast", "seed": 0, "diverged": True}], ROWS)

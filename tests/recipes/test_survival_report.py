"""Tables of the survival measurements: means over seeds with the worst, sums of counts."""

from __future__ import annotations

import json

from recipes.research.survival_report import cell, main


def test_cells_have_the_mean_and_the_worst_seed():
    assert cell([{"auc": 1.0}, {"auc": 0.9}], "auc") == "0.950 (0.900)"
    assert cell([{"claimed": 0.0}, {"claimed": 0.1}], "claimed") == "0.050 (0.100)"
    assert cell([{"alarms": 2}, {"alarms": 3}], "alarms") == "5"
    assert cell([{}], "auc") == "–"


def test_a_table_for_each_part_that_was_measured(tmp_path, capsys):
    lines = [{"part": "local", "seed": seed, "edit": "splice", "degradation": "none", "n": 8, "f1": 0.8 + seed / 10} for seed in range(2)]
    (tmp_path / "survival.jsonl").write_text("\n".join(map(json.dumps, lines)))
    main(str(tmp_path / "survival.jsonl"))
    printed = capsys.readouterr().out
    assert "| splice | none | 16 | 2 | 0.850 (0.800) |" in printed
    assert "Detection" not in printed

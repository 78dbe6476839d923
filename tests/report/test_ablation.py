"""The ablation's table says what the runs' JSON says, with Student's interval over seeds."""

from __future__ import annotations

import pytest
from PIL import Image

from malp_disc.serialization.files import write_json
from recipes.research.ablate_malp import report
from recipes.research.ablation_report import ablation_table, mean_and_half_width, set_size_figure, strength_figure, values_of

ROWS = {
    "default": ("Parts", "MaLP, defaults"),
    "passive": ("Parts", "no template"),
    "set-3": ("Sets", "3 templates"),
    "absent": ("Absent", "never run"),
}
SETTINGS = {"steps": 400, "batch": 8, "n": 512, "data": "faces", "width": 16}


def run(row: str, seed: int, pearson: float, **more) -> dict:
    localization = {
        "cs": 0.8,
        "cs_constant": 0.6,
        "cs_official": 0.7,
        "cs_official_constant": 0.9,
        "pearson": pearson,
        "pearson_mean_map": 0.2,
        "psnr": 22.0,
        "ssim": 0.5,
    }
    detection = {"accuracy": 1.0, "eer": 0.0, "auc": 1.0}
    return {"row": row, "seed": seed, "settings": SETTINGS, "localization": localization, "detection": detection,
            "template": {"encrypted": 0.9, "manipulated": 0.0, "between": None}, "encrypted_psnr": 30.0, **more}  # fmt: skip


def test_students_interval_by_hand():
    """0.5, 0.6, 0.7: mean 0.6, deviation 0.1, t(0.975, 2) = 4.3027, so 4.3027 · 0.1 / √3."""
    mean, half = mean_and_half_width([0.5, 0.6, 0.7])
    assert mean == pytest.approx(0.6) and half == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-5)
    assert mean_and_half_width([0.5]) == (0.5, None)


def test_a_file_that_another_command_is_writing_is_no_run(tmp_path):
    """Commands may share a folder, and a killed one leaves such a file."""
    write_json(tmp_path / "runs" / "default-0.json", run("default", 0, 0.5))
    (tmp_path / "runs" / ".passive-0.json.abcdefgh.partial.json").write_text("")
    assert "| MaLP, defaults | 1 |" in report(tmp_path)


def test_a_line_per_row_with_the_mean_over_seeds_and_groups_in_order():
    runs = [
        run("default", 0, 0.5),
        run("default", 1, 0.6),
        run("default", 2, 0.7),
        run("passive", 0, 0.25, template=None, encrypted_psnr=None),
        run("set-3", 0, 0.4),
    ]
    lines = ablation_table(runs, ROWS).splitlines()
    default = next(line for line in lines if line.startswith("| MaLP, defaults"))
    assert "| 3 | 0.800 ± 0.000 | 0.600 ± 0.000 |" in default and "| 0.600 ± 0.248 |" in default
    passive = next(line for line in lines if line.startswith("| no template"))
    assert passive.split("|")[2].strip() == "1" and "0.250 |" in passive and passive.count("–") == 4
    assert [line for line in lines if line.startswith("**")] == ["**Parts**", "**Sets**"], "rows without a run are left out"
    assert "n = 512" in lines[0] and "400 steps of 8 images" in lines[0]


def test_a_score_that_one_seed_lacks_has_no_mean():
    """A seed whose score isn't defined must not drop out of a mean that stands beside the number of all seeds."""
    lacking = run("default", 1, 0.9) | {"localization": run("default", 1, 0.9)["localization"] | {"cs": None}}
    assert values_of([run("default", 0, 0.5), lacking], "localization", "pearson") == [0.5, 0.9]
    assert values_of([run("default", 0, 0.5), lacking], "localization", "cs") == []
    (row,) = [line for line in ablation_table([run("default", 0, 0.5), lacking], ROWS).splitlines() if line.startswith("| MaLP, defaults")]
    assert row.startswith("| MaLP, defaults | 2 | – | 0.600 ± 0.000 |")


def test_runs_of_different_settings_are_not_put_side_by_side():
    with pytest.raises(ValueError, match="runs of one setting, got 2"):
        ablation_table([run("default", 0, 0.5), run("passive", 0, 0.5, settings={**SETTINGS, "steps": 800})], ROWS)


def test_figures_appear_from_two_values_on(tmp_path):
    runs = [run("default", 0, 0.5), run("default", 1, 0.55), run("strength-10", 0, 0.3), run("set-3", 0, 0.4)]
    strength_figure(runs, {"default": 0.3, "strength-10": 0.1, "strength-20": 0.2}, tmp_path / "strength.png")
    set_size_figure(runs, {"default": 1, "set-3": 3}, tmp_path / "sets.png")
    assert Image.open(tmp_path / "strength.png").size[0] > 600 and Image.open(tmp_path / "sets.png").size[0] > 600
    strength_figure(runs[:2], {"default": 0.3, "strength-10": 0.1}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()

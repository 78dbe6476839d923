"""The probe's tables and figures are made from its lines alone."""

from __future__ import annotations

from PIL import Image

from malp_disc.degradations import DEGRADATIONS
from recipes.research.probe_report import leak_figure, probe_tables, robustness_figure


def scores(pearson: float) -> dict:
    return {"n": 64, "localization": {"cs": 0.8, "cs_constant": 0.6, "pearson": pearson, "pearson_mean_map": 0.2}, "detection": {"auc": 0.99, "accuracy": 0.9},
            "template": {"encrypted": 0.9, "manipulated": 0.1, "between": None}}  # fmt: skip


def line(part: str, case: str, *, name: str = "MaLP", seed: int = 0, **more) -> dict:
    return {"part": part, "name": name, "seed": seed, "case": case, **more}


def test_a_table_per_part_with_the_mean_over_seeds():
    lines = [line("files", "PNG", seed=seed, **scores(pearson)) for seed, pearson in ((0, 0.5), (1, 0.7))] + [
        line("files", "PNG", name="passive", **scores(0.3))
    ]
    lines += [line("generators", "cartoongan", **scores(0.2))]
    table = probe_tables(lines).splitlines()
    assert "**Published as files, then manipulated**" in table and "**Other generators**" in table
    assert "| PNG | MaLP | 64 | 2 | 0.800 ± 0.000 | 0.600 ± 0.000 | 0.600 ± 1.271 | 0.200 ± 0.000 | 0.9900 ± 0.0000 |" in "\n".join(table)
    assert "| PNG | passive | 64 | 1 | 0.800 | 0.600 | 0.300 |" in "\n".join(table)


def test_the_leak_has_a_column_per_number_of_images(tmp_path):
    lines = [
        line("leak", way, set_size=1, attacker="residuals", images=n, cosine=cosine, error=0.01, chance=0.02, groups=10)
        for way in ("fixed position", "random shift per image") for n, cosine in ((1, 0.2), (100, 0.83))
    ]  # fmt: skip
    table = probe_tables(lines)
    assert "| N = 1 | N = 100 |" in table and "| MaLP | 1 | fixed position | residuals | 0.20 | 0.83 |" in table
    leak_figure(lines, tmp_path / "leak.png")
    assert Image.open(tmp_path / "leak.png").size[1] > 400


def test_robustness_has_a_panel_per_degradation_and_measure(tmp_path):
    lines = [
        line("robustness", level, name=name, seed=seed, kind=kind, **scores(0.5 - 0.05 * i))
        for kind, degradation in DEGRADATIONS.items() for i, level in enumerate(degradation.names) for name in ("MaLP", "passive") for seed in (0, 1)
    ]  # fmt: skip
    robustness_figure(lines, tmp_path / "robustness.png")
    assert Image.open(tmp_path / "robustness.png").size[0] > 1000
    robustness_figure([], tmp_path / "none.png")
    leak_figure([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists(), "nothing is drawn of what wasn't run"

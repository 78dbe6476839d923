"""Measure StarGAN checkpoints side by side, without training: the report of a run for generators that exist already.

    python recipes/evaluate.py                                                               # the shipped generator on the embedded faces
    python recipes/evaluate.py --before 200000-G.ckpt --control runs/celeba/G-control.safetensors --cotrain runs/celeba/G-cotrain.safetensors \\
        --malp runs/celeba/malp --data celeba --data-root /data/celeba --image-size 128 --output-dir runs/celeba-evaluated

All of them edit the same held-back pictures in the same way. ``<output-dir>/report.md`` has the tables, ``report.json`` the same for programs.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from generators import create_generator
from malp_disc import MaLP
from malp_disc.data import DataOptions, build_dataset
from malp_disc.report import write_report
from recipes.judging import JudgeOptions, check_same_attributes, make_bench, make_judges
from recipes.shared import FACES_GENERATOR, FACES_MALP, claim_folder, describe_run, run_recipe


@dataclass(kw_only=True)
class Config(JudgeOptions, DataOptions):
    output_dir: Path = Path("runs/evaluate")
    """Folder of the report."""
    before: Path | None = None
    """The generator everything is compared with; the shipped one if not given."""
    control: Path | None = None
    frozen: Path | None = None
    cotrain: Path | None = None
    """Fine-tuned generators, as finetune_stargan.py writes them."""
    malp: Path | None = None
    """MaLP that localizes the changes; the shipped one on drawn faces. Without one on real pictures, localization isn't measured."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"


def main(config: Config) -> None:
    device = torch.device(config.device)
    claim_folder(config.output_dir)
    held_out = build_dataset(config, "test")
    paths = {"before": config.before or FACES_GENERATOR, "control": config.control, "frozen": config.frozen, "cotrain": config.cotrain}
    generators = {}
    for arm, path in paths.items():
        if path is not None:
            generators[arm] = create_generator("stargan", path).to(device).eval().requires_grad_(False)
            check_same_attributes(held_out, generators[arm].c_dim, str(path))
    given = config.malp or (FACES_MALP if config.data == "faces" else None)
    malp = MaLP.from_pretrained(given).to(device).eval().requires_grad_(False) if given is not None else None
    judges = make_judges(config, config, held_out.attribute_names, device)

    describe_run(config.output_dir, config)
    bench = make_bench(config, config, judges, malp, config.output_dir, device)
    bench.measure_anchors()
    for arm, generator in generators.items():
        bench.measure(arm, generator.manipulate)
    bench.draw({arm: generator.manipulate for arm, generator in generators.items()})
    record = write_report(config.output_dir)
    print(f"{record['verdict']}\nreport: {config.output_dir / 'report.md'}, pictures: {config.output_dir / 'samples.png'}")


if __name__ == "__main__":
    run_recipe(main, Config, __doc__)

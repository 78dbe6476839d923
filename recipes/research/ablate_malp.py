"""Ablations of MaLP: every variant of the paper's Tables 8 and 9 and Figure 6, and of our own choices, trained and evaluated alike.

    python recipes/research/ablate_malp.py                                            # drawn faces and the shipped StarGAN, 25 variants, three seeds
    python recipes/research/ablate_malp.py --rows default passive --max-train-steps 3000
    python recipes/research/ablate_malp.py --generator-checkpoint 200000-G.ckpt --data celeba --data-root /data/celeba --image-size 128 --malp-width 64 …

Each variant and seed is a short run whose scores are written to ``runs/<row>-<seed>.json``. Finished runs aren't repeated, so an interrupted
ablation continues, and several commands with other --rows or --seeds may share a folder. ``table.md`` and the figures are made from these
files: mean over seeds ± half the 95 % interval (Student's t).
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import Dataset

from malp_disc.commands.pretrain import Config as PretrainConfig
from malp_disc.data import build_dataset
from malp_disc.evaluation.eval_set import EvalSet
from malp_disc.evaluation.localize import malp_gallery, measure_malp
from malp_disc.generator_source import load_generator
from malp_disc.losses import LossWeights
from malp_disc.plotting.image_grids import fakeness_grid
from malp_disc.run_folder.experiment import evaluation, work
from malp_disc.run_folder.lock import lock_folder
from malp_disc.serialization.files import sweep, write_json, write_text
from malp_disc.serialization.reading import read_json
from malp_disc.serialization.state_dicts import fingerprint
from malp_disc.serialization.typed_json import to_json
from malp_disc.target_kind import exclusive_names
from malp_disc.training.generator_contract import check_contract
from malp_disc.training.launch import check_seeds, claim_folder, run_recipe, start
from malp_disc.training.pretrain import pretrain
from malp_disc.training.pretrain_options import MaLPOptions, build_malp, check_learned_templates, check_options
from recipes.research.ablation_report import ablation_table, set_size_figure, strength_figure
from recipes.research.ablation_rows import ROWS, Row


@dataclass(kw_only=True)
class Config(PretrainConfig):
    """Options of the ablation: those of the pretraining, for any generator, and the variants."""

    output_dir: Path = Path("runs/ablation")
    rows: tuple[str, ...] = work(tuple(ROWS))
    """Which variants (recipes/research/ablation_rows.py names them)."""
    seeds: tuple[int, ...] = work((0, 1, 2))
    """Seeds of the initial weights, the order of the images and the noise; one run each."""
    max_train_steps: int = 400
    """Number of steps of every run."""
    eval_size: int = evaluation(512)
    """Number of held-out images for evaluation."""
    log_steps: int = 50


def main(config: Config) -> None:
    if unknown := sorted(set(config.rows) - set(ROWS)):
        raise ValueError(f"unknown rows {unknown}; choose from {list(ROWS)}")
    check_learned_templates(config, "the rows are variants of the paper's MaLP with learned templates")
    check_seeds(*config.seeds)
    dataset, held_out = build_dataset(config, "train"), build_dataset(config, "test")
    if min(config.eval_size, len(held_out)) < 2:
        raise ValueError(f"expected --eval-size of at least 2 held-out images, got {config.eval_size} of {len(held_out)} available")
    check_options(config, dataset)
    accelerator = start(config, dataset, shared_folder=True)
    if accelerator.num_processes > 1:
        raise ValueError("the runs are too short for several processes; start one command per GPU with other --rows and the same --output-dir")
    generator = load_generator(config, attributes=len(dataset.attribute_names))
    check_contract(generator, dataset, accelerator.device, source=config.generator_name, tell=accelerator.print)
    generator = generator.eval().requires_grad_(False).to(accelerator.device)
    inputs = EvalSet.take(held_out, config.eval_size, exclusive=exclusive_names(generator, held_out))
    for seed in config.seeds:  # all rows of one seed first, so that an interrupted ablation has complete columns
        for name in config.rows:
            run_row(name, ROWS[name], seed, generator, dataset, inputs, config, accelerator)
    print(report(config.output_dir))


def run_row(name: str, row: Row, seed: int, generator: nn.Module, dataset: Dataset, inputs: EvalSet, config: Config, accelerator: Accelerator) -> None:
    """Train one variant and write its scores, unless they exist already with the same settings."""
    path = config.output_dir / "runs" / f"{name}-{seed}.json"
    settings = {
        "steps": config.max_train_steps, "batch": config.images_per_step, "n": len(inputs.images), "image_size": config.image_size,
        "data": dataset.description, "generator": fingerprint(generator.state_dict()), "width": config.malp_width,
        "flags": " ".join(f"{flag.name}={getattr(config, flag.name)}" for flag in dataclasses.fields(MaLPOptions) if getattr(config, flag.name) != flag.default),
    }  # fmt: skip
    if path.exists():
        found = read_json(path, what="the scores of a finished run").get("settings", {})
        if found != settings:
            raise ValueError(f"{path} is of a run with other settings: {found}, now {settings}; choose another --output-dir")
        return
    folder = config.output_dir / "training" / f"{name}-{seed}"
    own = dataclasses.replace(config, **row.training, seed=seed, output_dir=folder)
    claim_folder(folder)
    lock_folder(folder)  # another command may use the same --output-dir for other rows
    sweep(folder)
    if config.resume_from_checkpoint is None:
        shutil.rmtree(folder / "malp-training", ignore_errors=True)  # of an interrupted command
    set_seed(seed)
    malp = build_malp(dataclasses.replace(own, **{f"malp_{key}": value for key, value in row.malp.items()}))
    if row.surgery is not None:
        row.surgery(malp)
    began = time.monotonic()
    malp = pretrain(malp.to(accelerator.device), generator, dataset, own, accelerator, dataclasses.replace(LossWeights(), **row.weights))
    seconds = round(time.monotonic() - began, 1)
    scores = measure_malp(generator.manipulate, inputs, malp, device=accelerator.device)
    if row.surgery is None:
        malp.save_pretrained(config.output_dir / "malp" / f"{name}-{seed}")
    if name == "default" and seed == config.seeds[0]:
        fakeness_grid(**malp_gallery(generator.manipulate, inputs, malp, device=accelerator.device), path=config.output_dir / "fakeness.png")
    write_json(path, {"row": name, "seed": seed, "settings": settings, "seconds": seconds, **to_json(scores)})
    shutil.rmtree(folder / "malp-training", ignore_errors=True)  # the scores are saved; keep the curves


def report(folder: Path) -> str:
    """Table and figures of all runs in the folder."""
    finished = sorted(path for path in (folder / "runs").glob("*.json") if not path.name.startswith("."))  # without what another command is writing now
    runs = [read_json(path, what="the scores of a finished run") for path in finished]
    write_text(folder / "results.jsonl", "".join(json.dumps(run) + "\n" for run in runs))
    table = ablation_table(runs, {name: (row.group, row.text) for name, row in ROWS.items()})
    write_text(folder / "table.md", table)
    strength_figure(runs, {name: row.malp.get("strength", 0.3) for name, row in ROWS.items() if name == "default" or name.startswith("strength-")}, folder / "strength.png")
    set_size_figure(runs, {name: row.malp.get("set_size", 1) for name, row in ROWS.items() if name == "default" or name.startswith("set-")}, folder / "set_size.png")
    return table


if __name__ == "__main__":
    run_recipe(main, Config, __doc__)

"""Search for the best way of fine-tuning against MaLP: many short runs, evaluated on training images; held-out images are for the report only.

    python recipes/research/search_finetuning.py --rows control cotrain pretraining-share --seeds 0 1                   # drawn faces and the included networks
    python recipes/research/search_finetuning.py --generator-checkpoint G.safetensors --discriminator-checkpoint D.safetensors --malp malp --data celeba … \\
        --rows vision-aided --backbone squeezenet1_0                                                          # another backbone

Each row (recipes/research/search_rows.py) and seed is one arm with its own flags, from the same networks on the same images. Its scores are written to
``runs/<row>-<seed>.json``. Finished runs aren't repeated, so an interrupted search continues, and several commands with other --rows or --seeds may share
a folder. ``table.md`` and ``results.jsonl`` are made from these files, ``samples/<row>-<seed>.png`` shows the same images for each.

The edited images (--eval-size) and the reference (--reference-size) are disjoint sets of training images; with --reference-root, the reference is the
target domain's training images. A row that is chosen here has to be evaluated again: finetune_stargan.py with its flags, on the held-out images, with
other seeds.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch.utils.data import Dataset

from malp_disc.commands.finetune import Config as FinetuneConfig
from malp_disc.commands.finetune import load_datasets, load_networks
from malp_disc.data.images import ImageFiles
from malp_disc.data.overlap import check_held_out
from malp_disc.data.part import Part
from malp_disc.data.references import WithReferences, known_attributes
from malp_disc.evaluation.eval_set import EvalSet
from malp_disc.evaluation.evaluation_models import make_evaluation_models
from malp_disc.evaluation.evaluator import finite
from malp_disc.evaluation.gallery import captions_of, rows_of
from malp_disc.evaluation.measure import measure_arm, measure_reference
from malp_disc.experiment.arms import arm_setup, load_given_malps
from malp_disc.experiment.run import make_malps
from malp_disc.plotting.image_grids import sample_grid
from malp_disc.run_folder.experiment import not_compared, training_settings, work
from malp_disc.run_folder.lock import lock_folder
from malp_disc.serialization.files import sweep, write_json, write_text
from malp_disc.serialization.reading import read_json
from malp_disc.serialization.state_dicts import fingerprint, save_tensors
from malp_disc.serialization.typed_json import to_json
from malp_disc.target_kind import exclusive_names
from malp_disc.training.finetune import FineTuning
from malp_disc.training.launch import claim_folder, run_recipe, start
from recipes.research.search_report import search_table
from recipes.research.search_rows import ROWS, Row


@dataclass(kw_only=True)
class Config(FinetuneConfig):
    output_dir: Path = Path("runs/search")
    rows: tuple[str, ...] = work(tuple(ROWS))
    """The rows to run (recipes/research/search_rows.py names them)."""
    eval_size: int = 500
    """Number of training images that every generator edits."""
    reference_size: int = 1500
    """Number of other training images, or of training images of --reference-root: the reference of the distances."""
    smaller_views: tuple[Literal[2, 4], ...] = ()
    eval_steps: int = 0
    log_steps: int = 50
    save_generators: bool = not_compared(False)
    """Save the generator of every row as ``G/<row>-<seed>.safetensors``."""

    def check_options_of_arms(self) -> None:
        """Nothing: several commands run the rows of one experiment, and all of them have to give the same flags."""


def main(config: Config) -> None:
    if unknown := sorted(set(config.rows) - set(ROWS)):
        raise ValueError(f"unknown rows {unknown}; choose from {list(ROWS)}")
    rows = {name: ROWS[name] for name in config.rows}
    config.arms = tuple(dict.fromkeys(row.arm for row in rows.values()))
    for row in rows.values():
        dataclasses.replace(config, **row.flags).check()
    if config.reference_split == "held-out":
        raise ValueError("--reference-split held-out: a search compares with training images, so that held-out ones choose nothing")
    dataset, _ = load_datasets(config)
    edited, compared_with = measured_images(dataset, config)
    if config.reference_root is not None:
        check_held_out(dataset.dataset.paths[: config.eval_size], compared_with.paths, (), config.reference_root, paired=config.paired)
    accelerator = start(config, dataset, shared_folder=True)
    if accelerator.num_processes > 1:
        raise ValueError("the runs are too short for several processes; start one command per GPU with other --rows and the same --output-dir")
    generator, own, malp = load_networks(config, dataset, accelerator.device, tell=accelerator.print)
    given = load_given_malps(config, malp)
    models = make_evaluation_models(config, dataset.attribute_names, accelerator.device)
    if config.dry_run:
        lines = [f"{name}: {row.text}" for name, row in rows.items()]
        accelerator.print("\n".join([f"{len(rows)} rows, seeds {' '.join(map(str, config.all_seeds))}, {config.max_train_steps} steps each", *lines]))
        return

    # Networks, images and reference that all rows share
    if None in given.values():
        claim_folder(config.output_dir / "malp")
        lock_folder(config.output_dir / "malp")
    malps = make_malps(dataclasses.replace(config, resume_from_checkpoint="latest"), generator, given, dataset, accelerator)
    models = dataclasses.replace(models, malp=malps.get("malp"))
    inputs = EvalSet.take(edited, config.eval_size, exclusive=exclusive_names(generator, dataset))
    kept = config.output_dir / "reference.npz"
    reference = measure_reference(compared_with, config.reference_size, models, device=accelerator.device, cache=kept)

    def score(name: str, row: Row | None, seed: int, settings: dict[str, Any]) -> None:
        """Train, evaluate and write one row of one seed, unless it exists. `row` is None for the generator before fine-tuning."""
        path = config.output_dir / "runs" / f"{name}-{seed}.json"
        if path.exists():
            check_same(path, settings)
            return
        began = time.perf_counter()
        tuned = generator
        if row is not None:
            flags = dataclasses.replace(config, **row.flags, seed=seed, output_dir=config.output_dir / "training" / f"{name}-{seed}")
            claim_folder(flags.output_dir)
            lock_folder(flags.output_dir)  # another command may use the same folder for other rows
            sweep(flags.output_dir)
            if config.resume_from_checkpoint is None:
                shutil.rmtree(flags.output_dir / "arms", ignore_errors=True)  # of an interrupted command
            tuned = FineTuning(row.arm, arm_setup(row.arm, malps, flags, attributes=known_attributes(dataset)), generator, own, dataset, flags, accelerator).run()
        seconds = round(time.perf_counter() - began, 1)
        measured, evidence = measure_arm(tuned.manipulate, inputs, reference, models, device=accelerator.device, label=f"measure {name}")
        shown = inputs.first(rows_of(inputs))
        if not measured.diverged:
            columns = {"real": shown.images, name: evidence.edited[: len(shown.images)]}
            sample_grid(columns, config.output_dir / "samples" / f"{name}-{seed}.png", captions=captions_of(shown))
        if config.save_generators:
            save_tensors(config.output_dir / "G" / f"{name}-{seed}.safetensors", tuned.state_dict())
        write_json(path, {"row": name, "seed": seed, "settings": settings, "seconds": seconds, **finite(to_json(measured, sparse=True))})
        if row is not None:
            shutil.rmtree(flags.output_dir / "arms", ignore_errors=True)  # the scores are saved; keep the curves

    # All rows of one seed first, so that an interrupted search has complete columns
    common = {"n": len(inputs.images), "reference": reference.sha256, "generator": fingerprint(generator.state_dict())}
    score("before", None, 0, common)
    for seed in config.all_seeds:
        for name, row in rows.items():
            settings = training_settings(dataclasses.replace(config, **row.flags, seed=seed), row.arm)
            score(name, row, seed, common | {"arm": row.arm, **settings})
    print(report(config.output_dir))


def measured_images(dataset: Dataset, config: Config) -> tuple[Dataset, Dataset]:
    """The training images that the generators edit, and those that the edits are compared with.

    Raises:
        ValueError: fewer images than --eval-size and --reference-size ask for.
    """
    if isinstance(dataset, WithReferences):
        images, references = dataset.dataset, sorted(set(dataset.references))
        sizes = {"image_size": images.image_size, "crop_size": images.crop_size}
        name = f"{config.reference_root.name}, the references of training"
        compared_with = ImageFiles(references, torch.zeros(len(references), 0), attribute_names=(), name=name, **sizes)
        needed = ((images, config.eval_size, "--eval-size"), (compared_with, config.reference_size, "--reference-size"))
        edited = Part(images, 0, config.eval_size)
    else:
        last = config.reference_size + config.eval_size
        needed = ((dataset, last, "--reference-size and --eval-size"),)
        edited, compared_with = Part(dataset, config.reference_size, last), dataset
    for images, count, flags in needed:
        if len(images) < count:
            raise ValueError(f"expected at least {count} training images for {flags}, got {len(images)}")
    return edited, compared_with


def check_same(path: Path, settings: dict[str, Any]) -> None:
    """Raise ValueError if an existing row was made with other flags, data or networks."""
    found, now = read_json(path, what="the scores of a finished run").get("settings", {}), json.loads(json.dumps(settings))
    differing = [
        f"{key} was {found.get(key)!r} and is {now.get(key)!r} now" for key in sorted({*found, *now}) if found.get(key) != now.get(key)
    ]
    if differing:
        raise ValueError(f"{path} is of a run with other settings: {'; '.join(differing)}; choose another --output-dir")


def report(folder: Path) -> str:
    """Table of all runs in the folder."""
    finished = sorted(path for path in (folder / "runs").glob("*.json") if not path.name.startswith("."))  # without what another command is writing now
    runs = [read_json(path, what="the scores of a finished run") for path in finished]
    write_text(folder / "results.jsonl", "".join(json.dumps(run) + "\n" for run in runs))
    table = search_table(
        runs, {"before": ("Before fine-tuning", "before"), **{name: (row.group, row.text) for name, row in ROWS.items()}}
    )
    write_text(folder / "table.md", table)
    return table


if __name__ == "__main__":
    run_recipe(main, Config, __doc__)

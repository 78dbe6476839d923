"""Run the arms of a fine-tuning one after the other, with every seed: tune, save, measure, and write the report."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from malp_disc import MaLP
from malp_disc.copying import copy_module
from malp_disc.evaluation.eval_set import EvalSet
from malp_disc.evaluation.evaluator import Evaluator, evaluation_sets, make_evaluation_models, make_evaluator
from malp_disc.evaluation.localize import score_clean
from malp_disc.experiment.arms import Arm, ArmOptions, given_malps, losses_of, setup_of
from malp_disc.experiment.plan import make_plan
from malp_disc.report import write_report
from malp_disc.run_folder.experiment import shared_hash, training_settings
from malp_disc.serialization.state_dicts import load_metadata, save_tensors
from malp_disc.training.checkpoints import check_space
from malp_disc.training.finetune import FineTuning
from malp_disc.training.options import run_subdirectory
from malp_disc.training.preflight import try_out
from malp_disc.training.pretrain import pretrain
from malp_disc.training.pretrain_options import build_malp

logger = logging.getLogger("malp_disc")
_LOOKED_AT = 64  # images
_BLIND = 0.9  # area under the ROC curve


def run_arms(
    config: ArmOptions,
    before: nn.Module,
    own: nn.Module | None,
    malp: MaLP | None,
    dataset: Dataset,
    accelerator: Accelerator,
    *,
    source: Path | None = None,
    reference: Dataset | None = None,
) -> None:
    """Fine-tune `before` in every arm with every seed, measure each, and write the report. What an earlier try finished isn't done again.

    Args:
        own: G's own losses (`malp_disc.generator_objective.GeneratorObjective`), or None.
        malp: pretrained, or None: it is pretrained first.
        source: the file of its weights, whose hash the report tells.
        reference: images that the generator's are compared with; the data set's own if None.
    """
    # All that can be known before work
    given = given_malps(config, malp)
    plan = make_plan(config, before, own, given["malp"], dataset, accelerator)
    accelerator.print("\n".join(plan.lines))
    check_space(config.output_dir, plan.disk)
    try_out(before, own, [malp for malp in given.values() if malp is not None], dataset, config, accelerator.device)
    models = make_evaluation_models(config, config, dataset.attribute_names, accelerator.device)
    sets = evaluation_sets(config, config, reference) if accelerator.is_main_process else None
    if config.dry_run:
        return

    malps = make_malps(config, before, given, dataset, accelerator)
    experiment = shared_hash(config, processes=accelerator.num_processes)
    evaluator = None
    if accelerator.is_main_process:
        evaluator = make_evaluator(config, config, models, malps["malp"], config.output_dir, accelerator.device, sets)
    if evaluator is not None and "cotrain" in config.arms and config.template_dropout:
        warn_if_blind(malps["malp"], before, evaluator.selection.first(_LOOKED_AT), accelerator.device)
    if evaluator is not None and not (config.resume_from_checkpoint and "before" in evaluator.measured()):
        evaluator.measure_anchors()
        evaluator.measure("before", before.manipulate, weights=source, steps=0, seconds=0.0, experiment=experiment)
    for seed in config.all_seeds:
        for arm in config.arms:
            run_arm(arm, dataclasses.replace(config, seed=seed), before, own, malps, dataset, accelerator, evaluator, experiment)
    if evaluator is not None:
        record = write_report(config.output_dir)
        print(
            f"{record['verdict']}\nreport: {config.output_dir / 'report.html'} (also report.md, report.json), images: {config.output_dir / 'samples.png'}"
        )
    accelerator.end_training()


def run_arm(
    arm: Arm,
    config: ArmOptions,
    before: nn.Module,
    own: nn.Module | None,
    malps: dict[str, MaLP],
    dataset: Dataset,
    accelerator: Accelerator,
    evaluator: Evaluator | None,
    experiment: str,
) -> None:
    """Fine-tune, save and measure one arm with ``config.seed``, unless an earlier try of this run did.

    Leaves ``G-<arm>.safetensors`` and, where MaLP was co-trained, ``cotrained/<arm>``, a folder for `MaLP.from_pretrained`.

    Args:
        evaluator: of the main process; None in the others.
        experiment: hash of what all arms share.
    """
    seed = config.seed
    result = config.output_dir / f"G-{arm}{f'-seed{seed}' * (seed != 0)}.safetensors"
    done = evaluator is not None and config.resume_from_checkpoint is not None and arm in evaluator.measured(seed=seed) and result.exists()
    if agreed(accelerator, done):
        check_settings(result, arm, config)
        return
    began = time.perf_counter()
    watching = {} if evaluator is None else {"quick_fid": partial(evaluator.quick_fid, arm, seed=seed), "sample_grid": partial(evaluator.grid, arm, seed=seed)}
    setup = setup_of(arm, malps, config)
    training = FineTuning(arm, setup, before, losses_of(arm, own, config), dataset, config, accelerator, **watching)
    tuned = training.run()
    seconds = round(time.perf_counter() - began, 1)
    if setup.trainable and accelerator.is_main_process:
        localizer_of(training.networks.malp.malp).save_pretrained(config.output_dir / "cotrained" / run_subdirectory(arm, seed))
    fresh = None
    if config.fresh_malp_steps:
        fresh = pretrained(f"fresh/{run_subdirectory(arm, seed)}", config, tuned, dataset, accelerator, steps=config.fresh_malp_steps)
    if evaluator is not None:
        about = json.dumps({"arm": arm, "attributes": list(dataset.attribute_names), "settings": training_settings(config, arm)})
        save_tensors(result, tuned.state_dict(), {"malp_disc": about})  # one entry: several are written in any order
        told = {"steps": config.max_train_steps, "seconds": seconds, "experiment": experiment}
        evaluator.measure(arm, tuned.manipulate, seed=seed, weights=result, fresh=fresh, **told)
    accelerator.wait_for_everyone()


def localizer_of(malp: MaLP) -> MaLP:
    """A co-trained MaLP as a complete one: it learned without the second branch E_T, and its configuration says so."""
    alone = MaLP(dataclasses.replace(malp.config, transformer=False))
    alone.load_state_dict(malp.state_dict())
    return alone.eval()


def warn_if_blind(malp: MaLP, before: nn.Module, inputs: EvalSet, device: torch.device) -> None:
    """Say so if MaLP can't tell images from edits where no template is, but shall judge such images."""
    found = score_clean(before.manipulate, inputs, malp, device=device)
    if found["auc"] < _BLIND:
        logger.warning(
            f"without templates this MaLP says nearly the same of images and of their edits (AUC {found['auc']:.2f}, mean of its maps {found['mean_real']:.3f} "
            f"and {found['mean_manipulated']:.3f}): the arm cotrain, which shows it clean images, starts from a judge that can't see. Pretrain one with "
            "--malp-template-dropout 0.5, or give --template-dropout 0"
        )


def check_settings(result: Path, arm: Arm, config: ArmOptions) -> None:
    """Raise ValueError if a finished arm was made with other flags than those of now: its numbers would stand beside others."""
    about = json.loads(load_metadata(result).get("malp_disc", "{}"))
    was, now = about.get("settings", {}), training_settings(config, arm)
    differing = [f"{name} was {was.get(name)!r} and is {value!r} now" for name, value in now.items() if was.get(name) != value]
    if differing:
        raise ValueError(f"{result} belongs to a run with other settings: {'; '.join(differing)}; choose another --output-dir")


def make_malps(
    config: ArmOptions, before: nn.Module, given: dict[str, MaLP | None], dataset: Dataset, accelerator: Accelerator
) -> dict[str, MaLP]:
    """The detectors of `given_malps`, those that are missing pretrained on the generator, or taken from an earlier try of this run."""
    made = {}
    for name, malp in given.items():
        if malp is None:
            settings = dataclasses.replace(config, malp_strength=0.0) if name == "passive" else config
            folder = "malp" if name == "malp" else f"malp-{name}"
            malp = pretrained(folder, settings, before, dataset, accelerator, steps=config.malp_pretrain_steps)
        made[name] = malp.to(accelerator.device).eval().requires_grad_(False)
    return made


def pretrained(name: str, config: ArmOptions, generator: nn.Module, dataset: Dataset, accelerator: Accelerator, *, steps: int) -> MaLP:
    """Pretrain a MaLP into ``<output-dir>/<name>``, unless an earlier try did."""
    generator = copy_module(generator).eval().requires_grad_(False)
    folder = config.output_dir / name
    if agreed(accelerator, config.resume_from_checkpoint is not None and (folder / "config.json").exists()):
        return MaLP.from_pretrained(folder)
    settings = dataclasses.replace(
        config, max_train_steps=steps, resume_from_checkpoint="latest" if config.resume_from_checkpoint else None
    )
    malp = pretrain(build_malp(config), generator, dataset, settings, accelerator, name=name)
    if accelerator.is_main_process:
        malp.save_pretrained(folder)
    accelerator.wait_for_everyone()
    return malp


def agreed(accelerator: Accelerator, found: bool) -> bool:
    """What the main process found, for all processes."""
    return bool(accelerator.gather(torch.tensor([int(found and accelerator.is_main_process)], device=accelerator.device)).max())

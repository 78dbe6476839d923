"""Run all arms and seeds of a fine-tuning: fine-tune, save, and measure each, then write the report."""

from __future__ import annotations

import dataclasses
import json
import logging
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from malp_disc import MaLP
from malp_disc.data.references import known_attributes
from malp_disc.discriminator import MaLPDiscriminator
from malp_disc.evaluation.eval_set import EvalSet
from malp_disc.evaluation.evaluation_models import make_evaluation_models
from malp_disc.evaluation.evaluator import Evaluator, evaluation_sets, make_evaluator
from malp_disc.evaluation.localize import score_unprotected
from malp_disc.evaluation.teachers import check_extractors, teachers_of, without_automatic_teacher
from malp_disc.experiment.arms import Arm, ArmOptions, arm_setup, load_given_malps
from malp_disc.experiment.plan import make_plan
from malp_disc.report import write_report
from malp_disc.run_folder.experiment import check_settings, shared_hash, training_settings
from malp_disc.runtime.copying import copy_module
from malp_disc.runtime.random_state import random_state_kept
from malp_disc.serialization.state_dicts import fingerprint, load_metadata, save_tensors
from malp_disc.serialization.typed_json import to_json
from malp_disc.target_kind import exclusive_names
from malp_disc.training.checkpoints import check_space
from malp_disc.training.finetune import FineTuning, make_discriminator
from malp_disc.training.options import run_subdirectory
from malp_disc.training.output_folder import check_start
from malp_disc.training.preflight import check_branch, check_forward_pass
from malp_disc.training.pretrain import pretrain
from malp_disc.training.pretrain_options import build_malp, check_options

logger = logging.getLogger("malp_disc")
_CHECKED_IMAGES = 64
_SEEN = "; discriminators saw these, a larger --test-size holds out others"
_INFORMATIVE_AUC = 0.9  # of unprotected images against their edits; a co-trained MaLP below it gives the generator little to learn from


def run_arms(
    config: ArmOptions,
    before: nn.Module,
    objective: nn.Module | None,
    malp: MaLP | None,
    dataset: Dataset,
    accelerator: Accelerator,
    *,
    source: Path | None = None,
    reference: Dataset | None = None,
) -> None:
    """Fine-tune `before` in every arm with every seed, measure each, and write the report. A resumed run skips what is finished.

    Args:
        before: the generator before fine-tuning; it isn't changed.
        objective: its own losses (`malp_disc.generator_objective.GeneratorObjective`), or None.
        malp: a pretrained MaLP, or None to pretrain one first.
        source: the file of the generator's weights, whose hash goes into the report.
        reference: images that the generator's are compared with; the data set's own if None.

    Raises:
        ValueError: invalid flags, networks that don't fit the data, or too little disk space, all before any training.
    """
    # Checks before any work
    check_start(config.output_dir, fingerprint(before.state_dict()), write=accelerator.is_main_process and not config.dry_run)
    given = load_given_malps(config, malp)
    config.check_options_have_effect(given, own_discriminator=objective is not None and any(p.requires_grad for p in objective.parameters()))
    if None in given.values() or config.fresh_malp_steps:
        check_options(config, dataset)
    plan = make_plan(config, before, objective, given.get("malp"), dataset, accelerator)
    accelerator.print("\n".join(plan.lines))
    check_space(config.output_dir, plan.disk)
    check_forward_pass(before, objective, [malp for malp in given.values() if malp is not None], dataset, config, accelerator.device)
    models = make_evaluation_models(config, dataset.attribute_names, accelerator.device)
    teachers = {}
    for arm in config.arms:
        disc = arm_discriminator(arm, given, config, known_attributes(dataset))
        teachers[arm] = teachers_of(disc, objective)
        if disc is not None:
            check_branch(disc, dataset, config, accelerator.device)
    models = without_automatic_teacher(models, config, teachers)
    check_extractors(models, teachers)
    sets = None
    if accelerator.is_main_process:
        sets = evaluation_sets(config, reference)
        print(f"measured   on {min(config.eval_size, len(sets.held_out))} held-out images, against {min(config.reference_size, len(sets.real))} of: {sets.real.description}{_SEEN * (' train split' in sets.real.description)}")
    if config.dry_run:
        return

    malps = make_malps(config, before, given, dataset, accelerator)
    evaluator = None
    if accelerator.is_main_process:
        evaluator = make_evaluator(config, models, malps.get("malp"), config.output_dir, accelerator.device, sets, exclusive=exclusive_names(before, dataset))
    recorded = evaluator.recorded_experiment() if evaluator is not None and config.resume_from_checkpoint else None
    experiment = shared_hash(config, processes=accelerator.num_processes, recorded=recorded)
    if evaluator is not None and {"cotrain", "joint"} & set(config.arms) and config.template_dropout:
        made = config.malp_template_dropout > 0 and given["malp"] is None  # by this run, with unprotected images
        warn_if_uninformative(malps["malp"], before, evaluator.selection.first(_CHECKED_IMAGES), accelerator.device, steps=config.malp_pretrain_steps if made else None)
    if evaluator is not None and config.resume_from_checkpoint and "before" in evaluator.measured():
        evaluator.check_same_images()
    elif evaluator is not None:
        evaluator.measure_reference_points()
        evaluator.measure("before", before.manipulate, weights=source, steps=0, seconds=0.0, experiment=experiment)
    for seed in config.all_seeds:
        for arm in config.arms:
            run_arm(arm, dataclasses.replace(config, seed=seed), before, objective, malps, dataset, accelerator, evaluator, experiment)
    if evaluator is not None:
        record = write_report(config.output_dir)
        print(
            f"{record.verdict}\nreport: {config.output_dir / 'report.html'} (also report.md, report.json), images: {config.output_dir / 'samples.png'}"
        )
    accelerator.end_training()


def run_arm(
    arm: Arm,
    config: ArmOptions,
    before: nn.Module,
    objective: nn.Module | None,
    malps: dict[str, MaLP],
    dataset: Dataset,
    accelerator: Accelerator,
    evaluator: Evaluator | None,
    experiment: str,
) -> None:
    """Fine-tune, save and measure one arm with ``config.seed``, unless the run that is resumed did.

    Writes ``G-<arm>.safetensors`` and, where MaLP was co-trained, ``cotrained/<arm>``, a folder for `MaLP.from_pretrained`.

    Args:
        evaluator: of the main process; None in the others.
        experiment: hash of the settings that all arms share.
    """
    seed = config.seed
    result = config.output_dir / f"G-{arm}{f'-seed{seed}' * (seed != 0)}.safetensors"
    done = evaluator is not None and config.resume_from_checkpoint is not None and arm in evaluator.measured(seed=seed) and result.exists()
    if decided_by_main_process(accelerator, done):
        check_finished(result, arm, config)
        return
    callbacks = {} if evaluator is None else {"quick_distance": partial(evaluator.quick_distance, arm, seed=seed), "sample_grid": partial(evaluator.grid, arm, seed=seed)}
    setup = arm_setup(arm, malps, config, attributes=known_attributes(dataset))
    training = FineTuning(arm, setup, before, objective, dataset, config, accelerator, **callbacks)
    teachers = teachers_of(training.networks.malp, objective)
    tuned, seconds = training.run(), training.clock.seconds
    if setup.trainable and accelerator.is_main_process:
        training.networks.malp.malp.eval().save_pretrained(config.output_dir / "cotrained" / run_subdirectory(arm, seed))
    fresh = None
    if config.fresh_malp_steps:
        fresh = pretrained(f"fresh/{run_subdirectory(arm, seed)}", config, tuned, dataset, accelerator, steps=config.fresh_malp_steps)
    if evaluator is not None:
        metadata = json.dumps({"arm": arm, "attributes": list(dataset.attribute_names), "settings": training_settings(config, arm), "teachers": to_json(teachers)})
        save_tensors(result, tuned.state_dict(), {"malp_disc": metadata})  # a single entry: safetensors doesn't keep the order of several
        details = {"steps": config.max_train_steps, "seconds": seconds, "skipped": training.guard.skipped, "experiment": experiment, "teachers": teachers}
        evaluator.measure(arm, tuned.manipulate, seed=seed, weights=result, fresh=fresh, **details)
    accelerator.wait_for_everyone()


def arm_discriminator(arm: Arm, malps: dict[str, MaLP | None], config: ArmOptions, attributes: int) -> MaLPDiscriminator | None:
    """The discriminator that an arm starts with, or None; for a MaLP that has yet to be pretrained, one of its configuration with random weights."""
    known = {name: malp if malp is not None else build_malp(config) for name, malp in malps.items()}
    setup = arm_setup(arm, known, config, attributes=attributes)
    return make_discriminator(setup, config) if setup.malp is not None else None


def warn_if_uninformative(malp: MaLP, before: nn.Module, inputs: EvalSet, device: torch.device, *, steps: int | None = None) -> None:
    """Log a warning if MaLP can't tell unprotected images from their edits, although it will be co-trained on such images.

    Args:
        steps: number of steps that this run pretrained MaLP for, with unprotected images among its own; None for any other MaLP.
    """
    scores = score_unprotected(before.manipulate, inputs, malp, device=device)
    if scores["auc"] < _INFORMATIVE_AUC:
        better = "Pretrain one with --malp-template-dropout 0.5" if steps is None else f"Give more --malp-pretrain-steps than {steps}"
        logger.warning(
            f"without templates, this MaLP scores images and their edits nearly alike (AUC {scores['auc']:.2f}, mean of its maps {scores['mean_real']:.3f} "
            f"and {scores['mean_manipulated']:.3f}), so in the arms cotrain and joint, which use unprotected images, the generator learns little from its CNN. {better}, "
            "or give --template-dropout 0"
        )


def check_finished(result: Path, arm: Arm, config: ArmOptions) -> None:
    """Raise ValueError if a finished arm was made with other settings than the current ones, so that one report never mixes both."""
    metadata = json.loads(load_metadata(result).get("malp_disc", "{}"))
    check_settings(result, metadata.get("settings", {}), training_settings(config, arm), advice="; choose another --output-dir")


def make_malps(
    config: ArmOptions, before: nn.Module, given: dict[str, MaLP | None], dataset: Dataset, accelerator: Accelerator
) -> dict[str, MaLP]:
    """The MaLPs of `load_given_malps`, with those that are missing pretrained on the generator, or loaded if the run that is resumed did that."""
    made = {}
    for name, malp in given.items():
        if malp is None:
            settings = dataclasses.replace(config, malp_strength=0.0) if name == "passive" else config
            folder = "malp" if name == "malp" else f"malp-{name}"
            malp = pretrained(folder, settings, before, dataset, accelerator, steps=config.malp_pretrain_steps)
        made[name] = malp.to(accelerator.device).eval().requires_grad_(False)
    return made


def pretrained(name: str, config: ArmOptions, generator: nn.Module, dataset: Dataset, accelerator: Accelerator, *, steps: int) -> MaLP:
    """Pretrain a MaLP into ``<output-dir>/<name>``, or load it if the run that is resumed finished it."""
    generator = copy_module(generator).eval().requires_grad_(False)
    folder = config.output_dir / name
    if decided_by_main_process(accelerator, config.resume_from_checkpoint is not None and (folder / "config.json").exists()):
        return MaLP.from_pretrained(folder, backbone_weights=config.malp_backbone_weights)
    settings = dataclasses.replace(
        config, max_train_steps=steps, resume_from_checkpoint="latest" if config.resume_from_checkpoint else None
    )
    with random_state_kept(seed=config.seed):  # whatever was pretrained before, or loaded because an earlier run did
        malp = build_malp(config)
    malp = pretrain(malp, generator, dataset, settings, accelerator, name=name)
    if accelerator.is_main_process:
        malp.save_pretrained(folder)
    accelerator.wait_for_everyone()
    return malp


def decided_by_main_process(accelerator: Accelerator, decision: bool) -> bool:
    """The decision of the main process, in all processes, which must all call this."""
    return bool(accelerator.gather(torch.tensor([int(decision and accelerator.is_main_process)], device=accelerator.device)).max())

"""The arms of a fine-tuning, side by side: each from the same networks, with the same pictures, targets and steps.

control    G and its own losses go on; no MaLP. What an arm does beyond this is MaLP's doing.
control_d  the same, and G's own discriminator learns twice per step: the extra compute without MaLP.
random     against a MaLP that never learned anything, fixed: is it the detector, or any regulariser?
frozen     against the pretrained MaLP, fixed: the paper's first strategy.
cotrain    against MaLP, which learns along: the paper's second strategy.
passive    the same with a detector that never knew a template: does the template earn its place?
scratch    as cotrain, from random weights: does it need the pretraining?
aided      no MaLP but a discriminator on the features of a frozen SqueezeNet, vision-aided style: what one would take instead.
aided_map  the same network asked MaLP's question, how much each place was changed: is it MaLP's question or its eyes?
joint      cotrain and aided at once: does MaLP add to it?
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from malp_disc import MaLP
from malp_disc.copying import copy_module
from malp_disc.data import DataOptions
from malp_disc.evaluation.eval_set import EvalSet
from malp_disc.evaluation.evaluator import EvaluationOptions, evaluation_sets, make_evaluation_models, make_evaluator
from malp_disc.evaluation.localize import score_clean
from malp_disc.feature_discriminator import FeatureDiscriminator
from malp_disc.report import write_report
from malp_disc.run_folder.experiment import evaluation, of_arms, shared_hash, training_settings, work
from malp_disc.serialization.state_dicts import load_metadata, save_tensors
from malp_disc.training.checkpoints import CheckpointManager, check_space
from malp_disc.training.finetune import Setup, finetune
from malp_disc.training.generator_losses import VisionAidedObjective
from malp_disc.training.launch import check_seeds
from malp_disc.training.options import FinetuneOptions, make_optimizer, run_subdirectory
from malp_disc.training.preflight import try_out
from malp_disc.training.pretrain import MaLPOptions, build_malp, pretrain

logger = logging.getLogger("malp_disc")
_AIDED = ("aided", "aided_map", "joint")
_LOOKED_AT = 64  # pictures
_BLIND = 0.9  # area under the ROC curve
Arm = Literal["control", "control_d", "random", "frozen", "cotrain", "passive", "scratch", "aided", "aided_map", "joint"]


@dataclass(kw_only=True)
class ArmOptions(FinetuneOptions, MaLPOptions, EvaluationOptions, DataOptions):
    """Which arms, how often, and against which MaLP."""

    output_dir: Path = Path("runs/finetune")
    arms: tuple[Arm, ...] = work(("control", "cotrain"))
    """What to compare: control, control_d, random, frozen, cotrain, passive, scratch, aided, aided_map, joint. Without control there is no verdict."""
    seeds: tuple[int, ...] = work(())
    """Repeat every arm with each of these; only --seed if not given. Several in one report show how much chance there is in it."""
    malp: Path | None = None
    """Folder of a MaLP pretrained on this generator (pretrain_malp.py). Not given: the shipped one for the shipped generator, else
    MaLP is pretrained first."""
    passive_malp: Path | None = of_arms("passive", default=None)
    """The same without a template (pretrain_malp.py --malp-strength 0), for the arm passive; pretrained first if not given."""
    aided_network: Path | None = of_arms(*_AIDED, default=None)
    """Weights of torchvision's squeezenet1_0, on whose features the arms aided, aided_map and joint look. The same network can't judge
    these arms: take another --second-extractor."""
    malp_pretrain_steps: int = 1000
    """Steps of that pretraining."""
    malp_template_dropout: float = 0.5
    """In that pretraining: share of the pictures that stay without a template. What shall judge clean pictures has to have seen some; 0 is the paper's."""
    fresh_malp_steps: int = evaluation(0)
    """Also train a MaLP from scratch against every tuned generator, for so many steps: is it really harder to localize, or did it learn to fool one
    detector? 0 for no. Takes as long as a pretraining, per arm and seed."""

    def check(self) -> None:
        super().check()
        if len(set(self.arms)) < len(self.arms) or not self.arms:
            raise ValueError(f"expected different arms out of {', '.join(get_args(Arm))}, got {list(self.arms)}")
        if set(_AIDED) & set(self.arms) and self.aided_network is None:
            raise ValueError("the arms aided, aided_map and joint need --aided-network, a state dict of torchvision's squeezenet1_0")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"expected different seeds, got {list(self.seeds)}")
        check_seeds(*self.seeds)
        if self.fresh_malp_steps < 0:
            raise ValueError(f"expected --fresh-malp-steps of 0 or more, got {self.fresh_malp_steps}")
        if self.malp_pretrain_steps < 1:
            raise ValueError(f"expected --malp-pretrain-steps of at least 1, got {self.malp_pretrain_steps}")

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds of the run."""
        return self.seeds or (self.seed,)


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
        reference: pictures that the generator's are compared with; the data set's own if None.
    """
    # All that can be known before work
    given = given_malps(config, malp)
    needed = tell_plan(config, before, own, given["malp"], dataset, accelerator)
    check_space(config.output_dir, needed)
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
            result = config.output_dir / f"G-{arm}{f'-seed{seed}' * (seed != 0)}.safetensors"
            done = evaluator is not None and config.resume_from_checkpoint is not None and arm in evaluator.measured(seed=seed) and result.exists()
            seeded = dataclasses.replace(config, seed=seed)
            if agreed(accelerator, done):
                check_settings(result, arm, seeded)
                continue
            began = time.perf_counter()
            watching = (
                {} if evaluator is None else {"quick_fid": partial(evaluator.quick_fid, arm, seed=seed), "sample_grid": partial(evaluator.grid, arm, seed=seed)}
            )
            tuned = finetune(
                arm, setup_of(arm, malps, seeded), before, losses_of(arm, own, seeded), dataset, seeded, accelerator, **watching
            )
            seconds = round(time.perf_counter() - began, 1)
            fresh = None
            if config.fresh_malp_steps:
                fresh = pretrained(f"fresh/{run_subdirectory(arm, seed)}", seeded, tuned, dataset, accelerator, steps=config.fresh_malp_steps)
            if evaluator is not None:
                about = json.dumps({"arm": arm, "attributes": list(dataset.attribute_names), "settings": training_settings(seeded, arm)})
                save_tensors(result, tuned.state_dict(), {"malp_disc": about})  # one entry: several are written in any order
                told = {"steps": config.max_train_steps, "seconds": seconds, "experiment": experiment}
                evaluator.measure(arm, tuned.manipulate, seed=seed, weights=result, fresh=fresh, **told)
            accelerator.wait_for_everyone()
    if evaluator is not None:
        record = write_report(config.output_dir)
        print(
            f"{record['verdict']}\nreport: {config.output_dir / 'report.html'} (also report.md, report.json), pictures: {config.output_dir / 'samples.png'}"
        )
    accelerator.end_training()


def warn_if_blind(malp: MaLP, before: nn.Module, inputs: EvalSet, device: torch.device) -> None:
    """Say so if MaLP can't tell pictures from edits where no template is, but shall judge such pictures."""
    found = score_clean(before.manipulate, inputs, malp, device=device)
    if found["auc"] < _BLIND:
        logger.warning(
            f"without templates this MaLP says nearly the same of pictures and of their edits (AUC {found['auc']:.2f}, mean of its maps {found['mean_real']:.3f} "
            f"and {found['mean_manipulated']:.3f}): the arm cotrain, which shows it clean pictures, starts from a judge that can't see. Pretrain one with "
            "--malp-template-dropout 0.5, or give --template-dropout 0"
        )


def check_settings(result: Path, arm: Arm, config: ArmOptions) -> None:
    """Raise ValueError if a finished arm was made with other flags than those of now: its numbers would stand beside others."""
    about = json.loads(load_metadata(result).get("malp_disc", "{}"))
    was, now = about.get("settings", {}), training_settings(config, arm)
    differing = [f"{name} was {was.get(name)!r} and is {value!r} now" for name, value in now.items() if was.get(name) != value]
    if differing:
        raise ValueError(f"{result} belongs to a run with other settings: {'; '.join(differing)}; choose another --output-dir")


def setup_of(arm: Arm, malps: dict[str, MaLP], config: ArmOptions) -> Setup:
    """What an arm does beyond the control."""
    if arm in ("control", "aided", "aided_map"):
        return Setup()
    if arm == "control_d":
        return Setup(second_discriminator_update=True)
    if arm in ("random", "scratch"):
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            untrained = MaLP(malps["malp"].config).eval()
        if arm == "random":
            return Setup(untrained, weight=config.frozen_weight)
        return Setup(untrained, trainable=True, weight=config.cotrain_weight, template_dropout=config.template_dropout)
    if arm == "frozen":
        return Setup(malps["malp"], weight=config.frozen_weight)
    malp = malps["passive" if arm == "passive" else "malp"]
    return Setup(malp, trainable=True, weight=config.cotrain_weight, template_dropout=1.0 if arm == "passive" else config.template_dropout)


def losses_of(arm: Arm, own: nn.Module | None, config: ArmOptions) -> nn.Module | None:
    """The losses beside MaLP's: the generator's own, and in some arms those of a feature discriminator."""
    if arm not in _AIDED:
        return own
    weight, target = (config.aided_map_weight, "map") if arm == "aided_map" else (config.aided_weight, "realness")
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return VisionAidedObjective(own, FeatureDiscriminator(config.aided_network, target=target), weight, config.augmentation)


def given_malps(config: ArmOptions, malp: MaLP | None) -> dict[str, MaLP | None]:
    """The detectors that the arms need, by name; None for those that have to be pretrained first.

    Raises:
        ValueError, FileNotFoundError: one that isn't there, can't be loaded or isn't what it should be, or flags of a pretraining that can't be.
    """
    given = {"malp": malp}
    if "passive" in config.arms:
        given["passive"] = MaLP.from_pretrained(config.passive_malp) if config.passive_malp is not None else None
        if given["passive"] is not None and not given["passive"].passive:
            raise ValueError(
                f"{config.passive_malp} adds a template (strength {given['passive'].config.strength}); pretrain one with --malp-strength 0"
            )
    if None in given.values() or config.fresh_malp_steps:
        build_malp(config)
    return given


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


def tell_plan(
    config: ArmOptions, before: nn.Module, own: nn.Module | None, malp: MaLP | None, dataset: Dataset, accelerator: Accelerator
) -> int:
    """Print what the run will do and what it needs; returns the bytes of disk."""
    shown = {"malp": malp or build_malp(config)}
    shown["passive"] = shown["malp"]
    pictures = config.images_per_step * accelerator.num_processes
    lines = [
        f"pictures   {dataset.description}",
        f"step       {pictures} pictures: {config.train_batch_size} x {config.gradient_accumulation_steps} passes x {accelerator.num_processes} processes, "
        f"on {accelerator.device.type}, {'float32' if config.mixed_precision == 'no' else config.mixed_precision}",
        f"steps      {config.max_train_steps} per arm, {config.max_train_steps * pictures / len(dataset):.1f} times through the pictures",
    ]
    if malp is None:
        lines.append(f"MaLP       none given: {config.malp_pretrain_steps} steps of pretraining first")
    if "passive" in config.arms and config.passive_malp is None:
        lines.append(f"passive    none given: {config.malp_pretrain_steps} steps of pretraining first")
    total = 0
    for arm in config.arms:
        setup, losses = setup_of(arm, shown, config), losses_of(arm, own, config)
        networks = (
            {"G": before, "G_average": before}
            | ({"D": losses} if losses is not None else {})
            | ({"malp": setup.malp} if setup.malp is not None else {})
        )
        learning = {"G": before} | ({"D": losses} if losses is not None else {})
        optimizers = {
            name: make_optimizer(name, network, config)
            for name, network in learning.items()
            if any(p.requires_grad for p in network.parameters())
        }
        if setup.trainable:
            optimizers["malp"] = torch.optim.Adam([p for p in setup.malp.parameters()])
        size = CheckpointManager(Path(arm), networks=networks, optimizers=optimizers, settings={}).bytes()
        written = -(-config.max_train_steps // config.checkpointing_steps)
        kept = min(written, config.checkpoints_total_limit or written)
        needed = size * (kept + 1) * len(config.all_seeds)  # a new one is complete before the oldest goes
        total += needed
        lines.append(
            f"arm        {arm}: seeds {' '.join(map(str, config.all_seeds))}, weight of MaLP {setup.weight:g}, {written} checkpoints of {size / 2**20:.1f} MiB, "
            f"{kept} kept, {needed / 2**20:.0f} MiB"
        )
    lines.append(f"disk       about {total / 2**20:.0f} MiB in {config.output_dir}")
    accelerator.print("\n".join(lines))
    return total

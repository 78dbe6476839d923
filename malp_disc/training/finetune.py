"""The fine-tuning of one arm against MaLP (Eq. 12). `malp-disc finetune` and the recipes run it for every arm and seed.

A step updates the generator's own discriminator, then the generator, then MaLP (`malp_disc.training.finetune_step`). Each update uses all micro-batches,
so accumulated gradients are those of one large batch. MaLP's loss is scaled by its value at the first step, which is that of the pretrained MaLP.

The generator is fine-tuned in evaluation mode: its norms keep their statistics and its dropout is off, as in deployment and evaluation. An image then
doesn't depend on the others of its batch, and two processes give the same result as one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from malp_disc.discriminator import MaLPDiscriminator
from malp_disc.losses import COTRAIN_WEIGHTS
from malp_disc.malp import MaLP
from malp_disc.manipulate import Editor
from malp_disc.run_folder.experiment import training_settings
from malp_disc.runtime.copying import copy_module
from malp_disc.serialization.files import write_json
from malp_disc.serialization.reading import read_json
from malp_disc.serialization.state_dicts import fingerprint, save_tensors
from malp_disc.training.batches import Batch, steps
from malp_disc.training.checkpoints import CheckpointManager, prepare_optimizer
from malp_disc.training.clock import TrainingClock
from malp_disc.training.finetune_step import FinetuneStep, Networks, map_peak
from malp_disc.training.gradient_balance import GradientBalance
from malp_disc.training.guards import FiniteSteps, TrainingMonitor
from malp_disc.training.learning_rates import set_learning_rates
from malp_disc.training.loop import Hooks, in_words, run_steps
from malp_disc.training.moving_average import moving_average
from malp_disc.training.options import CotrainLosses, FinetuneOptions, learning_rate_factor, make_optimizer, run_subdirectory
from malp_disc.training.preflight import freeze_unused

_MEASURE_BALANCE = 10  # steps between measurements of the gradient norms, each of which costs a second backward pass

QuickDistance = Callable[[int, Callable[..., Tensor]], float]
SampleGrid = Callable[[int, Callable[..., Tensor]], None]


@dataclass(frozen=True)
class ArmSetup:
    """How an arm differs from the control.

    Attributes:
        malp: detector used as the discriminator, or None.
        trainable: whether MaLP is co-trained.
        weight: of MaLP's whole loss on the generator.
        map_weight, classifier_weight, template_weight: of E_C's terms in it. All 0: E_C isn't asked and doesn't learn.
        branch_map_weight, realness_weight: of the terms of a pretrained second branch; without either, that branch is left out.
        template_dropout: share of the images without a template.
        losses: weights of MaLP's own losses, out of `malp_disc.losses.COTRAIN_WEIGHTS`.
        second_discriminator_update: update the generator's own discriminator once more in every step, on other images.
    """

    malp: MaLP | None = None
    trainable: bool = False
    weight: float = 0.0
    map_weight: float = 1.0
    classifier_weight: float = 0.0
    template_weight: float = 0.0
    branch_map_weight: float = 0.0
    realness_weight: float = 0.0
    template_dropout: float = 0.0
    losses: CotrainLosses = "light"
    second_discriminator_update: bool = False

    @property
    def asks_cnn(self) -> bool:
        """Whether E_C has a term in the generator's loss."""
        return bool(self.map_weight or self.classifier_weight or self.template_weight)


class FineTuning(Hooks):
    """The fine-tuning of one arm on a copy of `before`: networks, optimizers and counters, resumed from a checkpoint if there is one. `run` trains.

    It is its own hooks of `malp_disc.training.loop.run_steps`.

    Args:
        arm: its name, also of its files.
        objective: the generator's own losses (`GeneratorObjective`), or None; a copy is trained.
        quick_distance: (step, manipulate) -> Fréchet distance of the moving average; called by the main process.
        sample_grid: (step, manipulate): draws the fixed images; likewise.

    Raises:
        ValueError: no gradient reaches the generator, or a checkpoint belongs to a run with other settings.
    """

    def __init__(
        self,
        arm: str,
        setup: ArmSetup,
        before: nn.Module,
        objective: nn.Module | None,
        dataset: Dataset,
        config: FinetuneOptions,
        accelerator: Accelerator,
        *,
        quick_distance: QuickDistance | None = None,
        sample_grid: SampleGrid | None = None,
    ) -> None:
        self.arm, self.setup, self.dataset, self.config, self.accelerator = arm, setup, dataset, config, accelerator
        self.quick_distance, self.sample_grid = quick_distance, sample_grid
        device = accelerator.device

        # Networks
        self.generator = copy_module(before).to(device).eval()  # which parameters are trainable is the author's choice
        original = copy_module(self.generator).requires_grad_(False)
        if objective is not None:
            objective = copy_module(objective, "the module of its own losses").to(device)  # in the author's modes: a frozen network in it may be in evaluation mode
        malp = make_discriminator(setup, config).to(device) if setup.malp is not None else None
        editor = Editor(self.generator)
        last_layer = freeze_unused(editor, objective, malp, dataset, config, accelerator)
        self.networks = Networks(editor, original, objective, malp)
        self.average = moving_average(self.generator, config.ema_decay).requires_grad_(False)
        optimizers = {name: make_optimizer(name, network, config) for name, network in self.networks.trained.items()}
        self.base_rates = {name: [group["lr"] for group in optimizer.param_groups] for name, optimizer in optimizers.items()}

        # Resume, then prepare. A frozen MaLP isn't prepared: it has no gradients to synchronise.
        saved = {"G": self.generator, "G_average": self.average, "D": objective, "malp": malp}
        self.checkpoints = CheckpointManager(
            config.output_dir / "arms" / run_subdirectory(arm, config.seed),
            networks={name: network for name, network in saved.items() if network is not None},
            optimizers=optimizers,
            settings={"arm": arm, "generator_weights": fingerprint(original.state_dict()), **training_settings(config, arm)},
        )
        state = self.checkpoints.resume(config, accelerator)
        self.first = state["step"]
        self.clock = TrainingClock(self.checkpoints.folder / "seconds.json", start=self.first)
        self.guard = FiniteSteps(config.max_skipped_steps, skipped=state.get("skipped", 0))
        self.monitor = TrainingMonitor(state=state.get("monitor"))
        self.balance = None
        if config.gradient_share is not None and malp is not None:
            self.balance = GradientBalance(last_layer, config.gradient_share, weight=state.get("balance"))
        self.networks.wrapped = {name: accelerator.prepare(network) for name, network in self.networks.trained.items()}
        self.optimizers = {name: prepare_optimizer(accelerator, optimizer) for name, optimizer in optimizers.items()}
        self.step = FinetuneStep(self.networks, self.optimizers, config, accelerator, guard=self.guard, balance=self.balance)

    def run(self) -> nn.Module:
        """Train all steps; returns the moving average of the generator, in evaluation mode.

        Raises:
            KeyboardInterrupt: the run was interrupted; its checkpoint is written.
        """
        config, second = self.config, self._second_stream()

        def train_step(number: int, batches: list[Batch]) -> dict[str, Tensor]:
            self._set_learning_rates(number)
            return self.train_step(number, batches, next(second)[1] if second is not None else None)

        run_steps(
            train_step,
            self.dataset,
            config,
            self.accelerator,
            self.checkpoints,
            self,
            first=self.first,
            curve=config.output_dir / "curves" / f"{run_subdirectory(self.arm, config.seed)}.jsonl",
            run=f"{self.arm}/seed{config.seed}",
            label=f"fine-tune {self.arm}" + f", seed {config.seed}" * (config.seed != 0),
        )
        self.accelerator.free_memory()
        return self.average.module.eval()

    def train_step(self, number: int, batches: list[Batch], more: list[Batch] | None = None) -> dict[str, Tensor]:
        """One step, in which every network is updated once. Returns the mean loss terms; an empty dict if an image of G wasn't finite.

        Args:
            number: of the step, from 1.
            batches: its micro-batches.
            more: micro-batches for a second update of G's own discriminator.
        """
        step, trained = self.step, self.networks.trained
        batches = step.present(batches)
        fakes = step.generate(batches, keep_graph=True)
        if fakes is None:
            self.accelerator.print(self.guard.refuse(number, "the generator's images aren't finite", {}))
            return {}
        if not self.monitor.state["start"]:
            self.monitor.begin(step.calibrate(batches, fakes))
        weight = self.malp_weight
        terms: dict[str, Tensor] = {}
        if "D" in trained:
            terms |= step.update_discriminator(number, batches, fakes)
            if more is not None:
                more = step.present(more, encrypted=False)
                if (others := step.generate(more, keep_graph=False)) is not None:
                    step.update_discriminator(number, more, others)
        measure = self.balance is not None and number % _MEASURE_BALANCE == 0
        generator_terms, fakes, known = step.update_generator(number, batches, fakes, malp_weight=weight, measure_balance=measure)
        terms |= generator_terms
        if "MaLP" in trained:
            terms |= step.update_malp(number, batches, fakes, known)
        self.average.update_parameters(self.generator)
        if self.networks.malp is not None and number % self.config.log_steps == 0:
            if self.networks.malp.uses_cnn:
                terms["MaLP/map_peak"] = map_peak(self.networks.malp.malp, fakes)
            terms["MaLP/weight"] = torch.tensor(weight, device=self.accelerator.device)
        return terms

    @property
    def malp_weight(self) -> float:
        """The weight of MaLP's loss on the generator: from the gradient balance, or the arm's fixed one."""
        return self.balance.weight if self.balance is not None and self.balance.weight is not None else self.setup.weight

    def _second_stream(self) -> Iterator[tuple[int, list[Batch]]] | None:
        if not (self.setup.second_discriminator_update and "D" in self.networks.trained):
            return None
        return steps(self.dataset, self.config, self.accelerator, start=self.first, extra=True)

    def _set_learning_rates(self, number: int) -> None:
        for name, optimizer in self.optimizers.items():
            factor = learning_rate_factor(self.config, name, number - 1)
            set_learning_rates(optimizer, [rate * factor for rate in self.base_rates[name]])

    def before_first_step(self) -> None:
        """Draw the sample grid of the generator before fine-tuning."""
        if self.sample_grid is not None:
            self.sample_grid(0, self.generator.manipulate)

    def logged(self, number: int, terms: Mapping[str, float], bar: tqdm) -> str:
        """Print the monitor's warnings; the progress bar shows the speed and the first terms."""
        watched = {"edit_strength": terms["G/edit_strength"]}
        if self.networks.malp is not None and self.networks.malp.uses_cnn:
            watched["map_peak"] = terms["MaLP/map_peak"]
            if self.networks.malp.weights["map"]:  # otherwise G isn't asked for it, and a faint map says nothing
                watched["map"] = terms["G/map"]
        for warning in self.monitor.check(number, watched):
            self.accelerator.print(f"{self.arm}, {warning}")
        rate = (bar.format_dict["rate"] or 0) * self.config.images_per_step * self.accelerator.num_processes
        return f"{rate:.0f} img/s {in_words(dict(list(terms.items())[:4]))}"

    def state(self) -> dict[str, Any]:
        """What was skipped, warned of and balanced so far."""
        return {"skipped": self.guard.skipped, "monitor": self.monitor.state, "balance": self.balance.weight if self.balance is not None else None}

    def saved(self, number: int) -> None:
        """Record the seconds until this checkpoint."""
        self.clock.save(number)

    def after_step(self, number: int) -> None:
        """Draw the sample grid and measure the quick distance when they are due; in the main process."""
        config, manipulate = self.config, self.average.module.manipulate
        if not self.accelerator.is_main_process:
            return
        if self.sample_grid is not None and (number % config.sample_steps == 0 or number == config.max_train_steps):
            self.sample_grid(number, manipulate)
        if self.quick_distance is not None and config.eval_steps and number % config.eval_steps == 0:
            keep_best(self.checkpoints.folder, number, self.quick_distance(number, manipulate), self.average.module)


def make_discriminator(setup: ArmSetup, config: FinetuneOptions) -> MaLPDiscriminator:
    """A copy of the arm's MaLP as a discriminator."""
    malp = copy.deepcopy(setup.malp)
    if not (setup.branch_map_weight or setup.realness_weight):
        # E_T doesn't contribute to G's loss, shares nothing with E_C, costs a third of the time, and its dropout is drawn per micro-batch.
        malp.drop_branch()
    return MaLPDiscriminator(
        malp,
        trainable=setup.trainable,
        map_weight=setup.map_weight,
        classifier_weight=setup.classifier_weight,
        template_weight=setup.template_weight,
        branch_map_weight=setup.branch_map_weight,
        realness_weight=setup.realness_weight,
        train_cnn=setup.asks_cnn,
        train_branch_map=setup.branch_map_weight > 0,
        train_template=setup.template_dropout < 1,
        report_template=False,  # it isn't logged
        r1_weight=config.r1_weight if setup.trainable and setup.asks_cnn else 0.0,
        template_dropout=setup.template_dropout,
        loss_weights=COTRAIN_WEIGHTS[setup.losses],
    )


def keep_best(folder: Path, step: int, distance: float, generator: nn.Module) -> None:
    """``best.safetensors`` and ``best.json``: the moving average with the lowest Fréchet distance so far, on the images that choose the best step."""
    record = folder / "best.json"
    best = read_json(record, what="the record of the best step so far") if record.exists() else None
    if math.isfinite(distance) and (best is None or distance < best["frechet"]):
        save_tensors(folder / "best.safetensors", generator.state_dict())
        write_json(record, {"step": step, "frechet": distance})

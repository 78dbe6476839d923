"""Eq. 12 as a loop: one arm of a fine-tuning, for any generator. `finetune.py` and `finetune_stargan.py` launch it.

A step has up to three turns, each over all passes of the step: G's own discriminator learns, then G, then MaLP. So accumulated passes give what one
large batch gives, and the value by which MaLP's loss is scaled at the first step is that of the pretrained MaLP.

G is fine-tuned in evaluation mode: its norms keep their statistics and its dropout is off, as when it is deployed and measured, and a picture doesn't depend
on its neighbours, so that two processes do what one does.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import Dataset

from malp_disc import MaLP, MaLPDiscriminator
from malp_disc.copying import copy_module, moving_average_of
from malp_disc.distributed import mean_over_processes
from malp_disc.encryption import NO_TEMPLATE
from malp_disc.generator_objective import call_discriminator_loss, call_generator_loss
from malp_disc.losses import LossWeights
from malp_disc.manipulate import call_manipulate
from malp_disc.run_folder.experiment import training_settings
from malp_disc.serialization.files import write_json
from malp_disc.serialization.reading import read_json
from malp_disc.serialization.state_dicts import fingerprint, save_tensors
from malp_disc.training.batches import Batch, micro_batches, steps
from malp_disc.training.checkpoints import CheckpointManager
from malp_disc.training.curves import Curves, progress
from malp_disc.training.diff_augment import NUMBERS, augment
from malp_disc.training.gradient_balance import GradientBalance
from malp_disc.training.guards import FiniteSteps, TrainingMonitor, gradient_norm
from malp_disc.training.interrupt import GracefulInterrupt
from malp_disc.training.options import FinetuneOptions, learning_rate_factor, make_optimizer, run_subdirectory
from malp_disc.training.preflight import Editor, freeze_unused

COTRAIN_WEIGHTS = {
    # Drawn faces, seed 0: FD-faces +0.44 against the control, where those of pretraining have +3.83. On real faces MaLP loses hold of G with them: one dim
    # map for real and fake alike is the cheapest (docs/results/real-faces.md).
    "light": LossWeights(magnitude=0.5, encrypted_zero=10.0, classification=0.5, map_error=10.0, map_correlation=0.0),
    "pretraining": LossWeights(),
}
_HEAD_START = 0x4EAD  # added to the seed for the pictures of MaLP's head start
_MEASURE_BALANCE = 10  # steps between two measurements of the gradients' lengths, which cost a second backward pass each


@dataclass(frozen=True)
class Setup:
    """What an arm does beyond the control.

    Attributes:
        malp: looks on; None for nobody.
        trainable: it learns along.
        weight: of its loss on G.
        template_dropout: share of pictures without a template.
        second_discriminator_update: G's own discriminator learns once more in every step, on other pictures.
    """

    malp: MaLP | None = None
    trainable: bool = False
    weight: float = 0.0
    template_dropout: float = 0.0
    second_discriminator_update: bool = False


def finetune(
    arm: str,
    setup: Setup,
    before: nn.Module,
    own: nn.Module | None,
    dataset: Dataset,
    config: FinetuneOptions,
    accelerator: Accelerator,
    *,
    judge: Callable[[int, Callable[..., Tensor]], float] | None = None,
    grid: Callable[[int, Callable[..., Tensor]], None] | None = None,
) -> nn.Module:
    """Fine-tune a copy of `before` in one arm. Returns the moving average of the tuned generator, in evaluation mode.

    Args:
        arm: its name, also of its files.
        own: see `GeneratorObjective`; a copy learns.
        judge: (step, manipulate) -> Fréchet distance; called by the main process, with the moving average.
        grid: (step, manipulate): draws the fixed pictures; likewise.
    """
    # Networks
    device = accelerator.device
    generator = copy_module(before).to(device).eval()  # with what learns in it as its maker left it
    before = copy_module(generator).requires_grad_(False)
    own = copy_module(own, "the module of its own losses").to(device).train() if own is not None else None
    disc = None
    if setup.malp is not None:
        disc = MaLPDiscriminator(
            copy.deepcopy(setup.malp),
            trainable=setup.trainable,
            map_weight=config.map_weight,
            classifier_weight=config.classifier_weight,
            template_weight=config.template_weight,
            r1_weight=config.r1_weight if setup.trainable else 0.0,
            template_dropout=setup.template_dropout,
            scales=config.malp_scales if setup.trainable else (1,),
            loss_weights=COTRAIN_WEIGHTS[config.cotrain_losses],
        ).to(device)
        # E_T has no part in what G is told, shares nothing with E_C, costs a third, and its dropout is drawn per pass
        disc.malp.transformer = None
    editor = Editor(generator)
    last = freeze_unused(editor, own, disc, dataset, config, accelerator)
    average = moving_average_of(generator, config.ema_decay)
    learning = {"G": editor}
    if own is not None and any(p.requires_grad for p in own.parameters()):
        learning["D"] = own
    if disc is not None and setup.trainable:
        learning["MaLP"] = disc
    optimizers = {name: make_optimizer(name, network, config) for name, network in learning.items()}
    rates = {name: [group["lr"] for group in optimizer.param_groups] for name, optimizer in optimizers.items()}

    # Resume, then prepare. A frozen MaLP isn't prepared: it has nothing to synchronise.
    networks = (
        {"G": generator, "G_average": average} | ({"D": own} if own is not None else {}) | ({"malp": disc} if disc is not None else {})
    )
    training = CheckpointManager(
        config.output_dir / "arms" / run_subdirectory(arm, config.seed),
        networks=networks,
        optimizers=optimizers,
        settings={"arm": arm, "generator_weights": fingerprint(before.state_dict()), **training_settings(config, arm)},
    )
    state = training.resume(config, accelerator)
    first = state["step"]
    guard, watch = FiniteSteps(config.max_skipped_steps, skipped=state.get("skipped", 0)), TrainingMonitor(state=state.get("watch"))
    balance = None
    if config.gradient_share is not None and disc is not None:
        balance = GradientBalance(last, config.gradient_share, weight=state.get("balance"))
    wrapped = {name: accelerator.prepare(network) for name, network in learning.items()}
    optimizers = {name: accelerator.prepare(optimizer) for name, optimizer in optimizers.items()}

    # The parts of a step
    def show(batches: list[Batch], *, encrypted: bool = True) -> None:
        """What G gets of each picture: the encrypted one where MaLP looks on."""
        for batch in batches:
            chance, drawn = batch.noise.uniform(), batch.noise.integers(disc.malp.encryption.set_size if disc is not None else 1)
            batch.numbers = batch.noise.uniform(NUMBERS)  # all drawn in every arm, so that they share what comes after
            batch.shown = batch.images
            if disc is not None and encrypted:
                encrypted_images, batch.index = disc.encrypt(batch.images, torch.where(chance < disc.template_dropout, NO_TEMPLATE, drawn))
                batch.shown = encrypted_images.detach()

    def edit(images: Tensor, target: Tensor) -> Tensor:
        with accelerator.autocast():
            return wrapped["G"](images, target)

    def edit_all(batches: list[Batch], *, graph: bool) -> bool:
        """G's pictures for all turns of the step. With one pass the graph is kept for G's turn, else each pass builds its own there."""
        for batch in batches:
            if graph and len(batches) == 1:
                batch.fake = edit(batch.shown, batch.target)
            else:
                with torch.no_grad(), accelerator.autocast():
                    batch.fake = editor(batch.shown, batch.target)
        broken = torch.stack([~batch.fake.detach().isfinite().all() for batch in batches]).any()
        return bool(mean_over_processes(broken.float()) == 0)

    def d_turn(batches: list[Batch]) -> dict[str, Tensor]:
        collected = []
        for batch in micro_batches(accelerator, batches, wrapped["D"]):
            with accelerator.autocast():
                terms = call_discriminator_loss(wrapped["D"], batch.fake, batch)
            accelerator.backward(sum(terms.values()) / len(batches))
            collected.append(terms)
        return means("D", collected)

    def g_losses(fake: Tensor, batch: Batch) -> tuple[dict[str, Tensor], Tensor | None]:
        terms: dict[str, Tensor] = {}
        if own is not None:
            with accelerator.autocast():
                terms |= call_generator_loss(own, fake, batch, edit)
        if config.keep_weight or own is None:
            with torch.no_grad(), accelerator.autocast():
                kept = call_manipulate(before.manipulate, batch.shown, batch.target)
            terms["keep"] = config.keep_weight * (fake - kept).abs().mean()
        fooling = disc.generator_loss(augment(fake, batch.numbers, config.augmentation), batch.index) if disc is not None else None
        return terms, fooling

    def g_turn(batches: list[Batch], weight: float, *, measuring: bool, learn: bool = True) -> dict[str, Tensor]:
        held = hold(own)
        collected = []
        for batch in micro_batches(accelerator, batches, wrapped["G"]):
            fake = batch.fake if batch.fake.requires_grad else edit(batch.shown, batch.target)
            terms, fooling = g_losses(fake, batch)
            total = sum(terms.values())
            if measuring:
                balance.measure(total, fooling.total)
            if learn:
                accelerator.backward((total + weight * fooling.total if fooling is not None else total) / len(batches))
            batch.fake = fake.detach() if learn else batch.fake
            if fooling is not None:
                terms |= {"malp": fooling.total, "map": fooling.map}
            collected.append(terms | {"edit_strength": (fake.detach() - batch.images).abs().mean()})
        release(held)
        return means("G", collected)

    def malp_turn(batches: list[Batch]) -> dict[str, Tensor]:
        collected = []
        for batch in micro_batches(accelerator, batches, wrapped["MaLP"]):
            seen = [augment(images, batch.numbers, config.augmentation) for images in (batch.images, batch.shown, batch.fake.detach())]
            losses = wrapped["MaLP"](*seen, batch.index)
            accelerator.backward(losses.total / len(batches))
            collected.append({name: getattr(losses, name) for name in ("total", "localization", "penalty")})
        return means("MaLP", collected)

    def update(step: int, name: str, terms: Mapping[str, Tensor]) -> None:
        """The optimizer's step, unless the gradient isn't finite."""
        optimizer, network = optimizers[name], learning[name]
        if accelerator.scaler is not None:
            accelerator.unscale_gradients(optimizer)
        norm = gradient_norm(network.parameters())  # of the exchanged gradient: all processes decide alike
        said = None
        if not norm.isfinite():
            terms = across_processes(terms)
            # Half precision overflows now and then by design: then the scaler passes the step over and lowers its factor.
            if accelerator.scaler is None or not all(value.isfinite() for value in terms.values()):
                said = guard.allow(step, {"G": "the generator", "D": "the generator's own discriminator"}.get(name, name), norm, terms)
                accelerator.print(said)
        if said is None:
            if config.max_grad_norm is not None:
                torch.nn.utils.clip_grads_with_norm_(network.parameters(), config.max_grad_norm, norm)
            optimizer.step()
        elif accelerator.scaler is not None:
            accelerator.scaler.update()  # which ends what unscaling began
        optimizer.zero_grad()

    # Loop
    curves = Curves(config.output_dir / "curves" / f"{run_subdirectory(arm, config.seed)}.jsonl", accelerator, start=first, run=f"{arm}/seed{config.seed}")
    bar = progress(config, accelerator, start=first, label=f"fine-tune {arm}" + f", seed {config.seed}" * (config.seed != 0))
    pictures = config.images_per_step * accelerator.num_processes
    if first == 0 and grid is not None:
        grid(0, generator.manipulate)
    second = steps(dataset, config, accelerator, start=first, extra=True) if setup.second_discriminator_update and "D" in learning else None
    if first == 0 and "MaLP" in learning and config.cotrain_head_start:
        for step, batches in head_start(dataset, config, accelerator):
            show(batches)
            if edit_all(batches, graph=False):
                update(step, "MaLP", malp_turn(batches))
    with GracefulInterrupt() as stopping:
        for step, batches in steps(dataset, config, accelerator, start=first):
            for name, optimizer in optimizers.items():
                factor = learning_rate_factor(config, name, step - 1)
                for group, rate in zip(optimizer.param_groups, rates[name]):
                    group["lr"] = rate * factor
            show(batches)
            more = next(second)[1] if second is not None else None
            values: dict[str, Tensor] = {}
            if edit_all(batches, graph=True):
                if not watch.state["start"]:
                    begin(batches, disc, balance, watch, config, g_turn)
                weight = balance.weight if balance is not None and balance.weight is not None else setup.weight
                if "D" in learning:
                    update(step, "D", own_terms := d_turn(batches))
                    values |= own_terms
                    if more is not None:
                        show(more, encrypted=False)
                        if edit_all(more, graph=False):
                            update(step, "D", d_turn(more))
                measuring = balance is not None and step % _MEASURE_BALANCE == 0
                update(step, "G", g_terms := g_turn(batches, weight, measuring=measuring))
                values |= g_terms
                if measuring:
                    balance.update()
                if "MaLP" in learning and step % config.cotrain_every == 0:
                    update(step, "MaLP", m_terms := malp_turn(batches))
                    values |= m_terms
                average.update_parameters(generator)
            else:
                accelerator.print(guard.refuse(step, "G's pictures aren't finite", {}))

            bar.update()
            if step % config.log_steps == 0 and values:
                if disc is not None:
                    values["MaLP/map_peak"] = map_peak(disc.malp, batches)
                    values["MaLP/weight"] = torch.tensor(weight, device=device)
                logged = curves.log(step, across_processes(values))
                rate = (bar.format_dict["rate"] or 0) * pictures
                bar.set_postfix_str(f"{rate:.0f} img/s " + " ".join(f"{k}={v:.3g}" for k, v in list(logged.items())[:4]), refresh=False)
                told = {"edit_strength": logged["G/edit_strength"]}
                if disc is not None:
                    told |= {"map": logged["G/map"], "map_peak": logged["MaLP/map_peak"]}
                for warning in watch.look(step, told):
                    accelerator.print(f"{arm}, {warning}")
            if accelerator.is_main_process:
                if grid is not None and (step % config.sample_steps == 0 or step == config.max_train_steps):
                    grid(step, average.module.manipulate)
                if judge is not None and config.eval_steps and step % config.eval_steps == 0:
                    keep_best(training.folder, step, judge(step, average.module.manipulate), average.module)
            stop = stopping.asked()
            if training.due(step, config) or stop:
                weight_now = balance.weight if balance is not None else None
                training.save(step, config, accelerator, skipped=guard.skipped, watch=watch.state, balance=weight_now)
            if stop and step < config.max_train_steps:
                raise KeyboardInterrupt
    bar.close()
    accelerator.free_memory()
    return average.module.eval()


def head_start(dataset: Dataset, config: FinetuneOptions, accelerator: Accelerator) -> Iterator[tuple[int, list[Batch]]]:
    """Pictures of MaLP's steps before the first of G, in an order of their own. Too short to be worth a checkpoint: a run killed here begins again."""
    alone = dataclasses.replace(config, max_train_steps=config.cotrain_head_start, seed=config.seed + _HEAD_START)
    with progress(alone, accelerator, start=0, label="MaLP's head start") as bar:
        for step, batches in steps(dataset, alone, accelerator, start=0):
            yield step, batches
            bar.update()


def begin(
    batches: list[Batch],
    disc: MaLPDiscriminator | None,
    balance: GradientBalance | None,
    watch: TrainingMonitor,
    config: FinetuneOptions,
    g_turn: Callable,
) -> None:
    """What the first step fixes, before anything learns: the scale of MaLP's loss, its weight, and what the curves are compared with."""
    start = {
        "edit_strength": float(
            mean_over_processes(torch.stack([(batch.fake.detach() - batch.images).abs().mean() for batch in batches]).mean())
        )
    }
    if disc is not None:
        losses = disc.calibrate([(augment(batch.fake.detach(), batch.numbers, config.augmentation), batch.index) for batch in batches])
        start["map"] = float(losses.map)
    watch.begin(start)
    if balance is not None:
        g_turn(batches, 0.0, measuring=True, learn=False)
        balance.update()


def hold(network: nn.Module | None) -> list[nn.Parameter]:
    """Take the gradients off a network for G's turn; what learned is returned, for `release`."""
    held = [p for p in network.parameters() if p.requires_grad] if network is not None else []
    for parameter in held:
        parameter.requires_grad_(False)
    return held


def release(held: list[nn.Parameter]) -> None:
    for parameter in held:
        parameter.requires_grad_(True)


def means(prefix: str, collected: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of every term over a step's passes, for the curves."""
    return {f"{prefix}/{name}": torch.stack([terms[name].detach().float() for terms in collected]).mean() for name in collected[0]}


def across_processes(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The mean of every value over the processes, in one exchange."""
    return dict(zip(values, mean_over_processes(torch.stack([value.float() for value in values.values()]))))


@torch.no_grad()
def map_peak(malp: MaLP, batches: list[Batch]) -> Tensor:
    """The largest value of each picture's map, the mean over the step's pictures, for `TrainingMonitor`."""
    return torch.stack([malp(batch.fake.detach()).map.amax((1, 2, 3)).mean() for batch in batches]).mean()


def keep_best(folder: Path, step: int, distance: float, generator: nn.Module) -> None:
    """``best.safetensors`` and ``best.json``: the moving average with the lowest Fréchet distance so far, on the pictures that choose."""
    record = folder / "best.json"
    best = read_json(record, what="the note of the best step so far") if record.exists() else None
    if math.isfinite(distance) and (best is None or distance < best["frechet"]):
        save_tensors(folder / "best.safetensors", generator.state_dict())
        write_json(record, {"step": step, "frechet": distance})

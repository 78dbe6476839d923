"""The loop of training a localizer or detector on pairs of an original and its edit by a generator, which stays fixed.

The pairs are those of MaLP's pretraining (`malp_disc.training.pretrain`): the same images, crops and edits for the same seed.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from malp_disc.data.sampling import StepRandom
from malp_disc.run_folder.experiment import training_settings
from malp_disc.runtime.copying import copy_module
from malp_disc.runtime.random_state import random_state_kept
from malp_disc.target_kind import label_options
from malp_disc.training.batches import Batch
from malp_disc.training.checkpoints import CheckpointManager, check_space, prepare_optimizer
from malp_disc.training.localizer_options import LocalizerOptions, learning_rate_of
from malp_disc.training.localizer_step import LocalizerStep, LossOf, Pairs
from malp_disc.training.loop import ShownTerm, run_steps
from malp_disc.training.preflight import must_take, two_items, without_gradient

_PREPARED = 100  # pairs that a method may look at before the first step


def train_localizer(method: nn.Module, generator: nn.Module, dataset: Dataset, config: LocalizerOptions, accelerator: Accelerator) -> nn.Module:
    """Train `method` and return it in evaluation mode.

    Writes ``localizer-training/checkpoint-<step>`` and ``curves/localizer.jsonl`` into ``config.output_dir``. A resumed run gives the same bytes as an uninterrupted
    one.

    Args:
        method: with `localize` and `losses` (`malp_disc.benchmark.baseline.Baseline`).
        generator: stays fixed; needs ``manipulate(images, target)``, a target of its `target_kind`.

    Raises:
        ValueError: the method can't work with such images, a checkpoint belongs to a run with other settings, or the disk has too little space.
        KeyboardInterrupt: the run was interrupted; its checkpoint is written.
    """
    # Networks
    method.to(accelerator.device).train()
    freeze_unused(method, generator, dataset, config, accelerator)
    rate = learning_rate_of(method, config)
    optimizer = make_optimizer(method, rate)

    # Resume, or look at the first pairs; then prepare
    settings = {"attribute_names": list(dataset.attribute_names), **training_settings(config)}
    training = CheckpointManager(
        config.output_dir / "localizer-training", networks={"localizer": method}, optimizers={"localizer": optimizer}, settings=settings
    )
    first = training.resume(config, accelerator)["step"]
    check_space(config.output_dir, training.space(config))
    if first == 0 and hasattr(method, "prepare"):
        pairs = first_pairs(LocalizerStep(method, method, optimizer, generator, config, accelerator, base_rate=rate, **label_options(generator, dataset)), dataset)
        method.prepare(pairs.real, pairs.manipulated, pairs.truth)
    wrapped, optimizer = accelerator.prepare(LossOf(method)), prepare_optimizer(accelerator, optimizer)
    train_step = LocalizerStep(method, wrapped, optimizer, generator, config, accelerator, base_rate=rate, **label_options(generator, dataset))

    run_steps(
        train_step,
        dataset,
        config,
        accelerator,
        training,
        ShownTerm("localizer/total", "loss"),
        first=first,
        curve=config.output_dir / "curves" / "localizer.jsonl",
        run="localizer",
        label=f"train {getattr(method, 'name', config.method)}",
    )
    accelerator.free_memory()
    return method.eval()


def make_optimizer(method: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """The method's own optimizer, or Adam where it makes none."""
    make = getattr(method, "make_optimizer", None)
    return make(learning_rate) if make is not None else torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=learning_rate)


@torch.no_grad()
def first_pairs(step: LocalizerStep, dataset: Dataset) -> Pairs:
    """The first 100 images of a data set, each with the attributes of the next one, and their edits; the same in every process."""
    found = []
    count = min(_PREPARED, len(dataset))
    size = step.config.train_batch_size
    for start in range(0, count, size):
        images, labels = (torch.stack(part) for part in zip(*(dataset[i][:2] for i in range(start, min(start + size, count)))))
        images, labels = images.to(step.accelerator.device), labels.to(step.accelerator.device)
        noise = StepRandom(step.config.seed, start, batch_size=len(images), device=images.device)
        found.append(step.pairs(Batch(images, labels, labels.roll(1, 0), None, noise))[:3])
    return Pairs(*(torch.cat(part) for part in zip(*found)), None)


def freeze_unused(method: nn.Module, generator: nn.Module, dataset: Dataset, config: LocalizerOptions, accelerator: Accelerator) -> None:
    """Run a copy's loss forward and backward on two pairs, and freeze parameters that get no gradient: DistributedDataParallel would wait for them forever.

    No weight changes, and no random number of the run is consumed.

    Raises:
        ValueError: the method can't work with such images, its losses can't be used, or no gradient reaches its parameters.
    """
    copy, (images, labels, *_) = copy_module(method), two_items(dataset, config, accelerator.device)
    step = LocalizerStep(copy, LossOf(copy), None, generator, config, accelerator, base_rate=0.0, **label_options(generator, dataset))
    noise = StepRandom(config.seed, 0, batch_size=2, device=accelerator.device)
    with random_state_kept(accelerator.device), must_take(images, config.method):
        terms = step.losses(Batch(images, labels, labels.flip(0), None, noise))
        check_terms(terms, config.method)
        sum(terms.values()).backward()
    unused = {name for name, _ in without_gradient(copy)}
    if len(unused) == sum(parameter.requires_grad for parameter in copy.parameters()):
        raise ValueError(f"no gradient reaches the parameters of {config.method}; do its losses detach, or run under no_grad?")
    if unused:
        accelerator.print(f"{len(unused)} parameters get no gradient and stay fixed: {', '.join(sorted(unused)[:3])}{' …' if len(unused) > 3 else ''}")
    for name, parameter in method.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name not in unused)


def check_terms(terms: object, name: str) -> None:
    """Raise ValueError unless a method's losses are finite scalars by name, one of them with a gradient."""
    if not isinstance(terms, dict) or not terms or not all(isinstance(value, torch.Tensor) and value.ndim == 0 for value in terms.values()):
        found = {key: tuple(getattr(value, "shape", ())) for key, value in terms.items()} if isinstance(terms, dict) else type(terms).__name__
        raise ValueError(f"losses of {name} returned {found}; expected the terms of the loss by name, scalar tensors")
    if broken := [key for key, value in terms.items() if not value.isfinite()]:
        raise ValueError(f"losses of {name}: {', '.join(broken)} isn't finite on the first images")
    if not any(value.requires_grad for value in terms.values()):
        raise ValueError(f"no gradient reaches the parameters of {name}; do its losses detach, or run under no_grad?")

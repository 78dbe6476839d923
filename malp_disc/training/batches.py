"""Optimizer steps and their micro-batches: the same images whether there are one or many processes and micro-batches.

An optimizer step of `--gradient-accumulation-steps` k has k micro-batches of `--train-batch-size` images on every process. All k are loaded before
the step, so that every network is updated on all of them before the next network's update: with or without accumulation, G meets the same D.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import Dataset

from malp_disc.data import dequantize, random_crop, random_flip
from malp_disc.data.sampling import StepBatches, StepRandom
from malp_disc.runtime.input_checks import without_value_checks
from malp_disc.training.loading import image_batches
from malp_disc.training.train_options import TrainOptions

_EXTRA = 0x5EED  # added to the seed for the images of a second stream


@dataclass
class Batch:
    """A micro-batch of this process.

    Attributes:
        images: (B, 3, H, W) in [-1, 1], cropped and mirrored at random, dequantised.
        labels: attributes of the images, (B, A).
        target: desired labels, (B, A): those of other images of the step. `malp_disc.target_kind` has what the generator is given.
        reference: images of the generator's target domain, (B, 3, H, W), where the data set has some; else None.
        noise: the micro-batch's random numbers; draw from it in the same order everywhere.
        shown, index, numbers: the images that G gets (encrypted or not), the indices of their templates (B,), and the random numbers of the
            augmentation (B, 5); None until `FinetuneStep.present` fills them in.
    """

    images: Tensor
    labels: Tensor
    target: Tensor
    reference: Tensor | None
    noise: StepRandom
    shown: Tensor | None = None
    index: Tensor | None = None
    numbers: Tensor | None = None


def steps(
    dataset: Dataset, options: TrainOptions, accelerator: Accelerator, *, start: int, extra: bool = False
) -> Iterator[tuple[int, list[Batch]]]:
    """The steps after `start`: the number of each, counted from 1 as in the names of checkpoints, and its micro-batches.

    Args:
        extra: draw a second stream of images, in another order.
    """
    seed, accumulation = options.seed + _EXTRA * extra, options.gradient_accumulation_steps
    place = {"rank": accelerator.process_index, "world_size": accelerator.num_processes, "accumulation": accumulation}
    distinguishes_epochs = getattr(dataset, "distinguishes_epochs", False)
    sampler = StepBatches(len(dataset), options.train_batch_size, seed=seed, start=start, stop=options.max_train_steps, distinguishes_epochs=distinguishes_epochs, **place)
    # Not prepared by Accelerate: the sampler knows rank and world size itself, and so a resumed run sees exactly the same images.
    loader = image_batches(dataset, sampler, device=accelerator.device, workers=options.dataloader_num_workers)
    for step in range(start, options.max_train_steps):
        loaded = [next(loader) for _ in range(accumulation)]
        pool = torch.cat([accelerator.gather(labels) if labels.numel() else labels for _, labels, *_ in loaded])  # of the whole step
        batches = []
        for number, (images, labels, *reference) in enumerate(loaded):
            noise = StepRandom(seed, step, batch_size=len(images), number=number, device=accelerator.device, **place)
            if options.random_crop is not None:
                images, *reference = _cropped([images, *reference], options.random_crop, noise, paired=getattr(dataset, "paired", False))
            with without_value_checks():  # the loader has looked at them
                images = dequantize(random_flip(images, coins := noise.uniform()), noise.uniform(*images.shape[1:]))
                reference = dequantize(random_flip(reference[0], coins), noise.uniform(*reference[0].shape[1:])) if reference else None
            permutation = noise.permutation()
            batches.append(Batch(images, labels, pool[permutation] if labels.numel() else labels, reference, noise))
        if not extra:
            batches[0].noise.seed_dropout()  # all that draws from torch's global generators in this step, such as dropout in losses of the user's own
        yield step + 1, batches


def _cropped(parts: Sequence[Tensor], side: int, noise: StepRandom, *, paired: bool) -> list[Tensor]:
    """Random crops of the images and of their references, at the same places if they are pairs."""
    places = [noise.uniform(2, device="cpu")]
    places += [places[0] if paired else noise.uniform(2, device="cpu") for _ in parts[1:]]
    return [random_crop(part, side, place) for part, place in zip(parts, places)]


def micro_batches(accelerator: Accelerator, batches: list[Any], *wrapped: nn.Module) -> Iterator[Any]:
    """The micro-batches of one network's update; gradients of the `wrapped` networks are synchronised between processes with the last one only."""
    for number, batch in enumerate(batches):
        with contextlib.ExitStack() as stack:
            if number < len(batches) - 1:
                for network in wrapped:
                    stack.enter_context(accelerator.no_sync(network))
            yield batch


def mean_terms(prefix: str, collected: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of every loss term over the micro-batches of a step, as ``<prefix>/<name>``, without gradients."""
    return {f"{prefix}/{name}": torch.stack([terms[name].detach().float() for terms in collected]).mean() for name in collected[0]}

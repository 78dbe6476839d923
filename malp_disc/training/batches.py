"""Optimizer steps and the images of each: the same ones on one process or many, in one pass or several.

An optimizer step of `--gradient-accumulation-steps` k has k passes of `--train-batch-size` images on every process. All k are loaded before
the step, so that every network goes through all of them before the next one's turn: accumulated or not, G meets the same D.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from malp_disc.data import dequantize, random_flip
from malp_disc.data.sampling import StepBatches, StepRandom
from malp_disc.training.train_options import TrainOptions

_EXTRA = 0x5EED  # added to the seed for the images of a second stream


@dataclass
class Batch:
    """The images of one pass on this process.

    Attributes:
        images: (B, 3, H, W) in [-1, 1], mirrored at random, dequantised.
        labels: (B, A), what is in the images.
        target: (B, A), what they shall have: the labels of other images of the step.
        reference: (B, 3, H, W), images of the domain that G leads to, where the data set has some; else None.
        noise: this pass's random numbers, for whoever needs more.
        shown, index, numbers: what G gets (encrypted or not), the templates' numbers (B,), and the numbers of the augmentation (B, 5); None until
            `FinetuneStep.present` fills them in.
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
    """Steps from `start` on, counted from 1: the number a checkpoint after it has, and its passes.

    Args:
        extra: a second stream of images, in another order.
    """
    seed, accumulation = options.seed + _EXTRA * extra, options.gradient_accumulation_steps
    place = {"rank": accelerator.process_index, "world_size": accelerator.num_processes, "accumulation": accumulation}
    sampler = StepBatches(len(dataset), options.train_batch_size, seed=seed, start=start, stop=options.max_train_steps, **place)
    # Not prepared: the sampler knows the processes itself, which is what makes a resumed run exact.
    loader = iter(DataLoader(dataset, batch_sampler=sampler, num_workers=options.dataloader_num_workers))
    for step in range(start, options.max_train_steps):
        loaded = [[part.to(accelerator.device) for part in next(loader)] for _ in range(accumulation)]
        pool = torch.cat([accelerator.gather(labels) if labels.numel() else labels for _, labels, *_ in loaded])  # of the whole step
        batches = []
        for number, (images, labels, *reference) in enumerate(loaded):
            noise = StepRandom(seed, step, batch_size=len(images), number=number, device=accelerator.device, **place)
            images = dequantize(random_flip(images, coins := noise.uniform()), noise.uniform(*images.shape[1:]))
            reference = dequantize(random_flip(reference[0], coins), noise.uniform(*reference[0].shape[1:])) if reference else None
            permutation = noise.permutation()
            batches.append(Batch(images, labels, pool[permutation] if labels.numel() else labels, reference, noise))
        yield step + 1, batches


def micro_batches(accelerator: Accelerator, batches: list[Any], *wrapped: nn.Module) -> Iterator[Any]:
    """The passes of one network's turn; processes exchange the gradients of the `wrapped` networks with the last pass only."""
    for number, batch in enumerate(batches):
        with contextlib.ExitStack() as stack:
            if number < len(batches) - 1:
                for network in wrapped:
                    stack.enter_context(accelerator.no_sync(network))
            yield batch


def mean_terms(prefix: str, collected: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of every loss term over the micro-batches of a step, as ``<prefix>/<name>``, without gradients."""
    return {f"{prefix}/{name}": torch.stack([terms[name].detach().float() for terms in collected]).mean() for name in collected[0]}

"""Batches and random numbers of each optimizer step as a function of (seed, step) alone, so that a resumed run is identical.

`StepBatches` samples the rows, `StepRandom` the noise. Both are defined for the step of all processes and return this process's part: two
processes with half the batch each compute the same as one.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from malp_disc.runtime.transfer import to_device

_ROWS = 1 << 24  # upper limit for the images of a step: (step, row) becomes one integer


class StepBatches(Sampler[list[int]]):
    """Batches of row numbers for the optimizer steps `start`, `start` + 1, …, `stop` - 1; every epoch is a fresh permutation.

    Args:
        length: number of rows in the data set.
        batch_size: rows per micro-batch and process.
        seed: seed of the permutations.
        start, stop: first step, and the step to stop before.
        rank, world_size: index of this process, and the number of processes.
        accumulation: micro-batches per step. Together, over all processes, they hold the rows of one process with the whole batch.
        distinguishes_epochs: yield row + `length` · epoch, for a data set whose items differ between epochs (`malp_disc.data.references.WithReferences`).

    Raises:
        ValueError: one step over all processes needs more rows than there are.
    """

    def __init__(
        self, length: int, batch_size: int, *, seed: int, start: int = 0, stop: int, rank: int = 0, world_size: int = 1, accumulation: int = 1, distinguishes_epochs: bool = False
    ) -> None:
        if batch_size < 1 or batch_size * world_size * accumulation > length:
            more = f" x {accumulation}" if accumulation > 1 else ""
            raise ValueError(f"a step takes {batch_size} x {world_size}{more} images, but the data set has {length}; use a smaller --train-batch-size")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.start, self.stop, self.rank, self.world_size, self.accumulation, self.distinguishes_epochs = start, stop, rank, world_size, accumulation, distinguishes_epochs

    def __len__(self) -> int:
        return max(0, self.stop - self.start) * self.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        pass_size = self.batch_size * self.world_size
        whole = pass_size * self.accumulation
        steps_per_epoch = self.length // whole
        epoch, order = -1, torch.empty(0, dtype=torch.long)
        for step in range(self.start, self.stop):
            if step // steps_per_epoch != epoch:
                epoch = step // steps_per_epoch
                order = torch.randperm(self.length, generator=_generator(self.seed, epoch, 1))
            for number in range(self.accumulation):
                first = (step % steps_per_epoch) * whole + number * pass_size + self.rank * self.batch_size
                yield (order[first : first + self.batch_size] + self.distinguishes_epochs * epoch * self.length).tolist()


class StepRandom:
    """The random numbers of one optimizer step, per image; each process and each micro-batch gets those of its own images.

    If all call the same methods in the same order, two processes, or two micro-batches, together draw the numbers of one batch.

    Args:
        seed, step: determine all numbers.
        batch_size: images per micro-batch and process.
        rank, world_size: index of this process, and the number of processes.
        number, accumulation: index of this micro-batch in the step, and the number of micro-batches.
    """

    def __init__(
        self,
        seed: int,
        step: int,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        number: int = 0,
        accumulation: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        first = (number * world_size + rank) * batch_size
        self._generator = _generator(seed, step, 2)
        self._dropout_seed = _generator(seed, step * _ROWS + first, 3).initial_seed()
        self._rows = slice(first, first + batch_size)
        self._whole = batch_size * world_size * accumulation
        self._of_each = [_generator(seed, step * _ROWS + row, 4) for row in range(first, first + batch_size)]
        self._device = device

    def uniform(self, *shape: int, device: torch.device | str | None = None) -> Tensor:
        """Uniform in [0, 1), (B, *shape), on the step's device or on another one: on the CPU where Python reads them."""
        device = self._device if device is None else device
        if shape:  # one stream per image, so that no process has to draw the noise of other processes' images
            return to_device(torch.stack([torch.rand(*shape, generator=generator) for generator in self._of_each]), device)
        return to_device(torch.rand(self._whole, generator=self._generator)[self._rows], device)

    def integers(self, high: int) -> Tensor:
        """Uniform integers in 0 … high - 1, (B,) long."""
        return to_device(torch.randint(high, (self._whole,), generator=self._generator)[self._rows], self._device)

    def permutation(self) -> Tensor:
        """This micro-batch's part (B,) of a permutation of all images of the step, which are ordered by micro-batch, then process."""
        return to_device(torch.randperm(self._whole, generator=self._generator)[self._rows], self._device)

    def seed_dropout(self) -> None:
        """Seed torch's global generators by step and first image: they are used by networks with dropout.

        Unlike the other numbers, dropout is drawn per micro-batch, not per image: with it, two processes differ from one, and two micro-batches from one.
        """
        torch.manual_seed(self._dropout_seed)


def _generator(seed: int, number: int, stream: int) -> torch.Generator:
    """An independent generator for (seed, number, stream). The bits are mixed so that consecutive numbers give unrelated seeds."""
    mixed = (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + stream * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    mixed ^= mixed >> 31
    mixed = (mixed * 0xD6E8FEB86659FD93) & 0xFFFFFFFFFFFFFFFF
    return torch.Generator().manual_seed((mixed ^ (mixed >> 29)) & 0x7FFFFFFFFFFFFFFF)

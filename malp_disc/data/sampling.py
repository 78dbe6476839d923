"""Which images and which random numbers step t sees: a function of (seed, t) alone, so that a resumed run is the same run.

`StepBatches` gives the rows, `StepRandom` the noise. Both know the whole step over all processes and hand out this process's part, so
two processes with half the batch each see together what one process sees.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

_ROWS = 1 << 24  # more images than a step has: numbers (step, row) in one integer


class StepBatches(Sampler[list[int]]):
    """Batches of row numbers for the optimizer steps `start`, `start` + 1, …, `stop` - 1; every epoch is a fresh permutation.

    Args:
        length: rows in the data set.
        batch_size: rows per forward pass and process.
        seed: of the permutations.
        start, stop: first step, and the step to stop before.
        rank, world_size: this process and how many there are.
        accumulation: forward passes per step; that many batches come for each step. Together, over all processes, they are the rows that
            one process with the whole batch would see.

    Raises:
        ValueError: one step of all processes needs more rows than there are.
    """

    def __init__(
        self, length: int, batch_size: int, *, seed: int, start: int = 0, stop: int, rank: int = 0, world_size: int = 1, accumulation: int = 1
    ) -> None:
        if batch_size < 1 or batch_size * world_size * accumulation > length:
            more = f" x {accumulation}" if accumulation > 1 else ""
            raise ValueError(f"a step takes {batch_size} x {world_size}{more} images, but the data set has {length}; use a smaller --train-batch-size")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.start, self.stop, self.rank, self.world_size, self.accumulation = start, stop, rank, world_size, accumulation

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
                yield order[first : first + self.batch_size].tolist()


class StepRandom:
    """The random numbers of one optimizer step, per image; each process and each forward pass gets the rows of its own images.

    Draw in the same order everywhere. Two processes, or two accumulated forward passes, then draw together what one batch draws.

    Args:
        seed, step: of which all numbers are a function.
        batch_size: images per forward pass and process.
        rank, world_size: this process and how many there are.
        number, accumulation: this forward pass of the step and how many there are.
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

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), (B, *shape)."""
        if shape:  # every image has its own stream: nobody draws the large noise of other processes' images
            return torch.stack([torch.rand(*shape, generator=generator) for generator in self._of_each]).to(self._device)
        return torch.rand(self._whole, generator=self._generator)[self._rows].to(self._device)

    def integers(self, high: int) -> Tensor:
        """Uniform integers in 0 … high - 1, (B,) long."""
        return torch.randint(high, (self._whole,), generator=self._generator)[self._rows].to(self._device)

    def permutation(self) -> Tensor:
        """A permutation of all images of the step, this pass's rows: indices into the step's images, which are ordered by pass, then process."""
        return torch.randperm(self._whole, generator=self._generator)[self._rows].to(self._device)

    def seed_dropout(self) -> None:
        """Seed torch's global generators for this pass: what a network draws in its forward pass, above all dropout.

        Dropout alone is drawn per forward pass and not per image, so with it two processes don't equal one.
        """
        torch.manual_seed(self._dropout_seed)


def _generator(seed: int, number: int, stream: int) -> torch.Generator:
    """An independent generator for (seed, number, stream). Philox-like mixing: nearby numbers must not give nearby seeds."""
    mixed = (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + stream * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    mixed ^= mixed >> 31
    mixed = (mixed * 0xD6E8FEB86659FD93) & 0xFFFFFFFFFFFFFFFF
    return torch.Generator().manual_seed((mixed ^ (mixed >> 29)) & 0x7FFFFFFFFFFFFFFF)

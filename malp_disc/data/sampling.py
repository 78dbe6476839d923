"""Which pictures and which random numbers step t sees: a function of (seed, t) alone, so that a resumed run is the same run.

`StepBatches` gives the rows, `StepRandom` the noise. Both know the whole step over all processes and hand out this process's part, so
two processes with half the batch each see together what one process sees.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler


class StepBatches(Sampler[list[int]]):
    """Batches of row numbers for steps `start`, `start` + 1, …, `stop` - 1; every epoch is a fresh permutation.

    Args:
        length: rows in the data set.
        batch_size: rows per step and process.
        seed: of the permutations.
        start, stop: first step, and the step to stop before.
        rank, world_size: this process and how many there are.

    Raises:
        ValueError: one step of all processes needs more rows than there are.
    """

    def __init__(self, length: int, batch_size: int, *, seed: int, start: int = 0, stop: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1 or batch_size * world_size > length:
            raise ValueError(f"a step takes {batch_size} x {world_size} pictures, but the data set has {length}; use a smaller --train-batch-size")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.start, self.stop, self.rank, self.world_size = start, stop, rank, world_size

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[list[int]]:
        whole = self.batch_size * self.world_size
        steps_per_epoch = self.length // whole
        epoch, order = -1, torch.empty(0, dtype=torch.long)
        for step in range(self.start, self.stop):
            if step // steps_per_epoch != epoch:
                epoch = step // steps_per_epoch
                order = torch.randperm(self.length, generator=_generator(self.seed, epoch, 1))
            first = (step % steps_per_epoch) * whole + self.rank * self.batch_size
            yield order[first : first + self.batch_size].tolist()


class StepRandom:
    """The random numbers of one step, per picture. Draw in the same order in every process; each gets the rows of its own pictures."""

    def __init__(self, seed: int, step: int, *, batch_size: int, rank: int = 0, world_size: int = 1, device: torch.device | str = "cpu") -> None:
        self._generator = _generator(seed, step, 2)
        self._dropout_seed = _generator(seed, step, 3 + rank).initial_seed()
        self._rows = slice(rank * batch_size, (rank + 1) * batch_size)
        self._whole = batch_size * world_size
        self._device = device

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), (B, *shape)."""
        return torch.rand(self._whole, *shape, generator=self._generator)[self._rows].to(self._device)

    def integers(self, high: int) -> Tensor:
        """Uniform integers in 0 … high - 1, (B,) long."""
        return torch.randint(high, (self._whole,), generator=self._generator)[self._rows].to(self._device)

    def permutation(self) -> Tensor:
        """A permutation of all pictures of the step (world x B,), this process's rows: indices into the gathered batch."""
        return torch.randperm(self._whole, generator=self._generator)[self._rows].to(self._device)

    def seed_dropout(self) -> None:
        """Seed torch's global generators for this step and process: what a network draws in its forward pass, above all dropout.

        Dropout alone is drawn per process and not per picture, so with it two processes don't equal one.
        """
        torch.manual_seed(self._dropout_seed)


def _generator(seed: int, number: int, stream: int) -> torch.Generator:
    """An independent generator for (seed, number, stream). Philox-like mixing: nearby numbers must not give nearby seeds."""
    mixed = (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + stream * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    mixed ^= mixed >> 31
    mixed = (mixed * 0xD6E8FEB86659FD93) & 0xFFFFFFFFFFFFFFFF
    return torch.Generator().manual_seed((mixed ^ (mixed >> 29)) & 0x7FFFFFFFFFFFFFFF)

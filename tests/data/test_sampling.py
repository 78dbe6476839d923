"""Step t's rows and random numbers are a function of (seed, t) alone: resumed equals uninterrupted, two processes equal one."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from malp_disc.data.sampling import StepBatches, StepRandom


def rows(length: int = 20, batch_size: int = 4, **options) -> list[list[int]]:
    return list(StepBatches(length, batch_size, **{"seed": 0, "stop": 12, **options}))


def test_a_resumed_run_sees_what_the_uninterrupted_one_sees():
    whole = rows()
    for start in range(13):
        assert rows(start=start) == whole[start:]
        assert rows(stop=start) == whole[:start]


def test_two_processes_together_see_what_one_sees():
    one = rows(batch_size=4)
    first, second = (rows(batch_size=2, rank=rank, world_size=2) for rank in (0, 1))
    assert [a + b for a, b in zip(first, second)] == one


def test_an_epoch_shows_every_row_once_and_the_next_one_in_another_order():
    """20 rows, 4 a step: 5 steps an epoch."""
    epochs = [sum(rows()[start : start + 5], []) for start in (0, 5)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20))
    assert epochs[0] != epochs[1] and epochs[0] != list(range(20))


def test_what_doesnt_fill_a_step_waits_for_another_epoch():
    """23 rows, 4 a step: 3 rows are left out of an epoch, others each time, and no step is short."""
    batches = rows(length=23, stop=100)
    assert {len(batch) for batch in batches} == {4}
    for start in range(0, 100, 5):
        assert len(set(sum(batches[start : start + 5], []))) == 20
    assert set(sum(batches, [])) == set(range(23))


def test_another_seed_is_another_order():
    assert rows(seed=1) != rows(seed=0) == rows(seed=0)
    assert rows(seed=-1) != rows(seed=0)


def test_the_length_counts_steps_and_a_loader_takes_the_sampler():
    sampler = StepBatches(10, 3, seed=0, start=4, stop=9)
    assert len(sampler) == 5 == len(list(sampler))
    assert len(StepBatches(10, 3, seed=0, start=4, stop=9, accumulation=3)) == 15
    assert len(StepBatches(10, 3, seed=0, start=9, stop=4)) == 0 == len(list(StepBatches(10, 3, seed=0, start=9, stop=4)))
    seen = [batch.tolist() for (batch,) in DataLoader(TensorDataset(torch.arange(10)), batch_sampler=sampler)]
    assert seen == list(sampler)


@pytest.mark.parametrize(("length", "batch_size", "world_size"), [(7, 8, 1), (7, 4, 2), (0, 1, 1), (5, 0, 1)])
def test_a_step_larger_than_the_data_set_is_refused(length, batch_size, world_size):
    with pytest.raises(ValueError, match=f"takes {batch_size} x {world_size} images, but the data set has {length}; use a smaller --train-batch-size"):
        StepBatches(length, batch_size, seed=0, stop=1, world_size=world_size)


def test_micro_batches_count_in_the_images_of_a_step():
    with pytest.raises(ValueError, match="takes 2 x 1 x 4 images, but the data set has 7"):
        StepBatches(7, 2, seed=0, stop=1, accumulation=4)


def numbers(step: int, seed: int = 0, **options) -> tuple[torch.Tensor, ...]:
    noise = StepRandom(seed, step, **{"batch_size": 4, **options})
    return noise.uniform(), noise.uniform(2, 3), noise.integers(5), noise.permutation()


def test_a_steps_numbers_depend_on_seed_and_step_alone():
    expected = numbers(3)
    torch.manual_seed(99)
    StepRandom(0, 2, batch_size=4).uniform()
    assert all(torch.equal(one, other) for one, other in zip(numbers(3), expected))
    for other in (numbers(4), numbers(3, seed=1)):
        assert not torch.equal(other[0], expected[0]) and not torch.equal(other[1], expected[1])


def test_they_leave_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    numbers(0)
    rows()
    assert torch.equal(torch.rand(2), expected)


def test_two_processes_draw_together_what_one_draws():
    parts = [numbers(7, batch_size=2, rank=rank, world_size=2) for rank in (0, 1)]
    for one, first, second in zip(numbers(7), *parts):
        assert torch.equal(torch.cat([first, second]), one)


def test_micro_batches_see_and_draw_together_what_one_batch_does():
    """Two micro-batches on two processes with two images each: the eight of one batch, in the order micro-batch, process, image. Also over an epoch's end."""
    parts = [rows(length=20, batch_size=2, world_size=2, rank=rank, accumulation=2, stop=5) for rank in (0, 1)]
    whole = rows(length=20, batch_size=8, stop=5)
    assert [a + b + c + d for a, b, c, d in zip(parts[0][::2], parts[1][::2], parts[0][1::2], parts[1][1::2])] == whole
    assert rows(length=20, batch_size=2, world_size=2, accumulation=2, start=3, stop=5) == parts[0][6:]
    options = {"batch_size": 2, "world_size": 2, "accumulation": 2}
    drawn = [numbers(7, rank=rank, number=number, **options) for number in (0, 1) for rank in (0, 1)]
    for one, *pieces in zip(numbers(7, batch_size=8), *drawn):
        assert torch.equal(torch.cat(pieces), one)


def test_large_noise_goes_on_where_it_stopped():
    noise = StepRandom(0, 3, batch_size=2)
    first, second = noise.uniform(3), noise.uniform(3)
    assert not torch.equal(first, second) and not torch.equal(first[0], first[1])


def test_dropout_is_drawn_anew_for_every_step_and_process_and_alike_after_a_resume():
    def drawn(step: int, **place: int) -> tuple[float, ...]:
        StepRandom(0, step, batch_size=2, **place).seed_dropout()
        return tuple(torch.rand(3).tolist())

    with torch.random.fork_rng():
        assert drawn(3) == drawn(3)
        assert len({drawn(3), drawn(4), drawn(3, rank=1, world_size=2), drawn(3, number=1, accumulation=3), drawn(3, number=2, accumulation=3)}) == 4


def test_shapes_ranges_and_kinds():
    noise = StepRandom(0, 0, batch_size=500)
    uniform, integers, permutation = noise.uniform(2), noise.integers(3), noise.permutation()
    assert uniform.shape == (500, 2) and 0 <= uniform.min() and uniform.max() < 1 and uniform.mean().item() == pytest.approx(0.5, abs=0.05)
    assert integers.dtype == torch.long and torch.bincount(integers).tolist() == pytest.approx([167, 167, 167], abs=55)
    assert sorted(permutation.tolist()) == list(range(500))


def test_neighbouring_steps_and_seeds_are_unrelated():
    """Correlation of 2000 numbers each: σ = 0.022; 5 σ. A seed of seed + step would make (0, 1) and (1, 0) equal."""
    draws = torch.stack([StepRandom(seed, step, batch_size=2000).uniform() for seed, step in ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2))])
    correlation = torch.corrcoef(draws) - torch.eye(5)
    assert correlation.abs().max() < 0.11


def test_the_rows_and_the_noise_of_a_step_come_from_different_streams():
    """Epoch 0's permutation isn't step 0's permutation."""
    order = sum(rows(length=20, batch_size=20, stop=1), [])
    assert order != StepRandom(0, 0, batch_size=20).permutation().tolist()

"""The images of a step: random crops are a function of seed, step and image, and those of a pair are the same place."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch.utils.data import Dataset

from malp_disc.training.batches import Batch, mean_terms, micro_batches, steps
from malp_disc.training.launch import check_random_crop
from malp_disc.training.options import FinetuneOptions


class Coordinates(Dataset):
    """Images whose first two channels are row and column, in 8-bit levels, each with a reference that is the same image."""

    attribute_names = ()

    def __init__(self, *, paired: bool) -> None:
        self.paired = paired

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int):
        rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
        image = torch.stack([rows, columns, torch.full((32, 32), float(index))]) / 127.5 - 1
        return image, torch.zeros(0), image.clone()


def batches(start: int = 0, *, paired: bool = False, **changed) -> list[list[Batch]]:
    options = FinetuneOptions(**{"output_dir": Path("x"), "train_batch_size": 4, "max_train_steps": 3, "random_crop": 16, **changed})
    return [made for _, made in steps(Coordinates(paired=paired), options, Accelerator(cpu=True), start=start)]


def corners(images: torch.Tensor) -> list[tuple[int, int]]:
    """The top left corner of each crop, whichever way it was mirrored."""
    levels = ((images + 1) * 127.5).round().long()
    return [(int(image[0].min()), int(image[1].min())) for image in levels]


def test_crops_are_of_the_size_and_differ_from_image_to_image_and_step_to_step():
    places = []
    for (batch,) in batches():
        assert batch.images.shape == batch.reference.shape == (4, 3, 16, 16)
        places += corners(batch.images) + corners(batch.reference)
    assert len(set(places)) > 20 and max(map(max, places)) <= 16


def test_a_resumed_run_and_smaller_micro_batches_see_the_same_crops():
    whole = batches()
    assert torch.equal(batches(start=2)[0][0].images, whole[2][0].images)
    halves = batches(train_batch_size=2, gradient_accumulation_steps=2)
    for (batch,), parts in zip(whole, halves):
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
        assert torch.equal(torch.cat([part.reference for part in parts]), batch.reference)
    assert corners(batches(seed=1)[0][0].images) != corners(whole[0][0].images)


def test_a_pair_is_cropped_at_one_place():
    for (pair,), (single,) in zip(batches(paired=True), batches()):
        assert corners(pair.images) == corners(pair.reference)
        assert corners(single.images) != corners(single.reference)


def test_without_the_option_whole_images_are_what_they_were():
    whole = batches(random_crop=None)[0][0]
    assert whole.images.shape == (4, 3, 32, 32) and corners(whole.images) == [(0, 0)] * 4


class Labelled(Coordinates):
    """With a label that is the image's number in eight bits; it notes which rows are asked for."""

    attribute_names = tuple("abcdefgh")

    def __init__(self, *, distinguishes_epochs: bool = False) -> None:
        super().__init__(paired=True)
        self.distinguishes_epochs, self.asked = distinguishes_epochs, []

    def __getitem__(self, index: int):
        self.asked.append(index)
        image, _, reference = super().__getitem__(index % len(self))
        return image, torch.tensor([float(index >> bit & 1) for bit in range(8)]), reference


def labelled(dataset: Dataset | None = None, *, extra: bool = False, **changed) -> list[list[Batch]]:
    options = FinetuneOptions(**{"output_dir": Path("x"), "train_batch_size": 4, "max_train_steps": 6, **changed})
    return [made for _, made in steps(dataset or Labelled(), options, Accelerator(cpu=True), start=0, extra=extra)]


def test_the_targets_are_the_labels_of_other_images_of_the_step_also_of_another_micro_batch():
    whole, halves = labelled(), labelled(train_batch_size=2, gradient_accumulation_steps=2)
    strangers = 0
    for (batch,), parts in zip(whole, halves):
        labels, target = (torch.cat([getattr(part, name) for part in parts]) for name in ("labels", "target"))
        assert torch.equal(labels, batch.labels) and torch.equal(target, batch.target)
        assert sorted(target.tolist()) == sorted(labels.tolist()) and len({tuple(row) for row in labels.tolist()}) == 4
        strangers += sum(row not in part.labels.tolist() for part in parts for row in part.target.tolist())
    assert strangers > 4
    assert not all(torch.equal(batch.target, batch.labels) for (batch,) in whole)


def test_images_leave_the_8_bit_grid_by_up_to_half_a_level_and_a_pair_is_mirrored_alike():
    mirrored = []
    for (batch,) in labelled():
        for images in (batch.images, batch.reference):
            off = (images + 1) * 127.5 - ((images + 1) * 127.5).round()
            assert off.abs().max() <= 0.5001 and off.std() > 0.2
        columns = [images[:, 1, 0] for images in (batch.images, batch.reference)]
        ways = [(rows[:, 0] > rows[:, -1]).tolist() for rows in columns]
        assert ways[0] == ways[1] and not torch.equal(batch.images, batch.reference), "each has noise of its own"
        mirrored += ways[0]
    assert 0 < sum(mirrored) < len(mirrored)


def test_a_second_stream_has_other_images_crops_and_noise():
    for (batch,), (other,) in zip(labelled(random_crop=16), labelled(random_crop=16, extra=True)):
        assert not torch.equal(batch.labels, other.labels)
        assert corners(batch.images) != corners(other.images)


def test_dropout_is_that_of_the_step_also_in_a_resumed_run_and_a_second_stream_leaves_it_alone():
    options, drawn = FinetuneOptions(output_dir=Path("x"), train_batch_size=4, max_train_steps=3), {}
    with torch.random.fork_rng():
        for start in (0, 2):
            drawn |= {(start, number): torch.rand(1).item() for number, _ in steps(Labelled(), options, Accelerator(cpu=True), start=start)}
        state = torch.get_rng_state()
        labelled(extra=True)
        assert torch.equal(torch.get_rng_state(), state)
    assert set(drawn) == {(0, 1), (0, 2), (0, 3), (2, 3)} and drawn[0, 3] == drawn[2, 3] and len(set(drawn.values())) == 3


def test_gradients_are_synchronised_with_the_last_micro_batch_alone():
    kept: list[str] = []

    @contextlib.contextmanager
    def no_sync(network: str):
        kept.append(network)
        yield
        kept.remove(network)

    accelerator = SimpleNamespace(no_sync=no_sync)
    assert [(batch, tuple(kept)) for batch in micro_batches(accelerator, [1, 2, 3], "G", "D")] == [(1, ("G", "D")), (2, ("G", "D")), (3, ())]


def test_terms_are_logged_as_their_mean_over_micro_batches_without_a_graph():
    terms = [{"map": torch.tensor(value, requires_grad=True)} for value in (1.0, 4.0)]
    (mean,) = (found := mean_terms("malp", terms)).values()
    assert list(found) == ["malp/map"] and mean.item() == 2.5 and not mean.requires_grad


def test_a_data_set_whose_items_differ_between_epochs_is_told_which_one_it_is():
    for distinguishes_epochs, highest in ((False, 12), (True, 24)):
        dataset = Labelled(distinguishes_epochs=distinguishes_epochs)
        labelled(dataset)
        assert sorted(dataset.asked) == sorted([*range(12), *range(highest - 12, highest)])


@pytest.mark.parametrize(
    ("side", "words"), [(8, "at least 16"), (18, "divisible by 4"), (64, "larger than the images; --image-size is 32")]
)
def test_a_crop_that_cannot_be_is_refused_before_any_work(side, words):
    options = FinetuneOptions(output_dir=Path("x"), random_crop=side)
    options.image_size = 32
    with pytest.raises(ValueError, match=words):
        check_random_crop(options)

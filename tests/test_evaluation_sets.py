"""Which images an evaluation edits, and with which real ones it compares."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from malp_disc.data import build_dataset
from malp_disc.data.faces import ProceduralFaces
from malp_disc.evaluation.eval_set import EvalSet, edit
from malp_disc.evaluation.evaluation_models import EvaluationConfig
from malp_disc.evaluation.evaluator import evaluation_sets


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """24 images, each of another brightness."""
    folder = tmp_path_factory.mktemp("photos")
    for index in range(24):
        Image.new("L", (16, 16), 10 * index).save(folder / f"{index:02d}.png")
    return EvaluationConfig(data="images", data_root=folder, image_size=16, test_size=14)


def levels(dataset, first=0, last=None):
    return {round(float(dataset[index][0].mean()), 3) for index in range(first, len(dataset) if last is None else last)}


def test_held_out_images_that_no_generator_edits_where_there_are_enough(photos):
    sets = evaluation_sets(dataclasses.replace(photos, eval_size=6, reference_size=8))
    everything = levels(build_dataset(photos, "train")) | levels(build_dataset(photos, "test"))
    edited, compared, trained = levels(sets.held_out, 0, 6), levels(sets.real), levels(sets.train)
    assert (len(edited), len(compared), len(trained)) == (6, 8, 10) and edited | compared | trained == everything
    assert sets.real.description.startswith("held-out images that no generator edits, of photos") and "test split" in sets.real.description


def test_training_images_where_there_are_not_or_where_asked_for(photos):
    for changed in ({"reference_size": 9}, {"reference_size": 8, "reference_split": "training"}):
        real = evaluation_sets(dataclasses.replace(photos, eval_size=6, **changed)).real
        assert levels(real) == levels(build_dataset(photos, "train")) and "train split" in real.description


def test_fewer_held_out_ones_on_request(photos, caplog):
    sets = evaluation_sets(dataclasses.replace(photos, eval_size=6, reference_size=2000, reference_split="held-out"))
    assert len(sets.real) == 8 and not levels(sets.real) & levels(sets.train) and "--reference-size 2000: there are only 8 images" in caplog.text
    with pytest.raises(ValueError, match="--reference-size of at least 4 images, got 3 of 8 that there are"):
        evaluation_sets(dataclasses.replace(photos, eval_size=6, reference_size=3, reference_split="held-out"))
    with pytest.raises(ValueError, match="of 14 held-out images, --eval-size 12 are edited, which leaves too few to compare with; hold out more"):
        evaluation_sets(dataclasses.replace(photos, eval_size=12, reference_split="held-out"))


def test_drawn_faces_are_held_out_unless_asked_for():
    data = EvaluationConfig(image_size=16, train_size=6, test_size=4, eval_size=2, reference_size=4)
    first = {split: evaluation_sets(dataclasses.replace(data, reference_split=split)).real for split in ("auto", "held-out", "training")}
    assert all(isinstance(real, ProceduralFaces) for real in first.values())
    assert torch.equal(first["auto"][0][0], first["held-out"][0][0]) and torch.equal(first["training"][0][0], build_dataset(data, "train")[0][0])
    assert not torch.equal(first["auto"][0][0], first["training"][0][0])


def test_an_edit_leaves_exactly_one_of_labels_that_exclude_each_other():
    labels = torch.eye(3).repeat(2, 1)
    dataset = TensorDataset(torch.zeros(6, 3, 8, 8), labels)
    dataset.attribute_names = ("photo", "sketch", "painting")
    taken = EvalSet.take(dataset, 6, exclusive=dataset.attribute_names)
    assert torch.equal(taken.targets.sum(1), torch.ones(6)) and (taken.targets != labels).any(1).all()
    assert torch.equal(taken.targets.argmax(1), taken.edited)


def test_edits_are_clamped_and_what_is_not_finite_is_not_taken_for_a_value():
    images = torch.tensor([0.5, 4.0, -4.0, math.inf, -math.inf, math.nan]).view(6, 1, 1, 1).expand(6, 3, 2, 2)
    edited = edit(lambda images, target: images, images, torch.zeros(6, 0), current=torch.zeros(6, 0))
    assert torch.equal(edited[:3, 0, 0, 0], torch.tensor([0.5, 1.0, -1.0])) and edited[3:].isnan().all()

"""Edit accuracy, the distance from doing nothing, and which edit each image gets."""

from __future__ import annotations

import json

import pytest
import torch

from malp_disc.metrics.editing import edit_accuracy, identity_l1, single_attribute_targets

NAMES = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Smiling")


def test_edit_accuracy_by_hand():
    """Image 0: asked for Blond instead of Black, got both (Black not removed): not edited. Image 1: asked to smile, smiles, but
    lost its Black. Requested entries: Black and Blond of image 0, Smiling of image 1. Kept: of the other 5 entries 4."""
    labels = torch.tensor([[1.0, 0, 0, 0], [1, 0, 0, 0]])
    target = torch.tensor([[0.0, 1, 0, 0], [1, 0, 0, 1]])
    logits = torch.tensor([[2.0, 2, -2, -2], [-2, -2, -2, 2]])
    result = edit_accuracy(logits, target, target != labels, attribute_names=NAMES)
    assert (result.images, result.edited, result.kept) == (2, 0.5, 0.8)
    assert result.per_attribute == {"Black_Hair": 0, "Blond_Hair": 1, "Brown_Hair": None, "Smiling": 1}


def test_doing_nothing_has_edit_accuracy_zero_and_keeps_everything():
    """A classifier that reads the original labels: G(x) = x."""
    labels = torch.eye(4)[:, :4]
    target, _ = single_attribute_targets(labels, NAMES)
    result = edit_accuracy(2 * labels - 1, target, target != labels)
    assert (result.edited, result.kept) == (0, 1)


def test_images_without_a_request_do_not_count_as_edited():
    labels = torch.tensor([[1.0, 0], [1, 0]])
    result = edit_accuracy(torch.tensor([[1.0, -1], [1, -1]]), labels, torch.zeros(2, 2, dtype=torch.bool))
    assert (result.edited, result.kept) == (None, 1)


def test_identity_l1_by_hand():
    """Half of the values move by 0.5, the others not: 0.25."""
    images = torch.zeros(1, 3, 2, 2)
    edited = images.clone()
    edited[..., 0] = 0.5
    assert identity_l1(images, edited) == 0.25
    assert identity_l1(images, images) == 0


def test_attributes_take_turns_and_only_one_is_edited():
    labels = torch.tensor([[0.0, 0, 1, 0]] * 8)
    target, edited = single_attribute_targets(labels, NAMES)
    assert edited.tolist() == [0, 1, 0, 3] * 2  # Brown was asked of brown hair: the next colour instead
    assert target.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1]] * 2


def test_every_image_is_really_edited_except_by_the_official_rule():
    generator = torch.Generator().manual_seed(0)
    labels = torch.nn.functional.one_hot(torch.randint(3, (60,), generator=generator), 3).float()
    labels = torch.cat([labels, torch.randint(2, (60, 1), generator=generator)], dim=1)
    target, edited = single_attribute_targets(labels, NAMES)
    assert (target != labels).any(dim=1).all()
    assert (target[:, :3].sum(dim=1) == 1).all()
    assert (target[torch.arange(60), edited] != labels[torch.arange(60), edited]).all()
    official, _ = single_attribute_targets(labels, NAMES, official=True)
    assert (official == labels).all(dim=1).any()


def test_batches_continue_where_the_last_one_stopped():
    labels = torch.tensor([[1.0, 0, 0, 1]] * 7)
    whole, edited = single_attribute_targets(labels, NAMES)
    parts = [single_attribute_targets(labels[:3], NAMES), single_attribute_targets(labels[3:], NAMES, first=3)]
    assert torch.equal(whole, torch.cat([target for target, _ in parts]))
    assert torch.equal(edited, torch.cat([number for _, number in parts]))


def test_domains_move_to_another_domain():
    """One folder per domain: one-hot labels, all names exclusive."""
    labels = torch.eye(3)
    target, edited = single_attribute_targets(labels, ("cat", "dog", "wild"), exclusive=("cat", "dog", "wild"))
    assert edited.tolist() == [1, 2, 0]
    assert target.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_two_domains_swap():
    target, _ = single_attribute_targets(torch.eye(2), ("horse", "zebra"), exclusive=("horse", "zebra"))
    assert target.tolist() == [[0, 1], [1, 0]]


def test_a_single_hair_colour_is_switched_like_glasses():
    target, _ = single_attribute_targets(torch.tensor([[1.0], [0.0]]), ("Blond_Hair",))
    assert target.tolist() == [[0], [1]]


def test_labels_are_left_as_they_were_and_keep_their_dtype():
    labels = torch.tensor([[1, 0, 0, 1]])
    target, _ = single_attribute_targets(labels, NAMES)
    assert labels.tolist() == [[1, 0, 0, 1]] and target.dtype == torch.int64


def test_the_official_rule_is_stargans(shared):
    """Their create_labels, recorded: targets[i][b] edits attribute i on image b."""
    record = json.loads(shared("golden/attribute_targets.json").read_text())["stargan"]
    labels = torch.tensor(record["labels"])
    for b in range(len(labels)):
        for i in range(len(record["attrs"])):
            target, edited = single_attribute_targets(labels[b : b + 1], record["attrs"], first=i, official=True)
            assert target[0].tolist() == record["targets"][i][b]
            assert edited.item() == i


@pytest.mark.parametrize(
    ("labels", "exclusive", "message"),
    [
        (torch.zeros(2, 3), None, r"expected labels \(B, 4\)"),
        (-torch.ones(2, 4), None, "CelebA's -1 means 0"),
        (torch.zeros(2, 4), ("Bald",), r"\['Bald'\] are not among"),
    ],
)
def test_unfit_labels_are_refused(labels, exclusive, message):
    with pytest.raises(ValueError, match=message):
        single_attribute_targets(labels, NAMES, exclusive=exclusive)


def test_a_mask_that_is_not_bool_is_refused():
    with pytest.raises(ValueError, match="pass target != labels"):
        edit_accuracy(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2))

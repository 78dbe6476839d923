"""The attribute editors' rules against what the authors' own code makes of the same labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from generators.attgan import AttGANGenerator, attgan_target
from generators.attributes import ATTGAN_CONFLICTS, CELEBA_10, CELEBA_13, STGAN_CONFLICTS, difference, flip_attribute, tell
from malp_disc.metrics.editing import one_attribute_targets

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "data" / "attribute_targets.json"
RULES = json.loads(GOLDEN.read_text(encoding="utf-8"))


def labels_of(rule: str) -> Tensor:
    return torch.tensor(RULES[rule]["labels"])


def wanted_of(rule: str, attribute: str) -> Tensor:
    """What the rule makes of the golden's labels."""
    labels, names = labels_of(rule), RULES[rule]["attrs"]
    if rule in ("stargan", "stgan_port"):
        return one_attribute_targets(labels, names, attribute)
    return flip_attribute(labels, names, attribute, ATTGAN_CONFLICTS if rule == "attgan" else STGAN_CONFLICTS)


def test_the_golden_here_is_the_shared_one(shared):
    assert GOLDEN.read_bytes() == shared("golden/attribute_targets.json").read_bytes()


@pytest.mark.parametrize("rule", RULES)
def test_the_labels_after_an_edit_are_the_authors(rule):
    assert len(RULES[rule]["targets"]) == len(RULES[rule]["attrs"])
    for attribute, expected in zip(RULES[rule]["attrs"], RULES[rule]["targets"]):
        assert torch.equal(wanted_of(rule, attribute), torch.tensor(expected)), attribute


@pytest.mark.parametrize("rule", ["stgan_port", "stgan_official"])
def test_stgan_is_told_the_authors_differences(rule):
    labels = labels_of(rule)
    images = torch.zeros(len(labels), 3, 32, 32)
    for attribute, expected in zip(RULES[rule]["attrs"], RULES[rule]["vectors"]):
        pairs = torch.stack([wanted_of(rule, attribute), labels], dim=1)
        assert torch.equal(difference(pairs, images, labels.shape[1]), torch.tensor(expected)), attribute


def test_attgan_is_told_the_authors_vectors():
    rule = RULES["attgan"]
    assert (rule["thres_int"], rule["test_int"]) == (0.5, 1.0)
    for attribute, expected in zip(rule["attrs"], rule["vectors"]):
        target = attgan_target(labels_of("attgan"), attribute, rule["attrs"])
        assert torch.equal(AttGANGenerator.vector(target), torch.tensor(expected)), attribute
    assert torch.equal(AttGANGenerator.vector(labels_of("attgan")), torch.tensor(rule["reconstruction"]))


def test_the_columns_are_the_authors():
    assert list(CELEBA_13) == RULES["attgan"]["attrs"] == RULES["stgan_official"]["attrs"]
    assert list(CELEBA_10) == RULES["stgan_port"]["attrs"]


def test_what_comes_drives_out_what_it_excludes_and_what_goes_brings_nothing():
    """Hair that is waved and straight at once, and a receding hairline: attributes that the golden's thirteen don't have."""
    names = ["Bangs", "Receding_Hairline", "Straight_Hair", "Wavy_Hair"]
    labels = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 1]])
    assert flip_attribute(labels, names, "Receding_Hairline").tolist() == [[0, 1, 1, 0], [0, 0, 0, 1]]
    assert flip_attribute(labels, names, "Bangs").tolist() == [[0, 0, 1, 0], [1, 0, 0, 1]]
    assert flip_attribute(labels, names, "Wavy_Hair").tolist() == [[1, 0, 0, 1], [0, 1, 0, 0]]
    assert labels.tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]


def test_wrong_labels_are_refused():
    with pytest.raises(ValueError, match=r"labels \(B, 2\) for \['Bald', 'Bangs'\], got \(1, 3\)"):
        flip_attribute(torch.zeros(1, 3), ["Bald", "Bangs"], "Bald")
    with pytest.raises(ValueError, match=r"labels of 0 and 1, got \[-1.0, 1.0\]; CelebA's -1 means 0"):
        flip_attribute(torch.tensor([[-1.0, 1.0]]), ["Bald", "Bangs"], "Bald")
    with pytest.raises(ValueError, match=r"unknown attribute 'Bold'; choose from \['Bald', 'Bangs'\]"):
        flip_attribute(torch.zeros(1, 2), ["Bald", "Bangs"], "Bold")


def test_a_condition_is_told_at_every_place():
    x, condition = torch.rand(2, 3, 4, 5), torch.tensor([[1, 0], [2, 3]])
    told = tell(x, condition)
    assert torch.equal(told[:, :3], x) and told.shape == (2, 5, 4, 5)
    assert (told[0, 3] == 1).all() and (told[0, 4] == 0).all() and (told[1, 3] == 2).all() and (told[1, 4] == 3).all()

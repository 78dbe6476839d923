"""What a generator's `manipulate` is given: its declaration survives copies and wrappers, and the target is made from desired and current labels."""

from __future__ import annotations

import copy
import functools
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from generators import create_generator
from malp_disc.manipulate import Editor, call_manipulate
from malp_disc.runtime.copying import copy_module
from malp_disc.target_kind import TargetKind, describe_target, exclusive_names, target_for, target_kind_of
from malp_disc.training.moving_average import moving_average
from tests.tiny import sample_images

CURRENT, DESIRED = torch.tensor([[0.0, 1.0, 1.0, 0.0]]), torch.tensor([[1.0, 0.0, 1.0, 0.0]])
CHANGE = torch.tensor([[1.0, -1.0, 0.0, 0.0]])


class Adding(nn.Module):
    """Adds the mean of its target to the image, so that the result says what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    @torch.enable_grad()  # a decorator, as on many a manipulate
    def manipulate(self, images: Tensor, target: Tensor) -> Tensor:
        return images + (self.scale * target).flatten(1)[:, :2].sum(1).view(-1, 1, 1, 1)


class AddingChange(Adding):
    target_kind = "change"


IMAGES = torch.zeros(1, 3, 8, 8)


def given(edit) -> float:
    """The sum of the first two entries of the target that `edit` passes on: 1 for the desired labels, 0 for their change."""
    return edit(IMAGES, DESIRED).mean().item()


def called(generator) -> float:
    return given(lambda images, desired: call_manipulate(generator.manipulate, images, desired, current=CURRENT))


def test_a_change_adds_removes_and_keeps():
    assert torch.equal(target_for("change", DESIRED, CURRENT), CHANGE)
    assert torch.equal(target_for("change", CURRENT, CURRENT), torch.zeros(1, 4)), "asking for what is there changes nothing"
    assert torch.equal(target_for("change", DESIRED.bool(), CURRENT.bool()), CHANGE)


def test_other_kinds_are_the_desired_labels_a_domain_or_nothing():
    assert target_for("labels", DESIRED, None) is DESIRED
    assert torch.equal(target_for("domain", torch.eye(3)[[2, 0]], None), torch.tensor([2, 0]))
    assert target_for("domain", torch.zeros(2, 0), None) is None
    assert all(target_for("none", labels, CURRENT) is None for labels in (DESIRED, torch.zeros(2, 0)))
    assert all(target_for(kind, None, None) is None for kind in ("labels", "change", "domain", "none"))


@pytest.mark.parametrize(
    ("kind", "desired", "current", "said"),
    [
        ("change", DESIRED, None, r"can't be told from the desired labels alone; pass the current ones.*edit\(images, desired, current\)"),
        ("change", DESIRED, CURRENT[:, :3], r"of the shape of the desired ones, \(1, 4\), got \(1, 3\)"),
        (
            "domain",
            DESIRED,
            CURRENT,
            r"exactly one label of every image must be 1, got \[\[1.0, 0.0, 1.0, 0.0\]\]; .*one sub-folder per domain",
        ),
        ("domain", torch.zeros(1, 4), CURRENT, "exactly one label"),
        ("domain", torch.full((1, 2), 0.5), CURRENT, "exactly one label"),
    ],
)
def test_labels_that_dont_make_a_target_are_refused(kind: TargetKind, desired, current, said):
    with pytest.raises(ValueError, match=said):
        target_for(kind, desired, current)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            "changes",
            "Mine declares target_kind = 'changes' \\(did you mean 'change'\\?\\); expected one of 'labels', 'change', 'domain', 'none'",
        ),
        (None, "target_kind = None"),
        (3, "target_kind = 3"),
    ],
)
def test_an_unknown_kind_is_refused_with_what_to_write(value, said):
    generator = type("Mine", (Adding,), {"target_kind": value})()
    with pytest.raises(ValueError, match=said):
        target_kind_of(generator)
    with pytest.raises(ValueError, match=said):
        called(generator)


@pytest.mark.parametrize(
    ("name", "config", "kind"),
    [
        ("stgan", {"conv_dim": 4}, "change"),
        ("stgan", {"form": "official", "enc_dim": 4, "dec_dim": 4, "stu_dim": 4}, "change"),
        ("stargan", {"conv_dim": 4}, "labels"),
        ("attgan", {"enc_dim": 4, "dec_dim": 4}, "labels"),
        ("cyclegan", {"ngf": 4}, "labels"),
        ("munit", {"dim": 4, "n_res": 1}, "none"),
    ],
)
def test_the_zoos_generators_declare_what_they_take(name, config, kind):
    generator = create_generator(name, **config)
    assert target_kind_of(generator) == target_kind_of(generator.manipulate) == kind


def wrapped_method(generator):
    @functools.wraps(generator.manipulate)
    def manipulate(images, target):
        return generator.manipulate(images, target)

    return manipulate


@pytest.mark.parametrize(
    "wrap",
    [
        lambda generator: generator,
        copy.deepcopy,
        copy_module,
        lambda generator: moving_average(generator, 0.9).module,
        lambda generator: torch.compile(generator, backend="eager"),
        lambda generator: type("Holder", (), {"manipulate": staticmethod(wrapped_method(generator))})(),
        lambda generator: type("Holder", (), {"manipulate": staticmethod(functools.partial(generator.manipulate))})(),
    ],
    ids=["itself", "deepcopy", "copy_module", "moving average", "compiled", "wraps", "partial"],
)
def test_the_declaration_survives_copies_and_wrappers(wrap):
    assert called(wrap(AddingChange())) == 0 and called(wrap(Adding())) == 1


def test_it_survives_the_wrappers_of_a_training(tmp_path):
    edits = [Editor(AddingChange()), copy.deepcopy(Editor(AddingChange())), torch.compile(Editor(AddingChange()), backend="eager")]
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        edits.append(nn.parallel.DistributedDataParallel(Editor(AddingChange())))
        for edit in edits:
            assert given(lambda images, desired, edit=edit: edit(images, desired, CURRENT)) == 0
        with pytest.raises(ValueError, match="pass the current ones"):
            edits[-1](IMAGES, DESIRED)
    finally:
        torch.distributed.destroy_process_group()


def test_a_function_and_an_instance_may_declare_it_too():
    def manipulate(images, target):
        return images + target[:, :2].sum()

    manipulate.target_kind = "change"
    generator = Adding()
    generator.target_kind = "change"
    assert target_kind_of(manipulate) == target_kind_of(generator.manipulate) == "change"
    assert target_kind_of(lambda images, target: images) == "labels"


def test_an_stgan_told_a_change_is_told_the_pair():
    """`STGANGenerator.manipulate` takes both; the port and the authors' network agree with desired − current."""
    images, desired, current = sample_images(2), torch.eye(5)[[0, 1]], torch.eye(5)[[1, 1]]
    for config in ({"attr_dim": 5, "conv_dim": 4}, {"form": "official", "n_att": 5, "enc_dim": 4, "dec_dim": 4, "stu_dim": 4}):
        generator = create_generator("stgan", **config).eval()
        with torch.no_grad():
            expected = generator.manipulate(images, torch.stack([desired, current], dim=1))
            assert torch.equal(call_manipulate(generator.manipulate, images, desired, current=current), expected)
            assert not torch.equal(generator.manipulate(images, desired), expected)


def test_a_generator_of_domains_and_a_folder_per_domain_want_exactly_one_label():
    table, folders = (SimpleNamespace(attribute_names=["cat", "dog"], exclusive_labels=one) for one in (False, True))
    assert exclusive_names(type("Domains", (Adding,), {"target_kind": "domain"})(), table) == ("cat", "dog")
    assert exclusive_names(AddingChange(), table) is None
    assert exclusive_names(AddingChange(), folders) == ("cat", "dog")


def test_a_target_is_described_with_its_shape():
    assert describe_target("change", CHANGE) == "the change of the labels, desired - current, (1, 4) of -1, 0 and 1"
    assert describe_target("labels", None) == "None, no target"

"""A folder per domain."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from malp_disc.data import DomainFolder
from tests.data.names import stems


@pytest.fixture
def make_domains(make_image):
    def make(root: Path, counts: dict[str, int]) -> Path:
        for domain, count in counts.items():
            for i in range(count):
                make_image(root / domain / f"{i:03d}.png")
        return root

    return make


def domains_of(images) -> list[str]:
    return [images.attribute_names[i] for i in images.labels.argmax(1)]


def test_the_label_is_the_one_hot_of_the_sorted_sub_folder_at_any_depth(tmp_path, make_domains):
    images = DomainFolder(make_domains(tmp_path, {"cat": 3, "bird/small": 2, "bird/large": 2}), test_size=1, image_size=16)
    assert images.attribute_names == ("bird", "cat")
    assert torch.equal(images.labels.sum(1), torch.ones(6))
    assert domains_of(images) == [Path(path).relative_to(tmp_path).parts[0] for path in images.paths]
    assert images.description == f"{tmp_path.name} train split, 6 images, largest centred square, 16x16"


def test_domains_can_be_selected_and_ordered(tmp_path, make_domains):
    root = make_domains(tmp_path, {"a": 4, "b": 4, "c": 4})
    images = DomainFolder(root, selected_attributes=("c", "a"), test_size=0)
    assert images.attribute_names == ("c", "a")
    assert sorted(domains_of(images)) == ["a"] * 4 + ["c"] * 4


def test_the_first_images_are_of_all_domains_so_that_a_part_of_them_is_a_sample(tmp_path, make_domains):
    root = make_domains(tmp_path, {"cat": 40, "dog": 40, "wild": 40})
    first = domains_of(DomainFolder(root, test_size=0))[:30]
    assert all(6 <= first.count(domain) <= 14 for domain in ("cat", "dog", "wild")), first


def test_train_and_test_part_the_domains_images_and_the_size_is_exact(tmp_path, make_domains):
    root = make_domains(tmp_path, {"a": 20, "b": 21})
    train, test = DomainFolder(root, test_size=11), DomainFolder(root, split="test", test_size=11)
    assert len(test) == 11
    assert len(set(train.paths) | set(test.paths)) == 41


def test_pairs_of_one_name_stay_on_one_side(tmp_path, make_domains):
    root = make_domains(tmp_path, {"real": 30, "fake": 30})
    test = DomainFolder(root, split="test", test_size=12)
    assert sorted(stems(test)) == sorted(2 * sorted(set(stems(test))))


@pytest.mark.parametrize(
    ("folders", "attribute_names"),
    [
        (("train/x", "train/y", "test/x", "test/y"), ("x", "y")),
        (("train/x", "train/y", "val/x", "val/y"), ("x", "y")),
        (("trainA", "trainB", "testA", "testB"), ("A", "B")),
        (("train_A", "train_B", "test_A", "test_B"), ("A", "B")),
    ],
)
def test_a_split_made_by_folders_is_obeyed(tmp_path, make_domains, folders, attribute_names):
    root = make_domains(tmp_path, dict(zip(folders, (3, 4, 1, 2))))
    train, test = DomainFolder(root), DomainFolder(root, split="test")
    assert train.attribute_names == test.attribute_names == attribute_names
    assert train.labels.sum(0).tolist() == [3, 4]
    assert test.labels.sum(0).tolist() == [1, 2]


def test_a_folder_train_alone_is_split_by_name(tmp_path, make_domains):
    root = make_domains(tmp_path, {"train/x": 5, "train/y": 5})
    assert len(DomainFolder(root, test_size=3)) == 7
    assert DomainFolder(root, test_size=3).attribute_names == ("x", "y")


def test_fewer_than_two_domains_are_refused(tmp_path, make_domains):
    with pytest.raises(ValueError, match="no images below"):
        DomainFolder(tmp_path)
    root = make_domains(tmp_path, {"only": 3})
    with pytest.raises(ValueError, match=r"at least two domains.* found \['only'\].*--attributes FILE"):
        DomainFolder(root)
    make_domains(root, {"other": 3})
    with pytest.raises(ValueError, match="got --selected-attributes only"):
        DomainFolder(root, selected_attributes=("only",))
    with pytest.raises(ValueError, match="no attribute 'othr' .*did you mean other"):
        DomainFolder(root, selected_attributes=("only", "othr"))


def test_a_flat_folder_of_images_asks_for_a_table(tmp_path, make_image):
    make_image(tmp_path / "0.png")
    with pytest.raises(ValueError, match="--attributes FILE"):
        DomainFolder(tmp_path)


def test_a_domain_left_without_training_images_is_refused(tmp_path, make_domains):
    root = make_domains(tmp_path, {"train/x": 3, "test/x": 1, "test/y": 1})
    with pytest.raises(ValueError, match="no image of domain 'y'"):
        DomainFolder(root)


def test_what_is_left_out_is_said(tmp_path, make_domains, make_image, caplog):
    root = make_domains(tmp_path, {"a": 2, "b": 2})
    make_image(root / "loose.png")
    (root / "c").mkdir()
    (root / "c" / "x.txt").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        DomainFolder(root, test_size=0)
    assert "1 images that aren't in a domain" in caplog.text
    assert "no image files in c;" in caplog.text

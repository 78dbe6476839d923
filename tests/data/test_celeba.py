from __future__ import annotations

import pytest
import torch

from malp_disc.data import CelebA

PARTS = [0] * 7 + [1] * 2 + [2] * 3


def names(images: CelebA) -> list[int]:
    return [int(path[-10:-4]) for path in images.paths]


def test_images_and_labels_follow_the_attribute_file(tmp_path, make_celeba):
    """Row i: Male where i is even, Young where i divides by 3 (see the fixture)."""
    images = CelebA(make_celeba(tmp_path), selected_attributes=("Young", "Male"), test_size=2, image_size=16)
    assert images.attribute_names == ("Young", "Male")
    assert images.labels.tolist() == [[float(i % 3 == 0), float(i % 2 == 0)] for i in names(images)]
    image, label = images[0]
    assert image.shape == (3, 16, 16)
    assert image.abs().max() <= 1
    assert torch.equal(label, images.labels[0])
    assert images.description == "CelebA train split, 10 images, centre crop 178, 16x16"


@pytest.mark.parametrize(
    ("images", "attributes", "partition"),
    [
        ("img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"),
        ("celeba/img_align_celeba", "celeba/list_attr_celeba.txt", "celeba/list_eval_partition.txt"),
        ("Img/img_align_celeba", "Anno/list_attr_celeba.txt", "Eval/list_eval_partition.txt"),
        ("img_align_celeba/img_align_celeba", "list_attr_celeba.csv", "list_eval_partition.csv"),
        ("celeba/images", "celeba/list_attr_celeba.txt", "celeba/list_eval_partition.txt"),
    ],
    ids=["flat", "torchvision", "official", "kaggle", "stargan"],
)
def test_every_usual_layout_is_found(tmp_path, make_celeba, images, attributes, partition):
    root = make_celeba(tmp_path, images=images, attributes=attributes, partition=partition, parts=PARTS)
    splits = {split: sorted(names(CelebA(root, split=split))) for split in ("train", "valid", "test")}
    assert splits == {"train": [1, 2, 3, 4, 5, 6, 7], "valid": [8, 9], "test": [10, 11, 12]}
    images = CelebA(root)
    assert [images.labels[names(images).index(number), 3].item() for number in range(1, 8)] == [0, 1, 0, 1, 0, 1, 0]


def test_without_the_partition_file_images_are_held_out_by_name(tmp_path, make_celeba):
    root = make_celeba(tmp_path)
    train, test = CelebA(root, test_size=4), CelebA(root, split="test", test_size=4)
    assert len(test) == 4
    assert sorted(names(train) + names(test)) == list(range(1, 13))
    assert names(test) != [9, 10, 11, 12]


def test_the_training_size_caps_training_only(tmp_path, make_celeba):
    root = make_celeba(tmp_path, partition="list_eval_partition.txt", parts=PARTS)
    assert len(CelebA(root, train_size=3)) == 3
    assert len(CelebA(root, split="test", train_size=1)) == 3


def test_a_missing_part_is_named_with_the_places_looked_at(tmp_path, make_celeba):
    with pytest.raises(FileNotFoundError, match="no folder at .*nowhere"):
        CelebA(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="the images not found in .* searched for .*img_align_celeba.* celeba, CelebA, Img"):
        CelebA(tmp_path)
    root = make_celeba(tmp_path)
    (root / "list_attr_celeba.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"the attributes not found .* list_attr_celeba.txt"):
        CelebA(root)


def test_images_still_zipped_are_pointed_out(tmp_path):
    (tmp_path / "celeba").mkdir()
    (tmp_path / "celeba" / "img_align_celeba.zip").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"Unpack .*img_align_celeba.zip first"):
        CelebA(tmp_path)


def test_an_attribute_file_elsewhere_can_be_given(tmp_path, make_celeba):
    root = make_celeba(tmp_path / "celeba")
    (root / "list_attr_celeba.txt").rename(tmp_path / "mine.txt")
    assert len(CelebA(root, attributes=tmp_path / "mine.txt", test_size=2)) == 10


def test_a_listed_image_that_is_absent_is_named(tmp_path, make_celeba):
    root = make_celeba(tmp_path)
    (root / "img_align_celeba" / "000005.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 of 12 images listed are absent .*000005.jpg"):
        CelebA(root, test_size=2)


def test_a_missing_attribute_gets_close_matches(tmp_path, make_celeba):
    with pytest.raises(ValueError, match="no attribute 'blonde_hair' .*did you mean Blond_Hair.* It has 5"):
        CelebA(make_celeba(tmp_path), selected_attributes=("Male", "blonde_hair"))


def test_a_cut_attribute_file_is_noticed(tmp_path, make_celeba):
    root = make_celeba(tmp_path)
    lines = (root / "list_attr_celeba.txt").read_text().splitlines()
    (root / "list_attr_celeba.txt").write_text("\n".join(lines[:-3]))
    with pytest.raises(ValueError, match="states 12 images .* lists 9"):
        CelebA(root)


@pytest.mark.parametrize(("parts", "message"), [(PARTS[:-1], "lacks 1 of the 12 .*000012.jpg"), ([3] * 12, "line 1: '000001.jpg 3'; expected")])
def test_a_partition_file_that_does_not_fit_is_refused(tmp_path, make_celeba, parts, message):
    with pytest.raises(ValueError, match=message):
        CelebA(make_celeba(tmp_path, partition="list_eval_partition.txt", parts=parts))


def test_a_crop_larger_than_the_images_says_what_to_give(tmp_path, make_celeba):
    with pytest.raises(ValueError, match="178x218; give --crop-size 178 or less"):
        CelebA(make_celeba(tmp_path), crop_size=200, test_size=2)

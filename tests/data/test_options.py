from __future__ import annotations

import contextlib
import io
import itertools
from pathlib import Path

import pytest
import torch
import tyro

from malp_disc.data import FACE_RANGES, AttributeFolder, CelebA, DataOptions, DomainFolder, PlainFolder, ProceduralFaces, build_dataset
from malp_disc.data.options import FACES_PER_RANGE


def test_faces_are_the_default_and_need_nothing():
    train = build_dataset(DataOptions(), "train")
    assert isinstance(train, ProceduralFaces)
    assert (len(train), train.image_size) == (20_000, 64)
    assert train.attribute_names == ("Black_Hair", "Blond_Hair", "Brown_Hair", "Smiling", "Eyeglasses")
    assert len(build_dataset(DataOptions(), "test")) == 1000


def test_no_two_splits_of_faces_share_an_index_even_at_full_size():
    options = DataOptions(train_size=FACES_PER_RANGE, test_size=FACES_PER_RANGE)
    spans = []
    for split in ("train", "test", "reference"):
        faces = build_dataset(options, split)
        spans.append((faces.first_index, faces.first_index + len(faces)))
    spans.append((FACE_RANGES["features"], FACE_RANGES["features"] + 1))
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


def test_the_splits_of_faces_show_different_faces():
    options = DataOptions(image_size=16, train_size=3, test_size=3)
    first = [build_dataset(options, split)[0][0] for split in ("train", "test", "reference")]
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    assert not torch.equal(first[1], first[2])


def test_the_reference_is_as_many_faces_as_training():
    assert len(build_dataset(DataOptions(train_size=77), "reference")) == 77


def test_celeba_gets_its_own_defaults(tmp_path, make_celeba):
    images = build_dataset(DataOptions(data="celeba", data_root=make_celeba(tmp_path), test_size=2), "train")
    assert isinstance(images, CelebA)
    assert images.attribute_names == ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young")
    assert images.crop_size == 178


def test_a_folder_with_a_table_gets_all_columns_and_one_without_its_domains(tmp_path, make_table, make_image):
    make_table(tmp_path / "set")
    options = DataOptions(data="folder", data_root=tmp_path / "set", attributes=tmp_path / "set" / "list.csv", test_size=2)
    images = build_dataset(options, "train")
    assert isinstance(images, AttributeFolder)
    assert images.attribute_names == ("Even", "Early")
    for place in ("a/0.png", "b/0.png"):
        make_image(tmp_path / "domains" / place)
    images = build_dataset(DataOptions(data="folder", data_root=tmp_path / "domains", test_size=0), "train")
    assert isinstance(images, DomainFolder)
    assert images.attribute_names == ("a", "b")


def test_options_reach_the_images(tmp_path, make_table):
    root = make_table(tmp_path, 20)
    options = DataOptions(
        data="folder",
        data_root=root,
        attributes=root / "list.csv",
        selected_attributes=("Early",),
        image_size=16,
        crop_size=10,
        train_size=6,
        test_size=5,
        on_broken="skip",
    )
    train, test = build_dataset(options, "train"), build_dataset(options, "test")
    assert (len(train), len(test)) == (6, 5)
    assert test.description == f"{root.name} test split, 5 images, centre crop 10, 16x16"
    assert test.attribute_names == ("Early",)
    Path(test.paths[1]).write_bytes(b"")
    assert list(build_dataset(options, "test").dropped) == [test.paths[1]]


def test_the_reference_of_images_is_the_training_images(tmp_path, make_table):
    root = make_table(tmp_path)
    options = DataOptions(data="folder", data_root=root, attributes=root / "list.csv", test_size=3, train_size=5)
    assert build_dataset(options, "reference").paths == build_dataset(options, "train").paths


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "celeba"}, "--data celeba needs --data-root"),
        ({"data": "folder"}, "--data folder needs --data-root"),
        ({"data": "images"}, "--data images needs --data-root"),
        ({"data": "images"}, "--data images needs --data-root"),
        ({"data": "images", "data_root": Path("x"), "attributes": Path("y")}, "--attributes has no effect with --data images"),
        ({"data": "lsun"}, "'lsun'"),
        ({"data_root": Path("x")}, "--data-root has no effect on drawn faces"),
        ({"attributes": Path("x")}, "--attributes has no effect on drawn faces"),
        ({"crop_size": 10}, "--crop-size has no effect on drawn faces"),
        ({"image_size": 66}, "divisible by 4, got 66"),
        ({"train_size": 0}, "--train-size between 1 and"),
        ({"test_size": FACES_PER_RANGE + 1}, "--test-size between 1 and"),
        ({"selected_attributes": ("Smilling",)}, "did you mean Smiling"),
        ({"selected_attributes": ("Bangs", "Bangs")}, "more than once"),
        ({"data": "celeba", "data_root": Path("x"), "crop_size": 0}, "at least 1, got 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_dataset(DataOptions(**options), "train")


def test_images_are_those_below_the_folder_without_labels(tmp_path, make_image):
    for place in ("a.png", "b/c.png", "d.png"):
        make_image(tmp_path / place)
    options = tyro.cli(DataOptions, args=["--data", "images", "--data-root", str(tmp_path), "--test-size", "1", "--image-size", "16"])
    train, test = (build_dataset(options, split) for split in ("train", "test"))
    assert isinstance(train, PlainFolder) and train.attribute_names == ()
    assert {Path(path).name for path in (*train.paths, *test.paths)} == {"a.png", "c.png", "d.png"} and len(train) == 2


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="'valid'"):
        build_dataset(DataOptions(), "valid")


@pytest.mark.parametrize("options", [{"data": "celeba"}, {"data": "folder"}, {"data": "folder", "attributes": Path("list.csv")}])
def test_a_missing_folder_is_named(tmp_path, options):
    with pytest.raises(FileNotFoundError, match="no folder at .*nowhere"):
        build_dataset(DataOptions(data_root=tmp_path / "nowhere", **options), "train")


def test_the_options_are_command_line_flags_with_help():
    flags = "--data folder --data-root images --selected-attributes Male Young --crop-size 178 --on-broken skip"
    options = tyro.cli(DataOptions, args=flags.split())
    assert options == DataOptions("folder", Path("images"), None, ("Male", "Young"), crop_size=178, on_broken="skip")
    assert tyro.cli(DataOptions, args=[]) == DataOptions()
    text = io.StringIO()
    with contextlib.redirect_stdout(text), pytest.raises(SystemExit):
        tyro.cli(DataOptions, args=["--help"])
    for words in ("drawn on the fly", "Folder that holds the images", "held out from training", "can't be decoded"):
        assert words in " ".join(text.getvalue().replace("│", " ").split())

"""A folder with a table of attributes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from malp_disc.data import AttributeFolder
from tests.data.names import stems

SHARED = Path(os.environ.get("MALP_DISC_SHARED", Path(__file__).parents[3] / "shared"))


def test_labels_follow_the_table(tmp_path, make_table):
    images = AttributeFolder(make_table(tmp_path), tmp_path / "list.csv", test_size=3, image_size=16)
    assert images.attribute_names == ("Even", "Early")
    assert images.labels.tolist() == [[float(int(s) % 2 == 0), float(int(s) < 5)] for s in stems(images)]
    assert len(images) == 7
    assert images[0][0].shape == (3, 16, 16)


def test_selected_columns_come_in_the_order_asked_for(tmp_path, make_table):
    both = AttributeFolder(make_table(tmp_path), tmp_path / "list.csv", test_size=1)
    swapped = AttributeFolder(tmp_path, tmp_path / "list.csv", test_size=1, selected_attributes=("Early", "Even"))
    assert swapped.attribute_names == ("Early", "Even")
    assert torch.equal(swapped.labels, both.labels.flip(1))


def test_train_and_test_part_the_images_whatever_the_order_of_the_rows(tmp_path, make_table):
    root = make_table(tmp_path, 40)
    train, test = (AttributeFolder(root, root / "list.csv", split=split, test_size=11) for split in ("train", "test"))
    assert len(test) == 11
    assert sorted(stems(train) + stems(test)) == [f"{i:03d}" for i in range(40)]
    header, *rows = (root / "list.csv").read_text().splitlines()
    (root / "list.csv").write_text("\n".join([header, *reversed(rows)]))
    again = AttributeFolder(root, root / "list.csv", split="test", test_size=11)
    assert set(again.paths) == set(test.paths)


@pytest.mark.parametrize(
    "text",
    [
        "file,A,B\n0.png,1,-1\n1.png,-1,1\n",
        "name, A, B\n0.png, 1, 0\n1.png, 0, 1\n",
        "file,A,B\r\n0.png,True,false\r\n\r\n1.png,FALSE,true\r\n",
        "\ufefffile,A,B\n0.png,+1,0.0\n./1.png,-1,1.0",
        "2\nA B\n0.png  1 -1\n1.png -1  1\n",
        "\ufeff2\nA B \n0.png 1 0\n1.png 0 1",
        "file;A;B\n0.png;1;0\n1.png;0;1\n",
        "file\tA\tB\r\n0.png\t1\t0\r\n1.png\t0\t1\r\n",
        "\n\nfile,A,B,,\n\n0.png,1,0,,\n1.png,0,1\n\n",
        "\n2\n\nA B\n0.png 1 0\n\n1.png 0 1\n",
        '"file","A","B"\n"0.png","1","0"\n"1.png","0","1"\n',
    ],
    ids=["signed", "binary-spaced", "words-windows", "bom-floats", "celeba", "celeba-bom", "semicolons", "tabs", "blanks", "celeba-blanks", "quoted"],
)
def test_both_formats_and_all_spellings_read_the_same(tmp_path, make_image, text):
    for i in range(2):
        make_image(tmp_path / f"{i}.png")
    (tmp_path / "table").write_bytes(text.encode())
    _check_read(tmp_path)
    (tmp_path / "table").write_bytes(text.removeprefix("\ufeff").encode("utf-16"))
    _check_read(tmp_path)


def _check_read(tmp_path):
    images = AttributeFolder(tmp_path, tmp_path / "table", test_size=0)
    assert images.attribute_names == ("A", "B")
    assert stems(images) == ["0", "1"]
    assert images.labels.tolist() == [[1, 0], [0, 1]]


def test_a_split_column_is_obeyed_and_is_no_attribute(tmp_path, make_image):
    rows = ["file,Split,A"]
    for i in range(6):
        make_image(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{('train', 'train', 'test', 'val', 'TEST', 'train')[i]},{i % 2}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    train, test = (AttributeFolder(tmp_path, tmp_path / "list.csv", split=split) for split in ("train", "test"))
    assert (stems(train), stems(test)) == (["0", "1", "5"], ["2", "4"])
    assert train.attribute_names == ("A",)


def test_train_and_test_folders_are_obeyed(tmp_path, make_image):
    for place in ("train/a", "train/b", "test/c"):
        make_image(tmp_path / f"{place}.png")
    (tmp_path / "list.csv").write_text("file,A\na.png,1\nb.png,0\nc.png,1\n")
    train, test = (AttributeFolder(tmp_path, tmp_path / "list.csv", split=split) for split in ("train", "test"))
    assert (sorted(stems(train)), stems(test)) == (["a", "b"], ["c"])


def test_a_listed_name_with_folders_is_told_from_its_namesake(tmp_path, make_image):
    for place in ("x/0.png", "y/0.png"):
        make_image(tmp_path / place)
    (tmp_path / "list.csv").write_text("file,A\ny/0.png,1\n")
    assert AttributeFolder(tmp_path, tmp_path / "list.csv", test_size=0).paths == [str(tmp_path / "y/0.png")]
    (tmp_path / "list.csv").write_text("file,A\n0.png,1\n")
    with pytest.raises(ValueError, match="x/0.png and y/0.png; list it with its folder"):
        AttributeFolder(tmp_path, tmp_path / "list.csv", test_size=0)
    make_image(tmp_path / "0.png")
    assert AttributeFolder(tmp_path, tmp_path / "list.csv", test_size=0).paths == [str(tmp_path / "0.png")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("file\n0.png\n", "no attribute columns"),
        ("file A\n0.png 1\n", "no attribute columns"),
        ("0.png,1\n1.png,0\n", "no header: it starts with the row '0.png,1'; add a first line file,Attr1"),
        ("0,1,0\n1,0,1\n", "no header: it starts with the row '0,1,0'"),
        ("file,A\n,1\n", "line 2: no file name"),
        ("file,A\n0.png,1\n./0.png,1\n", "lists 0.png more than once"),
        ("file,A\n", "lists no images"),
        ("file,A,A\n0.png,1,1\n", "more than one column 'A'"),
        ("file,A\n0.png,1,1\n", "line 2: 3 columns, but the header has 2"),
        ("file,A\n0.png,1\n0.png,1\n", "lists 0.png more than once"),
        ("file,A\n0.png,0.3\n", "line 2: A is '0.3'; expected 1 or -1"),
        ("file,A\n0.png,\n", "line 2: A is ''"),
        ("file,A\n0.png,0\n1.png,-1\n", "A holds both 0 and -1"),
        ("file,A,split\n0.png,1,dev\n", "line 2: split is 'dev'"),
        ("file,A\n0.png,1\nmissing.png,1\n", r"1 of 2 images listed are absent .*missing.png"),
        ("3\nA\n0.png 1\n", "states 3 images .* lists 1"),
        ("\x89PNG\udcff", "can't be read as a table"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_the_line(tmp_path, make_image, text, message):
    for i in range(2):
        make_image(tmp_path / f"{i}.png")
    (tmp_path / "list.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=message):
        AttributeFolder(tmp_path, tmp_path / "list.csv", test_size=0)


def test_a_column_that_is_not_selected_may_hold_anything(tmp_path, make_image):
    make_image(tmp_path / "0.png")
    (tmp_path / "list.csv").write_text("file,Probability,A\n0.png,0.3,1\n")
    assert AttributeFolder(tmp_path, tmp_path / "list.csv", test_size=0, selected_attributes=("A",)).labels.tolist() == [[1]]


def test_a_missing_table_folder_or_attribute_is_named(tmp_path, make_table):
    root = make_table(tmp_path / "set")
    with pytest.raises(FileNotFoundError, match="no attribute file at .*other.csv"):
        AttributeFolder(root, root / "other.csv")
    with pytest.raises(FileNotFoundError, match="no folder at .*nowhere"):
        AttributeFolder(tmp_path / "nowhere", root / "list.csv")
    with pytest.raises(ValueError, match="no attribute 'Evne' .*did you mean Even.* It has 2: Even, Early"):
        AttributeFolder(root, root / "list.csv", selected_attributes=("Evne",))
    with pytest.raises(ValueError, match="'Even' is selected more than once"):
        AttributeFolder(root, root / "list.csv", selected_attributes=("Even", "Even"))


def test_a_broken_image_never_moves_another_across_the_split(tmp_path, make_table):
    root = make_table(tmp_path, 20)
    whole = AttributeFolder(root, root / "list.csv", split="test", test_size=5)
    Path(whole.paths[0]).write_bytes(b"")
    kept = AttributeFolder(root, root / "list.csv", split="test", test_size=5, on_broken="skip")
    assert kept.paths == whole.paths[1:]


def test_the_real_faces_are_split_into_7000_and_1000():
    root = SHARED / "data" / "celeba_aligned_89x109"
    if not root.is_dir():
        pytest.skip("the shared CelebA images are absent; MALP_DISC_SHARED names the folder that holds data/celeba_aligned_89x109")
    train, test = (
        AttributeFolder(root, root / "list_attr.csv", split=split, selected_attributes=("Male", "Blond_Hair"), crop_size=89, test_size=1000)
        for split in ("train", "test")
    )
    assert (len(train), len(test)) == (7000, 1000)
    assert not set(train.paths) & set(test.paths)
    assert (train.labels.mean(0) - test.labels.mean(0)).abs().max() < 0.07  # 4 standard errors of a half over 1000
    images = torch.stack([test[i][0] for i in range(8)])
    assert images.shape == (8, 3, 64, 64)
    assert images.std() > 0.2

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from malp_disc.data import AttributeFolder, DomainFolder, PlainFolder, WithReferences, held_out_references, references_held_back

SHARED = Path(os.environ.get("MALP_DISC_SHARED", Path(__file__).parents[3] / "shared"))


def stems(pictures) -> list[str]:
    return [Path(path).stem for path in pictures.paths]


# A folder with a table of attributes


def test_labels_follow_the_table(tmp_path, make_table):
    pictures = AttributeFolder(make_table(tmp_path), tmp_path / "list.csv", test_size=3, image_size=16)
    assert pictures.attribute_names == ("Even", "Early")
    assert pictures.labels.tolist() == [[float(int(s) % 2 == 0), float(int(s) < 5)] for s in stems(pictures)]
    assert len(pictures) == 7
    assert pictures[0][0].shape == (3, 16, 16)


def test_selected_columns_come_in_the_order_asked_for(tmp_path, make_table):
    both = AttributeFolder(make_table(tmp_path), tmp_path / "list.csv", test_size=1)
    swapped = AttributeFolder(tmp_path, tmp_path / "list.csv", test_size=1, selected_attributes=("Early", "Even"))
    assert swapped.attribute_names == ("Early", "Even")
    assert torch.equal(swapped.labels, both.labels.flip(1))


def test_train_and_test_part_the_pictures_whatever_the_order_of_the_rows(tmp_path, make_table):
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
def test_both_formats_and_all_spellings_read_the_same(tmp_path, make_picture, text):
    for i in range(2):
        make_picture(tmp_path / f"{i}.png")
    (tmp_path / "table").write_bytes(text.encode())
    _check_read(tmp_path)
    (tmp_path / "table").write_bytes(text.removeprefix("\ufeff").encode("utf-16"))
    _check_read(tmp_path)


def _check_read(tmp_path):
    pictures = AttributeFolder(tmp_path, tmp_path / "table", test_size=0)
    assert pictures.attribute_names == ("A", "B")
    assert stems(pictures) == ["0", "1"]
    assert pictures.labels.tolist() == [[1, 0], [0, 1]]


def test_a_split_column_is_obeyed_and_is_no_attribute(tmp_path, make_picture):
    rows = ["file,Split,A"]
    for i in range(6):
        make_picture(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{('train', 'train', 'test', 'val', 'TEST', 'train')[i]},{i % 2}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    train, test = (AttributeFolder(tmp_path, tmp_path / "list.csv", split=split) for split in ("train", "test"))
    assert (stems(train), stems(test)) == (["0", "1", "5"], ["2", "4"])
    assert train.attribute_names == ("A",)


def test_train_and_test_folders_are_obeyed(tmp_path, make_picture):
    for place in ("train/a", "train/b", "test/c"):
        make_picture(tmp_path / f"{place}.png")
    (tmp_path / "list.csv").write_text("file,A\na.png,1\nb.png,0\nc.png,1\n")
    train, test = (AttributeFolder(tmp_path, tmp_path / "list.csv", split=split) for split in ("train", "test"))
    assert (stems(train), stems(test)) == (["a", "b"], ["c"])


def test_a_listed_name_with_folders_is_told_from_its_namesake(tmp_path, make_picture):
    for place in ("x/0.png", "y/0.png"):
        make_picture(tmp_path / place)
    (tmp_path / "list.csv").write_text("file,A\ny/0.png,1\n")
    assert AttributeFolder(tmp_path, tmp_path / "list.csv", test_size=0).paths == [str(tmp_path / "y/0.png")]
    (tmp_path / "list.csv").write_text("file,A\n0.png,1\n")
    with pytest.raises(ValueError, match="x/0.png and y/0.png; list it with its folder"):
        AttributeFolder(tmp_path, tmp_path / "list.csv", test_size=0)
    make_picture(tmp_path / "0.png")
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
def test_a_table_that_is_wrong_is_refused_with_the_line(tmp_path, make_picture, text, message):
    for i in range(2):
        make_picture(tmp_path / f"{i}.png")
    (tmp_path / "list.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=message):
        AttributeFolder(tmp_path, tmp_path / "list.csv", test_size=0)


def test_a_column_that_is_not_selected_may_hold_anything(tmp_path, make_picture):
    make_picture(tmp_path / "0.png")
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


def test_a_broken_picture_never_moves_another_across_the_split(tmp_path, make_table):
    root = make_table(tmp_path, 20)
    whole = AttributeFolder(root, root / "list.csv", split="test", test_size=5)
    Path(whole.paths[0]).write_bytes(b"")
    kept = AttributeFolder(root, root / "list.csv", split="test", test_size=5, on_broken="skip")
    assert kept.paths == whole.paths[1:]


# A folder per domain


@pytest.fixture
def make_domains(make_picture):
    def make(root: Path, counts: dict[str, int]) -> Path:
        for domain, count in counts.items():
            for i in range(count):
                make_picture(root / domain / f"{i:03d}.png")
        return root

    return make


def domains_of(pictures) -> list[str]:
    return [pictures.attribute_names[i] for i in pictures.labels.argmax(1)]


def test_the_label_is_the_one_hot_of_the_sorted_sub_folder_at_any_depth(tmp_path, make_domains):
    pictures = DomainFolder(make_domains(tmp_path, {"cat": 3, "bird/small": 2, "bird/large": 2}), test_size=1, image_size=16)
    assert pictures.attribute_names == ("bird", "cat")
    assert torch.equal(pictures.labels.sum(1), torch.ones(6))
    assert domains_of(pictures) == [Path(path).relative_to(tmp_path).parts[0] for path in pictures.paths]
    assert pictures.description == f"{tmp_path.name} train split, 6 images, largest centred square, 16x16"


def test_domains_can_be_selected_and_ordered(tmp_path, make_domains):
    root = make_domains(tmp_path, {"a": 4, "b": 4, "c": 4})
    pictures = DomainFolder(root, selected_attributes=("c", "a"), test_size=0)
    assert pictures.attribute_names == ("c", "a")
    assert domains_of(pictures) == ["a"] * 4 + ["c"] * 4


def test_train_and_test_part_the_domains_pictures_and_the_size_is_exact(tmp_path, make_domains):
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


def test_a_flat_folder_of_pictures_asks_for_a_table(tmp_path, make_picture):
    make_picture(tmp_path / "0.png")
    with pytest.raises(ValueError, match="--attributes FILE"):
        DomainFolder(tmp_path)


def test_a_domain_left_without_training_pictures_is_refused(tmp_path, make_domains):
    root = make_domains(tmp_path, {"train/x": 3, "test/x": 1, "test/y": 1})
    with pytest.raises(ValueError, match="no image of domain 'y'"):
        DomainFolder(root)


def test_what_is_left_out_is_said(tmp_path, make_domains, make_picture, caplog):
    root = make_domains(tmp_path, {"a": 2, "b": 2})
    make_picture(root / "loose.png")
    (root / "c").mkdir()
    (root / "c" / "x.txt").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        DomainFolder(root, test_size=0)
    assert "1 images that aren't in a domain" in caplog.text
    assert "no image files in c;" in caplog.text


# Real images, where they are


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


# --- images alone, and with references ---------------------------------------------------------------------------------------------


def test_pictures_without_attributes_have_labels_of_no_column(tmp_path):
    for i in range(10):
        Image.new("RGB", (40, 32), (20 * i, 0, 0)).save(tmp_path / f"{i}.png")
    train, test = (PlainFolder(tmp_path, split=split, image_size=16, test_size=3) for split in ("train", "test"))
    assert len(train) == 7 and len(test) == 3 and not set(train.paths) & set(test.paths)
    image, label = train[0]
    assert image.shape == (3, 16, 16) and label.shape == (0,) and train.attribute_names == ()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images below"):
        PlainFolder(tmp_path / "empty")


def test_references_are_partners_by_name_or_spread_evenly(tmp_path):
    for i in range(6):
        for folder, blue in (("photos", 0), ("frames", 200)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("RGB", (16, 16), (40 * i, 0, blue)).save(tmp_path / folder / f"{i}.{'png' if folder == 'photos' else 'bmp'}")
    photos = PlainFolder(tmp_path / "photos", image_size=16, test_size=2)
    paired = WithReferences(photos, tmp_path / "frames", paired=True)
    for row in range(len(paired)):
        image, label, reference = paired[row]
        assert torch.equal(image[0], reference[0]) and (reference[2] - image[2]).mean() > 1 and label.shape == (0,)
    (tmp_path / "frames" / "9.bmp").write_bytes((tmp_path / "frames" / "0.bmp").read_bytes())
    loose = WithReferences(photos, tmp_path / "frames")
    assert len(set(loose.references)) == len(photos), "no reference twice while there are others"
    assert loose.references == WithReferences(photos, tmp_path / "frames").references
    assert "unpaired references of frames (7 images)" in loose.description
    partner = tmp_path / "frames" / f"{paired.dataset.paths[0].rpartition('/')[2].removesuffix('.png')}.bmp"
    partner.rename(tmp_path / "frames" / "else.bmp")
    with pytest.raises(ValueError, match=r"1 of 4 images have no partner in .*frames, first .*leave --paired out"):
        WithReferences(photos, tmp_path / "frames", paired=True)


@pytest.fixture
def pairs(tmp_path):
    """Ten photos, and a frame of the same name for each."""
    for i in range(10):
        for folder, blue in (("photos", 0), ("frames", 200)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("RGB", (16, 16), (20 * i, 0, blue)).save(tmp_path / folder / f"{i}.png")
    return tmp_path


def names_of(paths) -> set[str]:
    return {Path(path).name for path in paths}


def test_unpaired_references_to_compare_with_are_none_that_training_sees(pairs):
    photos, held_out = (PlainFolder(pairs / "photos", image_size=16, test_size=4, split=split) for split in ("train", "test"))
    trained, compared = WithReferences(photos, pairs / "frames", test_size=3), held_out_references(held_out, pairs / "frames", test_size=3)
    assert len(compared) == 3 and not names_of(trained.references) & names_of(compared.paths)
    assert len(names_of(trained.references)) == 6, "as many of the other 7 as there are photos"
    assert names_of(held_out_references(held_out, pairs / "frames").paths) == {f"{i}.png" for i in range(10)}, "0 holds none back"
    assert references_held_back(pairs / "frames", most=2000) == 5 and references_held_back(pairs / "frames", most=4) == 4


def test_paired_references_to_compare_with_are_the_partners_of_the_held_out_images(pairs):
    photos, held_out = (PlainFolder(pairs / "photos", image_size=16, test_size=4, split=split) for split in ("train", "test"))
    trained = WithReferences(photos, pairs / "frames", paired=True)
    compared = held_out_references(held_out, pairs / "frames", paired=True)
    assert [Path(path).name for path in compared.paths] == [Path(path).name for path in held_out.paths]
    assert not names_of(trained.references) & names_of(compared.paths) and "partners of the held-back images" in compared.description


def test_a_folder_of_references_may_have_a_split_of_its_own(pairs):
    """trainB and testB of a published data set, linked as train and test."""
    (pairs / "zebras").mkdir()
    (pairs / "zebras" / "train").symlink_to(pairs / "photos")
    (pairs / "zebras" / "test").symlink_to(pairs / "frames")
    photos = PlainFolder(pairs / "photos", image_size=16, test_size=4)
    assert {Path(path).parent.name for path in WithReferences(photos, pairs / "zebras", test_size=2).references} == {"train"}
    assert {Path(path).parent.name for path in held_out_references(photos, pairs / "zebras", test_size=2).paths} == {"test"}

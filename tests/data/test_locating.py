"""The many ways in which a table names its images, each found or refused with a reason, never guessed."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from malp_disc.data import AttributeFolder, CelebA
from malp_disc.data.listing import list_images
from malp_disc.data.locating import ImageLocator, plain_name

links = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")


@pytest.fixture
def root(tmp_path, make_image) -> Path:
    """``set/images`` with ``000.png … 003.png``, and the table's folder ``set/lists`` beside it."""
    for index in range(4):
        make_image(tmp_path / "set" / "images" / f"{index:03d}.png")
    (tmp_path / "set" / "lists").mkdir()
    return tmp_path / "set" / "images"


def find(root: Path, name: str, table: Path | None = None) -> str | None:
    return ImageLocator(list_images(root), table or root.parent / "lists" / "list.csv").find(name)


def load(root: Path, names: list[str], **options) -> AttributeFolder:
    table = root.parent / "lists" / "list.csv"
    table.write_text("file,A\n" + "".join(f"{name},{index % 2}\n" for index, name in enumerate(names)), encoding="utf-8")
    return AttributeFolder(root, table, image_size=16, **options)


@pytest.mark.parametrize(
    "name",
    ["000.png", "./000.png", ".\\000.png", "images/000.png", "set/images/000.png", "images\\000.png", "../images/000.png", "x/../000.png",
     "000.PNG", "Images/000.png", "{root}/000.png", "{root}//./000.png", "{root}/../images/000.png", " 000.png "],
)  # fmt: skip
def test_every_spelling_finds_the_image(root, name):
    assert find(root, name.format(root=root)) == "000.png"


def test_a_table_of_absolute_paths_gives_the_split_of_one_of_names(root):
    names = [f"{index:03d}.png" for index in range(4)]
    for split in ("train", "test"):
        plain = load(root, names, test_size=2, split=split)
        absolute = load(root, [str(root / name) for name in names], test_size=2, split=split)
        assert absolute.paths == plain.paths and absolute.labels.tolist() == plain.labels.tolist()


@links
def test_paths_through_links_lead_to_the_same_images(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    (root / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.png").write_bytes((root / "000.png").read_bytes())
    assert find(root, str(tmp_path / "link" / "001.png")) == "001.png"  # the table goes through a link
    assert find(tmp_path / "link", str(root / "001.png")) == "001.png"  # --data-root does
    assert find(tmp_path / "link", "images/001.png") == "001.png"
    assert find(root, str(tmp_path / "elsewhere" / "x.png")) == "more/x.png"  # the folder holds a link to the image's own
    assert find(root, "link/001.png", tmp_path / "list.csv") == "001.png"


@links
def test_an_absolute_path_that_two_links_lead_to_is_ambiguous(root, tmp_path, make_image):
    make_image(tmp_path / "elsewhere" / "x.png")
    for name in ("A", "B"):
        (root / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="there are A/x.png and B/x.png; list it with its folder"):
        find(root, str(tmp_path / "elsewhere" / "x.png"))
    assert find(root, str(root / "B" / "x.png")) == "B/x.png"


@pytest.mark.parametrize("name", ["/elsewhere/000.png", "C:\\images\\000.png", "D:/images/000.png", "../000.png", "../../../000.png", "~/nowhere-at-all/000.png"])
def test_a_path_outside_the_root_is_refused_and_not_matched_by_its_last_part(root, name):
    with pytest.raises(ValueError, match=r"list.csv names .*000.png, which lies outside .*images; give the --data-root"):
        find(root, name)


def test_a_file_that_is_absent_below_the_root_is_absent_however_it_is_named(root):
    for name in ("{root}/9.png", "9.png", "../images/9.png", "images/9.png"):
        assert find(root, name.format(root=root)) is None


def test_the_nearer_reading_wins_and_two_equal_ones_are_refused(root, make_image):
    make_image(root / "images" / "000.png")
    assert find(root, "images/000.png") == "images/000.png"
    make_image(root / "x" / "images" / "001.png")
    with pytest.raises(ValueError, match="images/001.png is listed, and .* there are 001.png and x/images/001.png"):
        find(root, "images/001.png")
    assert find(root, "x/images/001.png") == "x/images/001.png"


def test_case_matters_where_it_tells_two_images_apart(root, make_image):
    make_image(root / "a.png")
    make_image(root / "A.png")
    if len(list_images(root)) < 6:
        pytest.skip("this file system takes a.png and A.png for one")
    assert (find(root, "a.png"), find(root, "A.png")) == ("a.png", "A.png")
    with pytest.raises(ValueError, match="there are A.png and a.png"):
        find(root, "a.PNG")


def test_an_accent_from_macos_is_the_same_name(root, make_image):
    make_image(root / unicodedata.normalize("NFD", "é.png"))
    assert find(root, unicodedata.normalize("NFC", "é.png")) == list_images(root).names[-1]


def test_two_rows_of_one_image_are_refused(root):
    with pytest.raises(ValueError, match=r"lists 000.png twice, as 000.png and .*images/000.png; keep one row"):
        load(root, ["000.png", str(root / "000.png")], test_size=0)


def test_absent_images_are_counted_and_named_with_where_they_were_looked_for(root):
    with pytest.raises(ValueError, match=r"5 of 6 images listed are absent from .*images .* hold 4 images; first \['a.png', 'b.png', 'c.png'\]\."):
        load(root, ["000.png", "a.png", "b.png", "c.png", "d.png", "e.png"])
    with pytest.raises(ValueError, match=r"first \['000.jpg'\] \(there is 000.png: is the suffix right\?\)"):
        load(root, ["000.jpg", "001.png"])


@links
def test_a_listed_image_that_is_a_dead_link_is_absent_and_said_so(root):
    (root / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(ValueError, match=r"1 of 2 images listed are absent .*'gone.png'.*left out: 1 dead link \(gone.png\)"):
        load(root, ["000.png", "gone.png"])


def test_plain_names():
    assert [plain_name(name) for name in (".\\a\\..\\b.png", "a//b.png", "./x", "/x/../y", "")] == ["b.png", "a/b.png", "x", "/y", ""]


def test_celebas_lists_may_name_their_folder_and_be_absolute(tmp_path, make_celeba):
    parts = [0] * 7 + [1] * 2 + [2] * 3
    root = make_celeba(tmp_path / "celeba", partition="list_eval_partition.txt", parts=parts)
    expected = CelebA(root, split="test").paths
    lists = {name: (root / name).read_text() for name in ("list_attr_celeba.txt", "list_eval_partition.txt")}
    for prefix in ("img_align_celeba/", f"{root}/img_align_celeba/", "./", "img_align_celeba\\"):
        for name, text in lists.items():
            (root / name).write_text(text.replace("0000", prefix + "0000"))
        assert CelebA(root, split="test").paths == expected
    (root / "list_eval_partition.txt").write_text(lists["list_eval_partition.txt"] + "000012.jpg 0\n")
    with pytest.raises(ValueError, match="line 13: 000012.jpg .*train.*test; keep one row"):
        CelebA(root, split="test")

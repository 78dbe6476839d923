"""Which files count as images, and what is said of the others."""

from __future__ import annotations

import contextlib
import errno
import logging
import os

import numpy as np
import pytest
from PIL import Image

from malp_disc.data import DomainFolder, PlainFolder, WithReferences
from malp_disc.data.decoding import BrokenImageError, decode_image
from malp_disc.data.listing import DEAD, FORBIDDEN, LOOP, SPECIAL, check_folder, list_images
from malp_disc.metrics.image_folder import ImageFolder

links = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")


def names(root) -> list[str]:
    return list(list_images(root).names)


@links
def test_linked_folders_and_files_count_under_each_of_their_paths(tmp_path, make_image):
    make_image(tmp_path / "elsewhere" / "deep" / "x.png")
    make_image(tmp_path / "root" / "y.png")
    for name in ("A", "B"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "z.jpg").symlink_to(tmp_path / "root" / "y.png")
    listing = list_images(tmp_path / "root")
    assert (list(listing.names), listing.left_out) == (["A/deep/x.png", "B/deep/x.png", "y.png", "z.jpg"], "")
    (tmp_path / "link").symlink_to(tmp_path / "root")
    assert names(tmp_path / "link") == list(listing.names)


@links
def test_circles_of_links_are_cut_wherever_they_close(tmp_path, make_image):
    make_image(tmp_path / "root" / "a" / "b" / "x.png")
    (tmp_path / "root" / "a" / "b" / "self").symlink_to(".")
    (tmp_path / "root" / "a" / "b" / "up").symlink_to(tmp_path / "root" / "a")
    (tmp_path / "root" / "round.png").symlink_to("round.png")
    listing = list_images(tmp_path / "root")
    assert listing.names == ("a/b/x.png",)
    assert listing.skipped == {LOOP: ["a/b/self", "a/b/up"], DEAD: ["round.png"]}


@links
def test_a_link_to_what_is_above_the_root_does_not_bring_in_its_neighbours(tmp_path, make_image):
    for name in ("set/root/x.png", "set/other/y.png", "far/deep/z.png", "far/other/w.png"):
        make_image(tmp_path / name)
    (tmp_path / "set" / "root" / "up").symlink_to("..")
    (tmp_path / "set" / "root" / "top").symlink_to("/")
    (tmp_path / "set" / "root" / "deep").symlink_to(tmp_path / "far" / "deep")
    (tmp_path / "far" / "deep" / "up").symlink_to("..")
    listing = list_images(tmp_path / "set" / "root")
    assert listing.names == ("deep/z.png", "x.png")
    assert listing.left_out == "left out: 3 links back to a folder above (deep/up, top, up)"


@links
def test_the_fid_side_and_the_training_side_count_the_same(tmp_path, make_image):
    for index in range(3):
        make_image(tmp_path / "elsewhere" / f"{index}.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    scanned, trained = ImageFolder.scan(tmp_path / "root", quiet=True), PlainFolder(tmp_path / "root", test_size=0)
    assert sorted(map(str, scanned.paths)) == sorted(trained.paths) and len(trained) == 3
    assert scanned.left_out == "left out: 1 dead link (gone.png)"


@links
def test_what_is_left_out_is_said_once_in_one_line(tmp_path, make_image, caplog):
    for index in range(4):
        make_image(tmp_path / "a" / f"{index}.png")
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere")
    for name in ("b.heic", "notes.txt", "._0.png", "readme"):
        (tmp_path / "a" / name).write_bytes(b"x")
    np.save(tmp_path / "a" / "features.npy", np.zeros((5, 2048), np.float32))
    os.mkfifo(tmp_path / "a" / "pipe.png")
    with caplog.at_level(logging.INFO):
        PlainFolder(tmp_path / "a", test_size=1)
        PlainFolder(tmp_path / "a", split="test", test_size=1)
    (line,) = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert line == (
        f"{tmp_path / 'a'}: left out: 1 dead link (gone.png), 1 special file (pipe.png), 1 hidden file, 1 image of an unsupported format "
        "(.heic), 1 .npy array that is no image (features.npy), 2 files of other kinds (.txt, no suffix)"
    )
    assert [record.levelname for record in caplog.records if "left out" in record.getMessage()] == ["WARNING"]


def test_a_table_beside_the_images_is_no_warning(tmp_path, make_image, caplog):
    make_image(tmp_path / "0.png")
    (tmp_path / "list.csv").write_text("file,A\n")
    with caplog.at_level(logging.INFO):
        list_images(tmp_path).warn()
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_what_systems_leave_behind_is_no_image(tmp_path, make_image):
    make_image(tmp_path / "0.png")
    for name in (".ipynb_checkpoints/0-checkpoint.png", "__MACOSX/._0.png", "@eaDir/0.png/thumb.png", "._0.png", ".thumbs/0.png"):
        make_image(tmp_path / name)
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    listing = list_images(tmp_path)
    assert (listing.names, listing.left_out) == (("0.png",), "left out: 1 hidden file")


def test_every_format_counts_in_either_case_and_reads_alike(tmp_path, make_image):
    pixels = np.full((20, 24, 3), 128, np.uint8)
    formats = {"a.JPG": "JPEG", "b.jfif": "JPEG", "c.Jpe": "JPEG", "d.tiff": "TIFF", "e.gif": "GIF", "f.ppm": "PPM", "g.webp": "WEBP"}
    for name, kind in formats.items():
        Image.fromarray(pixels).save(tmp_path / name, format=kind)
    np.save(tmp_path / "h.npy", pixels)
    np.save(tmp_path / "i.npy", pixels[:, :, 0])
    np.save(tmp_path / "j.npy", pixels[:, :, :1])
    images = PlainFolder(tmp_path, image_size=16, test_size=0)
    assert sorted(path.rpartition("/")[2] for path in images.paths) == [*formats, "h.npy", "i.npy", "j.npy"]
    assert all((image * 127.5 + 127.5 - 128).abs().max() <= 2 for image, _ in images)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((20, 24, 3), np.float32),
        np.zeros((3, 20, 24), np.uint8),
        np.zeros((1000, 5), np.uint8),
        np.zeros((20, 24, 3), np.uint16),
        np.zeros((4, 20, 24, 3), np.uint8),
        np.zeros(9, np.uint8),
        np.array([{"a": 1}], dtype=object),
    ],
    ids=["float", "channels-first", "table", "16-bit", "stack", "flat", "objects"],
)
def test_an_array_that_is_no_image_is_left_out_and_said(tmp_path, make_image, array):
    make_image(tmp_path / "0.png")
    np.save(tmp_path / "1.npy", array, allow_pickle=True)
    listing = list_images(tmp_path)
    assert (listing.names, listing.left_out) == (("0.png",), "left out: 1 .npy array that is no image (1.npy)")


@pytest.mark.parametrize("header", ["{'shape': " + "-" * 9000 + "1}", "{'descr': " + "[" * 5000, "{[]: 1}"], ids=["deep", "open", "unhashable"])
def test_an_array_with_a_damaged_header_is_listed_like_any_damaged_image(tmp_path, header):
    """Python's parser, which numpy calls, ends with a MemoryError, a TokenError and a TypeError here."""
    content = header.encode() + b"\n"
    (tmp_path / "0.npy").write_bytes(b"\x93NUMPY\1\0" + len(content).to_bytes(2, "little") + content)
    assert list_images(tmp_path).names == ("0.npy",)
    with pytest.raises(BrokenImageError, match="0.npy can't be decoded .its header can't be parsed"):
        decode_image(tmp_path / "0.npy")


def test_the_order_is_that_of_the_paths_on_every_file_system(tmp_path, make_image, monkeypatch):
    for name in ("b.png", "a/x.png", "a-b/x.png", "B.png", "ä.png"):
        make_image(tmp_path / name)
    own = os.scandir

    @contextlib.contextmanager
    def backwards(folder):
        with own(folder) as entries:
            yield sorted(entries, key=lambda entry: entry.name, reverse=True)

    first = names(tmp_path)
    monkeypatch.setattr(os, "scandir", backwards)
    assert names(tmp_path) == first == ["B.png", "a-b/x.png", "a/x.png", "b.png", "ä.png"]


def test_a_folder_without_permission_is_counted_and_a_failing_disk_is_not(tmp_path, make_image, monkeypatch):
    make_image(tmp_path / "open" / "0.png")
    make_image(tmp_path / "closed" / "1.png")
    own, raised = os.scandir, PermissionError(errno.EACCES, "Permission denied")

    def scandir(folder):
        if str(folder).endswith("closed"):
            raise raised
        return own(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert list_images(tmp_path).skipped == {FORBIDDEN: ["closed"]}
    with pytest.raises(PermissionError):
        list_images(tmp_path / "closed")
    raised = OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="Input/output"):
        list_images(tmp_path)


@pytest.mark.parametrize(("denied", "listed"), [("closed/.", ("open/0.png",)), ("closed/inner", ("closed/1.png", "open/0.png"))], ids=["no search", "mount"])
def test_a_folder_that_may_be_listed_but_not_searched_is_skipped(tmp_path, make_image, monkeypatch, denied, listed):
    """Without the permission x, names can be read, but no file opened; of another user's mounted file system, not even the folder is accessible."""
    for name in ("open/0.png", "closed/1.png", "closed/inner/2.png"):
        make_image(tmp_path / name)
    own = os.stat

    def stat(path, *arguments, **options):
        if str(path).endswith(denied):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return own(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", stat)
        listing = list_images(tmp_path)
    assert (listing.names, listing.skipped) == (listed, {FORBIDDEN: [denied.removesuffix("/.")]})


def test_a_folder_below_one_that_may_not_be_searched_is_listed_from_inside(tmp_path, make_image, monkeypatch):
    """As after `sudo -u somebody` in a folder of root's: its own parents are out of reach."""
    make_image(tmp_path / "in" / "0.png")
    monkeypatch.chdir(tmp_path / "in")
    own, parent = os.stat, str(tmp_path.resolve())

    def stat(path, *arguments, **options):
        if str(path) == parent:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return own(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", stat)
        assert names(".") == ["0.png"]


@links
def test_a_name_that_is_not_utf_8_is_read_and_written_out(tmp_path, make_image):
    make_image(tmp_path / "a" / "0.png")
    for folder, name in (("a", b"\xff.png"), ("b", b"\xfe.png")):
        path = tmp_path / folder / os.fsdecode(name)
        try:
            make_image(path)
        except OSError:
            pytest.skip("this file system takes UTF-8 only")
    assert len(WithReferences(PlainFolder(tmp_path / "a", test_size=0, image_size=16), tmp_path / "b")) == 2
    assert len(ImageFolder.scan(tmp_path / "a", quiet=True)) == 2
    (tmp_path / "a" / os.fsdecode(b"\xfd.png")).symlink_to("nowhere")
    list_images(tmp_path / "a").left_out.encode("utf-8")


def test_a_folder_called_like_an_image_is_a_folder(tmp_path, make_image):
    make_image(tmp_path / "x.png" / "0.png")
    assert names(tmp_path) == ["x.png/0.png"]


def test_what_is_no_folder_says_what_it_is(tmp_path, make_image):
    make_image(tmp_path / "x.png")
    (tmp_path / "set.zip").write_bytes(b"PK")
    for name, words in (("x.png", "a single file"), ("set.zip", "an archive.*unpack it")):
        for wanted in (list_images, ImageFolder.scan, DomainFolder, lambda path: check_folder(path, "--data-root")):
            with pytest.raises(ValueError, match=words):
                wanted(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no folder at .*nowhere; --data-root must name one"):
        check_folder(tmp_path / "nowhere", "--data-root")


@links
def test_an_empty_folder_says_what_is_in_it_instead(tmp_path):
    (tmp_path / "a.png").symlink_to("nowhere")
    (tmp_path / "b.heic").write_bytes(b"x")
    for wanted in (PlainFolder, DomainFolder, ImageFolder.scan):
        with pytest.raises(ValueError, match=r"no images .*1 dead link \(a.png\), 1 image of an unsupported format \(.heic\)"):
            wanted(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "lost")
    with pytest.raises(FileNotFoundError, match="a link to .*lost, where nothing is"):
        list_images(tmp_path / "link")


def test_no_image_is_a_special_file(tmp_path, make_image):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    make_image(tmp_path / "0.png")
    os.mkfifo(tmp_path / "1.png")
    assert list_images(tmp_path).skipped == {SPECIAL: ["1.png"]}

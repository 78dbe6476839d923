"""One run at a time works in an output folder, and removes what a killed one left there."""

from __future__ import annotations

from itertools import product

import pytest
from filelock import FileLock

from malp_disc.commands.batch import LOCK_FILE
from malp_disc.serialization.files import atomic_path


@pytest.mark.parametrize("name", ["protect", "localize"])
def test_a_second_run_is_refused_and_leaves_the_first_alone(command, malp_folder, photos, tmp_path, monkeypatch, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / f".{name}.jsonl.current").write_text('{"file": "b.jpg"}')  # what the first run is doing
    other = FileLock(str(out / LOCK_FILE), thread_local=False)
    other.acquire()
    monkeypatch.setattr("malp_disc.run_folder.lock._WAIT", 0.1)
    try:
        with atomic_path(out / "a.png") as temporary:
            message = command(name, photos, out, "--malp", malp_folder, "--device", "cpu")
            assert temporary.exists()
    finally:
        other.release()
    assert f" is working in {out}; wait for it to end, stop it, or choose another folder (OUT)" in message
    assert (out / f".{name}.jsonl.current").exists() and [path.name for path in out.glob("[!.]*")] == ["a.png"]


@pytest.mark.parametrize("name", ["protect", "localize"])
def test_a_run_that_goes_on_removes_what_a_killed_one_left(command, malp_folder, photos, tmp_path, name):
    out = tmp_path / "out"
    own = {"protect": ("a.png", "b.png", "sub/c.png"), "localize": ("a.png.map.png", "b.jpg.overlay.png", "sub/c.png.map.png")}[name]
    left = []
    for target, letters in product((*own, f"{name}.jsonl", f".{name}.jsonl.current"), ("abcdefgh", "a_b0c1d2")):
        folder, file = (out / target).parent, (out / target).name
        left.append(folder / f".{file}.{letters}.partial{(out / target).suffix}")
    others = [out / name for name in (".env.template", ".a.png.jpg", ".notes.abcdefgh.png", ".a.png.abcdefgh.partial.jpg", ".a.png.abc.partial.png", ".a.png.abcdefgh.png", "a.png.abcdefgh.png")]
    for path in (*left, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    assert command(name, photos, out, "--malp", malp_folder, "--device", "cpu") is None
    assert not [path for path in left if path.exists()], "temporary files of the images and of the manifest"
    assert all(path.exists() for path in others), "files that only look alike"


@pytest.mark.parametrize(
    ("name", "source", "output", "original"),
    [
        ("protect", "photos/a.png", "photos", "photos/a.png"),
        ("protect", "photos/a.png", "photos/a.png", "photos/a.png"),
        ("protect", "photos/a.png", "photos/sub/../a.png", "photos/a.png"),
        ("protect", "photos/a.png", "link", "photos/a.png"),
        ("protect", "link/sub", "photos", "photos/sub/c.png"),  # which photos/sub/sub/c.png becomes
        ("localize", "photos/sub", "photos", "photos/sub/c.png.map.png"),
    ],
)
def test_no_original_is_replaced_even_with_overwrite(command, malp_folder, photos, monkeypatch, name, source, output, original):
    monkeypatch.chdir(photos.parent)
    (photos.parent / "link").symlink_to(photos)
    if source.endswith("sub"):
        (photos / "sub" / "sub").mkdir()
        (photos / "sub" / "sub" / "c.png").write_bytes((photos / "a.png").read_bytes())
        (photos / "sub" / "c.png.map.png").write_bytes((photos / "a.png").read_bytes())
    before = {path: path.read_bytes() for path in photos.rglob("*.*")}
    message = command(name, source, output, "--overwrite", "--malp", malp_folder, "--device", "cpu")
    assert message.startswith("error: OUT would replace the original ") and str(message).split("original ")[1].split(",")[0].endswith(original.rpartition("/")[2])
    assert {path: path.read_bytes() for path in photos.rglob("*.*")} == before


def test_a_single_output_file_needs_no_lock(command, malp_folder, photos, tmp_path):
    assert command("protect", photos / "a.png", tmp_path / "a.png", "--malp", malp_folder, "--device", "cpu") is None
    (tmp_path / "folder").mkdir()
    assert command("protect", photos / "a.png", tmp_path / "folder", "--malp", malp_folder, "--device", "cpu") is None
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and path.parent != photos and path.parent.name != "sub") == ["a.png", "a.png"]

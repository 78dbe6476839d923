"""Files appear whole or not at all, nothing in them is run, and a wrong one is named."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from malp_disc.serialization.files import atomic_path, check_writable, file_sha256, sweep, sync_folder, write_json, write_text
from malp_disc.serialization.state_dicts import fingerprint, load_entries, load_parts, load_state, load_tensors, save_tensors


class Bomb:
    """Unpickled by anything careless, it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


# --- writing -----------------------------------------------------------------------------------------------------------------------


def test_a_failing_writer_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "weights.bin"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="disk on fire"):
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"half of the new")
            raise RuntimeError("disk on fire")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["weights.bin"]


def test_while_writing_the_old_file_is_still_there(tmp_path):
    target = tmp_path / "weights.bin"
    target.write_bytes(b"old")
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.parent == target.parent  # renaming works within one file system only
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["weights.bin"]


def test_only_files_open_for_writing_are_flushed_since_windows_refuses_others(tmp_path, monkeypatch):
    """FlushFileBuffers needs write access; `sync_folder` may fail, a folder can't be opened there at all."""
    fcntl = pytest.importorskip("fcntl")
    flushed = []

    def fsync(handle: int) -> None:
        flushed.append(handle)
        if not fcntl.fcntl(handle, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "a.txt", "new")
    sync_folder(tmp_path)
    assert (tmp_path / "a.txt").read_text() == "new" and len(flushed) == 2


def test_folders_are_made_and_the_file_is_readable_as_the_umask_allows(tmp_path):
    own = os.umask(0o027)
    try:
        write_text(tmp_path / "a" / "b.txt", "äöü")
    finally:
        after = os.umask(own)
    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "äöü"
    assert (tmp_path / "a" / "b.txt").stat().st_mode & 0o777 == 0o640 and after == 0o027, "other files of the process get the same as before"


def test_json_keeps_its_order_and_refuses_what_isnt_json(tmp_path):
    write_json(tmp_path / "a.json", {"z": 1, "a": [1.5, None, "ü"]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"z": 1, "a": [1.5, None, "ü"]}
    assert (tmp_path / "a.json").read_text().index('"z"') < (tmp_path / "a.json").read_text().index('"a"')
    for value in (float("nan"), float("inf"), object()):
        with pytest.raises((ValueError, TypeError)):
            write_json(tmp_path / "a.json", {"value": value})
    assert json.loads((tmp_path / "a.json").read_text())["z"] == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_tensors_come_back_by_bytes_with_type_and_metadata(tmp_path):
    tensors = {"w": torch.randn(3, 4), "half": torch.randn(5).bfloat16(), "n": torch.tensor(7), "view": torch.arange(12).view(3, 4).T}
    save_tensors(tmp_path / "a.safetensors", tensors, {"attributes": "Male Young"})
    again = load_tensors(tmp_path / "a.safetensors")
    assert set(again) == set(tensors)
    for key, value in tensors.items():
        assert torch.equal(again[key], value) and again[key].dtype == value.dtype


def test_tensors_that_share_memory_can_be_saved(tmp_path):
    """safetensors refuses them otherwise."""
    weight = torch.randn(4, 4)
    save_tensors(tmp_path / "a.safetensors", {"a": weight, "b": weight, "c": weight[0]})
    assert torch.equal(load_file(tmp_path / "a.safetensors")["c"], weight[0])


# --- reading -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["zip", "legacy", "nested"])
def test_a_pickle_bomb_doesnt_go_off(tmp_path, layout):
    mark = tmp_path / "exploded"
    content = {"state_dict": {"w": torch.ones(2)}, "extra": Bomb(str(mark))} if layout == "nested" else {"w": torch.ones(2), "extra": Bomb(str(mark))}
    torch.save(content, tmp_path / "bomb.ckpt", _use_new_zipfile_serialization=layout != "legacy")
    with pytest.raises(ValueError, match=r"bomb.ckpt can't be read as plain tensors.*weights_only=True.*re-save"):
        load_tensors(tmp_path / "bomb.ckpt", entries=("state_dict",))
    assert not mark.exists()
    torch.load(tmp_path / "bomb.ckpt", weights_only=False)  # a live bomb, or the test would prove nothing
    assert mark.exists()


@pytest.mark.parametrize("name", ["a.ckpt", "a.pth", "a.pt", "a.pickle", "a.tar"])
def test_torch_files_are_read_under_any_name(tmp_path, name):
    torch.save({"w": torch.ones(2, 3)}, tmp_path / name)
    assert torch.equal(load_tensors(tmp_path / name)["w"], torch.ones(2, 3))


def test_a_leading_module_is_removed_where_every_key_has_it(tmp_path):
    torch.save({"module.w": torch.ones(1), "module.module.b": torch.zeros(1)}, tmp_path / "parallel.pth")
    assert set(load_tensors(tmp_path / "parallel.pth")) == {"w", "module.b"}
    torch.save({"module.w": torch.ones(1), "b": torch.zeros(1)}, tmp_path / "own.pth")
    assert set(load_tensors(tmp_path / "own.pth")) == {"module.w", "b"}  # here it's a name like any other


def test_nested_entries_are_found_in_the_order_asked_for(tmp_path):
    torch.save({"step": 5, "G": {"w": torch.ones(1)}, "params_ema": {"w": torch.zeros(1)}}, tmp_path / "a.pth")
    assert load_tensors(tmp_path / "a.pth", entries=("params_ema", "G"))["w"].item() == 0
    assert load_tensors(tmp_path / "a.pth", entries=("state_dict", "G"))["w"].item() == 1
    torch.save({"model": "stargan", "state_dict": {"w": torch.ones(1)}}, tmp_path / "named.pth")
    assert set(load_tensors(tmp_path / "named.pth", entries=("model", "state_dict"))) == {"w"}
    torch.save({"module.w": torch.ones(1)}, tmp_path / "flat.pth")
    assert set(load_tensors(tmp_path / "flat.pth", entries=("state_dict",))) == {"w"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "net": {"w": torch.ones(1)}}, r"holds no state dict: expected tensors by name, found \['epoch', 'net'\]"),
        ([torch.ones(1)], "holds no state dict.*found list"),
        (torch.ones(1), "holds no state dict.*found Tensor"),
        ({}, r"found \[\]"),
    ],
)
def test_a_file_without_a_state_dict_is_named(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a.pth.*" + message):
        load_tensors(tmp_path / "a.pth")


def test_several_state_dicts_of_one_file_are_read_side_by_side(tmp_path):
    """Each loses the prefix by itself; what isn't asked for is left alone."""
    torch.save({"G": {"module.w": torch.ones(1), "epoch": 3}, "D": {"w": torch.zeros(1)}, "optimizer": {"lr": 0.1}}, tmp_path / "a.pth")
    entries = load_entries(tmp_path / "a.pth", ("G",), ("D", "E"), what="a pair")
    assert {name: list(tensors) for name, tensors in entries.items()} == {"G": ["w"], "D": ["w"]} and entries["G"]["w"].item() == 1
    with pytest.raises(ValueError, match=r"a.pth is not a pair: expected the entries \['G', 'E'\], found \['G', 'D', 'optimizer'\]"):
        load_entries(tmp_path / "a.pth", ("G", "E"), what="a pair")
    for required, optional in ((("optimizer",), ()), (("G",), ("optimizer",))):
        with pytest.raises(ValueError, match=r"a.pth is not a pair: its optimizer is no state dict, expected tensors by name, found \['lr'\]"):
            load_entries(tmp_path / "a.pth", required, optional, what="a pair")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*nowhere.pth; give the path of a .safetensors, .ckpt or .pth file"):
        load_tensors(tmp_path / "nowhere.pth")
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_tensors(tmp_path)  # a folder


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth", "a.safetensors"])
def test_a_damaged_file_is_a_value_error_whatever_the_reader_raises(tmp_path, name):
    """Cut short at several places, and with random bytes overwritten: torch's readers raise IndexError and AssertionError among others."""
    path, tensors = tmp_path / name, {"a": torch.rand(20, 20), "b": torch.rand(3)}
    if name.endswith("safetensors"):
        save_tensors(path, tensors)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=name == "zip.pth")
    whole, rng = path.read_bytes(), random.Random(0)
    damaged = [whole[:length] for length in (0, 1, 9, 100, len(whole) // 2, len(whole) - 7)]
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 20)):
            content[rng.randrange(600)] = rng.randrange(256)
        damaged.append(bytes(content))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            load_tensors(path)
        except ValueError as error:
            refused += name in str(error)
    assert refused >= 20  # the others hit bytes that nobody checks


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"<html>404 Not Found</html>", b"\x80\x04N.", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"])
def test_what_is_no_checkpoint_at_all_is_named(tmp_path, content):
    """An error page, a bare None, an LFS pointer."""
    (tmp_path / "G.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match="G.ckpt"):
        load_tensors(tmp_path / "G.ckpt")


# --- into a network ----------------------------------------------------------------------------------------------------------------


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def test_a_state_goes_in_and_old_files_may_lack_the_optional_counters():
    source, target = network(), network()
    source[1].num_batches_tracked.fill_(9)
    load_state(target, source.state_dict(), source="a")
    assert all(torch.equal(one, other) for one, other in zip(source.state_dict().values(), target.state_dict().values()))
    old = {key: value for key, value in source.state_dict().items() if not key.endswith("num_batches_tracked")}
    load_state(network(), old, source="a")
    load_state(network()[:1], {**network()[:1].state_dict(), "0.num_batches_tracked": torch.tensor(1)}, source="a")
    without = {key: value for key, value in old.items() if not key.endswith("running_mean")}
    load_state(network(), without, source="a", optional=("running_mean",))
    with pytest.raises(ValueError, match="running_mean"):
        load_state(network(), without, source="a")


def test_differences_are_named_and_nothing_is_loaded():
    target = network()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    tensors = {key: value + 1 for key, value in network().state_dict().items()}
    tensors["0.weight"] = torch.zeros(3, 5)
    tensors["2.extra"] = tensors.pop("0.bias")
    with pytest.raises(ValueError) as error:
        load_state(target, tensors, source="G.ckpt")
    assert str(error.value) == (
        "G.ckpt is not a checkpoint of this Sequential: 1 missing, first ['0.bias']; 1 unknown, first ['2.extra']; "
        "0.weight is (3, 5) in the file and (3, 2) here"
    )
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())
    with pytest.raises(ValueError, match=r"this Sequential: 1 unknown, first \['2.extra'\]$"):
        load_state(target, {**before, "2.extra": torch.ones(1)}, source="G.ckpt")


# --- networks of several parts -----------------------------------------------------------------------------------------------------


def test_parts_side_by_side_become_one_state_dict_and_the_rest_is_left_alone(tmp_path):
    one, other = network().state_dict(), {f"module.{key}": value for key, value in network().state_dict().items()}
    torch.save({"models": {"a": one, "b": other, "c": {"d": torch.ones(1)}, "opt": {"state": {}}}, "step": 3}, tmp_path / "pair.pt")
    expected = {**{f"a.{key}": value for key, value in one.items()}, **{f"b.{key}": value for key, value in network().state_dict().items()}}
    loaded = load_parts(tmp_path / "pair.pt", ("a", "b"), ("x",), entries=("models",), what="a pair")
    assert set(loaded) == set(expected) and torch.equal(loaded["b.0.weight"], other["module.0.weight"])
    assert "c.d" in load_parts(tmp_path / "pair.pt", ("a", "b"), ("c",), entries=("models",), what="a pair")
    save_tensors(tmp_path / "whole.safetensors", expected)
    assert set(load_parts(tmp_path / "whole.safetensors", ("a", "b"), what="a pair")) == set(expected)


def test_a_file_without_all_parts_is_refused(tmp_path):
    torch.save({"a": network().state_dict(), "step": 3}, tmp_path / "half.pt")
    torch.save(network().state_dict(), tmp_path / "bare.pt")
    with pytest.raises(ValueError, match=r"half.pt is not a pair: expected the entries \['a', 'b'\], found \['a', 'step'\]"):
        load_parts(tmp_path / "half.pt", ("a", "b"), what="a pair")
    with pytest.raises(ValueError, match=r"bare.pt is not a pair: expected the entries \['a', 'b'\], found \['0.weight'"):
        load_parts(tmp_path / "bare.pt", ("a", "b"), what="a pair")


# --- fingerprints ------------------------------------------------------------------------------------------------------------------


def test_a_fingerprint_knows_names_shapes_types_and_values_but_not_the_order():
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(True), "c": torch.ones(2).bfloat16()}
    same = fingerprint(tensors)
    assert fingerprint(dict(reversed(tensors.items()))) == same and len(same) == 16 and int(same, 16) >= 0
    assert fingerprint({**tensors, "a": tensors["a"].T.contiguous().T}) == same  # how it lies in memory doesn't count
    for change in ({"a": tensors["a"] + 1e-6}, {"a": tensors["a"].view(3, 2)}, {"a": tensors["a"].double()}, {"d": tensors["b"]}):
        assert fingerprint({**tensors, **change}) != same


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_what_killed_writes_left_is_swept_away_and_nothing_else(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("G.safetensors", ".hidden", ".writable.json", ".notes.txt.backup01", ".env.template", ".bashrc.original", ".notes.txt.backup01.partial.png", "inner/a.jsonl"):
        (tmp_path / name).write_text("")
    (tmp_path / ".folder.txt.abcdefgh.partial.txt").mkdir()
    with pytest.raises(KeyboardInterrupt), monkeypatched_unlink():
        with atomic_path(tmp_path / "inner" / "a.jsonl"):
            raise KeyboardInterrupt
    left = [path.name for path in (tmp_path / "inner").iterdir()]
    assert len(left) == 2, "a killed process can't clean up"
    sweep(tmp_path)
    kept = [".bashrc.original", ".env.template", ".hidden", ".notes.txt.backup01", ".notes.txt.backup01.partial.png", ".writable.json", "G.safetensors", "a.jsonl"]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == kept


@pytest.mark.parametrize(
    "name",
    ["\u56fe" * 80 + ".jpg", "a" * 255, "a." + "b" * 253, ".hidden" + "b" * 248, "\u56fe" * 50 + ".b." + "\u56fe" * 34],
    ids=["Chinese", "no suffix", "long suffix", "hidden", "two suffixes"],
)
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path, name):
    check_writable(tmp_path / name)
    write_text(tmp_path / name, "whole")
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "whole"
    with pytest.raises(KeyboardInterrupt), monkeypatched_unlink():
        with atomic_path(tmp_path / name):
            raise KeyboardInterrupt
    assert len(list(tmp_path.iterdir())) == 2
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(os.name != "posix", reason="names of any bytes")
def test_a_path_that_isnt_utf8_is_written_about_and_read_from(tmp_path):
    folder = tmp_path / os.fsdecode(b"K\xfchl")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    save_tensors(folder / "a.safetensors", {"weight": torch.ones(3)})
    assert torch.equal(load_tensors(folder / "a.safetensors")["weight"], torch.ones(3))
    write_text(folder / "a.txt", f"in {folder.name}")
    assert (folder / "a.txt").read_text(encoding="utf-8") == "in K\\udcfchl"
    write_json(folder / "a.json", {"folder": folder.name})
    assert json.loads((folder / "a.json").read_text(encoding="utf-8")) == {"folder": folder.name}


def test_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/a.txt'"), atomic_path(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_name_that_is_too_long_is_an_error_before_the_work(tmp_path):
    with pytest.raises(OSError, match="File name too long.*a.json"):
        with atomic_path(tmp_path / ("a" * 251 + ".json")):
            pytest.fail("the work has begun")
    assert not list(tmp_path.iterdir())


@contextlib.contextmanager
def monkeypatched_unlink():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *arguments, **options: None)
        yield

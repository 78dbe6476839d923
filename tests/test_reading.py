"""What is given in place of weights is named, with what to do; harmless extras don't stand in the way, and nothing is run."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import tarfile
import zipfile
from collections import defaultdict
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from malp_disc.serialization.reading import read_arrays, read_json
from malp_disc.serialization.state_dicts import load_tensors

WEIGHTS = {"w": torch.arange(6.0).view(2, 3)}


def bytes_of(content, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return buffer.getvalue()


def arrayed() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def safetensored() -> bytes:
    from safetensors.torch import save

    return save({"w": torch.zeros(100)})


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 123\n"
FOREIGN = {
    "empty": (b"", r"an empty file \(0 bytes\).*download or copy it again"),
    "zeros": (bytes(4096), "a file of zeros.*copy it again"),
    "git-lfs": (LFS, "a git-lfs pointer.*run `git lfs pull`"),
    "html": (b"\n <!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title>", "an HTML page, probably the login.*download the file itself"),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML text.*AccessDenied.*download the file itself"),
    "json": (b'{"error": "Repository not found"}', "a JSON text.*Repository not found.*download the file again"),
    "text": (b"Entry not found", r"a text file \('Entry not found'\).*give the file with the weights"),
    "utf-16": ("<html>404</html>".encode("utf-16"), "an HTML page"),
    "bom": ("\ufeff<html>".encode(), "an HTML page"),
    "gzip": (gzip.compress(b"x"), "a gzip archive; unpack it|a gzip archive.*unpack it"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(range(90)), "a 7z archive.*unpack it"),
    "tar": (tarred("weights.bin"), r"a tar archive \(first file weights.bin\).*unpack it"),
    "old tar": (tarred("sys_info"), "a torch file of before version 0.2"),
    "zip": (zipped(**{"readme.txt": b"x", "G.pth": b"y"}), r"a zip archive of other files \(readme.txt, G.pth\).*unpack it"),
    "empty zip": (zipped(), "an empty zip archive, as numpy.savez makes it"),
    "half a torch file": (bytes_of(WEIGHTS)[:-200], "the beginning of a torch file that is cut short.*download or copy it again"),
    "torchscript": (zipped(**{"G/data.pkl": b"", "G/constants.pkl": b"", "G/code/x.py": b""}), "a TorchScript archive, which is code and isn't run.*state_dict"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(90), "an HDF5 file, as Keras writes"),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0" + b"\xff" * 90, "an ONNX graph"),
    "half a safetensors header": (safetensored()[:20], r"a safetensors file cut short in its header \(20 bytes"),
    "half a safetensors file": (safetensored()[:-7], r"a safetensors file cut short \(\d+ bytes of \d+\).*download"),
    "npy": (arrayed(), r"a single numpy array \(.npy\)"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(range(90)), "a PNG image"),
    "noise": (bytes(range(255, 100, -1)), "no kind of file that is known here"),
}


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_file_of_weights_is_named_with_what_to_do(tmp_path, kind, ending):
    content, message = FOREIGN[kind]
    path = tmp_path / f"G{ending}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"G{ending} can't be read as plain tensors: it is ({message})") as caught:
        load_tensors(path)
    assert "weights_only=False" not in str(caught.value) and "\n" not in str(caught.value)


def test_the_content_counts_and_not_the_ending(tmp_path):
    save_file(WEIGHTS, tmp_path / "safe.pth")
    (tmp_path / "torch.safetensors").write_bytes(bytes_of(WEIGHTS))
    (tmp_path / "old.safetensors").write_bytes(bytes_of(WEIGHTS, _use_new_zipfile_serialization=False))
    np.savez(tmp_path / "arrays.npz", w=WEIGHTS["w"].numpy())
    (tmp_path / "arrays.npz").rename(tmp_path / "arrays.pth")
    for name in ("safe.pth", "torch.safetensors", "old.safetensors", "arrays.pth"):
        assert torch.equal(load_tensors(tmp_path / name)["w"], WEIGHTS["w"]), name


def test_weights_of_another_machine_are_read_on_this_one(tmp_path, monkeypatch):
    """Saved on a GPU, or with the other order of bytes."""
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:7")
    torch.save(WEIGHTS, tmp_path / "gpu.pth")
    np.savez(tmp_path / "big.npz", w=WEIGHTS["w"].numpy().astype(">f4"))
    for name in ("gpu.pth", "big.npz"):
        assert torch.equal(load_tensors(tmp_path / name)["w"], WEIGHTS["w"]), name


# --- folders and links -------------------------------------------------------------------------------------------------------------


def test_a_folder_in_place_of_a_file_is_said_with_what_is_in_it(tmp_path):
    checkpoint = tmp_path / "checkpoint-3"
    checkpoint.mkdir()
    save_file(WEIGHTS, checkpoint / "G_average.safetensors")
    with pytest.raises(FileNotFoundError, match=r"it is a folder; it holds G_average.safetensors; give the file, .*G_average.safetensors"):
        load_tensors(checkpoint)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="the folder of a TensorFlow SavedModel"):
        load_tensors(tmp_path)


def test_a_link_to_nowhere_says_where_it_leads(tmp_path):
    (tmp_path / "G.pth").symlink_to(tmp_path / "gone.pth")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*G.pth: it is a link to .*gone.pth, which isn't there"):
        load_tensors(tmp_path / "G.pth")


# --- more than tensors -------------------------------------------------------------------------------------------------------------


class DictConfig(dict):
    """Stands for OmegaConf's and Lightning's classes, which aren't installed: pickled under a name of theirs."""


def extras() -> dict:
    return {
        "best": np.float64(0.5),
        "count": np.int64(3),
        "history": np.arange(3.0),
        "args": argparse.Namespace(lr=0.1, path=Path("x"), shape=torch.Size([1, 2])),
        "path": PurePosixPath("/data"),
        "counts": defaultdict(list, a=[1]),
        "labels": {1, 2},
    }


@pytest.mark.parametrize("legacy", [False, True])
def test_weights_are_read_beside_numbers_of_numpy_and_arguments_of_a_script(tmp_path, legacy):
    torch.save({"state_dict": WEIGHTS, **extras()}, tmp_path / "a.ckpt", _use_new_zipfile_serialization=not legacy)
    assert torch.equal(load_tensors(tmp_path / "a.ckpt", entries=("state_dict",))["w"], WEIGHTS["w"])


@pytest.mark.parametrize("name", ["omegaconf.dictconfig.DictConfig", "pytorch_lightning.utilities.parsing.AttributeDict", "easydict.EasyDict", "yacs.config.CfgNode"])
def test_weights_are_read_beside_configurations_of_packages_that_arent_installed(tmp_path, monkeypatch, name):
    import sys
    import types

    module, _, cls = name.rpartition(".")
    with monkeypatch.context() as patch:
        for depth in range(1, module.count(".") + 2):
            part = ".".join(module.split(".")[:depth])
            patch.setitem(sys.modules, part, types.ModuleType(part))
        kind = type(cls, (object,) if "omega" in name else (dict,), {"__module__": module})
        setattr(sys.modules[module], cls, kind)
        config = kind()
        if "omega" in name:
            config.content = {"lr": 0.1}
        else:
            config["lr"] = 0.1
        torch.save({"state_dict": WEIGHTS, "hyper_parameters": config}, tmp_path / "a.ckpt")
    assert torch.equal(load_tensors(tmp_path / "a.ckpt", entries=("state_dict",))["w"], WEIGHTS["w"])


def a_function(x):
    return x


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2)), r"a whole pickled network \(torch.nn.modules.container.Sequential"),
        ({"w": WEIGHTS["w"], "loss": a_function}, r"objects of other classes .*\(tests.test_reading.a_function\)"),
        ({"w": WEIGHTS["w"], "get": getattr}, r"objects of other classes .*\(builtins.getattr\)"),
    ],
)
def test_other_objects_are_refused_by_name_with_the_way_to_plain_weights(tmp_path, content, message):
    for legacy in (False, True):
        torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=not legacy)
        with pytest.raises(ValueError, match=message + r".*re-save just the weights: torch.save\(network.state_dict\(\)") as caught:
            load_tensors(tmp_path / "a.ckpt")
        assert "weights_only=False" not in str(caught.value) and "safe_globals" not in str(caught.value)


def test_other_protocols_and_plain_pickles_are_told_apart_from_damage(tmp_path):
    import pickle

    torch.save({"state_dict": WEIGHTS}, tmp_path / "four.pth", pickle_protocol=4)
    with pytest.raises(ValueError, match="it was saved with pickle protocol 4 or later.*re-save it without pickle_protocol"):
        load_tensors(tmp_path / "four.pth")
    for protocol in (2, 4):
        (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"w": np.zeros(3)}, protocol=protocol))
        with pytest.raises(ValueError, match="it is a Python pickle and no file of torch.save.*re-save just the weights"):
            load_tensors(tmp_path / "plain.pkl")


def test_optimizers_and_schedulers_beside_the_weights_are_passed_over(tmp_path):
    optimizer = torch.optim.Adam(nn.Linear(2, 2).parameters())
    torch.save({"state_dict": WEIGHTS, "optimizer": optimizer, "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1)}, tmp_path / "a.pth")
    assert torch.equal(load_tensors(tmp_path / "a.pth", entries=("state_dict",))["w"], WEIGHTS["w"])


def test_reading_leaves_torchs_list_of_trusted_classes_as_it_was(tmp_path):
    before = set(torch.serialization.get_safe_globals())  # torch keeps a set, so its order may change
    torch.save({"state_dict": WEIGHTS, **extras()}, tmp_path / "a.ckpt")
    load_tensors(tmp_path / "a.ckpt", entries=("state_dict",))
    assert set(torch.serialization.get_safe_globals()) == before


# --- arrays and settings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["empty", "git-lfs", "html", "npy", "empty zip", "gzip"])
def test_what_is_no_file_of_arrays_is_named(tmp_path, kind):
    (tmp_path / "s.npz").write_bytes(FOREIGN[kind][0])
    with pytest.raises(ValueError, match=rf"s.npz can't be read as plain arrays by name: it is .*{FOREIGN[kind][1].partition('.*')[0]}.*Expected a .npz with mu and sigma"):
        read_arrays(tmp_path / "s.npz", what="mu and sigma")


def test_arrays_of_objects_and_cut_files_are_refused(tmp_path):
    np.savez(tmp_path / "objects.npz", mu=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="it has objects in it, which would have to be unpickled.*save it with plain numbers") as caught:
        read_arrays(tmp_path / "objects.npz", what="mu")
    assert "allow_pickle" not in str(caught.value)
    np.savez(tmp_path / "text.npz", mu=np.array(["a"]))
    with pytest.raises(ValueError, match="mu holds no numbers"):
        read_arrays(tmp_path / "text.npz", what="mu")
    np.savez(tmp_path / "whole.npz", mu=np.zeros(100))
    (tmp_path / "half.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:300])
    with pytest.raises(ValueError, match="half.npz.*cut short or damaged"):
        read_arrays(tmp_path / "half.npz", what="mu")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is an empty file"),
        (LFS, "it is a git-lfs pointer"),
        (b"<html>404</html>", "it is an HTML page"),
        (b'{"a": 1', "it is damaged: Expecting"),
        (b"\xff\xfe\x00", "it is no kind of file"),
        (b"[1]", "expected a JSON object, got list"),
        (b"[" * 100_000, "it is damaged"),
    ],
)
def test_what_is_no_json_object_is_named(tmp_path, content, message):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"config.json.*{message}"):
        read_json(tmp_path / "config.json", what="the config.json of a saved MaLP")


def test_json_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"a": "ü"}).encode())
    assert read_json(tmp_path / "config.json", what="settings") == {"a": "ü"}
    with pytest.raises(FileNotFoundError, match="it is a folder"):
        read_json(tmp_path, what="settings")

"""`malp-disc export`: an ONNX file that gives PyTorch's values, without the key; a sentence where the packages are missing."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from malp_disc import MaLP
from malp_disc.commands import onnx_file
from tests.commands.conftest import levels
from tests.tiny import tiny_malp


def test_the_wrapper_gives_malps_map_and_classifier():
    malp = tiny_malp().eval()
    image = torch.from_numpy(np.stack([levels(), levels(seed=1)]))
    with torch.no_grad():
        maps, scores = onnx_file.Localizer(malp)(image)
        out = malp(image.permute(0, 3, 1, 2) / 127.5 - 1)
    torch.testing.assert_close(maps, out.map[:, 0])
    torch.testing.assert_close(scores, torch.sigmoid(out.logit))


def test_missing_packages_are_named_with_the_extra(command, malp_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else object())
    message = command("export", malp_folder, tmp_path / "m.onnx")
    assert message.startswith("error: export needs the packages onnx, onnxscript, onnxruntime: pip install 'malp-disc[onnx]'")


@pytest.mark.parametrize(("name", "words"), [("m.pt", "ends in .onnx"), ("there.onnx", "--overwrite"), ("folder.onnx", "is a folder")])
def test_mistakes_end_in_a_sentence(command, malp_folder, tmp_path, name, words):
    (tmp_path / "there.onnx").write_text("mine")
    (tmp_path / "folder.onnx").mkdir()
    message = command("export", malp_folder, tmp_path / name)
    assert message.startswith("error: ") and words in message and (tmp_path / "there.onnx").read_text() == "mine"


def test_smooth_images_of_the_training_size_are_checked_too():
    black, ramp = onnx_file.checked_images(40)["flat images"]
    assert black.shape == ramp.shape == (1, 40, 40, 3) and black.dtype == ramp.dtype == np.uint8
    assert onnx_file.checked_images(1024)["flat images"][0].shape == (1, 256, 256, 3)
    assert not black.any() and (np.diff(ramp[0, 7, :, 1].astype(int)) > 0).all() and (ramp == ramp[:, :1, :, :1]).all()


@pytest.mark.parametrize(("differences", "words"), [((float("nan"), 0.0), "by nan on noise, more than 0.0001"), ((1e-5, 2e-3), "by 0.002 on flat images, more than 0.001")])
def test_a_model_that_differs_is_not_kept(tmp_path, monkeypatch, differences, words):
    monkeypatch.setattr(onnx_file, "check_packages", lambda: None)
    monkeypatch.setattr(onnx_file, "largest_difference", lambda localizer, path, images: differences[len(images) == 2])
    monkeypatch.setattr(torch.onnx, "export", lambda model, arguments, path, **options: open(path, "w").close())
    with pytest.raises(ValueError, match=f"differs from PyTorch {words}; nothing was written"):
        onnx_file.export_onnx(tiny_malp(), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_file_takes_any_size_and_holds_neither_key_nor_the_way_to_it(command, malp_folder, tmp_path, capsys):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    import onnx
    import onnxruntime

    assert command("export", malp_folder, tmp_path / "m.onnx") is None
    printed = capsys.readouterr().out
    assert "largest difference from PyTorch" in printed and "on noise (allowed 1e-04)" in printed and "on flat images (allowed 1e-03)" in printed
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    images = np.stack([levels(90, 41, seed=seed) for seed in range(5)])  # a shape that the export didn't check
    maps, scores = session.run(None, {"image": images})
    with torch.no_grad():
        out = MaLP.from_pretrained(malp_folder).eval()(torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1)
    assert np.abs(maps - out.map[:, 0].numpy()).max() < 1e-4 and np.abs(scores - torch.sigmoid(out.logit).numpy()).max() < 1e-4
    names = [tensor.name for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer]
    assert any("trunk" in name for name in names) and not any("recovery" in name or "template" in name for name in names)

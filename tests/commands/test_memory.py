"""An image that is too large for the memory fails by itself; the others are processed. Any other RuntimeError is a defect, and stays one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from malp_disc import inspection
from malp_disc.errors import memory_suffices
from tests.tiny import tiny_malp

HUGE = 70  # width of the image that stands for a huge one
COMMANDS = {
    "protect": ("protect", "photos", "out"),
    "localize": ("localize", "photos", "out"),
    "detect": ("detect", "photos", "--threshold", 0.5),
    "calibrate": ("detect", "--calibrate", "photos", "--false-alarm-rate", 0.3),
}


def allocate_too_much():
    torch.empty(2**50)


def allocate_too_much_for_numpy():
    np.empty(2**60, np.uint8)


def fill_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has a total capacity of 8.00 GiB")


@pytest.fixture
def failing(photos, monkeypatch):
    """`failing(fail)` adds d.png to the photos, for which every computation calls `fail`."""
    monkeypatch.chdir(photos.parent)
    tiny_malp(set_size=3).save_pretrained("malp")
    Image.new("RGB", (HUGE, 40), (90, 120, 60)).save(photos / "d.png")

    def install(fail) -> None:
        for name in ("protect_levels", "inspect_levels"):
            for module in ("malp_disc.inspection", "malp_disc.commands.inspecting", "malp_disc.commands.calibrating"):
                monkeypatch.setattr(f"{module}.{name}", wrapped(getattr(inspection, name), fail), raising=False)

    def wrapped(compute, fail):
        return lambda malp, levels, *more, **options: fail() if levels.shape[1] == HUGE else compute(malp, levels, *more, **options)

    return install


@pytest.mark.parametrize("fail", [allocate_too_much, allocate_too_much_for_numpy, fill_a_gpu])
@pytest.mark.parametrize("name", COMMANDS)
def test_an_image_too_large_for_the_memory_does_not_stop_the_others(command, failing, capsys, name, fail):
    failing(fail)
    message = command(*COMMANDS[name], "--malp", "malp", "--device", "cpu")
    assert message.startswith("error: 1 of 4 images") and message.endswith("failed: d.png: too large for the memory of cpu; scale the image down, or give another --device")
    assert {"protect": "3 images protected", "localize": "3 images localized", "detect": "of 3 images manipulated", "calibrate": "set on 3 images"}[name] in capsys.readouterr().out


def test_a_single_image_too_large_for_the_memory_ends_in_a_sentence(command, failing):
    failing(allocate_too_much)
    assert command("protect", "photos/d.png", "out.png", "--malp", "malp", "--device", "cpu").startswith("error: too large for the memory of cpu; ")


@pytest.mark.parametrize("name", COMMANDS)
def test_another_runtime_error_stays_a_defect(command, failing, name):
    failing(lambda: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        command(*COMMANDS[name], "--malp", "malp", "--device", "cpu")


@pytest.mark.parametrize("words", ["CUDA error: out of memory", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "MPS backend out of memory (MPS allocated: 9 GB)"])
def test_every_device_has_its_own_words_for_it(words):
    with pytest.raises(ValueError, match="^too small$"), memory_suffices("too small"):
        raise RuntimeError(words)


def test_a_batch_of_fid_too_large_for_the_memory_ends_in_a_sentence(command, photos, monkeypatch):
    monkeypatch.setattr("malp_disc.commands.fid.compare", lambda *arguments, **options: allocate_too_much())
    assert command("fid", photos, photos, "--device", "cpu", "--batch-size", 9) == "error: cpu has too little memory for --batch-size 9; give a smaller one"

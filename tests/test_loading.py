"""Loader workers change nothing that a training sees, leave signals to it, and their errors read like its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback

import psutil
import pytest
import torch
from torch.utils.data import Dataset

from malp_disc.data.faces import ProceduralFaces
from malp_disc.data.sampling import StepBatches
from malp_disc.training import loading
from malp_disc.training.loading import default_workers, image_batches

CPU = torch.device("cpu")


class BrokenImages(Dataset):
    """The image of row 5 can't be read."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 8

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        if row == 5:
            raise self.error
        return torch.full((3, 4, 4), row / 8), torch.zeros(2)


def test_workers_deliver_the_same_batches_in_the_same_order():
    faces, sampler = ProceduralFaces(12, image_size=16), StepBatches(12, 4, seed=0, stop=5)
    found = [list(image_batches(faces, sampler, device=CPU, workers=workers)) for workers in (0, 2)]
    assert len(found[0]) == 5
    for alone, by_worker in zip(*found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(alone, by_worker, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_images_has_one_message_with_and_without_workers(workers):
    batches = image_batches(BrokenImages(ValueError("five.png can't be decoded")), [[0, 1], [4, 5], [6, 7]], device=CPU, workers=workers)
    assert next(batches)[0][:, 0, 0, 0].tolist() == [0, 1 / 8]
    with pytest.raises(ValueError, match=r"^five.png can't be decoded$") as error:
        next(batches)
    traceback.clear_frames(error.value.__traceback__)  # or the loader lives until the garbage collection, and its workers five seconds longer


def test_a_defect_in_a_worker_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError, match="__getitem__") as error:
        list(image_batches(BrokenImages(ZeroDivisionError()), [[5]], device=CPU, workers=1))
    traceback.clear_frames(error.value.__traceback__)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_group_leaves_the_loading_alone(number):
    before = set(psutil.Process().children())
    batches = image_batches(ProceduralFaces(64, image_size=16), [[row] for row in range(12)], device=CPU, workers=2)
    next(batches), next(batches)  # one of each, so both have started
    workers = set(psutil.Process().children()) - before
    assert len(workers) >= 2
    for worker in workers:
        worker.send_signal(number)
    assert len(list(batches)) == 10


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_program_that_fails_while_images_are_loaded_ends():
    """The traceback of an uncaught error keeps the loader, and its workers ignore the signal with which Python ends them before it waits for them."""
    program = (
        "import torch\n"
        "from malp_disc.data import ProceduralFaces\n"
        "from malp_disc.training.loading import image_batches\n"
        "batches = image_batches(ProceduralFaces(64, image_size=16), [[row] for row in range(40)], device=torch.device('cpu'), workers=2)\n"
        "next(batches)\n"
        "raise ZeroDivisionError('out of memory')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and ended.stderr.endswith("ZeroDivisionError: out of memory\n")


@pytest.mark.parametrize(("cores", "processes", "expected"), [(16, 1, 8), (16, 4, 3), (8, 8, 0), (1, 1, 0)])
def test_a_gpu_has_workers_on_the_cores_that_are_left(monkeypatch, cores, processes, expected):
    monkeypatch.setattr(loading, "available_cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert default_workers(torch.device("cuda")) == expected
    assert default_workers(CPU) == 0


def test_loading_draws_nothing_from_the_global_generator():
    """Losses of a user's own may draw from it, and a resumed run loads at another moment."""
    before = torch.get_rng_state()
    assert len(list(image_batches(ProceduralFaces(4, image_size=16), [[0, 1], [2, 3]], device=CPU))) == 2
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("reference", [False, True])
def test_images_on_another_scale_are_refused_before_they_go_to_a_gpu(reference):
    images = [torch.zeros(3, 4, 4), torch.zeros(2), torch.zeros(3, 4, 4)]
    images[2 if reference else 0].fill_(255)
    with pytest.raises(ValueError, match=r"expected images in \[-1, 1\], got min 255 max 255; divide by 127.5 and subtract 1"):
        list(image_batches([tuple(images)] * 2, [[0, 1]], device=CPU))

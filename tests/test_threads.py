"""Batches side by side give what one after the other gives, and a run uses the cores that its user left to it."""

from __future__ import annotations

import json
import logging

import pytest
import torch

from malp_disc.metrics.features import create_extractor, extract_features
from malp_disc.runtime.threaded import map_batches
from malp_disc.training import threads as threads_module
from malp_disc.training.threads import available_cores, keep_threads, set_by_launcher, use_all_cores


@pytest.fixture
def threads():
    """Sets the number of PyTorch's threads, and restores it."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_features_do_not_depend_on_the_number_of_threads(threads):
    extractor, images = create_extractor("faces"), torch.rand(7, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = []
    for number in (1, 3):
        threads(number)
        found.append(extract_features(extractor, images.split(2)))
    assert (found[0] == found[1]).all()


def test_batches_come_back_in_order_without_gradients_and_each_is_computed_by_one_thread(threads):
    threads(3)
    weight = torch.ones(1, requires_grad=True)
    found = list(map_batches(lambda i: (i, torch.get_num_threads(), (weight * i).requires_grad), range(20)))
    assert found == [(i, 1, False) for i in range(20)]
    assert torch.get_num_threads() == 3 and (weight * 1).requires_grad


def test_an_error_in_a_batch_reaches_the_caller_and_the_number_of_threads_is_restored(threads):
    threads(2)
    with pytest.raises(ZeroDivisionError):
        list(map_batches(lambda i: 1 / (5 - i), range(50)))
    assert torch.get_num_threads() == 2


class Launcher:
    """Stands in for the process of `accelerate launch`."""

    def __init__(self, environment: dict[str, str], *flags: str) -> None:
        self.environ, self.cmdline = (lambda: environment), (lambda: ["python", "accelerate", "launch", *flags, "recipe.py"])


@pytest.mark.parametrize(
    "launcher, default",
    [
        (Launcher({}), True),
        (Launcher({"OMP_NUM_THREADS": "1"}), False),
        (Launcher({}, "--num_cpu_threads_per_process", "1"), False),
        (Launcher({}, "--num-cpu-threads-per-process=1"), False),
        (None, False),
    ],
)
def test_one_thread_is_the_launchers_default_unless_its_user_asked_for_it(monkeypatch, launcher, default):
    monkeypatch.setattr(threads_module, "launcher", lambda: launcher)
    assert set_by_launcher() is default


@pytest.mark.parametrize(
    "environment, all_cores",
    [({"OMP_NUM_THREADS": "1"}, True), ({"OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}, False), ({"OMP_NUM_THREADS": "3"}, False), ({}, False)],
)
def test_a_single_process_on_the_launchers_default_uses_all_cores(threads, monkeypatch, environment, all_cores):
    threads(1)
    monkeypatch.setattr(threads_module, "launcher", lambda: Launcher({}))
    monkeypatch.setattr(threads_module, "available_cores", lambda: 5)
    use_all_cores(environment)
    assert torch.get_num_threads() == (5 if all_cores else 1)
    assert available_cores() >= 1


@pytest.mark.parametrize("processes, kept", [(1, 3), (2, 1)])
def test_a_resumed_run_keeps_the_number_of_threads_that_it_began_with(threads, tmp_path, caplog, processes, kept):
    threads(1)
    keep_threads(tmp_path)  # no record
    (tmp_path / "environment.json").write_text(json.dumps({"threads": 3, "processes": processes}))
    with caplog.at_level(logging.INFO, "malp_disc"):
        keep_threads(tmp_path)
    assert torch.get_num_threads() == kept
    assert ("continuing with 3 CPU threads" in caplog.text) is (kept == 3)

"""The loop that all trainings share: when its hooks are called, and what a resumed one starts with."""

from __future__ import annotations

import json
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from malp_disc.data.faces import ProceduralFaces
from malp_disc.training.checkpoints import CheckpointManager, list_training
from malp_disc.training.loop import Hooks, SampleGrids, ShownTerm, run_steps
from malp_disc.training.train_options import TrainOptions


class Noting(Hooks):
    """Notes every call; its state is the number of calls."""

    def __init__(self, checkpoints: CheckpointManager) -> None:
        self.calls, self.checkpoints = [], checkpoints

    def before_first_step(self):
        self.calls.append("before")

    def logged(self, number, terms, bar):
        self.calls.append(("logged", number, dict(terms)))
        return "shown"

    def after_step(self, number):
        self.calls.append(("after", number, len(list_training(self.checkpoints.folder))))

    def state(self):
        return {"calls": len(self.calls)}

    def saved(self, number):
        self.calls.append(("saved", number, len(list_training(self.checkpoints.folder))))


@pytest.fixture
def train(tmp_path):
    """Trains nothing for four steps, with a checkpoint after every second one and a line of the curve for every one; the second is skipped."""

    def run(make_hooks=Noting, **options):
        config = TrainOptions(**{"output_dir": tmp_path, "max_train_steps": 4, "train_batch_size": 2, "checkpointing_steps": 2, "log_steps": 1, "mixed_precision": "no", **options})
        network, accelerator = nn.Linear(1, 1), Accelerator(cpu=True)
        checkpoints = CheckpointManager(tmp_path / "training", networks={"net": network}, optimizers={"net": torch.optim.Adam(network.parameters())}, settings={"a": 1})
        state, hooks = checkpoints.resume(config, accelerator), make_hooks(checkpoints)
        train_step = lambda number, batches: {} if number == 2 else {"J": torch.tensor(float(number)), "K": torch.zeros(())}  # noqa: E731
        run_steps(train_step, ProceduralFaces(8, image_size=16), config, accelerator, checkpoints, hooks, first=state["step"], curve=tmp_path / "curve.jsonl", label="train")
        return state, hooks

    return run


def test_the_hooks_are_called_around_every_step_and_its_checkpoint(train, tmp_path):
    _, hooks = train()
    third, last = ("logged", 3, {"J": 3.0, "K": 0.0}), ("logged", 4, {"J": 4.0, "K": 0.0})
    assert hooks.calls == [
        "before", ("logged", 1, {"J": 1.0, "K": 0.0}), ("after", 1, 0), ("after", 2, 0), ("saved", 2, 1), third, ("after", 3, 1), last, ("after", 4, 1), ("saved", 4, 2)
    ]  # fmt: skip
    assert [json.loads(line)["step"] for line in (tmp_path / "curve.jsonl").read_text().splitlines()] == [1, 3, 4]
    state, resumed = train(resume_from_checkpoint="checkpoint-2")
    assert (state["step"], state["calls"]) == (2, 4) and resumed.calls[0] == third


class Interrupted(Noting):
    """Ctrl-C in the third step."""

    def logged(self, number, terms, bar):
        if number == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return super().logged(number, terms, bar)


def test_after_ctrl_c_the_step_is_finished_and_saved_and_the_run_goes_on_from_there(train, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(Interrupted)
    assert [path.name for path in list_training(tmp_path / "training")] == ["checkpoint-2", "checkpoint-3"]
    state, resumed = train(resume_from_checkpoint="latest")
    assert state["step"] == 3 and [call[1] for call in resumed.calls] == [4, 4, 4]


def test_grids_are_drawn_before_the_first_step_and_every_so_many(train):
    drawn = []
    train(lambda _: SampleGrids(drawn.append, every=2))
    assert drawn == ["samples/000000.png", "samples/000002.png", "samples/000004.png"]
    train(lambda _: SampleGrids(drawn.append, every=2), resume_from_checkpoint="checkpoint-2")
    assert drawn[3:] == ["samples/000004.png"]


def test_the_progress_bar_shows_all_terms_or_one_by_a_name_of_its_own():
    terms, bar = {"MaLP/total": 0.12345, "MaLP/map": 3.0}, SimpleNamespace()
    assert Hooks().logged(1, terms, bar) == "MaLP/total=0.123 MaLP/map=3"
    assert ShownTerm("MaLP/total", "J").logged(1, terms, bar) == "J=0.123"

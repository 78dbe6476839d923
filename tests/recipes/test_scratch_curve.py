"""The curve of a training from scratch: every checkpoint once, in seconds since the run began."""

from __future__ import annotations

import json
import os

import pytest

from recipes.research.scratch_curve import checkpoints, seconds_of
from tests.recipes.small_runs import SMALL

TRAINING = ["--image-size", 32, "--conv-dim", 8, "--residual-blocks", 1, "--train-size", 40, "--test-size", 12, "--train-batch-size", 4, "--warmup-steps", 0,
            "--n-critic", 1, "--max-train-steps", 3, "--checkpointing-steps", 1, "--mixed-precision", "no", "--attention"]  # fmt: skip


@pytest.fixture(scope="module")
def run(launch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scratch") / "plain"
    launch("train_stargan.py", *TRAINING, "--checkpoints-total-limit", "None", "--output-dir", folder)
    return folder


def test_every_checkpoint_has_a_line_in_seconds_and_none_is_measured_twice(launch, run, tmp_path):
    began = (run / "config.json").stat().st_mtime
    for step, folder in checkpoints(run).items():
        os.utime(folder / "state.json", (began + 60 * step, began + 60 * step))
    assert seconds_of(run, run / "checkpoint-2") == 120.0
    arguments = ("--runs", run, *SMALL, "--image-size", 32, "--output-dir", tmp_path)
    launch("scratch_curve.py", *arguments)
    lines = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert [(line["run"], line["step"], line["seconds"]) for line in lines] == [("plain", 1, 60.0), ("plain", 2, 120.0), ("plain", 3, 180.0)]
    assert all(line["frechet"] > 0 and 0 <= line["edit_accuracy"] <= 1 and line["perfect_edit"] > 0 and line["n"] == 12 for line in lines)
    assert (tmp_path / "curve.png").stat().st_size > 1000 and (tmp_path / "samples" / "plain.png").exists()
    marked = [line | {"frechet": 1.0} for line in lines]
    (tmp_path / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in marked))
    launch("scratch_curve.py", *arguments)
    assert [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()] == marked
    fewer = launch("scratch_curve.py", *arguments, "--eval-size", 8, "--extractor", "faces", check=False)
    other = launch("scratch_curve.py", *arguments, "--reference-split", "training", check=False)
    assert "measurements of another kind: reference was drawn faces" in other.stderr
    assert "measurements of another kind: label was FD-SqueezeNet-128, is FD-faces; n was 12, is 8; choose another --output-dir" in fewer.stderr


def test_a_folder_without_checkpoints_is_refused(launch, tmp_path):
    (tmp_path / "empty").mkdir()
    result = launch("scratch_curve.py", "--runs", tmp_path / "empty", *SMALL, "--output-dir", tmp_path / "out", check=False)
    assert "no checkpoints in" in result.stderr


def test_runs_of_one_name_or_of_other_attributes_are_refused(launch, run, tmp_path):
    twice = launch("scratch_curve.py", "--runs", run, run, *SMALL, "--output-dir", tmp_path, check=False)
    assert "expected folders of different names" in twice.stderr
    others = launch("scratch_curve.py", "--runs", run, *SMALL, "--image-size", 32, "--selected-attributes", "Bangs", "Smiling", "--output-dir", tmp_path, check=False)
    assert "takes 5 attributes, but 2 are selected" in others.stderr

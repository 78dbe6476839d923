"""One folder holds one experiment, and a run continues from a checkpoint in it."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from malp_disc.experiment.arms import ArmOptions
from malp_disc.run_folder.experiment import contents_of, experiment_of
from malp_disc.shipped import FACES_GENERATOR
from malp_disc.training.checkpoints import save_training
from malp_disc.training.output_folder import PREVIOUS, check_folder, check_start, find_resume, set_aside, write_experiment
from tests.recipes.small_runs import options

pytestmark = pytest.mark.usefixtures("release_all_locks")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run of arm control that was measured."""
    write_experiment(tmp_path, experiment_of(options()))
    (tmp_path / "measurements.jsonl").write_text('{"seed": 0, "arm": "control"}\n')
    layer = nn.Linear(1, 1)
    for step in (250, 500):
        save_training(tmp_path / "arms" / "control", step, networks={"G": layer}, optimizers={"G": torch.optim.Adam(layer.parameters())}, state={})
    return tmp_path


def checked(folder: Path, *, resumes: bool = False, accumulates: bool = False, **changed) -> bool:
    return check_folder(folder, experiment_of(options(**changed)), ArmOptions, resumes=resumes, accumulates=accumulates)


@pytest.mark.parametrize("ways", [{}, {"resumes": True}, {"accumulates": True}])
@pytest.mark.parametrize("changed", [{"learning_rate": 2e-4}, {"max_train_steps": 9}, {"eval_size": 40}, {"extractor": "squeezenet"}, {"seed": 1}, {"train_size": 99}])
def test_a_folder_with_another_experiment_is_refused(folder, ways, changed):
    name, value = next(iter(changed.items()))
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} was .*, is {value}.* choose another --output-dir"):
        checked(folder, **ways, **changed)


def test_work_may_be_added_and_another_arm_may_bring_its_own_options(folder):
    more = {"arms": ("control", "vision_aided"), "seeds": (0, 1), "backbone_weights": FACES_GENERATOR, "checkpointing_steps": 7}
    assert not checked(folder, resumes=True, **more)
    save_training(folder / "arms" / "1" / "vision_aided", 1, networks={}, optimizers={}, state={})
    with pytest.raises(ValueError, match="--backbone-weights was not given, is sha256"):
        checked(folder, resumes=True, **more)
    shutil.move(folder / "arms" / "1", folder / "G-vision_aided-seed1.safetensors")  # its checkpoints were deleted
    with pytest.raises(ValueError, match="--backbone-weights was not given, is sha256"):
        checked(folder, resumes=True, **more)


def test_the_same_experiment_starts_over_without_its_old_results(folder, caplog):
    (folder / "notes.txt").write_text("mine")
    (folder / "malp").mkdir()
    (folder / "config.json").write_text("{}")
    assert checked(folder) and not checked(folder, resumes=True) and not checked(folder, accumulates=True)
    with caplog.at_level(logging.WARNING, logger="malp_disc"):
        set_aside(folder, [folder / "malp" / "config.json"])
    assert {path.name for path in folder.iterdir()} == {"notes.txt", "malp", "config.json", "experiment.json", PREVIOUS}
    assert (folder / PREVIOUS / "arms" / "control" / "checkpoint-500").is_dir() and "--resume-from-checkpoint latest" in caplog.text
    assert find_resume(folder, "latest") == "latest" and not checked(folder)
    (folder / "measurements.jsonl").write_text("{}\n")
    set_aside(folder, [folder / "malp"])
    assert (folder / "malp").is_dir() and (folder / f"{PREVIOUS}-2" / "measurements.jsonl").is_file()
    (folder / "measurements.jsonl").write_text("{}\n")
    set_aside(folder)
    assert (folder / PREVIOUS / "arms" / "control" / "checkpoint-500").is_dir(), "nothing is lost"
    assert {path.name for path in (folder / f"{PREVIOUS}-3").iterdir()} == {"measurements.jsonl", "malp"}
    with pytest.raises(ValueError, match="no complete checkpoint checkpoint-500 in .*; there are none"):
        find_resume(folder, "checkpoint-500")


def test_a_new_start_keeps_the_key_and_the_list_of_its_templates_readable_by_their_owner_alone(folder):
    (folder / "malp").mkdir()
    for name in ("secret.safetensors", "issued.jsonl", "model.safetensors"):
        (folder / "malp" / name).write_text(name)
        (folder / "malp" / name).chmod(0o600)
    set_aside(folder)
    found = {path.name: (path.read_text(), path.stat().st_mode & 0o777) for path in (folder / "malp").iterdir()}
    assert found == {name: (name, 0o600) for name in ("secret.safetensors", "issued.jsonl")}
    assert (folder / PREVIOUS / "malp" / "model.safetensors").is_file()


def test_all_arms_start_from_the_generator_that_the_run_began_with(folder):
    check_start(folder, "aaaa", write=False)
    assert "start" not in json.loads((folder / "experiment.json").read_text())
    check_start(folder, "aaaa", write=True)
    write_experiment(folder, experiment_of(options()))  # as a resumed run does
    check_start(folder, "aaaa", write=False)
    with pytest.raises(ValueError, match=r"other weights \(aaaa, now bbbb\).*choose another --output-dir"):
        check_start(folder, "bbbb", write=True)
    set_aside(folder)
    check_start(folder, "bbbb", write=True)
    assert json.loads((folder / "experiment.json").read_text())["start"] == "bbbb"


def test_code_that_changed_since_the_run_began_is_named(tmp_path, caplog):
    """The options name a function, and don't change with its file. A new start begins with the new one."""
    file, start = tmp_path / "mine.py", tmp_path / "detector"
    start.mkdir()
    (start / "config.json").write_text("{}")
    named = SimpleNamespace(losses=f"{file}:losses", generator="stargan", malp_start=str(start))
    experiment, folder = {"recipe": "finetune", "options": {"losses": named.losses}}, tmp_path / "run"

    def goes_on(text: str, config: str = "{}", **ways) -> list[str]:
        file.write_text(text)
        (start / "config.json").write_text(config)
        caplog.clear()
        write_experiment(folder, experiment, contents_of(named), **ways)
        return [record.message.split(" ")[0] for record in caplog.records]

    folder.mkdir()
    assert goes_on("losses = 1") == [] and set(contents_of(named)) == {"losses", "malp_start"}
    (folder / "measurements.jsonl").write_text("{}\n")
    assert goes_on("losses = 1", goes_on=True) == []
    assert goes_on("losses = 2", goes_on=True) == goes_on("losses = 2", goes_on=True) == ["--losses"]
    assert "mine.py:losses has changed since the results in" in caplog.text
    assert goes_on("losses = 1", '{"width": 8}', goes_on=True) == ["--malp-start"]
    assert goes_on("losses = 2") == [] and goes_on("losses = 2", goes_on=True) == []
    write_experiment(folder, experiment)  # of an earlier version
    assert goes_on("losses = 3", goes_on=True) == []


def test_results_of_unknown_origin_are_refused_and_a_folder_without_results_is_free(folder, tmp_path_factory):
    (folder / "experiment.json").write_text("{")
    with pytest.raises(ValueError, match="experiment.json is damaged .* choose another --output-dir"):
        checked(folder)
    (folder / "experiment.json").unlink()
    with pytest.raises(ValueError, match="holds results of a run without experiment.json"):
        checked(folder)
    assert not checked(folder, resumes=True), "the checkpoints tell what they were made with"
    begun = tmp_path_factory.mktemp("begun")
    write_experiment(begun, experiment_of(options(learning_rate=1.0)))
    assert not checked(begun), "stopped before it had anything"


def test_a_checkpoint_is_named_as_diffusers_names_it_or_by_its_path(folder, monkeypatch):
    place = folder / "arms" / "control" / "checkpoint-250"
    assert find_resume(folder, None) is None and find_resume(folder / "absent", "latest") == "latest"
    monkeypatch.chdir(folder.parent)
    for spelled in ("checkpoint-250", "checkpoint-250/", f"{folder.name}/checkpoint-250", str(folder / "checkpoint-250")):
        assert find_resume(folder, spelled) == "checkpoint-250"
    for spelled in (str(place), f"{folder.name}/arms/control/checkpoint-250", "arms/control/checkpoint-250"):
        assert find_resume(folder, spelled) == str(place.resolve())


def test_a_checkpoint_that_is_not_there_is_answered_with_those_that_are(folder, tmp_path_factory):
    with pytest.raises(ValueError, match="no complete checkpoint checkpoint-300 in .*there are arms/control/checkpoint-250, arms/control/checkpoint-500; or give latest"):
        find_resume(folder, "checkpoint-300")
    (folder / "arms" / "control" / "checkpoint-250" / "state.json").unlink()
    with pytest.raises(ValueError, match="no complete checkpoint"):
        find_resume(folder, "checkpoint-250")
    other = tmp_path_factory.mktemp("other")
    save_training(other, 500, networks={}, optimizers={}, state={})
    with pytest.raises(ValueError, match="is not in this run's folder .*give the --output-dir of the run that it belongs to"):
        find_resume(folder, str(other / "checkpoint-500"))
    with pytest.raises(ValueError, match="there are none, leave --resume-from-checkpoint out"):
        find_resume(folder / "absent", "checkpoint-1")


def test_training_goes_on_from_the_name_where_there_is_one_and_else_from_the_latest(folder):
    from malp_disc.training.checkpoints import CheckpointManager

    accelerator = type("One", (), {"device": torch.device("cpu"), "scaler": None, "num_processes": 1})()

    def first(arm: str, wanted: str) -> int:
        layer = nn.Linear(1, 1)
        training = CheckpointManager(folder / "arms" / arm, networks={"G": layer}, optimizers={"G": torch.optim.Adam(layer.parameters())}, settings={})
        return training.resume(options(output_dir=folder, resume_from_checkpoint=wanted), accelerator)["step"]

    path = str((folder / "arms" / "control" / "checkpoint-250").resolve())
    assert [first("control", wanted) for wanted in ("latest", "checkpoint-250", path)] == [500, 250, 250]
    shutil.move(folder / "arms" / "control" / "checkpoint-250", folder / "arms" / "frozen" / "checkpoint-250")
    assert (first("control", "checkpoint-250"), first("frozen", "checkpoint-250"), first("cotrain", "checkpoint-250")) == (500, 250, 0)
    assert first("control", str(folder / "arms" / "frozen" / "checkpoint-250")) == 500, "never another arm's"

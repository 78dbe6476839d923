"""Training checkpoints: complete or absent, exact to the byte, and refused where they'd make the run another run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import nn

from malp_disc.training.checkpoints import (
    CheckpointManager,
    check_space,
    find_training,
    list_training,
    load_training,
    prepare_optimizer,
    save_training,
)
from malp_disc.training.options import FinetuneOptions


def trained(steps: int, seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network and its Adam after some steps; the step's data is a function of its number."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.Adam([{"params": network[0].parameters(), "lr": 1e-2}, {"params": network[2].parameters(), "lr": 1e-3}])
    advance(network, optimizer, range(steps))
    return network, optimizer


def advance(network: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        data = torch.rand(8, 3, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        network(data).square().mean().backward()
        optimizer.step()


def save(folder, step: int, pair=None, **options):
    network, optimizer = pair or trained(step)
    return save_training(folder, step, networks={"G": network}, optimizers={"G": optimizer}, state=options.pop("state", {"seed": 0}), **options)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))


def test_three_steps_saved_loaded_and_three_more_are_six_by_bytes(tmp_path):
    whole, whole_optimizer = trained(6)
    folder = save(tmp_path, 3)
    network, optimizer = trained(0, seed=5)
    assert load_training(folder, networks={"G": network}, optimizers={"G": optimizer}, expected={"seed": 0}) == {"step": 3, "seed": 0}
    advance(network, optimizer, range(3, 6))
    assert same(network, whole)
    for one, other in zip(optimizer.state_dict()["state"].values(), whole_optimizer.state_dict()["state"].values()):
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-2, 1e-3]


def test_every_training_starts_with_the_same_loss_scale_whatever_an_earlier_one_made_of_it(tmp_path):
    accelerator = SimpleNamespace(device=torch.device("cpu"), scaler=torch.amp.GradScaler("cpu"), is_main_process=True, num_processes=1, wait_for_everyone=lambda: None)
    begun = accelerator.scaler.state_dict()
    (network, optimizer), options = trained(1), FinetuneOptions(output_dir=tmp_path, max_train_steps=9)

    def manager(name: str) -> CheckpointManager:
        return CheckpointManager(tmp_path / name, networks={"G": network}, optimizers={"G": optimizer}, settings={})

    accelerator.scaler.load_state_dict({**begun, "scale": 8.0, "_growth_tracker": 5})
    manager("one").save(3, options, accelerator)
    assert manager("two").resume(options, accelerator) == {"step": 0} and accelerator.scaler.state_dict() == begun
    resumed = dataclasses.replace(options, resume_from_checkpoint="latest")
    assert manager("one").resume(resumed, accelerator)["step"] == 3 and accelerator.scaler.state_dict()["scale"] == 8.0


def test_a_run_that_goes_on_with_other_batches_is_warned_that_it_is_not_the_same(tmp_path, caplog):
    (network, optimizer), accelerator = trained(1), Accelerator(cpu=True)
    manager = CheckpointManager(tmp_path, networks={"G": network}, optimizers={"G": optimizer}, settings={})
    options = FinetuneOptions(output_dir=tmp_path, train_batch_size=8, resume_from_checkpoint="latest")
    manager.save(1, options, accelerator)
    manager.resume(options, accelerator)
    assert not caplog.records
    manager.resume(dataclasses.replace(options, train_batch_size=4, gradient_accumulation_steps=2), accelerator)
    assert "was made with 8 images x 1 micro-batches x 1 processes, this run has 4 images x 2 micro-batches x 1 processes" in caplog.text


def test_preparing_a_resumed_optimizer_leaves_its_state_where_it_is(monkeypatch):
    _, optimizer = trained(2)
    monkeypatch.setattr(optimizer, "load_state_dict", lambda state: pytest.fail("Adam's number of steps would move to the GPU"))
    prepared = prepare_optimizer(Accelerator(cpu=True), optimizer)
    assert prepared.param_groups == optimizer.param_groups


def test_a_folder_holds_one_file_per_network_the_optimizers_and_the_state(tmp_path):
    folder = save(tmp_path, 2, state={"seed": 7, "arm": "cotrain"})
    assert folder == tmp_path / "checkpoint-2"
    assert sorted(path.name for path in folder.iterdir()) == ["G.safetensors", "optimizers.pt", "state.json"]
    assert json.loads((folder / "state.json").read_text()) == {"step": 2, "seed": 7, "arm": "cotrain"}
    torch.load(folder / "optimizers.pt", weights_only=True)  # nothing but tensors and numbers


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 10):
        save(tmp_path, step, total_limit=2)
    assert [path.name for path in list_training(tmp_path)] == ["checkpoint-2", "checkpoint-10"]  # by number, not by letters
    save(tmp_path, 11, total_limit=1)
    assert [path.name for path in list_training(tmp_path)] == ["checkpoint-11"]
    save(tmp_path, 12)
    assert len(list_training(tmp_path)) == 2


def test_a_run_that_goes_on_from_an_older_checkpoint_keeps_its_new_ones(tmp_path):
    """Perhaps because the latest is damaged."""
    for step in (10, 20, 30, 40):
        save(tmp_path, step)
    save(tmp_path, 15, total_limit=2)
    assert [path.name for path in list_training(tmp_path)] == ["checkpoint-10", "checkpoint-15"]
    save(tmp_path, 20, total_limit=2)
    assert [path.name for path in list_training(tmp_path)] == ["checkpoint-15", "checkpoint-20"]
    save(tmp_path, 17)
    assert [path.name for path in list_training(tmp_path)] == ["checkpoint-15", "checkpoint-17", "checkpoint-20"], "without a limit nothing is deleted"


def test_saving_a_step_again_replaces_it(tmp_path):
    save(tmp_path, 3, trained(1))
    folder = save(tmp_path, 3, trained(3))
    network, optimizer = trained(0, seed=5)
    load_training(folder, networks={"G": network}, optimizers={"G": optimizer}, expected={})
    assert same(network, trained(3)[0])


def test_what_a_killed_run_left_behind_is_ignored_and_swept_away(tmp_path):
    save(tmp_path, 1)
    half = tmp_path / ".checkpoint-2.partial"
    half.mkdir()
    (half / "G.safetensors").write_bytes(b"half")
    (half / "stray").write_text("")
    (tmp_path / "checkpoint-best").mkdir()
    assert [path.name for path in list_training(tmp_path)] == ["checkpoint-1"]
    assert find_training(tmp_path, "latest").name == "checkpoint-1"
    folder = save(tmp_path, 2)
    assert not half.exists() and not (folder / "stray").exists()


def test_a_network_without_tensors_is_neither_saved_nor_read(tmp_path):
    """Such as losses without parameters. Earlier versions wrote an unreadable file for it, and their checkpoints resume too."""
    network, optimizer = trained(2)
    networks = {"G": network, "D": nn.Identity()}
    folder = save_training(tmp_path, 2, networks=networks, optimizers={"G": optimizer}, state={})
    assert sorted(path.name for path in folder.iterdir()) == ["G.safetensors", "optimizers.pt", "state.json"]
    (folder / "D.safetensors").write_bytes(b'\x18\0\0\0\0\0\0\0{},"__metadata__":{}}     ')
    assert load(folder, networks={**networks, "G": trained(0)[0]})["step"] == 2


def test_a_save_that_fails_leaves_no_checkpoint(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(ValueError):
        save(tmp_path, 2, state={"loss": float("nan")})
    assert [path.name for path in list_training(tmp_path)] == ["checkpoint-1"]


def test_networks_are_on_their_device_before_an_optimizers_state_is_loaded_to_it(tmp_path):
    """Moved later, the weights would be on the GPU and Adam's moments on the CPU, and its first step would fail."""
    happened = []

    class Network(nn.Linear):
        def to(self, *arguments, **options):
            happened.append(("moved", str(arguments[0])))
            return super().to(*arguments, **options)

    class Optimizer(torch.optim.Adam):
        def load_state_dict(self, state):
            happened.append(("loaded", None))
            super().load_state_dict(state)

    network = Network(2, 2)
    optimizer = Optimizer(network.parameters())
    manager = CheckpointManager(tmp_path, networks={"a": network}, optimizers={"a": optimizer}, settings={})
    options, accelerator = FinetuneOptions(output_dir=tmp_path, resume_from_checkpoint="latest"), Accelerator(cpu=True)
    manager.save(1, options, accelerator)
    assert manager.resume(options, accelerator)["step"] == 1
    assert happened == [("moved", "cpu"), ("loaded", None)]


def test_a_full_disk_takes_nothing_with_it(tmp_path, monkeypatch):
    """The disk is full when the second network is written: the older checkpoint stays, nothing half-written does."""
    save(tmp_path, 1)
    monkeypatch.setattr("malp_disc.serialization.state_dicts.save_file", lambda *a, **k: (_ for _ in ()).throw(SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")))
    with pytest.raises(OSError, match=r"can't write .*checkpoint-2: No space left on device \(\d+ MiB are free on its disk\); existing checkpoints are unchanged"):
        save(tmp_path, 2, total_limit=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    load(tmp_path / "checkpoint-1")
    monkeypatch.undo()
    monkeypatch.setattr(torch, "save", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("PytorchStreamWriter failed writing file")))
    with pytest.raises(OSError, match=r"can't write .*checkpoint-2: PytorchStreamWriter failed writing file \(\d+ MiB are free"):
        save(tmp_path, 2, total_limit=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


@pytest.mark.parametrize("moment", ["rename", "rmtree"])
def test_killed_while_the_oldest_is_dropped_no_half_checkpoint_is_left(tmp_path, monkeypatch, moment):
    save(tmp_path, 1)
    target = {"rename": "pathlib.Path.rename", "rmtree": "malp_disc.training.checkpoints.shutil.rmtree"}[moment]
    real = Path.rename

    def dies(path, *rest):
        if moment == "rmtree" or path.name == "checkpoint-1":
            raise KeyboardInterrupt
        return real(path, *rest)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(target, dies)
        save(tmp_path, 2, total_limit=1)
    for path in list_training(tmp_path):
        load(path)
    assert list_training(tmp_path)[-1].name == "checkpoint-2"
    save(tmp_path, 3, total_limit=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]


def test_a_folder_without_its_state_is_no_checkpoint(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "checkpoint-5").mkdir()
    assert find_training(tmp_path, "latest").name == "checkpoint-1"


def test_what_resume_from_checkpoint_names(tmp_path):
    assert find_training(tmp_path, None) is None
    assert find_training(tmp_path, "latest") is None
    assert find_training(tmp_path / "absent", "latest") is None
    save(tmp_path, 2)
    save(tmp_path, 4)
    assert find_training(tmp_path, None) is None
    assert find_training(tmp_path, "latest") == tmp_path / "checkpoint-4"
    assert find_training(tmp_path, str(tmp_path / "checkpoint-2")) == tmp_path / "checkpoint-2"


def load(folder, **changed):
    network, optimizer = trained(0)
    arguments = {"networks": {"G": network}, "optimizers": {"G": optimizer}, "expected": {}, **changed}
    return load_training(folder, **arguments)


def test_a_run_with_other_settings_is_refused(tmp_path):
    folder = save(tmp_path, 2, state={"seed": 0, "arm": "frozen"})
    with pytest.raises(ValueError, match=r"a run with other settings: seed was 0 and is 1 now; arm was 'frozen' and is 'control' now"):
        load(folder, expected={"seed": 1, "arm": "control"})
    assert load(folder, expected={"seed": 0, "arm": "frozen"})["step"] == 2


def test_a_setting_that_an_earlier_version_did_not_record_is_accepted_with_a_warning(tmp_path, caplog):
    folder = save(tmp_path, 2, state={"seed": 0})
    assert load(folder, expected={"seed": 0, "gradient_share": None})["step"] == 2 and not caplog.records
    assert load(folder, expected={"seed": 0, "gradient_share": 0.5})["step"] == 2
    assert "doesn't say whether it was made with gradient_share 0.5" in caplog.text


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no training checkpoint in .*checkpoint-9: expected a checkpoint-<step> folder with state.json"):
        load(tmp_path / "checkpoint-9")


def test_a_missing_or_other_network_is_named(tmp_path):
    folder = save(tmp_path, 1)
    with pytest.raises(FileNotFoundError, match="D.safetensors"):
        load(folder, networks={"D": nn.Linear(1, 1)})
    with pytest.raises(ValueError, match="G.safetensors is not a checkpoint of this Linear"):
        load(folder, networks={"G": nn.Linear(1, 1)})


def test_a_missing_optimizer_is_named(tmp_path):
    folder, (_, optimizer) = save(tmp_path, 1), trained(0)
    with pytest.raises(ValueError, match=r"no optimizer state for \['malp'\]; it holds \['G'\]"):
        load(folder, optimizers={"G": optimizer, "malp": optimizer})


# --- damaged checkpoints -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("state.json", b"", "it is an empty file"),
        ("state.json", b'{"step": 2', "it is damaged"),
        ("G.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "it is a git-lfs pointer"),
        ("G.safetensors", "half", "a safetensors file cut short"),
        ("G.safetensors", None, "no checkpoint at .*G.safetensors"),
        ("optimizers.pt", "half", "cut short or damaged"),
        ("optimizers.pt", b"", "it is an empty file"),
        ("optimizers.pt", None, "no checkpoint at .*optimizers.pt"),
    ],
)
def test_a_damaged_checkpoint_is_named_with_the_latest_older_one_to_go_on_from(tmp_path, name, content, message):
    network = torch.nn.Linear(4, 4)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    _, older, damaged, _ = (save_training(tmp_path, step, networks={"G": network}, optimizers={"G": optimizer}, state={}) for step in (1, 2, 4, 6))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    file = damaged / name
    if content is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-90] if content == "half" else content)
    with pytest.raises((ValueError, FileNotFoundError), match=rf"checkpoint-4 is damaged or incomplete: .*{message}.*--resume-from-checkpoint \S+checkpoint-2"):
        load_training(damaged, networks={"G": network}, optimizers={"G": optimizer}, expected={})
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    load_training(older, networks={"G": network}, optimizers={"G": optimizer}, expected={})


def test_without_an_older_checkpoint_the_advice_is_to_start_again(tmp_path):
    network = torch.nn.Linear(2, 2)
    folder = save_training(tmp_path, 2, networks={"G": network}, optimizers={}, state={})
    (folder / "G.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="There is no older one: start again"):
        load_training(folder, networks={"G": network}, optimizers={}, expected={})


class Mebibyte(nn.Module):
    """A network whose checkpoint is 1 MiB."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("values", torch.zeros(2**18))


def space(folder: Path, **flags) -> int:
    """Whole MiB that a training of 40 steps needs, a checkpoint every 10."""
    options = FinetuneOptions(**{"output_dir": folder, "max_train_steps": 40, "checkpointing_steps": 10, "checkpoints_total_limit": None, **flags})
    return CheckpointManager(folder, networks={"G": Mebibyte()}, optimizers={}, settings={}).space(options) >> 20


def test_the_space_of_a_training_is_that_of_the_most_checkpoints_it_has_at_a_time(tmp_path):
    assert space(tmp_path) == 4
    assert [space(tmp_path, checkpoints_total_limit=limit) for limit in (1, 2, 3, 4, 9)] == [2, 3, 4, 4, 4]
    assert space(tmp_path, checkpointing_steps=100, checkpoints_total_limit=1) == 1, "a single one replaces none"
    assert space(tmp_path, checkpointing_steps=15) == 3, "the last step has one too"
    options, manager = FinetuneOptions(output_dir=tmp_path, max_train_steps=40, checkpointing_steps=15), CheckpointManager(tmp_path, networks={}, optimizers={}, settings={})
    assert [step for step in range(1, 41) if manager.due(step, options)] == [15, 30, 40]


def test_a_checkpoint_is_as_large_as_it_was_expected_to_be(tmp_path):
    network = nn.Linear(256, 256)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 256)).sum().backward()
    optimizer.step()
    manager = CheckpointManager(tmp_path, networks={"G": network}, optimizers={"G": optimizer}, settings={})
    manager.save(1, FinetuneOptions(output_dir=tmp_path), Accelerator(cpu=True))
    assert sum(file.stat().st_size for file in (tmp_path / "checkpoint-1").iterdir()) == pytest.approx(manager.bytes(), rel=0.02)


def test_a_resumed_training_needs_only_the_space_that_it_has_not_taken_yet(tmp_path):
    for step in (10, 20):
        save_training(tmp_path, step, networks={"G": Mebibyte()}, optimizers={}, state={})
    assert space(tmp_path) == 4 and space(tmp_path, resume_from_checkpoint="latest") in (1, 2)
    assert space(tmp_path, resume_from_checkpoint="latest", checkpoints_total_limit=1) == 0
    save_training(tmp_path, 40, networks={"G": Mebibyte()}, optimizers={}, state={}, total_limit=1)
    assert space(tmp_path, resume_from_checkpoint="latest") == 0, "it is finished"


def test_too_little_space_is_refused_with_a_reserve(tmp_path, monkeypatch):
    monkeypatch.setattr("malp_disc.training.checkpoints.shutil.disk_usage", lambda path: SimpleNamespace(free=300 * 2**20))
    check_space(tmp_path / "absent" / "run", 100 * 2**20)
    with pytest.raises(ValueError, match=f"300 MiB are free in {tmp_path}, and this run needs about 101 MiB and a reserve of 200; .*--checkpoints-total-limit"):
        check_space(tmp_path / "absent" / "run", 101 * 2**20)

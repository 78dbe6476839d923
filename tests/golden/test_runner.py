"""The golden runner itself: it passes what is right, and fails what is wrong, for the right reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.golden import builders, seeded
from tests.golden.__main__ import chosen, main
from tests.golden.case import Built, Case
from tests.golden.in_process import run


def toy(case: Case) -> Built:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    return Built(network, lambda: {"y": network(case.images()), "mean": network(case.images()).mean((2, 3))})


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with one golden, of a toy network, written here as golden.py writes them."""
    monkeypatch.setattr(builders, "BUILDERS", [("us/toy@", "Toy", toy)])
    write(tmp_path, "toy")
    return tmp_path


def write(folder: Path, name: str, *, edit=lambda golden, arrays: None, seed: int = 3) -> None:
    config = {"cls": "Toy", "mode": "eval", "weight_seed": seed, "input": {"name": "x", "shape": [2, 3, 16, 24], "seed": 1}}
    built = toy(case := Case(name, "us/toy@1", config, {}))
    seeded.fill(built.network, seed)
    built.network.eval()
    with torch.no_grad():
        outputs = {key: value.numpy() for key, value in built.run().items()}
    arrays = {"in/x": case.images().numpy()[..., ::3, ::3], "out/y": outputs["y"][..., ::2, ::2], "out/mean": outputs["mean"]}
    described = {k: {"shape": list(v.shape), "stride": 2 if v.ndim == 4 else 1, "mean": float(v.mean()), "std": float(v.std())} for k, v in outputs.items()}
    keys = {key: list(value.shape) for key, value in built.network.state_dict().items()}
    golden = {"source": "us/toy@1 model.py", "note": "", "config": config, "outputs": described, "parameters": 0, "keys": keys}
    edit(golden, arrays)
    (folder / f"{name}.json").write_text(json.dumps(golden))
    np.savez_compressed(folder / f"{name}.npz", **arrays)


def test_what_agrees_passes(folder):
    assert run(folder) == (0, ["PASS toy", "1 passed, 0 failed"])


def drop_key(golden, arrays):
    del golden["keys"]["0.bias"]


def add_key(golden, arrays):
    golden["keys"]["3.weight"] = [1]


def change_shape(golden, arrays):
    golden["keys"]["2.weight"] = [2, 4, 3, 3]


def change_one_number(golden, arrays):
    arrays["out/y"][1, 0, 2, 3] += 3e-4


def change_to_nan(golden, arrays):
    arrays["out/mean"][0, 0] = np.nan


def change_between_the_samples(golden, arrays):
    golden["outputs"]["y"]["mean"] += 2e-4


def change_the_input(golden, arrays):
    arrays["in/x"][0, 0, 0, 0] += 1e-3


def change_the_shape_of_an_output(golden, arrays):
    golden["outputs"]["y"]["shape"][-1] = 25


def add_an_output(golden, arrays):
    arrays["out/z"] = arrays["out/y"]
    golden["outputs"]["z"] = golden["outputs"]["y"]


def drop_the_outputs(golden, arrays):
    golden["outputs"].clear()
    del arrays["out/y"], arrays["out/mean"]


def change_the_seed(golden, arrays):
    golden["config"]["weight_seed"] += 1


def change_the_mode(golden, arrays):
    golden["config"]["mode"] = "batchstats"


def change_the_source(golden, arrays):
    golden["source"] = "them/toy@1"


def change_the_class(golden, arrays):
    golden["config"]["cls"] = "Toy2"


def drop_the_config(golden, arrays):
    del golden["config"]


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (drop_key, "keys: 0.bias is in our network only"),
        (add_key, "keys: 3.weight is missing in our network"),
        (change_shape, "keys: 2.weight is [2, 4, 1, 1], expected [2, 4, 3, 3]"),
        (change_one_number, "y differs by 0.0003"),
        (change_to_nan, "mean differs by nan"),
        (change_between_the_samples, "y has mean "),
        (change_the_input, "the input was built otherwise"),
        (change_the_shape_of_an_output, "y is [2, 2, 16, 24], expected [2, 2, 16, 25]"),
        (add_an_output, "outputs are ['mean', 'y'], expected ['mean', 'y', 'z']"),
        (drop_the_outputs, "outputs are ['mean', 'y'], expected []"),
        (change_the_seed, "y differs by"),
        (change_the_mode, "y differs by"),
        (change_the_source, "no builder"),
        (change_the_class, "no builder"),
        (drop_the_config, "KeyError: 'config'"),
    ],
)
def test_what_differs_fails_and_says_where(folder, edit, reason):
    write(folder, "wrong", edit=edit)
    status, lines = run(folder)
    assert status == 1 and lines[0] == "PASS toy" and lines[-1] == "1 passed, 1 failed"
    assert lines[1].startswith("FAIL wrong: ") and reason in lines[1] and len(lines) == 3


def keep_the_whole_input(golden, arrays):
    arrays["in/x"] = seeded.image("x", (2, 3, 16, 24), 1).numpy()


def keep_another_whole_input(golden, arrays):
    keep_the_whole_input(golden, arrays)
    arrays["in/x"][1, 2, 15, 22] += 1e-3  # between the samples


def test_an_input_that_was_kept_whole_is_compared_as_a_whole(folder):
    write(folder, "toy_whole", edit=keep_the_whole_input)
    write(folder, "wrong", edit=keep_another_whole_input)
    status, lines = run(folder)
    assert status == 1 and lines[:2] == ["PASS toy", "PASS toy_whole"]
    assert lines[2] == "FAIL wrong: the input was built otherwise than the golden's"


def test_a_filled_centre_is_part_of_the_input():
    spec = {"name": "x", "shape": [1, 3, 32, 64], "seed": 0}
    plain = Case("c", "s", {"input": spec}, {}).images()
    filled = Case("c", "s", {"input": {**spec, "center_fill": {"overlap": 2, "value": [2, 3, 4]}}}, {}).images()
    changed = (plain != filled).all(1)[0].nonzero()
    assert changed.min(0).values.tolist() == [10, 18] and changed.max(0).values.tolist() == [21, 45] and len(changed) == 12 * 28
    assert filled[0, :, 12, 20].tolist() == [2, 3, 4]


def test_damaged_files_fail_and_the_others_run_on(folder):
    write(folder, "a_cut")
    (folder / "a_cut.npz").write_bytes((folder / "a_cut.npz").read_bytes()[:100])
    write(folder, "b_cut")
    (folder / "b_cut.json").write_text("{")
    (folder / "table.json").write_text("[]")  # no .npz: no case
    status, lines = run(folder)
    assert status == 1 and [line.split(":")[0] for line in lines] == ["FAIL a_cut", "FAIL b_cut", "PASS toy", "1 passed, 2 failed"]


def test_names_and_globs_choose(folder):
    write(folder, "toy_2")
    write(folder, "other", edit=change_the_seed)
    assert run(folder, "toy*")[1] == ["PASS toy", "PASS toy_2", "2 passed, 0 failed"]
    assert run(folder, "toy_2", "toy*")[1] == ["PASS toy_2", "PASS toy", "2 passed, 0 failed"]
    assert chosen(["a", "ab", "b"], ["a"]) == ["a"] and chosen(["a", "ab", "b"], []) == ["a", "ab", "b"]


def test_a_name_that_isnt_there_fails(folder):
    """A typing mistake must not look like success."""
    assert run(folder, "toys") == (1, ["FAIL toys: no such case", "0 passed, 1 failed"])


def test_a_folder_without_goldens_is_an_error(tmp_path, capsys):
    for folder, message in ((tmp_path, "no golden in"), (tmp_path / "absent", "no folder at")):
        with pytest.raises(SystemExit) as exit:
            main([str(folder)])
        assert exit.value.code == 2 and message in capsys.readouterr().err

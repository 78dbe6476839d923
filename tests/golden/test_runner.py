"""The golden runner itself: it passes what is right, and fails what is wrong, for the right reason."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.golden import builders, computations, seeded
from tests.golden.__main__ import chosen, main
from tests.golden.case import Built, Case
from tests.golden.computations import Computed


def toy(case: Case) -> Built:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    return Built(network, lambda: {"y": network(case.picture()), "mean": network(case.picture()).mean((2, 3))})


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
    arrays = {"in/x": case.picture().numpy()[..., ::3, ::3], "out/y": outputs["y"][..., ::2, ::2], "out/mean": outputs["mean"]}
    described = {k: {"shape": list(v.shape), "stride": 2 if v.ndim == 4 else 1, "mean": float(v.mean()), "std": float(v.std())} for k, v in outputs.items()}
    keys = {key: list(value.shape) for key, value in built.network.state_dict().items()}
    golden = {"source": "us/toy@1 model.py", "note": "", "config": config, "outputs": described, "parameters": 0, "keys": keys}
    edit(golden, arrays)
    (folder / f"{name}.json").write_text(json.dumps(golden))
    np.savez_compressed(folder / f"{name}.npz", **arrays)


def run(folder: Path, *names: str) -> tuple[int, list[str]]:
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = main([str(folder), *names])
    return status, out.getvalue().splitlines()


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
    plain = Case("c", "s", {"input": spec}, {}).picture()
    filled = Case("c", "s", {"input": {**spec, "center_fill": {"overlap": 2, "value": [2, 3, 4]}}}, {}).picture()
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


# --- goldens of arithmetic -----------------------------------------------------------------------------------------------------------


def sums(settings) -> Computed:
    computed = Computed({"cases": {}})
    for name, case in settings["cases"].items():
        x = torch.arange(3 * 8 * 9, dtype=torch.float32).view(3, 8, 9) * case["m"]
        losses = {"sum": x.sum(), "mean": x.mean()}
        computed.numbers["cases"][name] = {"losses": losses, "shape": x.shape, "gradients": {"a": torch.tensor(2.0), "b": None}}
        computed.arrays[f"{name}/x"], computed.arrays[f"{name}/row"] = x, x[0, 0]
    return computed


@pytest.fixture
def sums_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(computations, "COMPUTATIONS", [("us/sums@", "cases", sums)])
    return tmp_path


def write_sums(folder: Path, edit=lambda golden, case, arrays: None) -> None:
    x = np.arange(3 * 8 * 9, dtype=np.float32).reshape(3, 8, 9) * np.float32(0.5)
    losses = {"sum": float(x.sum()), "mean": float(x.mean())}
    case = {"batch": 1, "set_size": 1, "m": 0.5, "seed": 0, "losses": losses, "shape": [3, 8, 9], "gradients": {"a": 2.0, "b": None}}
    golden = {"source": "us/sums@1", "inputs": {"x": "arange"}, "note": "", "cases": {"half/of it": case}}
    arrays = {"half/of it/x": x[:, ::4, ::4], "half/of it/row": x[0, 0]}
    edit(golden, case, arrays)
    (folder / "sums.json").write_text(json.dumps(golden))
    np.savez_compressed(folder / "sums.npz", **arrays)


def test_arithmetic_that_agrees_passes(sums_folder):
    write_sums(sums_folder)
    assert run(sums_folder) == (0, ["PASS sums", "1 passed, 0 failed"])


def loss_differs(golden, case, arrays):
    case["losses"]["mean"] *= 1.001


def loss_is_nan(golden, case, arrays):
    case["losses"]["sum"] = float("nan")


def no_gradient_where_there_is_one(golden, case, arrays):
    case["gradients"]["a"] = None


def gradient_where_there_is_none(golden, case, arrays):
    case["gradients"]["b"] = 0.0


def one_more_number(golden, case, arrays):
    case["losses"]["product"] = 0.0


def one_number_less(golden, case, arrays):
    del case["losses"]["mean"]


def other_shape(golden, case, arrays):
    case["shape"] = [3, 8]


def array_differs(golden, case, arrays):
    arrays["half/of it/x"] = arrays["half/of it/x"] + np.float32(0.1)


def array_is_sampled_elsewhere(golden, case, arrays):
    arrays["half/of it/x"] = np.roll(arrays["half/of it/x"], 1, axis=2)


def one_more_array(golden, case, arrays):
    arrays["half/of it/y"] = arrays["half/of it/x"]


def one_array_less(golden, case, arrays):
    del arrays["half/of it/row"]


def another_setting(golden, case, arrays):
    case["m"] = 0.6


def another_source(golden, case, arrays):
    golden["source"] = "them/sums@1"


def no_cases(golden, case, arrays):
    golden["cases"].clear()
    arrays.clear()


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (loss_differs, "cases.half/of it.losses.mean differs by"),
        (loss_is_nan, "cases.half/of it.losses.sum differs by nan"),
        (no_gradient_where_there_is_one, "cases.half/of it.gradients.a is [2.], expected nothing"),
        (gradient_where_there_is_none, "cases.half/of it.gradients.b is nothing, expected [0.]"),
        (one_more_number, "cases.half/of it.losses.product is missing in ours"),
        (one_number_less, "cases.half/of it.losses.mean is missing in the golden"),
        (other_shape, "cases.half/of it.shape is [3], expected [2]"),
        (array_differs, "half/of it/x differs by 0.1"),
        (array_is_sampled_elsewhere, "half/of it/x differs by"),
        (one_more_array, "half/of it/y is missing in ours"),
        (one_array_less, "half/of it/row is missing in the golden"),
        (another_setting, "cases.half/of it.losses.sum differs by"),
        (another_source, "no builder"),
        (no_cases, "the golden has no values"),
    ],
)
def test_arithmetic_that_differs_fails_and_says_where(sums_folder, edit, reason):
    write_sums(sums_folder, edit)
    status, lines = run(sums_folder)
    assert status == 1 and lines[-1] == "0 passed, 1 failed" and lines[0].startswith("FAIL sums: ") and reason in lines[0]


def test_a_computation_is_told_the_settings_and_never_the_results():
    golden = {"source": "s", "config": {"m": 1}, "weights": {"a": 2}, "cases": {"c": {"batch": 1, "set_size": 2, "m": 3, "seed": 4, "losses": {"a": 5}}}}
    settings, results = computations.split_settings(golden)
    assert settings == {"source": "s", "config": {"m": 1}, "cases": {"c": {"batch": 1, "set_size": 2, "m": 3, "seed": 4}}}
    assert results == {"weights": {"a": 2}, "cases": {"c": {"losses": {"a": 5}}}}


def test_settings_are_found_in_the_parts_of_a_case_and_words_are_settings():
    parts = {"long": {"t_T": 5, "n_sample": 1, "length": 6}, "how": "drawn", "mean": 0.5}
    golden = {"source": "s", "cases": {"c": parts, "d": {"mean": 1, "stride": 4}}}
    settings, results = computations.split_settings(golden)
    assert settings == {"source": "s", "cases": {"c": {"long": {"t_T": 5, "n_sample": 1}, "how": "drawn"}, "d": {"stride": 4}}}
    assert results == {"cases": {"c": {"long": {"length": 6}, "mean": 0.5}, "d": {"mean": 1}}}


# --- the drawing rule --------------------------------------------------------------------------------------------------------------


def test_a_weight_follows_from_name_shape_and_seed_by_numpy_alone():
    x = np.random.Generator(np.random.PCG64(zlib.crc32(b"a.weight"))).standard_normal((2, 3, 4, 4), dtype=np.float32)
    assert np.allclose(seeded.weight("a.weight", (2, 3, 4, 4)).numpy(), x / np.sqrt(48), rtol=1e-6)
    assert not torch.equal(seeded.weight("a.weight", (2, 3)), seeded.weight("b.weight", (2, 3)))
    assert not torch.equal(seeded.weight("a.weight", (2, 3)), seeded.weight("a.weight", (2, 3), seed=1))


def test_kinds_of_weights_are_scaled_by_their_kind():
    draw = {name: seeded.weight(name, (4000,)) for name in ("n.running_var", "n.running_mean", "n.weight", "n.bias")}
    assert draw["n.running_var"].min() >= 0.5
    assert draw["n.running_mean"].std().item() == pytest.approx(0.1, rel=0.1)
    assert draw["n.weight"].mean().item() == pytest.approx(1, abs=0.01) and draw["n.weight"].std().item() == pytest.approx(0.1, rel=0.1)
    assert draw["n.bias"].mean().item() == pytest.approx(0, abs=0.01)
    assert seeded.weight("c.weight", (50, 100)).std().item() == pytest.approx(0.1, rel=0.1)
    assert seeded.weight("scalar", ()).shape == ()


def test_counters_stay_as_built_and_the_rules_apply_in_order():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4))
    built = {name: value.clone() for name, value in network.state_dict().items()}
    rules = [
        {"match": r"^0\.weight$", "op": "keep"},
        {"match": r"bias$", "op": "zero"},
        {"match": r"^1\.weight$", "op": "affine", "factor": 2.0, "offset": 1.0},
        {"match": r"^2\.", "ndim": 2, "op": "unit", "factor": 0.5},
    ]
    seeded.fill(network, 5, rules)
    state = network.state_dict()
    assert torch.equal(state["0.weight"], built["0.weight"]) and state["1.num_batches_tracked"] == 0
    assert not state["0.bias"].any() and not state["2.bias"].any()
    assert torch.allclose(state["1.weight"], 2 * seeded.weight("1.weight", (4,), 5) + 1)
    assert torch.allclose(state["2.weight"], seeded.weight("2.weight", (4, 4), 5) * 2 * 0.5)
    assert torch.equal(state["1.running_var"], seeded.weight("1.running_var", (4,), 5))


def test_the_spectral_rule_gives_u_and_v_of_the_weight():
    network = nn.utils.spectral_norm(nn.Conv2d(3, 4, 3))
    seeded.fill(network, 0, [{"match": "weight_orig$", "op": "spectral", "iterations": 200}])
    matrix = network.weight_orig.detach().flatten(1)
    assert (network.weight_u @ matrix @ network.weight_v).item() == pytest.approx(torch.linalg.matrix_norm(matrix, 2).item(), rel=1e-4)


def test_an_image_is_smooth_within_range_and_depends_on_its_name():
    x = seeded.image("x", (2, 3, 16, 24))
    assert x.shape == (2, 3, 16, 24) and x.abs().max() <= 1 and x.dtype == torch.float32
    assert torch.equal(x, seeded.image("x", (2, 3, 16, 24))) and not torch.equal(x, seeded.image("y", (2, 3, 16, 24)))

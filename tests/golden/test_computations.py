"""Golden values of arithmetic: the runner passes what is right, and fails what is wrong, for the right reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.golden import computations
from tests.golden.computations import Computed
from tests.golden.in_process import run


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

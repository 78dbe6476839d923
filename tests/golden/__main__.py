"""Run our networks against golden vectors: ``python -m tests.golden DIR [NAME …]``.

Every NAME.json of the folder that has its NAME.npz is a case; names and globs choose among them. One line per case, then exactly
``N passed, N failed``; exit status 1 if any failed. A case without a builder has failed.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.golden.builders import find_builder
from tests.golden.case import Built, Case
from tests.golden.computations import Computed, find_computation, split_settings
from tests.golden.seeded import WithoutInitialization, fill


class Differs(Exception):
    """Ours isn't theirs, and the message says where."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder with NAME.json and NAME.npz")
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases to run, as names or globs; all if none is given")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        parser.error(f"no folder at {options.folder}")
    found = list_cases(options.folder)
    if not found:
        parser.error(f"no golden in {options.folder}: expected NAME.json with NAME.npz")
    passed = failed = 0
    for name in chosen(found, options.names):
        reason = run_case(options.folder, name) if name in found else "no such case"
        print(f"{'FAIL' if reason else 'PASS'} {name}" + (f": {reason}" if reason else ""), flush=True)
        passed, failed = passed + (not reason), failed + bool(reason)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def list_cases(folder: Path) -> list[str]:
    """Names of the cases of a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.json") if path.with_suffix(".npz").is_file())


def chosen(found: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The cases that the patterns name, each once; a pattern that names none stays, to fail by its name."""
    names: list[str] = []
    for pattern in patterns or ["*"]:
        names += [name for name in fnmatch.filter(found, pattern) or [pattern] if name not in names]
    return names


def run_case(folder: Path, name: str) -> str:
    """Empty if our network reproduces the golden, else why it doesn't."""
    try:
        golden = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
            arrays = dict(file)
        if "keys" not in golden:
            return run_computation(golden, arrays)
        inputs = {key.removeprefix("in/"): value for key, value in arrays.items() if key.startswith("in/")}
        case = Case(name, golden["source"], golden["config"], inputs)
        builder = find_builder(case)
        if builder is None:
            return "no builder"
        with WithoutInitialization():
            built = builder(case)
        check_keys(built.network, golden["keys"])
        config = case.config
        fill(built.network, config.get("weight_seed", config.get("seed", 0)), config.get("state_rules", ()))
        if isinstance(config.get("input"), dict) and "x" in inputs:
            check_input(case)
        built.network.train(config.get("mode", "eval") != "eval")
        with torch.no_grad():
            outputs = built.run()
        check_outputs(outputs, golden["outputs"], arrays, built)
    except Differs as difference:
        return str(difference)
    except Exception as error:  # one broken case must not hide the others
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def run_computation(golden: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """The same for a golden of arithmetic, which has no network: all its numbers and arrays, each by its name."""
    computation = find_computation(golden)
    if computation is None:
        return "no builder"
    settings, results = split_settings(golden)
    computed = computation(settings)
    check_values(flat(computed.numbers), flat(results), computed)
    check_values({name: sampled(value, arrays.get(name)) for name, value in computed.arrays.items()}, arrays, computed)
    return ""


def check_values(ours: Mapping[str, np.ndarray | None], theirs: Mapping[str, np.ndarray | None], computed: Computed) -> None:
    """The same names, and behind each the same value; None, where no gradient arrives, equals None alone."""
    for name in [*theirs, *ours]:
        if name not in ours or name not in theirs:
            raise Differs(f"{name} is missing in {'the golden' if name in ours else 'ours'}")
    if not theirs:
        raise Differs("the golden has no values")
    for name, expected in theirs.items():
        value = ours[name]
        if (value is None) != (expected is None):
            raise Differs(f"{name} is {'nothing' if value is None else value}, expected {'nothing' if expected is None else expected}")
        if expected is None:
            continue
        if value.shape != expected.shape:
            raise Differs(f"{name} is {list(value.shape)}, expected {list(expected.shape)}")
        absolute = next((rounding for start, rounding in computed.rounding.items() if name.startswith(start)), computed.absolute)
        allowed = absolute + computed.relative * float(np.abs(expected).max())
        difference = float(np.abs(value - expected).max())
        if not difference <= allowed:  # written so that NaN fails
            raise Differs(f"{name} differs by {difference:.3g}, allowed {allowed:.3g}")


def flat(value: Any, name: str = "") -> dict[str, np.ndarray | None]:
    """Nested numbers by path, {"a": {"b": 1}} -> {"a.b": 1}."""
    if isinstance(value, Mapping):
        return {path: leaf for key, part in value.items() for path, leaf in flat(part, f"{name}.{key}" if name else key).items()}
    numbers = [part.item() if isinstance(part, Tensor) else part for part in (value if isinstance(value, Sequence) else [value])]
    return {name: None if value is None else np.array(numbers, dtype=np.float64)}


def sampled(value: Tensor, like: np.ndarray | None) -> np.ndarray:
    """Ours at the stride that the file shows: every s-th of the last two dimensions."""
    whole = value.detach().float().numpy()
    strides = range(1, max(whole.shape[-2:]) + 1) if like is not None and whole.ndim > 2 else ()
    return next((part for s in strides if (part := whole[..., ::s, ::s]).shape == like.shape), whole)


def check_keys(network: nn.Module, expected: Mapping[str, Sequence[int]]) -> None:
    """Names and shapes of the state dict, exactly."""
    own = {key: list(value.shape) for key, value in network.state_dict().items()}
    for key, shape in expected.items():
        if key not in own:
            raise Differs(f"keys: {key} is missing in our network")
        if own[key] != list(shape):
            raise Differs(f"keys: {key} is {own[key]}, expected {list(shape)}")
    for key in own:
        if key not in expected:
            raise Differs(f"keys: {key} is in our network only")


def check_input(case: Case) -> None:
    """The golden holds its input, or a strided sample of it: was ours built the same?"""
    sample, images = case.inputs["x"], case.images().numpy()
    stride = max(1, images.shape[-1] // 8)
    built = images if sample.shape == images.shape else images[..., ::stride, ::stride]  # of a small one they may have kept the whole
    if built.shape != sample.shape or not np.abs(built - sample).max() <= 1e-5 * max(1.0, np.abs(sample).max()):
        raise Differs("the input was built otherwise than the golden's")


def check_outputs(outputs: Mapping[str, Tensor], described: Mapping[str, Any], arrays: Mapping[str, np.ndarray], built: Built) -> None:
    """Shape, values at the stored stride, and mean and deviation of the whole, for every output."""
    stored = {key.removeprefix("out/") for key in arrays if key.startswith("out/")}
    if set(outputs) != stored or stored != set(described) or not stored:
        raise Differs(f"outputs are {sorted(outputs)}, expected {sorted(stored)}")
    for name, about in described.items():
        theirs, whole = arrays[f"out/{name}"], outputs[name].detach().float().numpy()
        if list(whole.shape) != about["shape"]:
            raise Differs(f"{name} is {list(whole.shape)}, expected {about['shape']}")
        stride = about["stride"]
        ours = whole[..., ::stride, ::stride] if whole.ndim == 4 else whole
        if ours.shape != theirs.shape:
            raise Differs(f"{name} at stride {stride} is {list(ours.shape)}, the file has {list(theirs.shape)}")
        allowed = built.absolute + built.relative * float(np.abs(theirs).max())
        difference = float(np.abs(ours - theirs).max())
        if not difference <= allowed:  # written so that NaN fails
            raise Differs(f"{name} differs by {difference:.3g}, allowed {allowed:.3g}")
        for statistic, value in (("mean", whole.mean(dtype=np.float64)), ("std", whole.std(dtype=np.float64))):
            if not abs(value - about[statistic]) <= allowed:
                raise Differs(f"{name} has {statistic} {value:.6g}, expected {about[statistic]:.6g}")


if __name__ == "__main__":
    sys.exit(main())

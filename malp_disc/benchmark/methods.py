"""The trainable methods of the benchmark by name, and how a trained one is saved.

A saved method is a folder with ``model.safetensors`` and ``config.json``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from malp_disc.benchmark.autogan import AutoGANDetector
from malp_disc.benchmark.baseline import Baseline
from malp_disc.benchmark.cnndetection import CNNDetection
from malp_disc.benchmark.fakelocator import FakeLocator
from malp_disc.benchmark.ffd import FFD
from malp_disc.benchmark.imd_detector import IMDDetector
from malp_disc.benchmark.localizer import import_localizer
from malp_disc.benchmark.nataraj import NatarajDetector
from malp_disc.benchmark.patch_forensics import PatchForensics
from malp_disc.benchmark.patch_networks import PATCH_NETWORKS, WHOLE_NETWORKS
from malp_disc.benchmark.resnet_map import ResNetMap
from malp_disc.errors import did_you_mean
from malp_disc.runtime.random_state import random_state_kept
from malp_disc.serialization.files import CONFIG_FILE, WEIGHTS_FILE, write_json
from malp_disc.serialization.reading import read_json
from malp_disc.serialization.state_dicts import load_state, load_tensors, save_tensors

MODEL_TYPE = "localizer"

LOCALIZERS: dict[str, Callable[..., Baseline]] = {
    "resnet50_map": ResNetMap,
    "ffd_reg": partial(FFD, "reg"),
    "ffd_tmp": partial(FFD, "tmp"),
    **{f"patch_forensics_{network}": partial(PatchForensics, network) for network in PATCH_NETWORKS},
    "fakelocator": FakeLocator,
}
"""Methods with a map."""
DETECTORS: dict[str, Callable[..., Baseline]] = {
    **{f"patch_forensics_{network}": partial(PatchForensics, network) for network in WHOLE_NETWORKS},
    "nataraj": NatarajDetector,
    "autogan": AutoGANDetector,
    "cnndetection": CNNDetection,
    "proactive_imd": IMDDetector,
}
"""Methods with a score only (Table 6)."""
METHODS = LOCALIZERS | DETECTORS


def create_method(name: str, **options: Any) -> nn.Module:
    """A method with random weights, by its name in `METHODS` or as ``module:function``, a user's.

    Args:
        options: of the method's constructor; those that are None keep their defaults.

    Raises:
        ValueError: an unknown name, an option that the method doesn't have or whose value is wrong, or a user's object that can't be trained.
    """
    options = {key: value for key, value in options.items() if value is not None}
    if name not in METHODS and ":" in name:
        if options:
            raise ValueError(f"{name} is your own function and makes its localizer itself; leave {', '.join(options)} out")
        return check_trainable(import_localizer(name), name)
    if name not in METHODS:
        raise ValueError(f"no method {name!r}{did_you_mean(name, METHODS)}; there are {', '.join(METHODS)}, or give MODULE:FUNCTION")
    try:
        return METHODS[name](**options)
    except TypeError as error:
        raise ValueError(f"{name} doesn't take {', '.join(options)} ({str(error).split('() ')[-1]})") from error


def check_trainable(method: Any, source: str) -> nn.Module:
    """The object itself.

    Raises:
        ValueError: it isn't a module with trainable parameters and a method losses.
    """
    if not isinstance(method, nn.Module) or not any(parameter.requires_grad for parameter in method.parameters()):
        raise ValueError(f"{source} can't be trained: expected an nn.Module with parameters that require gradients, got {type(method).__name__}")
    if not callable(getattr(method, "losses", None)):
        raise ValueError(f"{source} can't be trained: {type(method).__name__} has no losses(real, manipulated, truth) that returns the terms of its loss by name")
    return method


def save_method(folder: str | Path, method: nn.Module, name: str, training: Mapping[str, Any] | None = None) -> None:
    """Write ``model.safetensors`` and ``config.json``.

    Args:
        name: of `METHODS`, or ``module:function``.
        training: what it was trained on, for whoever reads the file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / WEIGHTS_FILE, method.state_dict())
    write_json(folder / CONFIG_FILE, {"model_type": MODEL_TYPE, "method": name, "options": getattr(method, "options", {}), "training": dict(training or {})})


def load_method(folder: str | Path, function: str | None = None) -> nn.Module:
    """A method that `save_method` wrote, in evaluation mode.

    Args:
        function: ``module:function`` that makes the user's own method that was trained. A function that only ``config.json`` names is never imported: the folder
            may come from somebody else.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a damaged file, another kind of model, or another method than `function`.
    """
    folder = Path(folder)
    config = read_config(folder)
    name, options = config.get("method"), config.get("options")
    if config.get("model_type") != MODEL_TYPE or not isinstance(name, str) or not isinstance(options, dict):
        raise ValueError(f"{folder / CONFIG_FILE} is no localizer that malp-disc trained: its model_type is {config.get('model_type')!r}")
    if function is None and name not in METHODS and ":" in name:
        raise ValueError(
            f"{folder} holds a trained localizer that is made by {name}, and a function that a file names isn't run; if you trust its code, name it together with the folder: "
            f"{name}={folder}"
        )
    if function is not None and (name in METHODS or _without_folders(name) != _without_folders(function)):
        raise ValueError(f"{folder} holds a trained {name}, not {function}")
    own = {} if function else {key: value for key, value in options.items() if key not in ("map_form", "network")}
    with random_state_kept():  # the initialization is overwritten
        method = create_method(function or name, **own)
    load_state(method, load_tensors(folder / WEIGHTS_FILE), source=str(folder / WEIGHTS_FILE))
    return method.eval()


def _without_folders(function: str) -> str:
    """``my_map:make`` for ``somewhere/my_map.py:make`` and ``package.my_map:make``: what stays the same when files are moved."""
    place, _, name = function.rpartition(":")
    return f"{re.split(r'[/.]', place.removesuffix('.py').removesuffix('/__init__'))[-1]}:{name}"


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a saved model."""
    return read_json(folder / CONFIG_FILE, what="the config.json of a saved localizer")

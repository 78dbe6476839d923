"""The options that define an experiment: all of them, except those whose declaration gives them another role.

A run writes its experiment into ``experiment.json`` (malp_disc/training/output_folder.py compares it), and the options that an arm's training
depends on into its checkpoints.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from malp_disc.data.listing import list_images
from malp_disc.import_object import code_of_function
from malp_disc.serialization.files import file_sha256

logger = logging.getLogger("malp_disc")
_ROLE, _ARMS, _ALL_WITH, _LATER = "role", "arms", "all arms with", "later"
_DIGITS = 16  # of a sha256
_FUNCTIONS = ("generator", "losses", "method")  # options that may name a function


def not_compared(default: Any = dataclasses.MISSING) -> Any:
    """An option that doesn't change the results, such as folders, logging intervals and batch sizes of the evaluation. A subclass may override its default."""
    return dataclasses.field(default=default, metadata={_ROLE: "not compared"})


def work(default: Any = dataclasses.MISSING, *, help: str | None = None) -> Any:
    """An option that lists independent pieces of work: a later run in the same folder may list others.

    Args:
        help: of its flag; None for the string below the field.
    """
    return dataclasses.field(default=default, metadata={_ROLE: "work"} | ({"help": help} if help is not None else {}))


def evaluation(default: Any = dataclasses.MISSING, *, later: bool = False) -> Any:
    """An option of the evaluation, not of the training: the same within an experiment, but irrelevant to a checkpoint.

    Args:
        later: it was added when there were runs without it, so hashes leave out its default.
    """
    return dataclasses.field(default=default, metadata={_ROLE: "evaluation", _LATER: later})


def of_arms(*arms: str, default: Any, all_with: str | None = None) -> Any:
    """An option that only these arms of a fine-tuning depend on; or all arms, where the option `all_with` is set."""
    return dataclasses.field(default=default, metadata={_ARMS: arms, _ALL_WITH: all_with})


def experiment_of(options: Any, *, processes: int = 1) -> dict[str, Any]:
    """The experiment described by a recipe's options, JSON-ready: ``recipe``, ``images_per_step`` if it trains, and ``options``.

    Files and folders are identified by content, so that a moved file or another spelling of its path is no difference.
    """
    experiment: dict[str, Any] = {"recipe": _recipe_of(type(options))}
    if hasattr(options, "images_per_step"):
        experiment["images_per_step"] = options.images_per_step * processes
    return experiment | {"options": _values(options, ("training", "evaluation"))}


def training_settings(options: Any, arm: str | None = None) -> dict[str, Any]:
    """The resume fingerprint: the options that a checkpoint depends on, JSON-ready; for an `arm`, without those of other arms."""
    names = {field.name for field in dataclasses.fields(options) if arm is None or not (arms := arms_of(type(options), field.name, vars(options))) or arm in arms}
    return {name: value for name, value in _values(options, ("training",)).items() if name in names}


def check_settings(source: Path, was: Mapping[str, Any], now: Mapping[str, Any], *, advice: str = "") -> None:
    """Compare two resume fingerprints. What an earlier version didn't record is accepted, with a warning.

    Args:
        source: the file or folder that `was` belongs to, for messages.
        advice: what to do, for the error.

    Raises:
        ValueError: a setting was another one, or `was` has none.
    """
    if now and not now.keys() & was.keys():
        raise ValueError(f"{source} doesn't say with which settings it was made{advice}")
    differing = [f"{name} was {was[name]!r} and is {value!r} now" for name, value in now.items() if name in was and was[name] != value]
    if differing:
        raise ValueError(f"{source} belongs to a run with other settings: {'; '.join(differing)}{advice}")
    if unknown := [f"{name} {value!r}" for name, value in now.items() if name not in was and value is not None]:
        logger.warning(f"{source} doesn't say whether it was made with {', '.join(unknown)}, as an earlier version wrote it; the run continues with these")


def shared_hash(options: Any, *, processes: int = 1, recorded: str | None = None) -> str:
    """A hash of the options that all arms and seeds of an experiment share; part of every measurement, so that a report compares only comparable ones.

    Args:
        recorded: the hash of an earlier part of the run, which stays if it has these options by the rule of earlier versions: without those that only another option
            makes all arms depend on.
    """
    earlier = _hash_of_options(options, processes, without=lambda name: bool(arms_of(type(options), name)))
    return earlier if recorded == earlier else _hash_of_options(options, processes, without=lambda name: _left_out_of_hash(options, name))


def _hash_of_options(options: Any, processes: int, *, without: Callable[[str], bool]) -> str:
    experiment = experiment_of(options, processes=processes)
    shared = {name: value for name, value in experiment["options"].items() if name != "seed" and not without(name) and not _added_later(options, name)}
    return _joint([json.dumps(shared), str(experiment.get("images_per_step"))])


def _added_later(options: Any, name: str) -> bool:
    """Whether an option that was added later has its default."""
    field = next(field for field in dataclasses.fields(options) if field.name == name)
    return bool(_declared(type(options), name, _LATER)) and getattr(options, name) == field.default


def _left_out_of_hash(options: Any, name: str) -> bool:
    """Whether an option is one of some arms only. Where another option makes it one of all arms, its default is left out too, so that most hashes are those of earlier versions."""
    default = next(field.default for field in dataclasses.fields(options) if field.name == name)
    own = arms_of(type(options), name)
    return bool(own) and (bool(arms_of(type(options), name, vars(options))) or getattr(options, name) == default)


def contents_of(options: Any) -> dict[str, str]:
    """A hash of what options name without saying what it holds, by option: the file of a user's MODULE:FUNCTION, and the files of a detector to start from."""
    named = {name: value for name in _FUNCTIONS if isinstance(value := getattr(options, name, None), str) and ":" in value}
    found = {name: _joint([code]) for name, value in named.items() if (code := code_of_function(value))}
    start = getattr(options, "malp_start", None)
    return found | ({"malp_start": content_of(Path(start))} if start is not None else {})


def differences(was: Mapping[str, Any], now: Mapping[str, Any], *, options: type | None = None, arms: Collection[str] | None = None) -> list[str]:
    """What differs between two experiments, as clauses: "--learning-rate was 0.0001, is 0.0002".

    An option that one side lacks (it is of another version) isn't compared.

    Args:
        options: the recipe's options.
        arms: of a fine-tuning, those that have results: an option of other arms only isn't compared. None compares all.
    """
    if was.get("recipe") != now["recipe"]:
        return [f"the recipe was {was.get('recipe')}, is {now['recipe']}"]
    found = []
    if was.get("images_per_step") != now.get("images_per_step"):
        found.append(
            f"--train-batch-size x --gradient-accumulation-steps x processes was {was.get('images_per_step')} images per step, is {now.get('images_per_step')}"
        )
    before, after = was.get("options", {}), now["options"]
    for name in after.keys() & before.keys():
        own = arms_of(options, name, after) if options is not None else ()
        if before[name] != after[name] and (arms is None or not own or set(own) & set(arms)):
            found.append(f"--{name.replace('_', '-')} was {_shown(before[name])}, is {_shown(after[name])}")
    return sorted(found)


def role_of(options: type, name: str) -> str:
    """The role of an option: "training" unless a class of the MRO declares another, so that a subclass with another default needn't repeat it."""
    return _declared(options, name, _ROLE) or "training"


def arms_of(options: type, name: str, values: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """The only arms that depend on an option; empty for all.

    Args:
        values: of the options, of which one may make all arms depend on this one.
    """
    if values and values.get(_declared(options, name, _ALL_WITH)):
        return ()
    return _declared(options, name, _ARMS) or ()


def content_of(path: Path) -> str:
    """The content of a file or folder as text: the hash of a file or of a saved network's files, or number and hash of the names of a folder of images.

    A path that doesn't exist is returned as it is (it may be the id of a Hub repository), unless it is the common prefix of a checkpoint's files.
    """
    path = path.expanduser()
    if path.is_file():
        return f"sha256 {_sha256(path)}"
    if path.is_dir():
        saved = sorted([*path.glob("*.safetensors"), *path.glob("config.json")])
        if (path / "config.json").is_file():
            return f"sha256 {_joint([f'{file.name} {_sha256(file)}' for file in saved])}"
        names = list_images(path).names
        return f"{len(names)} images, names' sha256 {_joint(names)}"
    parts = sorted(file for file in path.parent.glob(f"{path.name}.*") if file.is_file()) if path.parent.is_dir() and path.name else []
    return f"sha256 {_joint([_sha256(file) for file in parts])}" if parts else str(path)


def _values(options: Any, roles: Sequence[str]) -> dict[str, Any]:
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options) if role_of(type(options), field.name) in roles}
    return json.loads(json.dumps({name: content_of(value) if isinstance(value, Path) else value for name, value in values.items()}, default=str))


def _declared(options: type, name: str, key: str) -> Any:
    for base in options.__mro__:
        field = base.__dict__.get("__dataclass_fields__", {}).get(name)
        if field is not None and key in field.metadata:
            return field.metadata[key]
    return None


def _recipe_of(options: type) -> str:
    """The recipe's file without its ending; the same whether it was launched (``__main__``) or imported."""
    return Path(getattr(sys.modules[options.__module__], "__file__", options.__module__)).stem


def _joint(texts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogateescape")).hexdigest()[:_DIGITS]


def _sha256(path: Path) -> str:
    status = path.stat()
    return _cached_sha256(str(path.resolve()), status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=256)
def _cached_sha256(path: str, changed: int, size: int) -> str:
    """Cached because every arm hashes the same checkpoints; `changed` and `size` identify a file that was rewritten."""
    return file_sha256(path)[:_DIGITS]


def _shown(value: Any) -> str:
    if value is None or value == []:
        return "not given"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)

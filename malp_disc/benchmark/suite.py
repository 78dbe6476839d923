"""What a benchmark consists of: its localizers, and its generators with the images that each of them edits.

Written as a TOML file, of which every entry but the names is optional::

    images = 200                              # sampled per generator
    scaled_size = 128                         # "sc.": the side that images are scaled to, which the localizers were trained at

    [data]                                    # of all generators that name no data of their own: the data flags of the command
    data = "celeba"
    data_root = "/data/celeba"

    [[localizers]]
    localizer = "runs/malp/malp"              # as --localizers takes it
    name = "MaLP"                             # entries of one name are seeds of one method

    [[localizers]]
    localizer = "my_module:make"
    threshold = 0.3                           # of its map, for F1 and IoU

    [[generators]]
    generator = "stgan"                       # a name of the zoo or MODULE:FUNCTION
    checkpoint = "stgan.ckpt"
    image_size = 128
    edits = ["Bald", "Eyeglasses"]            # attributes that are also edited one by one, for Tables 3 and 7
    trained_on = true                         # the localizers saw it in training
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from malp_disc.benchmark.printed import paper_name
from malp_disc.data import DataOptions
from malp_disc.errors import did_you_mean
from malp_disc.target_kind import TargetKind


@dataclass(frozen=True, kw_only=True)
class GeneratorEntry:
    """A generator of the benchmark, and the images that it edits.

    Attributes:
        name: its row in the tables: the paper's name, by default that of the zoo's network.
        generator: name of the zoo, or MODULE:FUNCTION.
        checkpoint: its weights; missing ones are a gap in the tables. None for a user's function.
        options: further arguments of the zoo's constructor.
        data: the images; `image_size` is the size that the generator works at.
        target: what `manipulate` is given (`malp_disc.target_kind.TargetKind`); None for what the generator declares.
        edits: attributes that are also edited one by one.
        trained_on: whether the localizers saw it in training.
    """

    name: str
    generator: str
    checkpoint: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    data: DataOptions = field(default_factory=DataOptions)
    target: TargetKind | None = None
    edits: tuple[str, ...] = ()
    trained_on: bool = False

    @property
    def missing(self) -> str | None:
        """Why it can't be run, None if its weights are there. A prefix of a TensorFlow checkpoint's files counts as there."""
        if ":" in self.generator:
            return None
        if self.checkpoint is None:
            return "no checkpoint given"
        path = self.checkpoint.expanduser()
        there = path.exists() or path.parent.is_dir() and any(path.parent.glob(f"{path.name}.*"))
        return None if there else f"no file {self.checkpoint}"


@dataclass(frozen=True, kw_only=True)
class LocalizerEntry:
    """A localizer of the benchmark: `localizer` as the flag takes it, `name` in the tables (None: its own), `threshold` of its map (None: its own)."""

    localizer: str
    name: str | None = None
    threshold: float | None = None


@dataclass(frozen=True, kw_only=True)
class Suite:
    """All localizers and generators; `images` per generator, and the side that "sc." scales to (None: the first generator's)."""

    localizers: tuple[LocalizerEntry, ...]
    generators: tuple[GeneratorEntry, ...]
    images: int | None = None
    scaled_size: int | None = None


def read_suite(path: str | Path, data: DataOptions) -> Suite:
    """A suite from a TOML file; paths in it are relative to its folder. `data` has the defaults of its images.

    Raises:
        FileNotFoundError: no such file, or a folder.
        ValueError: no TOML, an unknown or a missing entry, or a value of another kind.
    """
    tomllib = _toml()
    path = Path(path).expanduser()
    if not path.is_file():
        wrong = "is a folder" if path.is_dir() else f"is no file (current folder: {Path.cwd()})"
        raise FileNotFoundError(f"--suite {path} {wrong}; give the TOML file of a suite, which docs/benchmark.md describes")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file: {error}") from error
    where, folder = str(path), path.parent
    _check_keys(content, ("images", "scaled_size", "data", "localizers", "generators"), where)
    common = data_options(content.get("data", {}), data, f"{where}, [data]", folder)
    localizers = [_localizer(entry, f"{where}, localizer {i + 1}", folder) for i, entry in enumerate(_tables(content, "localizers", where))]
    generators = [
        _generator(entry, common, data, f"{where}, generator {i + 1}", folder) for i, entry in enumerate(_tables(content, "generators", where))
    ]
    numbers = {name: _whole(content.get(name), f"{where}, {name}") for name in ("images", "scaled_size")}
    return Suite(localizers=tuple(localizers), generators=tuple(generators), **numbers)


def generator_entry(
    generator: str,
    *,
    checkpoint: Path | None = None,
    name: str | None = None,
    data: DataOptions | None = None,
    target: TargetKind | None = None,
    **more: Any,
) -> GeneratorEntry:
    """An entry with the default name of the generator."""
    name = name or paper_name(generator) or generator.rpartition("/")[2]
    return GeneratorEntry(
        name=name,
        generator=generator,
        checkpoint=checkpoint,
        data=data or DataOptions(),
        target=target,
        **more,
    )


def data_options(given: Mapping[str, Any], default: DataOptions, where: str, folder: Path = Path()) -> DataOptions:
    """Data options with those of a table of the file in place of the default ones.

    Raises:
        ValueError: an unknown option or a value of another kind.
    """
    fields = {option.name: option for option in dataclasses.fields(DataOptions)}
    _check_keys(given, tuple(fields), where)
    found = {}
    for name, value in given.items():
        if name in ("data_root", "attributes"):
            value = _path(value, f"{where}, {name}", folder)
        elif name == "selected_attributes":
            value = _names(value, f"{where}, {name}")
        elif name in ("image_size", "crop_size", "train_size", "test_size"):
            value = _whole(value, f"{where}, {name}")
        found[name] = value
    return dataclasses.replace(default, **found)


def _generator(entry: Mapping[str, Any], data: DataOptions, flags: DataOptions, where: str, folder: Path) -> GeneratorEntry:
    own = ("generator", "name", "checkpoint", "options", "target", "edits", "trained_on")
    images = {name: value for name, value in entry.items() if name not in own}
    _check_keys(entry, (*own, *(option.name for option in dataclasses.fields(DataOptions))), where)
    generator = _function(_text(entry.get("generator"), f"{where}, generator"), folder)
    target = entry.get("target")
    if target is not None and target not in get_args(TargetKind):
        raise ValueError(f"{where}: expected a target out of {', '.join(get_args(TargetKind))}, got {target!r}")
    options = entry.get("options", {})
    if not isinstance(options, dict):
        raise ValueError(f'{where}: expected options as a table, such as {{ prefix = "B_g_" }}, got {options!r}')
    trained_on = entry.get("trained_on", False)
    if not isinstance(trained_on, bool):
        raise ValueError(f"{where}: expected trained_on = true or false, got {trained_on!r}")
    return generator_entry(
        generator,
        checkpoint=_path(entry["checkpoint"], f"{where}, checkpoint", folder) if "checkpoint" in entry else None,
        name=_text(entry["name"], f"{where}, name") if "name" in entry else None,
        data=data_options(images, flags if "data" in images else data, where, folder),  # another kind of data shares no options with [data]
        target=target,
        options=options,
        edits=_names(entry.get("edits", []), f"{where}, edits"),
        trained_on=trained_on,
    )


def _localizer(entry: Mapping[str, Any], where: str, folder: Path) -> LocalizerEntry:
    _check_keys(entry, ("localizer", "name", "threshold"), where)
    threshold = entry.get("threshold")
    if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 < threshold <= 1):
        raise ValueError(f"{where}: expected a threshold in (0, 1], got {threshold!r}")
    spec = _text(entry.get("localizer"), f"{where}, localizer")
    kind, equals, path = spec.rpartition("=")
    if (folder / path).exists():  # relative to the file, as the other paths
        path = str(folder / path)
    spec = f"{_function(kind, folder)}{equals}{_function(path, folder)}"
    return LocalizerEntry(localizer=spec, name=_text(entry["name"], f"{where}, name") if "name" in entry else None, threshold=threshold)


def _tables(content: Mapping[str, Any], name: str, where: str) -> list[Mapping[str, Any]]:
    found = content.get(name, [])
    if not isinstance(found, list) or not found or not all(isinstance(entry, dict) for entry in found):
        raise ValueError(f"{where}: expected at least one [[{name}]], got {found!r}")
    return found


def _check_keys(given: Any, known: tuple[str, ...], where: str) -> None:
    if not isinstance(given, dict):
        raise ValueError(f"{where}: expected a table, got {given!r}")
    for name in given:
        if name not in known:
            raise ValueError(f"{where}: unknown entry {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{where}: expected text, got {'nothing' if value is None else repr(value)}")
    return value


def _path(value: Any, where: str, folder: Path) -> Path:
    path = Path(_text(value, where)).expanduser()
    return path if path.is_absolute() else folder / path


def _function(spec: str, folder: Path) -> str:
    """``path/to/file.py:FUNCTION`` with the file relative to `folder`, where it is there; any other text as it is."""
    file, colon, function = spec.rpartition(":")
    return f"{folder / file}:{function}" if colon and file.endswith(".py") and (folder / file).is_file() else spec


def _names(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f'{where}: expected a list of names, such as ["Bald", "Eyeglasses"], got {value!r}')
    return tuple(value)


def _whole(value: Any, where: str) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"{where}: expected a whole number above 0, got {value!r}")
    return value


def _toml() -> Any:
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib
    return tomllib

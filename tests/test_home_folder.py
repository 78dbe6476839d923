"""``~`` is the home folder in every path of every command and recipe, also where a shell doesn't replace it."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import typing
from pathlib import Path

import pytest

from malp_disc import cli
from malp_disc.benchmark.loading import load_localizer
from malp_disc.commands.benchmark import generator_of
from malp_disc.data import DataOptions
from malp_disc.runtime.home_folder import expand_home
from malp_disc.training.launch import run_recipe

REPOSITORY = Path(__file__).resolve().parents[1]
RECIPES = [
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    for path in sorted((REPOSITORY / "recipes").rglob("*.py"))
    if "run_recipe(main, Config" in path.read_text(encoding="utf-8")
]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


def arguments_of(config: type) -> tuple[list[str], dict[str, str]]:
    """A command line with ``~/<field>`` for every path of `config` and something for every other required option; and those of its fields that are paths."""
    flags, positional, paths = [], [], {}
    kinds = typing.get_type_hints(config, include_extras=True)
    for option in dataclasses.fields(config):
        kind = repr(kinds[option.name])
        is_path, required = "pathlib" in kind, option.default is option.default_factory is dataclasses.MISSING
        if is_path:
            paths[option.name] = f"~/{option.name}"
        elif not required:
            continue
        value = f"~/{option.name}" if is_path else "7"
        if "Positional" in kind or "positional" in kind:
            positional.append(value)
        else:
            flags += [f"--{option.name.replace('_', '-')}", value] if "tuple" in kind else [f"--{option.name.replace('_', '-')}={value}"]
    return positional + flags, paths


def check(config: type, options, paths: dict[str, str], home: Path) -> None:
    assert paths, config
    for name in paths:
        value = getattr(options, name)
        assert value in (home / name, (home / name,)), f"{name} is {value}"


@pytest.mark.parametrize("config", cli.COMMANDS, ids=lambda config: config.__name__)
def test_every_path_of_a_command(config, home, monkeypatch):
    arguments, paths = arguments_of(config)
    found = []
    monkeypatch.setitem(cli.COMMANDS, config, found.append)
    monkeypatch.setattr(sys, "argv", ["malp-disc", config.__name__.lower(), *arguments])
    cli.main()
    check(config, found[0], paths, home)


@pytest.mark.parametrize("name", cli.LAUNCHED)
def test_every_path_of_a_launched_command(name, home, monkeypatch):
    module = importlib.import_module(f"malp_disc.commands.{name}")
    arguments, paths = arguments_of(module.Config)
    found = []
    monkeypatch.setattr(module, "main", found.append)
    cli.run_launched(name, arguments)
    check(module.Config, found[0], paths, home)


@pytest.mark.parametrize("name", RECIPES)
def test_every_path_of_a_recipe(name, home):
    module = importlib.import_module(name)
    arguments, paths = arguments_of(module.Config)
    found = []
    run_recipe(found.append, module.Config, module.__doc__, arguments=arguments)
    check(module.Config, found[0], paths, home)


def test_a_user_who_does_not_exist_is_no_home(home):
    @dataclasses.dataclass
    class Paths:
        a: Path
        b: tuple[Path, ...]
        c: str

    found = expand_home(Paths(Path("~nobody-of-that-name/x"), (Path("~/x"), Path("y~"), Path("-")), "~"))
    assert found == Paths(Path("~nobody-of-that-name/x"), (home / "x", Path("y~"), Path("-")), "~")


@pytest.mark.parametrize("name", ["malp", "malp_both", "ffd_reg", "my_map:make"])
def test_localizers_and_generators_with_a_path(name, home):
    with pytest.raises((ValueError, FileNotFoundError), match=str(home / "nothing")):
        load_localizer(f"{name}=~/nothing")
    assert generator_of("stargan=~/G.ckpt", dataclasses.make_dataclass("C", [("edits", tuple, ()), ("trained_on", tuple, ())])(), DataOptions()).checkpoint == home / "G.ckpt"

"""The configuration of a run without the folders of the machine that it was made on, because a report is passed on."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

_ASSIGNED = re.compile(r"((?:[^=/\\]*=)*)(.*)", re.DOTALL)  # "--flag=", "name=" or nothing, and what may be a path


def without_folders(config: Mapping[str, Any]) -> dict[str, Any]:
    """Cut every absolute path of a run's ``config.json`` to its last part, in its ``command`` as well; paths may be of any system."""
    cut = {key: _cut(value) for key, value in config.items()}
    if isinstance(command := config.get("command"), str):
        cut["command"] = _cut_command(command, {path for key, value in config.items() if key != "command" for path in _paths(value)})
    return cut


def _cut(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _cut(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_cut(entry) for entry in value]
    if isinstance(value, str):
        whole = _last_part(value)  # a path may have spaces
        return whole if whole != value else " ".join(map(_last_part, value.split(" ")))
    return value


def _cut_command(command: str, paths: set[str]) -> str:
    """The command with `paths`, absolute ones of its flags, and all other absolute paths cut; quoted for a shell where something was cut."""
    whole = command
    for path in sorted(paths, key=len, reverse=True):  # first, for the words of a path with spaces that wasn't quoted
        whole = re.sub(rf"(?<![^\s=\"']){re.escape(path)}(?![^\s\"'])", lambda _, path=path: _last_part(path), whole)
    words = [_cut(word) for word in _split(whole)]
    return command if words == _split(command) else shlex.join(words)


def _split(command: str) -> list[str]:
    """The words of a command as `shlex.join` writes it. Backslashes are those of Windows' paths; a quote without a partner is a letter."""
    lexer = shlex.shlex(command, posix=True)
    lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", ""
    try:
        return list(lexer)
    except ValueError:
        return command.split()


def _paths(value: Any) -> Iterator[str]:
    """All absolute paths in a value of the configuration."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            yield from _paths(entry)
    elif isinstance(value, str):
        path = _ASSIGNED.fullmatch(value)[2]
        if _is_absolute(path):
            yield path


def _last_part(word: str) -> str:
    r"""``/home/me/faces``, ``C:\faces``, ``--data-root=/home/me/faces`` and ``name=/home/me/faces`` with the path's last part only; other words as they are."""
    assigned, path = _ASSIGNED.fullmatch(word).groups()
    kind = next((kind for kind in (PurePosixPath, PureWindowsPath) if kind(path).root), None)
    return word if kind is None else assigned + kind(path).name


def _is_absolute(path: str) -> bool:
    return any(kind(path).root for kind in (PurePosixPath, PureWindowsPath))

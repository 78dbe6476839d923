"""The `options` of a suite's generators, which are arguments of the zoo's constructors: a wrong name is found before any work."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import typing

from malp_disc.benchmark.suite import GeneratorEntry
from malp_disc.import_object import import_own_packages


def check_options(entry: GeneratorEntry) -> None:
    """Raise ValueError for options that the generator's constructor doesn't take, as far as its signature says which it takes."""
    if not entry.options:
        return
    if ":" in entry.generator:
        raise ValueError(
            f"{entry.name}: options are for networks of the zoo, and {entry.generator} is called without arguments; set {', '.join(entry.options)} in that function"
        )
    known, described = option_names(entry.generator)
    unknown = [name for name in entry.options if known and name not in (*known, *described)]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{entry.name}: unknown option {unknown[0]!r}{hint}; {entry.generator} takes {', '.join(known)}")


def option_names(generator: str) -> tuple[list[str], list[str]]:
    """The options that a network of the zoo takes by its signatures, and further names that its docstring explains; ([], []) if no signature tells.

    The signatures are that of its function, and those of the networks that it returns.
    """
    import_own_packages()  # a generators.py of the working folder is the user's
    from generators import list_generators

    if generator not in list_generators():
        return [], []
    function = getattr(importlib.import_module(f"generators.{generator}"), generator)
    returned = typing.get_type_hints(function)["return"]
    networks = [inspect.signature(network).parameters.values() for network in typing.get_args(returned) or (returned,)]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameters in networks for parameter in parameters):
        return [], []
    own = [parameter for parameter in inspect.signature(function).parameters.values() if parameter.kind is parameter.KEYWORD_ONLY]
    described = re.findall(r"`(\w+)`", function.__doc__ or "")  # as `architecture` of real_esrgan
    return list(dict.fromkeys(parameter.name for parameters in (own, *networks) for parameter in parameters)), described

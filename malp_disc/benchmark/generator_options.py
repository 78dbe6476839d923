"""The `options` of a suite's generators, which are arguments of the zoo's constructors: a misspelt name is found before any work."""

from __future__ import annotations

import importlib
import inspect
import typing

from malp_disc.benchmark.suite import GeneratorEntry
from malp_disc.errors import did_you_mean
from malp_disc.import_object import import_own_packages


def check_options(entry: GeneratorEntry) -> None:
    """Raise ValueError for an option that resembles one of the generator's and is none. Any other unknown one is found when the generator is made, and is a gap of the tables."""
    if not entry.options:
        return
    if ":" in entry.generator:
        raise ValueError(
            f"{entry.name}: options are for networks of the zoo, and {entry.generator} is called without arguments; set {', '.join(entry.options)} in that function"
        )
    known = option_names(entry.generator)
    for name in entry.options:
        hint = did_you_mean(name, known)
        if hint and name not in known:
            raise ValueError(f"{entry.name}: unknown option {name!r}{hint} {entry.generator} takes {', '.join(known)}")


def option_names(generator: str) -> list[str]:
    """The options that a network of the zoo takes by the signatures of its function and of the networks that this returns, as far as they say so."""
    import_own_packages()  # a generators.py of the working folder is the user's
    from generators import list_generators

    if generator not in list_generators():
        return []
    function = getattr(importlib.import_module(f"generators.{generator}"), generator)
    returned = typing.get_type_hints(function)["return"]
    networks = [inspect.signature(network).parameters.values() for network in typing.get_args(returned) or (returned,)]
    own = [parameter for parameter in inspect.signature(function).parameters.values() if parameter.kind is parameter.KEYWORD_ONLY]
    return list(dict.fromkeys(parameter.name for parameters in (own, *networks) for parameter in parameters if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)))

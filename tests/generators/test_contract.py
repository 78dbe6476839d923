"""No generator is left out of the common tests."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import tests.generators
from generators import create_generator, list_generators
from tests.generators.contract import GeneratorContract


def test_every_generator_has_its_contract():
    modules = [importlib.import_module(f"tests.generators.{module.name}") for module in pkgutil.iter_modules(tests.generators.__path__)]
    classes = {value for module in modules for value in vars(module).values() if isinstance(value, type) and issubclass(value, GeneratorContract)}
    assert {cls.name for cls in classes if cls is not GeneratorContract} == set(list_generators())


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown generator 'stargun'; choose from .*'stargan'"):
        create_generator("stargun")

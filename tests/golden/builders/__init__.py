"""Which of our networks answers which golden: every module here has a list ``BUILDERS`` of its networks.

An entry is (start of the golden's `source`, its `config.cls` or None for any, builder). The first match counts. A module may also have a
list ``COMPUTATIONS``, of goldens without a network: see ``tests/golden/computations.py``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType

from tests.golden.case import Built, Case

Builder = Callable[[Case], Built]


def modules() -> list[ModuleType]:
    """The modules of builders, by name."""
    return [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]


BUILDERS: list[tuple[str, str | None, Builder]] = [entry for module in modules() for entry in module.BUILDERS]


def find_builder(case: Case) -> Builder | None:
    """The builder of a case, or None."""
    for source, cls, builder in BUILDERS:
        if case.source.startswith(source) and cls in (None, case.config.get("cls")):
            return builder
    return None

"""Which of our networks answers which golden: every module here has a list ``BUILDERS`` of its networks.

An entry is (start of the golden's `source`, its `config.cls` or None for any, builder). The first match counts.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

from tests.golden.case import Built, Case

Builder = Callable[[Case], Built]
BUILDERS: list[tuple[str, str | None, Builder]] = [
    entry for module in pkgutil.iter_modules(__path__) for entry in importlib.import_module(f"{__name__}.{module.name}").BUILDERS
]


def find_builder(case: Case) -> Builder | None:
    """The builder of a case, or None."""
    for source, cls, builder in BUILDERS:
        if case.source.startswith(source) and cls in (None, case.config.get("cls")):
            return builder
    return None

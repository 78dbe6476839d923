"""Parse a recipe's flags, grouped by topic in its help.

A recipe's flags are the fields of one dataclass, most of them inherited. tyro shows the fields of nested dataclasses as groups, so the parser gets these fields nested by topic, without a prefix,
and the recipe gets its own flat dataclass.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import textwrap
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro

Config = TypeVar("Config")
_RECIPE = "main"
_TOPICS = {
    "GeneratorOptions": "generator",
    "DataOptions": "data",
    "FinetuneOptions": "training",
    "TrainOptions": "run",
    "MaLPOptions": "MaLP",
    "EvaluationOptions": "evaluation",
}
"""Topics of the classes that recipes share, in the order of the help. The flags of all other classes are the recipe's own, and come first."""


def parse_flags(config: type[Config], *, description: str | None, prog: str | None = None, arguments: Sequence[str] | None = None) -> Config:
    """A recipe's flags from the command line.

    Args:
        config: dataclass whose fields are the flags; the string below each field is its help.
        description: what --help says first; the double backticks around code in it are left out.
        prog, arguments: of `tyro.cli`.
    """
    grouped = _grouped(config)
    parsed = tyro.cli(grouped, prog=prog, args=arguments, description=(description or "").replace("``", ""))
    return config(**{name: value for topic in dataclasses.fields(grouped) for name, value in vars(getattr(parsed, topic.name)).items()})


@functools.cache
def _grouped(config: type) -> type:
    """A dataclass of the same fields, nested by topic."""
    hints, helps = get_type_hints(config, include_extras=True), help_texts(config)
    groups = []
    for topic, (names, title) in _by_topic(config).items():
        fields = [(name, Annotated[hints[name], tyro.conf.arg(help=helps.get(name))], _same_default(config.__dataclass_fields__[name])) for name in names]
        group = Annotated[dataclasses.make_dataclass(topic, fields), tyro.conf.OmitArgPrefixes]
        groups.append((topic, group, dataclasses.field(metadata={"help": title})))  # otherwise, tyro looks for it in the source, which takes as long as all the rest
    return dataclasses.make_dataclass(config.__name__, groups)


def _by_topic(config: type) -> dict[str, tuple[list[str], str]]:
    """The names of the flags by topic, and the sentence below the topic."""
    found: dict[str, tuple[list[str], str]] = {}
    for cls in [cls for cls in config.__mro__ if dataclasses.is_dataclass(cls)]:
        seen = {name for names, _ in found.values() for name in names}
        names = [name for name in inspect.get_annotations(cls) if name in config.__dataclass_fields__ and name not in seen]
        if names:
            topic = _TOPICS.get(cls.__name__, _RECIPE)
            found.setdefault(topic, ([], "" if topic == _RECIPE else cls.__doc__))[0].extend(names)
    return {topic: found[topic] for topic in (_RECIPE, *_TOPICS.values()) if topic in found}


def _same_default(field: dataclasses.Field) -> Any:
    return dataclasses.field(default=field.default, default_factory=field.default_factory, kw_only=True)


@functools.cache
def help_texts(config: type) -> dict[str, str]:
    """The help of every field of a dataclass, by field: that of its metadata, or the string below it in the most derived class that has one."""
    found = {}
    for cls in reversed([cls for cls in config.__mro__ if dataclasses.is_dataclass(cls)]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        for field, text in zip(definition.body, definition.body[1:]):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[field.target.id] = inspect.cleandoc(text.value.value)
    return found | {field.name: field.metadata["help"] for field in dataclasses.fields(config) if "help" in field.metadata}

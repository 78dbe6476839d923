"""Every flag of every command and recipe has a help text of whole sentences that the command line shows without broken lines."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap

import pytest

from malp_disc import cli
from malp_disc.commands import baseline, benchmark, finetune, pretrain
from malp_disc.data import DataOptions
from recipes import evaluate, train_attribute_classifier, train_attribute_gan, train_stargan

OPTIONS = [*cli.COMMANDS, baseline.Config, benchmark.Config, finetune.Config, pretrain.Config, evaluate.Config, train_stargan.Config, train_attribute_gan.Config, train_attribute_classifier.Config]


def help_texts(options: type) -> dict[str, str]:
    """The string below every field, by field; that of the most derived class counts."""
    found = {}
    for cls in reversed([cls for cls in options.__mro__ if dataclasses.is_dataclass(cls) and cls is not DataOptions]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        for field, text in zip(definition.body, definition.body[1:]):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[field.target.id] = text.value.value
    return found


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options.__module__ + "." + options.__name__)
def test_every_flag_has_help_of_whole_sentences(options):
    texts = help_texts(options)
    own = {field.name for field in dataclasses.fields(options)} - {field.name for field in dataclasses.fields(DataOptions)}
    assert own - set(texts) == set(), "flags without help"
    for name, text in texts.items():
        lines = text.splitlines()
        assert lines[0][0].isupper() or lines[0].startswith("classifier:"), f"{name}: {text}"
        for line in lines:  # tyro keeps the line breaks of a docstring, so a line has to end where a sentence does
            assert line.rstrip().endswith((".", ".)")), f"{name}: {line}"

"""Every flag of every command and recipe has a help text of whole sentences that the command line shows without broken lines."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import pytest
import tyro

from malp_disc import cli
from malp_disc.commands import baseline, benchmark, finetune, pretrain
from malp_disc.training.flag_groups import help_texts, parse_flags
from recipes import evaluate, train_attribute_classifier, train_attribute_gan, train_stargan

OPTIONS = [*cli.COMMANDS, baseline.Config, benchmark.Config, finetune.Config, pretrain.Config, evaluate.Config, train_stargan.Config, train_attribute_gan.Config, train_attribute_classifier.Config]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options.__module__ + "." + options.__name__)
def test_every_flag_has_help_of_whole_sentences(options):
    texts = help_texts(options)
    assert {field.name for field in dataclasses.fields(options)} - set(texts) == set(), "flags without help"
    for name, text in texts.items():
        lines = text.splitlines()
        assert lines[0][0].isupper() or lines[0].startswith("classifier:"), f"{name}: {text}"
        for line in lines:  # tyro keeps the line breaks of a docstring, so a line has to end where a sentence does
            assert line.rstrip().endswith((".", ".)")), f"{name}: {line}"


@pytest.mark.parametrize("options", [option for option in OPTIONS if option.__name__ == "Config"], ids=lambda options: options.__module__)
def test_the_help_of_a_recipe_lists_its_own_flags_first_and_the_shared_ones_by_topic(options, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    printed = help_of(lambda: parse_flags(options, description="Look at ``report.html``.", arguments=["--help"]), capsys)
    flat = help_of(lambda: tyro.cli(options, args=["--help"]), capsys)
    assert len(flags_in(flat)) >= len(dataclasses.fields(options)) and sorted(flags_in(printed)) == sorted(flags_in(flat)), "the same values and help"
    topics = re.findall(r"^[╭─ ]*(\w+) options\b", printed, flags=re.M)
    assert topics[0] == "main" and {"data"} <= set(topics[1:]) <= {"generator", "data", "training", "run", "MaLP", "evaluation"}
    assert "Look at report.html." in printed


def test_a_grouped_command_line_gives_what_a_flat_one_would():
    arguments = "--arms control joint --seeds 0 1 --malp a/b --no-conditional-realness --dry-run --image-size 128 --max-train-steps 7 --paired".split()
    arguments[arguments.index("--no-conditional-realness")] = "--conditional-realness=False"
    assert parse_flags(finetune.Config, description=None, arguments=arguments) == tyro.cli(finetune.Config, args=arguments)
    assert parse_flags(pretrain.Config, description=None, arguments=[]) == pretrain.Config()


def help_of(parse: Callable[[], object], capsys: pytest.CaptureFixture) -> str:
    with pytest.raises(SystemExit):
        parse()
    return capsys.readouterr().out


def flags_in(printed: str) -> list[str]:
    """Every flag with its values and its help, without the boxes, and without the sentence that introduces the next topic."""
    printed = re.sub(r"[╭─ ]*\w+ options\b.*?(?=\n\W*-{1,2}\w)", "", re.sub(r"[│╭╮╰╯─]|^ *-+ *$", " ", printed, flags=re.M), flags=re.S)
    return [" ".join(text.split()) for text in re.split(r"^(?= *--\w)", printed, flags=re.M)[1:]]

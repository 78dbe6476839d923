"""The command line, ``malp-disc COMMAND``. A command is a dataclass whose fields are its flags, and a function that takes it.

Both are defined in a module of malp_disc/commands that imports nothing heavy at its top, so that --help is fast. The modules of the trainings and of the
benchmark need heavy imports for their flags, so they are imported only when their command is called, and this module has one line of help for each.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tyro

import malp_disc
from malp_disc.commands.detect import Detect, detect
from malp_disc.commands.doctor import Doctor, doctor
from malp_disc.commands.export import Export, export
from malp_disc.commands.fid import Fid, fid
from malp_disc.commands.key import Key, key
from malp_disc.commands.localize import Localize, localize
from malp_disc.commands.protect import Protect, protect
from malp_disc.commands.report import Report, report
from malp_disc.errors import make_output_printable, plain_errors, plain_warnings
from malp_disc.runtime.allocator import keep_freed_memory
from malp_disc.runtime.home_folder import expand_home

# One line per command; its name is the dataclass's in lower case, its help the dataclass's docstring.
COMMANDS: dict[type, Callable[[Any], None]] = {
    Doctor: doctor,
    Key: key,
    Protect: protect,
    Localize: localize,
    Detect: detect,
    Export: export,
    Fid: fid,
    Report: report,
}


@dataclass
class Pretrain:
    """Pretrain MaLP for a generator: a template, and a detector that localizes the generator's edits."""


@dataclass
class Baseline:
    """Train a method that MaLP is compared with, or a localizer of your own, on the pairs of MaLP's pretraining."""


@dataclass
class Finetune:
    """Fine-tune a generator against a pretrained backbone or MaLP, and report whether its images improved, compared with a control."""


@dataclass
class Benchmark:
    """Measure localizers on the edits of many generators: the paper's Tables 2, 3, 4, 6, 7 and Figure 5."""


LAUNCHED: dict[str, type] = {"pretrain": Pretrain, "baseline": Baseline, "finetune": Finetune, "benchmark": Benchmark}
"""Commands that `accelerate launch` may start in several processes."""


def main() -> None:
    """Run the command that ``sys.argv`` names."""
    if sys.argv[1:2] and sys.argv[1] in LAUNCHED:
        run_launched(sys.argv[1], sys.argv[2:])
        return
    make_output_printable()
    keep_freed_memory()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if sys.argv[1:] == ["--version"]:
        print(malp_disc.__version__)
        return
    with plain_warnings(), plain_errors():
        named = {command.__name__.lower(): command for command in COMMANDS}
        if (command := named.get("".join(sys.argv[1:2]))) is not None:  # parsed by itself, so that its errors name its own --help
            arguments = tyro.cli(command, args=sys.argv[2:], prog=f"malp-disc {sys.argv[1]}", description=command.__doc__)
            COMMANDS[command](expand_home(arguments))
            return
        tyro.extras.subcommand_cli_from_dict(
            {command.__name__.lower(): command for command in (*LAUNCHED.values(), *COMMANDS)},
            prog="malp-disc",
            description="MaLP: localize what a generator changed in images, and fine-tune generators. Each command has its own --help.",
        )


def run_launched(name: str, arguments: list[str]) -> None:
    """A command of `LAUNCHED`."""
    with plain_errors():  # an interrupt while torch is being imported
        module = importlib.import_module(f"malp_disc.commands.{name}")
        from malp_disc.training.launch import INTERRUPTED, run_recipe
    interrupted = getattr(module, "INTERRUPTED", INTERRUPTED)
    run_recipe(module.main, module.Config, module.__doc__, prog=f"malp-disc {name}", arguments=arguments, interrupted=interrupted)


if __name__ == "__main__":
    main()

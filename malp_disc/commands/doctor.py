"""``malp-disc doctor my_module:make_G``: check whether a generator can be fine-tuned against MaLP.

Heavy modules are imported only when the command runs, so that --help is fast.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from malp_disc.import_object import call_by_name


# The string below each field is the help of its flag.
@dataclass(kw_only=True)
class Doctor:
    """Check a generator before it is fine-tuned: value range, sizes, gradients, MaLP's share of them, half precision, time and memory per step."""

    generator: Annotated[str, Positional, arg(metavar="MODULE:FUNCTION")]
    """Function without arguments that returns the generator, an nn.Module with manipulate(images, target).
    MODULE is a module of the working folder, an installed one, or path/to/file.py."""
    losses: str | None = None
    """The generator's own losses, as MODULE:FUNCTION, to compare MaLP's gradient with theirs."""
    malp: Path | None = None
    """Folder of a MaLP pretrained on this generator.
    Without one, a random MaLP is used, which tests gradients and speed but not the maps."""
    backbone_weights: Path | None = None
    """Weights of the pretrained backbone that --malp has as its second branch, where they aren't the ones that its name stands for."""
    attributes: int = 5
    """Number of labels of an image, from which the target is made. 0 for a generator without attributes, whose target is (B, 0), as with --data images."""
    image_size: int = 64
    """Side of the test images in pixels, 16 or more and divisible by 4."""
    batch_size: int = 4
    """Number of test images, 2 or more."""
    device: str = "auto"
    """Device to compute on: cpu, cuda, cuda:1, and so on. auto takes a GPU if there is one."""
    json: Path | None = None
    """Also write the findings to this JSON file."""


def doctor(options: Doctor) -> None:
    """Print the findings; exit with status 1 if one of them prevents fine-tuning.

    Raises:
        ValueError, OSError: invalid flags or files, all before any long work.
    """
    if options.attributes < 0:
        raise ValueError(f"expected --attributes of 0 or more, got {options.attributes}")
    if options.image_size < 16 or options.image_size % 4:
        raise ValueError(f"expected --image-size of 16 or more, divisible by 4, got {options.image_size}")
    if options.batch_size < 2:
        raise ValueError(f"expected --batch-size of at least 2, got {options.batch_size}")
    from malp_disc.commands.loading import usable_device
    from malp_disc.errors import memory_suffices
    from malp_disc.experiment.given_malp import load_learned_malp
    from malp_disc.serialization.files import check_writable, write_json
    from malp_disc.training.generator_checks.full_check import examine

    if options.json is not None:
        check_writable(options.json, "--json")
    device = usable_device(options.device)
    generator = call_by_name(options.generator)
    losses = call_by_name(options.losses) if options.losses is not None else None
    malp = load_learned_malp(options.malp, backbone_weights=options.backbone_weights) if options.malp is not None else None
    settings = {"attributes": options.attributes, "image_size": options.image_size, "batch_size": options.batch_size, "device": device}
    with memory_suffices(f"{device} has too little memory for {options.batch_size} images of {options.image_size} pixels; give a smaller --batch-size or --image-size"):
        findings = examine(generator, losses=losses, malp=malp, **settings)
    signs = {"ok": "ok  ", "note": "note", "problem": "STOP"}
    for finding in findings:
        print(f"{signs[finding.level]} {finding.name}: {finding.said}" + (f"\n       -> {finding.advice}" if finding.advice else ""))
    problems = sum(finding.level == "problem" for finding in findings)
    if options.json is not None:
        write_json(
            options.json, {"generator": options.generator, "problems": problems, "findings": [vars(finding) for finding in findings]}
        )
    if problems:
        sys.exit(f"{problems} thing{'s' * (problems > 1)} to mend before it can be fine-tuned")
    given = "".join(f" --{name.replace('_', '-')} {shlex.quote(str(value))}" for name in ("losses", "malp", "backbone_weights") if (value := getattr(options, name)) is not None)
    data = "--data folder --data-root FOLDER --attributes TABLE.csv" if options.attributes else "--data images --data-root FOLDER"
    print(f"it can be fine-tuned: accelerate launch -m malp_disc finetune --generator {options.generator}{given} {data} --image-size {options.image_size}")

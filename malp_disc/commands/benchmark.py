"""Measure localizers on the edits of many generators, and make the paper's Tables 2, 3, 4, 6, 7 and Figure 5 with its printed numbers beside.

Drawn faces, the included StarGAN and the included MaLP, a minute or two on a CPU; then other localizers and more generators on the same images:

    malp-disc benchmark --images 50
    malp-disc benchmark --localizers weights/faces64/malp runs/ffd/localizer my_module:make --generators stargan cartoongan=hayao.npz fast_srgan=model.pt

Everything that the flags can't say is in a file: images of their own for every generator, edits of single attributes (Tables 3 and 7), several seeds of one
method, thresholds. docs/benchmark.md explains it, and shows how your own localizer joins in ten lines:

    accelerate launch -m malp_disc benchmark --suite benchmark.toml --output-dir runs/benchmark

A localizer is a folder of a trained one or of a MaLP, NAME=CHECKPOINT with the authors' weights, MODULE:FUNCTION, or MODULE:FUNCTION=FOLDER, your own with its trained
weights. A generator is a name of generators/README.md with its checkpoint, or MODULE:FUNCTION; one whose checkpoint isn't there is a gap in the tables. Several processes
share the generators. What was measured is kept by content in the folder: the same command after an interruption goes on, with the same result, and a later one measures
only what is new.

The page is ``<output-dir>/benchmark.html``; ``benchmark.md`` has the same tables, ``benchmark.jsonl`` a line for every number with its interval, and ``cells/`` the scores
image by image.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from accelerate import Accelerator
from torch import nn

from malp_disc.benchmark.generator_options import check_options
from malp_disc.benchmark.loading import function_of, is_function, load_localizer
from malp_disc.benchmark.localizer import family_of, name_of, ready, thresholds_of
from malp_disc.benchmark.malp_localizer import MaLPForm
from malp_disc.benchmark.methods import METHODS
from malp_disc.benchmark.page import write_pages
from malp_disc.benchmark.printed import TABLES, printed_rows
from malp_disc.benchmark.results import RESULTS, Line, write_lines
from malp_disc.benchmark.run import Competitor, Settings, run_generators
from malp_disc.benchmark.speed import images_per_second
from malp_disc.benchmark.suite import GeneratorEntry, LocalizerEntry, Suite, generator_entry, read_suite
from malp_disc.benchmark.tables import ATTACKS
from malp_disc.data import DataOptions, build_dataset
from malp_disc.distributed import gather_objects
from malp_disc.run_folder.lock import lock_folder
from malp_disc.run_folder.schema import read_json
from malp_disc.serialization.files import sweep, write_json
from malp_disc.shipped import FACES_GENERATOR, FACES_MALP
from malp_disc.training.launch import check_seeds, claim_folder, describe_run, make_accelerator

logger = logging.getLogger("malp_disc")
INTERRUPTED = "interrupted; the same command goes on from here"
_IMAGES = 200  # per generator, as in the paper (section 4.1)
_SPEEDS = "speed.json"


@dataclass(kw_only=True)
class Config(DataOptions):
    """Flags of the benchmark. Those of the images are the defaults for all generators."""

    suite: Path | None = None
    """TOML file with localizers, generators and their images, see docs/benchmark.md.
    It takes the place of --localizers, --generators, --edits and --trained-on."""
    localizers: tuple[str, ...] = (str(FACES_MALP),)
    """Localizers: folders of trained ones or of MaLPs, NAME=CHECKPOINT with the authors' weights, or MODULE:FUNCTION.
    Your own with the weights that training wrote is MODULE:FUNCTION=FOLDER.
    Those of one name are seeds of one method. LABEL=LOCALIZER gives another name in the tables: PGD=runs/attacks/pgd."""
    generators: tuple[str, ...] = ("stargan",)
    """Generators: names of the zoo as NAME=CHECKPOINT, or MODULE:FUNCTION.
    stargan without a checkpoint is the included one of drawn faces; any other name without one is a gap in the tables."""
    edits: tuple[str, ...] = ()
    """Attributes that are also edited one by one, for Tables 3 and 7."""
    trained_on: tuple[str, ...] = ("stargan",)
    """Generators that the localizers saw in training, as given in --generators or by their names in the tables.
    They are in Table 2, and don't count as unseen in Table 4."""
    images: int | None = None
    """Number of images per generator, sampled from those that are held out. 200 by default, as in the paper."""
    scaled_size: int | None = None
    """Side in pixels that images are scaled to for "sc.": the size that the localizers were trained at. By default --image-size."""
    degradations: Literal["first", "all", "none"] = "first"
    """Generators whose edits are degraded for Figure 5.
    first: the first one, of those that the localizers were trained on if there are any."""
    seed: int = 0
    """Seed of the sampled images and of the noise of Figure 5, from 0 to 2^32 - 1."""
    output_dir: Path = Path("runs/benchmark")
    """Folder of the results, created if absent."""


def main(config: Config) -> None:
    """Measure what the folder doesn't have yet, and write the tables of all that it has.

    Raises:
        ValueError, FileNotFoundError: invalid flags or files, or a folder that belongs to another run; before any work.
    """
    check_seeds(config.seed)
    suite = suite_of(config)
    check_suite(suite)
    competitors = load_competitors(suite.localizers)
    accelerator = make_accelerator(resumed=config.output_dir)
    folder = config.output_dir
    if accelerator.is_main_process:
        open_benchmark(folder, config, accelerator)
    accelerator.wait_for_everyone()
    competitors = [
        dataclasses.replace(competitor, localizer=on_device(competitor.localizer, accelerator.device)) for competitor in competitors
    ]
    settings = Settings(
        folder=folder,
        images=suite.images or _IMAGES,
        side=suite.scaled_size or config.image_size,
        seed=config.seed,
        robustness=robustness_generators(suite, config.degradations),
        device=accelerator.device,
    )
    own = suite.generators[accelerator.process_index :: accelerator.num_processes]
    lines = run_generators(own, competitors, settings, show=accelerator.is_main_process)
    lines = in_order([line for part in gather_objects(lines) for line in part], suite)
    if accelerator.is_main_process:
        write_lines(folder, lines)
        speeds = measure_speeds(competitors, settings)
        contents = write_pages(folder, lines, speeds, json.loads((folder / "config.json").read_text(encoding="utf-8")))
        print(f"{contents.title}. {contents.sentence}\npage: {folder / 'benchmark.html'} (also benchmark.md), numbers: {folder / RESULTS}")
        for name, reason in contents.gaps:
            print(f"gap: {name}: {reason}")
    accelerator.wait_for_everyone()
    accelerator.end_training()


def suite_of(config: Config) -> Suite:
    """The suite of --suite, or of the other flags.

    Raises:
        ValueError, FileNotFoundError: invalid flags or file.
    """
    for name in ("images", "scaled_size"):
        if (value := getattr(config, name)) is not None and value < 2:
            raise ValueError(f"expected --{name.replace('_', '-')} of at least 2, got {value}")
    data = DataOptions(**{option.name: getattr(config, option.name) for option in dataclasses.fields(DataOptions)})
    if config.suite is not None:
        suite = read_suite(config.suite, data)
        return dataclasses.replace(suite, images=config.images or suite.images, scaled_size=config.scaled_size or suite.scaled_size)
    generators = tuple(generator_of(given, config, data) for given in config.generators)
    unknown = [name for name in config.trained_on if name not in (*config.generators, *(entry.name for entry in generators))]
    if unknown and config.trained_on != Config.trained_on:
        raise ValueError(f"--trained-on {' '.join(unknown)} is none of the generators: {', '.join(config.generators)}; its edits would count as unseen")
    localizers = tuple(localizer_of(given) for given in config.localizers)
    return Suite(localizers=localizers, generators=generators, images=config.images, scaled_size=config.scaled_size)


def generator_of(given: str, config: Config, data: DataOptions) -> GeneratorEntry:
    """An entry of --generators."""
    name, equals, checkpoint = given.partition("=")
    if ":" in name:
        name, equals, checkpoint = given, "", ""
    path = Path(checkpoint).expanduser() if equals else None
    if given == "stargan":
        path = FACES_GENERATOR
    entry = generator_entry(name, checkpoint=path, data=data, edits=config.edits)
    return dataclasses.replace(entry, trained_on=bool({given, entry.name} & set(config.trained_on)))


def localizer_of(given: str) -> LocalizerEntry:
    """An entry of --localizers."""
    label, equals, rest = given.partition("=")
    if equals and label not in (*METHODS, *get_args(MaLPForm)) and not is_function(label) and not Path(given).exists():
        return LocalizerEntry(localizer=rest, name=label)
    return LocalizerEntry(localizer=given)


def check_suite(suite: Suite) -> None:
    """Raise ValueError or FileNotFoundError, before any work, for images that can't be read, generators of one name, and options that a constructor doesn't take."""
    if not suite.generators or not suite.localizers:
        raise ValueError("expected at least one of --generators and one of --localizers")
    names = [entry.name for entry in suite.generators]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two generators are called {', '.join(twice)} in the tables; give them different names in a --suite file")
    for entry in suite.generators:
        check_options(entry)
        if entry.missing is None:
            known = build_dataset(entry.data, "test").attribute_names
            if unknown := [name for name in entry.edits if name not in known]:
                raise ValueError(f"{entry.name}: no attribute {', '.join(unknown)} to edit; its images have {', '.join(known) or 'none'}")


def load_competitors(entries: Sequence[LocalizerEntry]) -> list[Competitor]:
    """The localizers, on the CPU, with the seeds of one name numbered in order.

    Raises:
        ValueError, FileNotFoundError: one can't be loaded.
    """
    found: list[Competitor] = []
    for entry in entries:
        localizer = load_localizer(entry.localizer)
        name = entry.name or name_of(localizer)
        seed = sum(competitor.name == name for competitor in found)
        threshold, score_threshold = thresholds_of(localizer)
        method, function = printed_method(name, localizer), function_of(entry.localizer)
        found.append(Competitor(localizer, name, seed, method, entry.threshold or threshold, score_threshold, function))
    return found


def printed_method(name: str, localizer: Any) -> str | None:
    """The method's name in `malp_disc.benchmark.printed`: that of an attack by the name in the tables (PGD), of any other by the localizer's.

    None for a method that the paper doesn't print, as a MaLP without a template.
    """
    if name.lower() in ATTACKS:
        return name.lower()
    own = name_of(localizer)
    if own.startswith("malp") and family_of(localizer) == "passive":
        return None
    starts = {"resnet50_map": "resnet50", "ffd_": "ffd", "patch_forensics_": "patch_forensics", "malp_both": "malp"}
    own = next((printed for start, printed in starts.items() if own.startswith(start)), own)
    return own if own in {row.method for table in TABLES for row in printed_rows(table)} else None


def robustness_generators(suite: Suite, which: Literal["first", "all", "none"]) -> tuple[str, ...]:
    """The names of the generators whose edits are degraded."""
    there = [entry for entry in suite.generators if entry.missing is None]
    if which == "all":
        return tuple(entry.name for entry in there)
    chosen = [entry.name for entry in there if entry.trained_on] or [entry.name for entry in there]
    return tuple(chosen[:1]) if which == "first" else ()


def in_order(lines: Sequence[Line], suite: Suite) -> list[Line]:
    """The lines in the order of the suite's generators, whichever process made them."""
    place = {entry.name: i for i, entry in enumerate(suite.generators)}
    return sorted(lines, key=lambda line: place[line.generator])


def on_device(localizer: Any, device: torch.device) -> Any:
    """The localizer on the device, fixed where it is a network."""
    localizer = ready(localizer, device)
    return localizer.requires_grad_(False) if isinstance(localizer, nn.Module) else localizer


def open_benchmark(folder: Path, config: Config, accelerator: Accelerator) -> None:
    """Create and lock the folder, and write the configuration.

    Raises:
        ValueError: it can't be written, another run works in it, or it holds a training.
    """
    if (folder / "experiment.json").exists():
        raise ValueError(f"{folder} holds a training; choose another --output-dir")
    claim_folder(folder)
    lock_folder(folder)
    sweep(folder)
    describe_run(folder, config, accelerator)


def measure_speeds(competitors: Sequence[Competitor], settings: Settings) -> dict[str, dict[str, float]]:
    """Images per second of every localizer's first seed at the scaled size, by name and by device; measured once for each device and kept in ``speed.json``."""
    path = settings.folder / _SPEEDS
    kept = read_json(path) or {}
    found: dict[str, dict[str, float]] = {}
    for competitor in competitors:
        if competitor.seed:
            continue
        devices = {"cpu": torch.device("cpu")} | (
            {"gpu": torch.device(settings.device)} if torch.device(settings.device).type == "cuda" else {}
        )
        for name, device in devices.items():
            key = f"{competitor.identity} {settings.side} {torch.cuda.get_device_name(device) if name == 'gpu' else 'cpu, one thread'}"
            if key not in kept:
                try:
                    kept[key] = images_per_second(competitor.localizer, settings.side, device)
                except ValueError as error:
                    logger.warning(f"{competitor.name}: {error}; no images/s of it in the tables")
                    continue
            found.setdefault(competitor.name, {})[name] = kept[key]
    write_json(path, kept)
    return found

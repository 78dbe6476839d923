"""Run a benchmark: every localizer on every generator's edits, with the generators shared by the processes, and what is done kept by content."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from malp_disc.benchmark.baseline import Baseline
from malp_disc.benchmark.failures import named_failures
from malp_disc.benchmark.figures import save_sample
from malp_disc.benchmark.inputs import BATCH, Case, EditCache, cases_of, code_of, content_hash, digest, generator_identity
from malp_disc.benchmark.keyed_method import KeyedMethod
from malp_disc.benchmark.localizer import Localizer, family_of, protect, ready
from malp_disc.benchmark.malp_localizer import MaLPLocalizer
from malp_disc.benchmark.measure import measure
from malp_disc.benchmark.results import SCALED, UNSCALED, Line, read_cell, summarized, write_cell
from malp_disc.benchmark.suite import GeneratorEntry
from malp_disc.degradations import DEGRADATIONS, Degradation
from malp_disc.generator_source import generator_with_weights
from malp_disc.import_object import code_of_function, import_own_packages
from malp_disc.levels import as_images, quantize
from malp_disc.metrics.psnr import mean_psnr
from malp_disc.serialization.state_dicts import fingerprint
from malp_disc.serialization.typed_json import to_json
from malp_disc.target_kind import target_kind_of

logger = logging.getLogger("malp_disc")
_VERSION = "1"  # of the scores; a change of their meaning has to change it


@dataclass(frozen=True)
class Competitor:
    """A localizer with its place in the tables.

    Attributes:
        name, seed: name in the tables, and number among those of one name.
        method: its name in `malp_disc.benchmark.printed`, or None.
        threshold, score_threshold: fixed ones of the map and of the score.
        function: MODULE:FUNCTION that made it, None for one of this package.
    """

    localizer: Localizer
    name: str
    seed: int = 0
    method: str | None = None
    threshold: float = 0.5
    score_threshold: float = 0.5
    function: str | None = None

    @cached_property
    def identity(self) -> str:
        """A hash of its code (`code_of`), its name, its weights and its options, of which some change no weight (the side that it resamples to); and of the function
        that made it, since two may make objects of one class."""
        weights = fingerprint(self.localizer.state_dict()) if isinstance(self.localizer, nn.Module) else ""
        code = code_of(self.localizer, "localize", "protect")
        made = [code_of_function(self.function)] if self.function else []
        return digest(type(self.localizer).__qualname__, code, str(getattr(self.localizer, "name", "")), weights, *_options_of(self.localizer), *made)


@dataclass(frozen=True)
class Settings:
    """What every cell depends on besides its localizer and generator.

    Attributes:
        folder: of the results, the cells and the edits.
        images: per generator.
        side: of the images that "sc." scales to.
        seed: of the sampled images and of the degradations' noise.
        robustness: names of the generators whose edits are degraded for Figure 5.
    """

    folder: Path
    images: int
    side: int
    seed: int = 0
    robustness: tuple[str, ...] = ()
    device: torch.device | str = "cpu"


@dataclass(frozen=True)
class Versions:
    """Images as they were, as they were published, and as the generator edited these: (N, 3, H, W) uint8 each."""

    real: Tensor
    published: Tensor
    edited: Tensor

    @cached_property
    def identity(self) -> str:
        """A hash of their content."""
        return digest(*map(content_hash, (self.real, self.published, self.edited)))


def run_generators(
    entries: Sequence[GeneratorEntry], competitors: Sequence[Competitor], settings: Settings, *, show: bool = True
) -> list[Line]:
    """The lines of all cells of some generators.

    A generator that can't be loaded or run is a gap, and so is a localizer on a generator: the reason is in its line and in the log. It names type, message and line
    of any exception of their code.
    """
    lines: list[Line] = []
    bar = tqdm(entries, desc="benchmark", unit="generator", disable=not show)
    for entry in bar:
        bar.set_postfix_str(entry.name)
        lines += generator_lines(entry, competitors, settings)
    return lines


def generator_lines(entry: GeneratorEntry, competitors: Sequence[Competitor], settings: Settings) -> list[Line]:
    """The lines of one generator; a single gap if it can't be run."""
    try:
        if entry.missing:
            raise ValueError(entry.missing)
        generator = load_entry(entry)
        cases = cases_of(entry, entry.target or target_kind_of(generator.manipulate), settings.images, settings.seed)
        with named_failures(f"moving {entry.generator} to {settings.device}"):
            ready(generator, settings.device)
        edits = EditCache(settings.folder / "edits", generator_identity(entry, generator), generator.manipulate, settings.device)
        lines = [line for case in cases for competitor in competitors for line in _lines(entry, case, edits, competitor, settings)]
        measured = {(line.localizer, line.seed) for line in lines if line.gap is None}
        shown = {
            competitor.name: (competitor.localizer, edits(published_by(competitor.localizer, cases[0].levels, settings.device), cases[0].target))
            for competitor in competitors
            if competitor.seed == 0 and (competitor.name, 0) in measured
        }
        if shown:
            save_sample(settings.folder, entry.name, settings.side, cases[0].levels, shown, settings.device)
        return lines
    except (ValueError, FileNotFoundError, RuntimeError) as error:  # RuntimeError: a GPU reports a network's failure where its result is read
        logger.warning(f"{entry.name}: {error}; a gap in the tables")
        return [Line(generator=entry.name, trained_on=entry.trained_on, gap=_first_line(error))]


def load_entry(entry: GeneratorEntry) -> nn.Module:
    """The generator of an entry, fixed and in evaluation mode where it is a network.

    Raises:
        ValueError, FileNotFoundError: it can't be loaded; any other exception of its code as a ValueError.
    """
    with named_failures(f"loading {entry.generator}"):
        if entry.options:
            import_own_packages()  # a generators.py of the working folder is the user's
            from generators import create_generator

            generator = create_generator(entry.generator, entry.checkpoint, **entry.options)
        else:
            generator = generator_with_weights(entry.generator, entry.checkpoint)
        if not callable(getattr(generator, "manipulate", None)):
            raise ValueError(f"{entry.generator} has no method manipulate(images, target); generators/README.md shows one in ten lines")
        return generator.eval().requires_grad_(False) if isinstance(generator, nn.Module) else generator


def published_by(localizer: Localizer, levels: Tensor, device: torch.device | str) -> Tensor:
    """The images (N, 3, H, W) uint8 as their owner publishes them, in 8 bits."""
    return torch.cat([quantize(protect(localizer, as_images(part).to(device))).cpu() for part in levels.split(BATCH)])


def _options_of(localizer: Localizer) -> list[str]:
    """The options of a localizer of this package: a trained method's, or a MaLP's configuration. Those of a user's are in its function."""
    if isinstance(localizer, Baseline):
        return [json.dumps(localizer.options, sort_keys=True, default=str)]
    return [json.dumps(to_json(localizer.malp.config), sort_keys=True)] if isinstance(localizer, (MaLPLocalizer, KeyedMethod)) else []


def _lines(entry: GeneratorEntry, case: Case, edits: EditCache, competitor: Competitor, settings: Settings) -> Iterator[Line]:
    """The cells of one localizer on one case: scaled, unscaled where that differs, and degraded; one gap if it can't protect the images."""
    line = Line(
        generator=entry.name,
        attribute=case.attribute,
        trained_on=entry.trained_on,
        localizer=competitor.name,
        seed=competitor.seed,
        method=competitor.method,
        family=family_of(competitor.localizer),
        images=len(case.levels),
        threshold=competitor.threshold,
        score_threshold=competitor.score_threshold,
    )
    try:
        published = published_by(competitor.localizer, case.levels, settings.device)
    except (ValueError, RuntimeError) as error:
        yield _gap(line, error)
        return
    versions = Versions(case.levels, published, edits(published, case.target))
    if not torch.equal(published, case.levels):
        line = replace(line, published_psnr=mean_psnr(as_images(published), as_images(case.levels)))
    size = max(published.shape[2:])
    for scale, side in ((SCALED, settings.side), (UNSCALED, None)):
        if scale == UNSCALED and (size == settings.side or case.attribute is not None):
            continue  # the same images; Tables 3 and 7 have one scale
        yield _cell(replace(line, scale=scale, size=side or size), competitor, versions, settings)
    if entry.name in settings.robustness and case.attribute is None:
        for kind, degradation in DEGRADATIONS.items():
            for name, level in zip(degradation.names, degradation.levels):
                degraded = replace(line, scale=SCALED, size=settings.side, degradation=kind, level=name)
                noise = torch.Generator().manual_seed(settings.seed)
                degrade = partial(_degraded, degradation, level, noise)
                yield _cell(degraded, competitor, versions, settings, degrade)


def _gap(line: Line, error: Exception) -> Line:
    """The line with the reason why this localizer has no numbers, which is also logged."""
    where = f"{line.localizer} on {line.generator}" + (f", {line.scale}" if line.scale else "")
    logger.warning(f"{where}: {error}; a gap in the tables")
    return replace(line, gap=_first_line(error))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _degraded(degradation: Degradation, level: float | None, noise: torch.Generator, images: Tensor) -> Tensor:
    return degradation(images, level, noise)


def _cell(
    line: Line, competitor: Competitor, versions: Versions, settings: Settings, degradation: Callable[[Tensor], Tensor] | None = None
) -> Line:
    """The line with its scores, from the folder's cells or measured now; a gap if the localizer can't take these images."""
    about = (line.size, line.degradation, line.level, settings.seed if line.degradation else None, competitor.threshold)
    key = digest(_VERSION, competitor.identity, versions.identity, str(about))
    scores = read_cell(settings.folder, key)
    if scores is None:
        try:
            scores = measure(
                competitor.localizer,
                versions.real,
                versions.published,
                versions.edited,
                side=line.size if line.scale == SCALED else None,
                degradation=degradation,
                threshold=competitor.threshold,
                device=settings.device,
            )
        except (ValueError, RuntimeError) as error:
            return _gap(line, error)
        write_cell(settings.folder, key, scores)
    summary = summarized(scores, score_threshold=competitor.score_threshold)
    return replace(line, scores=summary, numbers=scores.numbers, cell=key)

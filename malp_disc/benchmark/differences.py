"""Does a proactive localizer beat the passive ones? Differences on the same images, generator by generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from malp_disc.benchmark.cell_text import PaperTable
from malp_disc.benchmark.cells import Cells
from malp_disc.benchmark.intervals import Estimate, over_seeds, paired_difference
from malp_disc.benchmark.printed import paper_generators
from malp_disc.benchmark.results import SCALED, Line, read_cell
from malp_disc.report.cells import NONE, Table


@dataclass(frozen=True)
class Difference:
    """A proactive localizer's mean score minus a passive one's on a generator's edits.

    Attributes:
        unpaired: seeds that only one of the two has, which the difference leaves out.
    """

    generator: str
    passive: str
    estimate: Estimate
    unpaired: tuple[int, ...] = ()

    @property
    def sign(self) -> int:
        """1 where the interval is above zero, -1 where it is below, else 0."""
        low, high = self.estimate.low, self.estimate.high
        return 0 if low is None or high is None else int(low > 0) - int(high < 0)


def differences(cells: Cells, folder: Path, score: str) -> tuple[str | None, list[Difference]]:
    """The first proactive localizer with maps, and its differences from every passive one on all generators ("sc."); (None, []) without both families.

    Each localizer's image scores are averaged over its seeds, and the images resampled. Where both have several of the same seeds, the difference is the mean of
    these and the interval that of the seeds instead, since three trainings differ more than two hundred images.
    """
    proactive = next(iter(_family(cells, "proactive", score)), None)
    passive = _family(cells, "passive", score)
    if proactive is None:
        return None, []
    found = []
    for generator in cells.generators:
        own = _images(cells.of(proactive, generator, scale=SCALED), folder, score)
        for name in passive:
            others = _images(cells.of(name, generator, scale=SCALED), folder, score)
            difference = _difference(own, others)
            if difference is not None:
                found.append(Difference(generator, name, *difference))
    return proactive, found


def difference_table(cells: Cells, folder: Path, score: str, said: str) -> PaperTable | None:
    """A row per generator and a column per passive localizer; None if there is nothing to compare."""
    proactive, found = differences(cells, folder, score)
    if proactive is None or not found:
        return None
    passive = list(dict.fromkeys(difference.passive for difference in found))
    by_place = {(difference.generator, difference.passive): difference for difference in found}
    rows = []
    for generator in dict.fromkeys(difference.generator for difference in found):
        known = paper_generators().get(generator)
        label = (known.label if known else generator) + ("\nseen in training" if cells.seen(generator) else "")
        rows.append([label, *(_text(by_place.get((generator, name))) for name in passive)])
    text = (
        f"{said[0].upper()}{said[1:]} of {proactive} minus that of each passive localizer, on the same images: each on its own edits, of the encrypted and of the original image. "
        "Above zero, the proactive one is better."
    )
    if unpaired := [f"{difference.passive} on {difference.generator} (seed {', '.join(map(str, difference.unpaired))})" for difference in found if difference.unpaired]:
        text += f" Seeds that only one of the two was measured with are left out: {'; '.join(unpaired)}."
    return PaperTable(
        f"Proactive against passive: {said}",
        text,
        Table(["generator", *(f"{proactive} minus\n{name}" for name in passive)], rows),
    )


def verdict(cells: Cells, folder: Path) -> str:
    """One sentence on unseen generators: where the proactive localizer is better and worse than every passive one, by Pearson's correlation.

    A generator on which one of these has no numbers is neither.
    """
    proactive, found = differences(cells, folder, "pearson")
    unseen = [difference for difference in found if not cells.seen(difference.generator)]
    if proactive is None or not unseen:
        return (
            "Proactive and passive localizers can't be compared here: that needs one of each, and a generator that they weren't trained on."
        )
    generators = list(dict.fromkeys(difference.generator for difference in unseen))
    signs = {name: [difference.sign for difference in unseen if difference.generator == name] for name in generators}
    compared = len(_family(cells, "passive", "pearson"))
    better, worse = ([name for name in generators if signs[name] == [sign] * compared] for sign in (1, -1))
    return (
        f"On {len(generators)} unseen {'generator' if len(generators) == 1 else 'generators'}, Pearson's correlation of {proactive} with the true map is above that of "
        f"every passive localizer on {_named(better)}, below every one on {_named(worse)} (95 % intervals)."
    )


def _family(cells: Cells, family: str, score: str) -> list[str]:
    """The localizers of a family that have the score on any generator, in the order of the tables."""
    found = {line.localizer for line in cells.measured if line.family == family and score in line.scores}
    return [name for name in cells.localizers if name in found]


def _images(lines: Sequence[Line], folder: Path, score: str) -> dict[int, np.ndarray]:
    """A score of every image, by seed."""
    found = {line.seed: read_cell(folder, line.cell) for line in lines if line.cell is not None}
    return {seed: np.array(scores.values[score]) for seed, scores in found.items() if scores is not None and score in scores.values}


def _difference(own: Mapping[int, np.ndarray], others: Mapping[int, np.ndarray]) -> tuple[Estimate, tuple[int, ...]] | None:
    """The estimate, and the seeds that it leaves out; None without scores of the same images."""
    if not own or not others or len({len(values) for values in (*own.values(), *others.values())}) > 1:
        return None
    unpaired: tuple[int, ...] = ()
    if len(shared := sorted(own.keys() & others.keys())) > 1:
        estimate = over_seeds([paired_difference(own[seed], others[seed]) for seed in shared])
        unpaired = tuple(sorted(own.keys() ^ others.keys()))
    else:
        estimate = paired_difference(np.mean([*own.values()], axis=0), np.mean([*others.values()], axis=0))
    return None if estimate is None else (estimate, unpaired)


def _text(difference: Difference | None) -> str:
    if difference is None:
        return NONE
    found = difference.estimate
    interval = "" if found.low is None else f"\n{found.low:+.3f} to {found.high:+.3f}"
    return f"{found.value:+.3f}{interval}"


def _named(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names)})" if names else "none"

"""The threshold of `malp-disc detect`, set on the unmanipulated images of a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from malp_disc.calibration import Calibration, check_enough
from malp_disc.commands.batch import TOO_LARGE, Outcome, Sources
from malp_disc.commands.image_file import ImageFile
from malp_disc.data.listing import printable
from malp_disc.errors import memory_suffices
from malp_disc.inspection import arrivals, as_input, inspect_levels, protect_levels, set_size
from malp_disc.keyed import KeyedMaLP
from malp_disc.keyed.issued import Issued
from malp_disc.keyed.looks import look
from malp_disc.malp import MaLP
from malp_disc.tiling import Inspection, Window

if TYPE_CHECKING:
    import numpy as np

    from malp_disc.commands.detect import Detect

_MORE = "give a --calibrate folder with more of them, or a higher --false-alarm-rate"
_UNPROTECTED = 0.05  # largest share of images without the template that is left out; with more, it is the wrong folder or key
_RECOGNISED = 0.2
"""Similarity above which a learned template counts as recognised. Unprotected, 88 photos had at most 0.11 with the two MaLPs of weights/ (most of them below 0.03); protected ones below 0.2
had scores above 0.9, as unprotected ones do."""


def calibrate(malp: MaLP | KeyedMaLP, options: Detect, issued: Issued | None = None) -> tuple[Calibration, Outcome]:
    """The calibration on the images of `--calibrate`, cycling through the templates; and a record of each, those that failed among them.

    Args:
        issued: with a `KeyedMaLP`, the templates that images which are scored as they are may have.

    Raises:
        ValueError: too few images for the false-alarm rate, or too few that can be read, or too many that aren't protected.
    """
    sources = Sources.find(options.calibrate)
    check_enough(len(sources.names), options.false_alarm_rate, _MORE)  # before any work
    outcome = _score(malp, sources, options, issued)
    _check_protected(malp, outcome, sources.root, options)
    scores = [record["scores"] for record in outcome.records if record["protected"]]
    try:
        check_enough(len(scores), options.false_alarm_rate, _MORE)
    except ValueError as error:
        failed = outcome.failures()
        raise ValueError(f"{error}{left_out(outcome)}{'; ' * bool(failed)}{failed}") from error
    added = "as they are"
    if _adds(malp, options):
        added = "protected, as they are and degraded" if len(scores[0]) > 1 else "protected"
    calibration = Calibration.fit(
        list(zip(*scores)),
        options.false_alarm_rate,
        statistic=options.by,
        images=f"images of {sources.root.resolve().name}, {added}",
        detector=malp.detector_fingerprint,
    )
    _warn_of_unrecognised(malp, outcome, sources.root, calibration.threshold, options)
    return calibration, outcome


def statistic(found: Inspection, by: str) -> float:
    """The score that is compared with the threshold: the mean over the image (image), or the highest of its windows (window).

    0 for an image that isn't recognised as protected with a key: of that, nothing can be said, and it never counts as manipulated.
    """
    return 0.0 if found.protected is False else _compared(found, by).score


def _compared(found: Inspection, by: str) -> Inspection | Window:
    return found if by == "image" else found.worst


def _adds(malp: MaLP | KeyedMaLP, options: Detect) -> bool:
    """Whether the images of `--calibrate` get the template first."""
    return not (options.calibrate_as_is or malp.passive)


def _score(malp: MaLP | KeyedMaLP, sources: Sources, options: Detect, issued: Issued | None) -> Outcome:
    """A record of each image of `--calibrate`. One that fails doesn't stop the others.

    It has `scores`, of each kind in which the image may arrive; whether the image is `protected` with a key, True without keys; and the `similarity` of its template.
    """
    outcome = Outcome()
    with tqdm(sources.names, desc="calibrate", unit="image") as bar:
        for number, name in enumerate(bar):
            try:
                with memory_suffices(TOO_LARGE.format(malp.device)):
                    levels = ImageFile.read(sources.root / name).levels
                    kinds = [levels]
                    if _adds(malp, options):
                        kinds = arrivals(malp, protect_levels(malp, levels, number % set_size(malp)), number)
                    own = _own(malp, levels, number) if _adds(malp, options) else issued
                    found = [inspect_levels(malp, kind, with_map=False, issued=own) for kind in kinds]
            except (ValueError, OSError) as error:
                outcome.failed[name] = str(error)
                bar.write(f"failed: {printable(name)}: {error}", file=sys.stderr)
                continue
            scores, similarity = [statistic(kind, options.by) for kind in found], _compared(found[0], options.by).similarity
            outcome.records.append({"file": name, "scores": scores, "protected": found[0].protected is not False, "similarity": similarity})
    return outcome


def _own(malp: MaLP | KeyedMaLP, levels: np.ndarray, number: int) -> Issued | None:
    """What is known of the template of an image that was protected here, as `malp-disc protect` records it."""
    return Issued((number,), looks={number: look(as_input(malp, levels))[0].cpu()}) if isinstance(malp, KeyedMaLP) else None


def _check_protected(malp: MaLP | KeyedMaLP, outcome: Outcome, folder: Path, options: Detect) -> None:
    """Raise ValueError if many images lack the template: they score as manipulated ones do, so no score would be above their threshold."""
    count = sum(not record["protected"] for record in outcome.records)
    if count <= _UNPROTECTED * len(outcome.records):
        return
    which = f"{count} of {len(outcome.records)} images in {printable(folder)}"
    if _adds(malp, options):
        raise ValueError(f"{which} take too little of the template to be recognised (they are too small or too smooth, or all black or white), so no threshold can be set on them; give others")
    raise ValueError(
        f"{which} aren't protected with this key ({malp.key_fingerprint}), or have none of its template left, and with a threshold set on them nothing would ever count as "
        "manipulated; give images that were protected with it, or the --key of these, or leave out --calibrate-as-is to have originals protected first"
    )


def _warn_of_unrecognised(malp: MaLP | KeyedMaLP, outcome: Outcome, folder: Path, threshold: float, options: Detect) -> None:
    """Print a warning if a learned template isn't recognised in images that count as unmanipulated at this threshold: others without a template may then count so too.

    No error, as for keys: a MaLP that was trained on unprotected images too can tell edits by the content alone.
    """
    if isinstance(malp, KeyedMaLP) or malp.passive:
        return
    count = sum(record["similarity"] <= _RECOGNISED and record["scores"][0] <= threshold for record in outcome.records)
    if not count:
        return
    take, advice = "take too little of the template to be recognised", "give images like those that MaLP was pretrained on, or pretrain one on images like these"
    if not _adds(malp, options):
        take, advice = "have too little of the template left to be recognised", "give images that were protected with this MaLP, or leave out --calibrate-as-is to have originals protected first"
    print(
        f"warning: {count} of {len(outcome.records)} images in {printable(folder)} {take} (similarity of at most {_RECOGNISED}), and count as unmanipulated at this threshold, "
        f"{threshold:.4g}. An image that was never protected, or has lost its template, may count so too; {advice}",
        file=sys.stderr,
    )


def left_out(outcome: Outcome) -> str:
    """What a calibration was made without, after a semicolon; empty for nothing."""
    unprotected = sum(not record["protected"] for record in outcome.records)
    parts = [f"{len(outcome.failed)} that failed"] * bool(outcome.failed) + [f"{unprotected} not protected with this key"] * bool(unprotected)
    return f"; left out of {outcome.total} images: {' and '.join(parts)}" if parts else ""

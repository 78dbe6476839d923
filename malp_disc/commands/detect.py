"""``malp-disc detect IN --malp DIR``: decide whether images were manipulated.

Heavy modules are imported only when the command runs, so that --help is fast.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from malp_disc.calibration import Calibration
    from malp_disc.malp import MaLP
    from malp_disc.tiling import Inspection

FOUND_STATUS = 3
"""Exit status with --fail-on-found if an image was manipulated; 1 stands for an error and 2 for a wrong flag."""


# The string below each field is the help of its flag.
@dataclass(kw_only=True)
class Detect:
    """Decide for each image whether it was manipulated, at a threshold that was set for a false-alarm rate.

    The exit status is 1 if an image can't be read, 3 if one was manipulated and --fail-on-found is given, and otherwise 0.
    """

    images: Annotated[Path | None, Positional, arg(metavar="IN")] = None
    """An image, or a folder of images with its sub-folders."""
    malp: Annotated[str, arg(metavar="DIR")]
    """Folder of a saved MaLP with its key, or a Hugging Face Hub id."""
    key: Annotated[Path | None, arg(metavar="FILE")] = None
    """Key file. By default, templates.safetensors in DIR, or secret.safetensors for a MaLP of the preset survive."""
    threshold: float | None = None
    """Threshold in [0, 1]: an image with a higher score counts as manipulated.
    By default, the one that is saved with the MaLP (detection.json), set by its pretraining or by --calibrate."""
    by: Literal["image", "window"] = "image"
    """Score to compare: the mean over the image (image), or the highest of its windows (window).
    The highest window finds small edits, but gives more false alarms the larger the image is."""
    calibrate: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """First set the threshold on the unmanipulated images in this folder, and save it to DIR/detection.json.
    They are protected with the template before they are scored; with templates that survive publication, they are also scored after a random degradation."""
    calibrate_as_is: bool = False
    """Score the images of --calibrate as they are, for images that are protected already and perhaps saved as JPEG since."""
    false_alarm_rate: float = 0.01
    """False-alarm rate for --calibrate, in (0, 1): the share of unmanipulated images that may score above the threshold.
    It takes at least 1 / rate - 1 images, 99 for 0.01."""
    fail_on_found: bool = False
    """Exit with status 3 if an image was manipulated."""
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    """Also write one JSON line per image to this file, or to standard output for -."""
    device: str = "auto"
    """Device to compute on: cpu, cuda, cuda:1, and so on. auto takes a GPU if there is one."""


def detect(options: Detect) -> None:
    """Score, compare, print.

    Raises:
        ValueError, OSError: invalid flags or files, or no threshold; at the end, images that failed.
        SystemExit: with `FOUND_STATUS`, if an image was manipulated and --fail-on-found is given.
    """
    _check(options)
    from malp_disc.commands.batch import Sources, check_json, print_or_write, process_images, text_stream
    from malp_disc.commands.image_file import ImageFile
    from malp_disc.commands.inspecting import describe, inspect_with_progress
    from malp_disc.commands.loading import load_malp
    from malp_disc.commands.manifest import Manifest
    from malp_disc.serialization.files import check_writable

    sources = None if options.images is None else Sources.find(options.images)
    check_json(options.json)
    if options.calibrate is not None:
        check_writable(_calibration_file(options.malp), advice="copy the MaLP to a folder where you may write")
    malp = load_malp(options.malp, key=options.key, device=options.device)
    stream = text_stream(options.json)
    if options.calibrate is not None:
        malp.detection = _calibrate(malp, options)
        malp.detection.write(_calibration_file(options.malp))
        print(f"{_calibration_file(options.malp)}: {malp.detection}", file=stream)
    if sources is None:
        return
    threshold, calibration = _threshold(malp, options)

    def work(name: str) -> dict[str, Any]:
        levels = ImageFile.read(sources.root / name).levels
        found = inspect_with_progress(malp, levels, name, with_map=False)
        rate = None if calibration is None else calibration.false_alarm_rate
        described = describe(malp, levels, found)
        return {
            "manipulated": described.get("protected", True) and _statistic(found, options.by) > threshold,  # of an unprotected image, nothing can be said
            **described,
            "windows_above": sum(window.score > threshold for window in found.windows),
            "by": options.by,
            "threshold": threshold,
            "false_alarm_rate": rate,
        }

    outcome = process_images(
        sources,
        work,
        targets=lambda name: [],
        manifest=Manifest(None),
        settings={"detector": malp.detector_fingerprint},
        overwrite=False,
        summary=_summary_line,
        stream=stream,
        label="detect",
    )
    count, found = len(outcome.records), sum(record["manipulated"] for record in outcome.records)
    basis = "given by --threshold" if calibration is None else f"{calibration.false_alarm_rate:.2g} false alarms on {calibration.n} {calibration.images or 'images'}"
    print(f"{found} of {count} image{'s' * (count != 1)} manipulated, at the threshold {threshold:.4g} ({basis})", file=stream)
    strangers = sum(record.get("protected") is False for record in outcome.records)
    if strangers:
        print(f"{strangers} of {count} image{'s' * (count != 1)} not protected with this key, or without any of its template left", file=stream)
    print_or_write(outcome.records, options.json)
    outcome.finish()
    if found and options.fail_on_found:
        sys.exit(FOUND_STATUS)


def _check(options: Detect) -> None:
    """Raise ValueError for flags that contradict each other."""
    if options.images is None and options.calibrate is None:
        raise ValueError("nothing to do: give an image or a folder, or --calibrate FOLDER")
    if options.calibrate is None:
        return
    if not 0 < options.false_alarm_rate < 1:
        raise ValueError(f"expected --false-alarm-rate between 0 and 1, got {options.false_alarm_rate}")
    if options.threshold is not None:
        raise ValueError("--calibrate sets the threshold that --threshold gives; leave one of them out")
    if not Path(options.malp).expanduser().is_dir():
        raise ValueError(f"--calibrate keeps the threshold in the MaLP's folder, and {options.malp} is none; save the MaLP to a folder first")


def _calibration_file(folder: str) -> Path:
    from malp_disc.calibration import CALIBRATION_FILE

    return Path(folder).expanduser() / CALIBRATION_FILE


def _threshold(malp: MaLP, options: Detect) -> tuple[float, Calibration | None]:
    """The threshold of --threshold (with None), or the saved one with its calibration."""
    if options.threshold is not None:
        return options.threshold, None
    if malp.detection is None:
        raise ValueError(
            f"{options.malp} has no threshold (detection.json): give --threshold, a score in [0, 1] above which an image counts as manipulated, or set one with "
            "malp-disc detect --calibrate FOLDER_OF_REAL_IMAGES"
        )
    if malp.detection.statistic != options.by:
        raise ValueError(
            f"the threshold of {options.malp} was set with --by {malp.detection.statistic}, and doesn't hold for --by {options.by}; give --threshold, or calibrate "
            f"with --by {options.by}"
        )
    return malp.detection.threshold, malp.detection


def _statistic(found: Inspection, by: str) -> float:
    return found.score if by == "image" else found.worst.score


def _calibrate(malp: MaLP, options: Detect) -> Calibration:
    """The calibration on the images of `--calibrate`, cycling through the templates."""
    from tqdm import tqdm

    from malp_disc.calibration import Calibration, conservative_threshold
    from malp_disc.commands.batch import Sources
    from malp_disc.commands.image_file import ImageFile
    from malp_disc.inspection import arrivals, inspect_levels, protect_levels, set_size

    sources = Sources.find(options.calibrate)
    conservative_threshold([0.0] * len(sources.names), options.false_alarm_rate)  # enough images? before any work
    add = not (options.calibrate_as_is or malp.passive)
    scores = []
    for number, name in enumerate(tqdm(sources.names, desc="calibrate", unit="image")):
        levels = ImageFile.read(sources.root / name).levels
        if add:
            levels = protect_levels(malp, levels, number % set_size(malp))
        kinds = arrivals(malp, levels, number) if add else [levels]
        scores.append([_statistic(inspect_levels(malp, kind, with_map=False), options.by) for kind in kinds])
    added = "protected, as they are and degraded" if len(scores[0]) > 1 else "protected"
    return Calibration.fit(
        list(zip(*scores)),
        options.false_alarm_rate,
        statistic=options.by,
        images=f"images of {sources.root.resolve().name}, {added if add else 'as they are'}",
        detector=malp.detector_fingerprint,
    )


def _summary_line(record: dict[str, Any]) -> str:
    from malp_disc.data.listing import printable

    verdict = "manipulated" if record["manipulated"] else "no manipulation found"
    if record.get("protected") is False:
        verdict = "not protected with this key, or no template left"
    some = f", {record['windows_above']} of {record['windows']} windows above the threshold" if record["windows"] > 1 else ""
    similarity = "" if record["similarity"] is None else f", similarity {record['similarity']:.3f}"
    return f"{printable(record['file'])}: {verdict}, P(manipulated) {record['score']:.3f}{similarity}{some}"

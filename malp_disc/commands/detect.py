"""``malp-disc detect IN --malp DIR``: decide whether images were manipulated.

Heavy modules are imported only when the command runs, so that --help is fast.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from malp_disc.commands.loading import InspectionFlags, load_issued, load_malp

if TYPE_CHECKING:
    from malp_disc.calibration import Calibration
    from malp_disc.malp import MaLP

FOUND_STATUS = 3
"""Exit status with --fail-on-found if an image was manipulated; 1 stands for an error and 2 for a wrong flag."""
_OF_CALIBRATION = " of --calibrate"


# The string below each field is the help of its flag.
@dataclass(kw_only=True)
class Detect(InspectionFlags):
    """Decide for each image whether it was manipulated, at a threshold that was set for a false-alarm rate.

    The exit status is 1 if an image can't be read, 3 if one was manipulated and --fail-on-found is given, and otherwise 0.
    """

    images: Annotated[Path | None, Positional, arg(metavar="IN")] = None
    """An image, or a folder of images with its sub-folders."""
    threshold: float | None = None
    """Threshold in [0, 1]: an image with a higher score counts as manipulated.
    By default, the one that is saved with the MaLP (detection.json), set by its pretraining or by --calibrate."""
    by: Literal["image", "window"] = "image"
    """Score to compare: the mean over the image (image), or the highest of its windows (window).
    The highest window finds small edits, but gives more false alarms the larger the image is."""
    calibrate: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """First set the threshold on the unmanipulated images in this folder, and save it to DIR/detection.json.
    They are protected with the template before they are scored; with templates that survive publication, they are also scored after a random degradation.
    Images that can't be read are left out, and the exit status is 1."""
    calibrate_as_is: bool = False
    """Score the images of --calibrate as they are, for images that are protected already and perhaps saved as JPEG since.
    With a MaLP of the preset survive, images that aren't protected with its key are left out, and refused if they are more than 5 %."""
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
    from malp_disc.calibration import CALIBRATION_FILE
    from malp_disc.commands.batch import JsonLines, Sources, process_images
    from malp_disc.commands.calibrating import calibrate, left_out, statistic
    from malp_disc.commands.image_file import ImageFile
    from malp_disc.commands.inspecting import count_unprotected, describe, inspect_with_progress
    from malp_disc.serialization.files import check_writable

    sources = None if options.images is None else Sources.find(options.images)
    lines = JsonLines(options.json)
    if options.calibrate is not None:
        check_writable(Path(options.malp).expanduser() / CALIBRATION_FILE, advice="copy the MaLP to a folder where you may write")
    malp = load_malp(options.malp, key=options.key, device=options.device)
    adds_all = options.calibrate is not None and not options.calibrate_as_is and sources is None  # then no image of others is looked at
    issued = None if adds_all else load_issued(malp, options.malp, key=options.key, issued=options.issued)
    if options.calibrate is not None:
        malp.detection, calibrated = calibrate(malp, options, issued)
        path = Path(options.malp).expanduser() / malp.calibration_file(own_key=options.key is None)
        malp.detection.write(path)
        print(f"{path}: {malp.detection}{left_out(calibrated)}", file=lines.stream)
    if sources is None:
        calibrated.finish(_OF_CALIBRATION)
        return
    threshold, calibration = _threshold(malp, options)

    def work(name: str) -> dict[str, Any]:
        levels = ImageFile.read(sources.root / name).levels
        found = inspect_with_progress(malp, levels, name, with_map=False, issued=issued)
        rate = None if calibration is None else calibration.false_alarm_rate
        return {
            "manipulated": statistic(found, options.by) > threshold,
            **describe(malp, levels, found, issued),
            "windows_above": sum(window.score > threshold for window in found.windows),
            "by": options.by,
            "threshold": threshold,
            "false_alarm_rate": rate,
        }

    outcome = process_images(
        sources,
        work,
        settings={"detector": malp.detector_fingerprint},
        summary=_summary_line,
        stream=lines.stream,
        label="detect",
        device=malp.device,
    )
    count, manipulated = len(outcome.records), sum(record["manipulated"] for record in outcome.records)
    basis = "given by --threshold" if calibration is None else f"{calibration.false_alarm_rate:.2g} false alarms on {calibration.n} {calibration.images or 'images'}"
    print(f"{manipulated} of {count} image{'s' * (count != 1)} manipulated, at the threshold {threshold:.4g} ({basis})", file=lines.stream)
    if unprotected := count_unprotected(outcome.records):
        print(unprotected, file=lines.stream)
    lines.write(outcome.records)
    outcome.finish()
    if options.calibrate is not None:
        calibrated.finish(_OF_CALIBRATION)
    if manipulated and options.fail_on_found:
        sys.exit(FOUND_STATUS)


def _check(options: Detect) -> None:
    """Raise ValueError for flags that contradict each other or are out of range."""
    if options.threshold is not None and not 0 <= options.threshold <= 1:  # NaN too
        raise ValueError(f"expected --threshold in [0, 1], got {options.threshold}; it is compared with P(manipulated)")
    if options.images is None and options.calibrate is None:
        raise ValueError("nothing to do: give an image or a folder, or --calibrate FOLDER")
    if options.calibrate is None:
        if options.calibrate_as_is or options.false_alarm_rate != Detect.false_alarm_rate:
            raise ValueError("--calibrate-as-is and --false-alarm-rate say how --calibrate sets the threshold; give --calibrate FOLDER as well, or leave them out")
        return
    if not 0 < options.false_alarm_rate < 1:
        raise ValueError(f"expected --false-alarm-rate between 0 and 1, got {options.false_alarm_rate}")
    if options.threshold is not None:
        raise ValueError("--calibrate sets the threshold that --threshold gives; leave one of them out")
    if not Path(options.malp).expanduser().is_dir():
        raise ValueError(f"--calibrate keeps the threshold in the MaLP's folder, and {options.malp} is none; save the MaLP to a folder first")


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


def _summary_line(record: dict[str, Any]) -> str:
    from malp_disc.commands.inspecting import UNPROTECTED, of_original
    from malp_disc.data.listing import printable

    verdict = "manipulated" if record["manipulated"] else "no manipulation found"
    if record.get("protected") is False:
        verdict = UNPROTECTED
    some = f", {record['windows_above']} of {record['windows']} windows above the threshold" if record["windows"] > 1 else ""
    similarity = "" if record["similarity"] is None else f", similarity {record['similarity']:.3f}"
    return f"{printable(record['file'])}: {verdict}, P(manipulated) {record['score']:.3f}{similarity}{some}{of_original(record)}"

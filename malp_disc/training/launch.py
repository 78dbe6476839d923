"""Start of a run, common to all recipes: parsing flags, checks, the accelerator, the run's folder, and errors without a traceback."""

from __future__ import annotations

import logging
import math
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs, set_seed
from torch.utils.data import Dataset

from malp_disc.data.sampling import StepBatches
from malp_disc.errors import make_output_printable, memory_suffices, plain_errors, plain_warnings
from malp_disc.run_folder.environment import collect_environment
from malp_disc.run_folder.experiment import contents_of, experiment_of
from malp_disc.run_folder.lock import is_locked, lock_folder, release_locks
from malp_disc.runtime.allocator import keep_freed_memory
from malp_disc.runtime.home_folder import expand_home
from malp_disc.runtime.precision import is_nondeterminism_error, use_deterministic_kernels
from malp_disc.serialization.files import sweep, write_json
from malp_disc.training.accelerate_settings import check_launcher, check_tracker, resolve_mixed_precision
from malp_disc.training.flag_groups import parse_flags
from malp_disc.training.guards import TrainingStopped
from malp_disc.training.launcher_watch import stop_with_launcher
from malp_disc.training.output_folder import check_folder, find_resume, set_aside, write_experiment
from malp_disc.training.threads import keep_threads, use_all_cores
from malp_disc.training.train_options import TrainOptions, plain

logger = logging.getLogger("malp_disc")
Config = TypeVar("Config")
_PATIENCE = timedelta(hours=6)  # of the other processes, while the main one evaluates; NCCL's default is ten minutes
_NEW_RUN_WAITS = 0.5  # seconds, in which a process that was just stopped ends


INTERRUPTED = "interrupted; start again with --resume-from-checkpoint latest to continue from the last checkpoint"


def run_recipe(
    main: Callable[[Config], Any],
    config: type[Config],
    description: str | None,
    *,
    prog: str | None = None,
    arguments: Sequence[str] | None = None,
    interrupted: str = INTERRUPTED,
) -> None:
    """Parse the command line and run `main`; a user's mistake ends in a one-line message instead of a traceback.

    Args:
        prog: the command's name in its help; if None, ``python`` and the script as it was started.
        arguments: the flags; those of ``sys.argv`` if None.
        interrupted: what is said after Ctrl-C.
    """
    make_output_printable()
    keep_freed_memory()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with plain_warnings(), plain_errors(interrupted=interrupted):
        options = expand_home(parse_flags(config, prog=prog or f"python {sys.argv[0]}", arguments=arguments, description=description))
        try:
            with memory_suffices(_too_little_memory(options)):
                main(options)
        except TrainingStopped as stopped:
            sys.exit(f"error: {stopped}")
        except RuntimeError as error:
            if not is_nondeterminism_error(error):
                raise
            sys.exit(f"error: --deterministic: {str(error).split('. ')[0]}. Run without --deterministic, or without the option that needs this operation")
        finally:
            release_locks()


def _too_little_memory(options: Any) -> str:
    """The message of a run for which the memory doesn't suffice."""
    if isinstance(options, TrainOptions):
        return (
            f"too little memory for this run with --train-batch-size {options.train_batch_size}; give a smaller --train-batch-size and more --gradient-accumulation-steps "
            "(the same number of images per step), or smaller images"
        )
    return "too little memory for this run; give smaller images, or run it on another device"


def start(options: TrainOptions, dataset: Dataset | None = None, *, shared_folder: bool = False, **more: Any) -> Accelerator:
    """Check the flags, make the accelerator and the run's folder, save the resolved configuration, and seed the initialisation.

    Args:
        dataset: the training images, to check that there are enough for one step.
        shared_folder: several commands may write parts of one experiment into the folder, also at the same time.

    Raises:
        ValueError: invalid flags, or a folder that belongs to another run. Nothing has been written then.
    """
    for name in ("max_train_steps", "train_batch_size", "gradient_accumulation_steps", "checkpointing_steps", "sample_steps", "log_steps"):
        if getattr(options, name) < 1:
            raise ValueError(f"expected --{name.replace('_', '-')} of at least 1, got {getattr(options, name)}")
    if options.checkpoints_total_limit is not None and options.checkpoints_total_limit < 1:
        raise ValueError(f"expected --checkpoints-total-limit of at least 1, got {options.checkpoints_total_limit}")
    if (options.dataloader_num_workers or 0) < 0:
        raise ValueError(f"expected --dataloader-num-workers of 0 or more, got {options.dataloader_num_workers}")
    check_finite(options)
    check_random_crop(options)
    check_seeds(options.seed)
    check_launcher()
    check_tracker(options.report_to)
    options.mixed_precision = resolve_mixed_precision(options.mixed_precision)  # so that the effective precision is recorded and compared on resume
    if options.deterministic:
        use_deterministic_kernels()
    accelerator = make_accelerator(
        resumed=options.output_dir if options.resume_from_checkpoint is not None else None,
        mixed_precision=options.mixed_precision,
        log_with=options.report_to,
        project_dir=str(options.output_dir),
        **more,
    )
    if dataset is not None:
        check_images_per_step(options, len(dataset), accelerator.num_processes)
    options.resume_from_checkpoint = find_resume(options.output_dir, options.resume_from_checkpoint)
    dry = getattr(options, "dry_run", False)  # a dry run writes nothing
    if accelerator.is_main_process:
        open_folder(options, accelerator, shared=shared_folder, dry=dry)
    accelerator.wait_for_everyone()
    set_seed(options.seed)
    if options.report_to and not dry:
        flat = {key: value for key, value in plain(options).items() if isinstance(value, (int, float, str, bool))}
        accelerator.init_trackers("tracker", config=flat)
    return accelerator


def make_accelerator(*, resumed: Path | None = None, **options: Any) -> Accelerator:
    """The accelerator of a command that `accelerate launch` may start in several processes. A single process uses all cores.

    Args:
        resumed: folder of a run that goes on, whose number of threads is kept.
        options: of `Accelerator`.

    Raises:
        ValueError: the launcher's settings can't be used, or its processes don't find each other.
    """
    check_launcher()
    stop_with_launcher()
    use_all_cores()
    if resumed is not None:
        keep_threads(resumed)
    handlers = [*options.pop("kwargs_handlers", ()), InitProcessGroupKwargs(timeout=_PATIENCE)]
    accelerator = Accelerator(**options, kwargs_handlers=handlers)
    if int(os.environ.get("WORLD_SIZE", "1")) != accelerator.num_processes:  # otherwise each process would run alone and overwrite the others' files
        raise ValueError(
            f"{os.environ['WORLD_SIZE']} processes were started, but Accelerate sees {accelerator.num_processes}; for several on a CPU set ACCELERATE_USE_CPU=1"
        )
    if accelerator.distributed_type not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        raise ValueError(
            f"these recipes run on one process or with data parallelism, got {accelerator.distributed_type.value}; docs/scaling.md says why"
        )
    return accelerator


def check_random_crop(options: TrainOptions) -> None:
    """Raise ValueError for a --random-crop that the networks can't take, or that is larger than the images."""
    side, whole = options.random_crop, getattr(options, "image_size", None)
    if side is None:
        return
    if side < 16 or side % 4:
        raise ValueError(f"expected a --random-crop of at least 16 and divisible by 4, got {side}")
    if whole is not None and side > whole:
        raise ValueError(f"--random-crop {side} is larger than the images; --image-size is {whole}")


def open_folder(
    options: Any, accelerator: Accelerator | None = None, *, accumulates: bool = False, shared: bool = False, dry: bool = False
) -> None:
    """Prepare ``--output-dir`` for this run, after checking that it holds no results of another experiment.

    Args:
        accumulates: the run adds to existing results instead of starting over.
        shared: the same, and other commands may do so at the same time: the folder isn't locked.
        dry: check only.

    Raises:
        ValueError: the folder isn't writable, another run uses it, or it holds another experiment's results.
    """
    folder = options.output_dir
    resumes = getattr(options, "resume_from_checkpoint", None) is not None
    if dry:
        check_claimable(folder)
        if not shared and is_locked(folder):
            raise ValueError(f"another run is working in {folder}; wait for it to end, stop it, or choose another --output-dir")
    else:
        claim_folder(folder)
        if not shared:  # only a resumed run waits for one that is ending; a new one would replace the results that were just finished
            lock_folder(folder, wait=None if resumes else _NEW_RUN_WAITS)
    experiment = experiment_of(options, processes=accelerator.num_processes if accelerator is not None else 1)
    starts_over = check_folder(folder, experiment, type(options), resumes=resumes, accumulates=accumulates or shared)
    if dry:
        return
    if starts_over:
        set_aside(folder, [value for value in vars(options).values() if isinstance(value, Path)])
    if not shared:
        sweep(folder)
    write_experiment(folder, experiment, contents_of(options), goes_on=resumes or accumulates or shared)
    describe_run(folder, options, accelerator)


def check_images_per_step(options: TrainOptions, available: int, processes: int) -> None:
    """Raise ValueError if one optimizer step of all processes needs more images than the data set has."""
    StepBatches(available, options.train_batch_size, seed=0, stop=1, world_size=processes, accumulation=options.gradient_accumulation_steps)


def check_has_attributes(dataset: Dataset, data: str, use: str, otherwise: str = "") -> None:
    """Raise ValueError for images without attributes, before any work.

    Args:
        data: the flag --data.
        use: what needs attributes, for the message: "StarGAN edits attributes".
        otherwise: another cure, after the one that fits all.
    """
    if not dataset.attribute_names:
        raise ValueError(f"{use}, and --data {data} has none; use --data celeba or folder{otherwise}")


def check_finite(options: TrainOptions) -> None:
    """Raise ValueError for a flag that is NaN or infinite, which no comparison with a bound finds reliably."""
    for name, value in vars(options).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"expected a finite number for --{name.replace('_', '-')}, got {value}")


def check_seeds(*seeds: int) -> None:
    """Raise ValueError for a seed outside 0 … 2³² - 1."""
    if wrong := [seed for seed in seeds if not 0 <= seed < 2**32]:
        raise ValueError(f"expected seeds from 0 to {2**32 - 1}, got {' '.join(map(str, wrong))}")


def describe_run(folder: Path, options: Any, accelerator: Accelerator | None = None) -> None:
    """Write ``config.json`` (the command and its resolved flags) and ``environment.json`` (versions, device, precision)."""
    script = Path(sys.argv[0])
    name = "malp-disc" if script.stem in ("malp-disc", "__main__") else f"recipes/{script.name}"
    command = shlex.join([name, *sys.argv[1:]])
    write_json(folder / "config.json", {"command": command, **plain(options)})
    write_json(folder / "environment.json", collect_environment() | (describe_arithmetic(accelerator) if accelerator is not None else {}))


def describe_arithmetic(accelerator: Accelerator) -> dict[str, Any]:
    """Device, number of processes, and arithmetic of the run, JSON-ready."""
    cuda = accelerator.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(accelerator.device) if cuda else accelerator.device.type,
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "mixed_precision": accelerator.mixed_precision,
        "deterministic": not cuda or torch.are_deterministic_algorithms_enabled(),
        "evaluation_precision": "float32 without TF32",
        "cuda": torch.version.cuda if cuda else None,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
    }


def check_claimable(folder: Path, flag: str = "--output-dir") -> None:
    """The checks of `claim_folder` that need no writing."""
    place = folder
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise ValueError(f"can't write to {folder} ({place} is {'a link that leads nowhere' if place.is_symlink() else 'no folder'}); choose another {flag}")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"can't write to {folder} (no permission to write in {place}); choose another {flag}")


def claim_folder(folder: Path, flag: str = "--output-dir") -> None:
    """Create `folder` and check that it is writable, before any long work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # of another name in every process
            pass
    except OSError as error:
        raise ValueError(f"can't write to {folder} ({error.strerror}); choose another {flag}") from error

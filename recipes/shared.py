"""What every recipe needs and none should repeat: common flags, the start of a run, curves, and errors without a traceback."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import tyro
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from malp_disc.checkpoint import write_json
from malp_disc.data.sampling import StepBatches
from malp_disc.report.environment import collect_environment
from malp_disc.resume import find_training, load_training, save_training

logger = logging.getLogger("malp_disc")
Config = TypeVar("Config")

# The checkpoints that the project made with its own recipes and ships, see weights/README.md.
FACES_WEIGHTS = Path(__file__).resolve().parents[1] / "weights" / "faces64"
FACES_GENERATOR = FACES_WEIGHTS / "G.safetensors"
FACES_DISCRIMINATOR = FACES_WEIGHTS / "D.safetensors"
FACES_MALP = FACES_WEIGHTS / "malp"


@dataclass(kw_only=True)
class TrainOptions:
    """Flags common to the training recipes, named as diffusers names them."""

    output_dir: Path
    """Folder of the run; made if absent. Holds the resolved config, curves, sample grids, checkpoints and results."""
    max_train_steps: int
    """Optimizer steps of the generator's opponent; see the recipe for how often the generator steps."""
    train_batch_size: int = 8
    """Pictures per process and forward pass."""
    gradient_accumulation_steps: int = 1
    """Forward passes per optimizer step."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Autocast type of the generator and its own discriminator; MaLP always computes in float32."""
    seed: int = 0
    """Decides the order of the data, the targets and the initial weights."""
    checkpointing_steps: int = 1000
    """Write checkpoint-<step> every so many steps."""
    checkpoints_total_limit: int | None = 2
    """Keep only the newest so many."""
    resume_from_checkpoint: str | None = None
    """`latest`, or the path of a checkpoint-<step> folder; the run continues as if it had not been stopped."""
    sample_steps: int = 500
    """Draw the sample grid every so many steps (and before the first)."""
    log_steps: int = 10
    """Write a line of curves.jsonl every so many steps."""
    dataloader_num_workers: int = 0
    """Processes that load pictures."""
    report_to: str | None = None
    """A tracker of Accelerate: tensorboard, wandb …"""

    @property
    def pictures_per_step(self) -> int:
        """Of one process; an optimizer step sees this times the number of processes."""
        return self.train_batch_size * self.gradient_accumulation_steps


def run_recipe(main: Callable[[Config], Any], config: type[Config], description: str | None) -> None:
    """Parse the command line and run; what the user got wrong ends in one plain message, not in a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = tyro.cli(config, description=description, config=(tyro.conf.FlagConversionOff,))
    try:
        main(arguments)
    except (ValueError, FileNotFoundError, PermissionError, ConnectionError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.strerror or error}: {error.filename or ''}")
    except KeyboardInterrupt:
        sys.exit("interrupted; start again with --resume-from-checkpoint latest to go on from the last checkpoint")


def start(options: TrainOptions, **more: Any) -> Accelerator:
    """Make the accelerator and the run's folder, check that it can be written, seed the initialisation, save the resolved config."""
    for name in ("max_train_steps", "train_batch_size", "gradient_accumulation_steps", "checkpointing_steps", "sample_steps", "log_steps"):
        if getattr(options, name) < 1:
            raise ValueError(f"expected --{name.replace('_', '-')} of at least 1, got {getattr(options, name)}")
    accelerator = Accelerator(
        mixed_precision=options.mixed_precision,
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        log_with=options.report_to,
        project_dir=str(options.output_dir),
        **more,
    )
    if accelerator.is_main_process:
        claim_folder(options.output_dir)
        describe_run(options.output_dir, options)
        if shutil.disk_usage(options.output_dir).free < 200 * 2**20:
            raise ValueError(f"less than 200 MiB are free in {options.output_dir}; checkpoints would not fit")
    accelerator.wait_for_everyone()
    set_seed(options.seed)
    if options.report_to:
        flat = {key: value for key, value in plain(options).items() if isinstance(value, (int, float, str, bool))}
        accelerator.init_trackers("tracker", config=flat)
    return accelerator


def describe_run(folder: Path, options: Any) -> None:
    """``config.json`` (the resolved flags and the command) and ``environment.json`` (versions), for whoever reads the results."""
    command = " ".join([f"recipes/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    write_json(folder / "config.json", {"command": command, **plain(options)})
    write_json(folder / "environment.json", collect_environment())


def claim_folder(folder: Path) -> None:
    """Make `folder` and prove that it can be written to, before any long work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise ValueError(f"can't write to {folder} ({error.strerror}); choose another --output-dir") from error


def plain(options: Any) -> dict[str, Any]:
    """A config as JSON-ready values."""
    return {key: [str(v) if isinstance(v, Path) else v for v in value] if isinstance(value, (tuple, list)) else str(value) if isinstance(value, Path) else value
            for key, value in dataclasses.asdict(options).items()}  # fmt: skip


def step_batches(dataset: Dataset, options: TrainOptions, accelerator: Accelerator, *, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of the steps from `start` on, this process's part, on its device."""
    sampler = StepBatches(
        len(dataset),
        options.train_batch_size,
        seed=options.seed,
        start=start * options.gradient_accumulation_steps,
        stop=options.max_train_steps * options.gradient_accumulation_steps,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    # Not prepared: the sampler knows the processes itself, which is what makes a resumed run exact.
    for images, labels in DataLoader(dataset, batch_sampler=sampler, num_workers=options.dataloader_num_workers):
        yield images.to(accelerator.device), labels.to(accelerator.device)


def shuffled_targets(labels: Tensor, permutation: Tensor, accelerator: Accelerator) -> Tensor:
    """StarGAN's targets: the labels of other pictures of the same step, over all processes."""
    return accelerator.gather(labels)[permutation]


class Curves:
    """``curves.jsonl``: one line per logged step. A resumed run first drops the lines after its checkpoint."""

    def __init__(self, path: Path, accelerator: Accelerator, *, start: int) -> None:
        self._path, self._accelerator = path, accelerator
        if accelerator.is_main_process:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= start] if start and path.exists() else []
            path.write_text("".join(line + "\n" for line in kept))

    def log(self, step: int, values: dict[str, float | Tensor]) -> dict[str, float]:
        numbers = {key: float(value) for key, value in values.items()}
        self._accelerator.log(numbers, step=step)
        if self._accelerator.is_main_process:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **numbers}) + "\n")
        return numbers


def progress(options: TrainOptions, accelerator: Accelerator, *, start: int, label: str) -> tqdm:
    """Steps done, time left; only the main process shows it."""
    return tqdm(
        total=options.max_train_steps, initial=start, desc=label, unit="step", disable=not accelerator.is_main_process, dynamic_ncols=True, mininterval=1.0
    )


def resume(
    options: TrainOptions, folder: Path, *, networks: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer], expected: dict[str, Any]
) -> int:
    """Load what --resume-from-checkpoint names into unwrapped networks; 0 if there is nothing to resume."""
    found = find_training(folder, options.resume_from_checkpoint)
    return load_training(found, networks=networks, optimizers=optimizers, expected=expected) if found else 0


def checkpoint(
    options: TrainOptions,
    accelerator: Accelerator,
    folder: Path,
    step: int,
    *,
    networks: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
    expected: dict[str, Any],
) -> None:
    """Save at --checkpointing-steps and at the end; the main process writes."""
    if accelerator.is_main_process and (step % options.checkpointing_steps == 0 or step == options.max_train_steps):
        save_training(folder, step, networks=networks, optimizers=optimizers, state=expected, total_limit=options.checkpoints_total_limit)

"""Flags common to all trainings, named as in diffusers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from malp_disc.run_folder.experiment import not_compared


@dataclass(kw_only=True)
class TrainOptions:
    """Flags common to all trainings, named as in diffusers."""

    output_dir: Path = not_compared()
    """Folder of the run, created if absent: resolved configuration, curves, sample grids, checkpoints, and results."""
    max_train_steps: int
    """Number of optimizer steps of the discriminator. The recipe says how often the generator is updated."""
    train_batch_size: int = not_compared(8)  # the number of images per optimizer step is compared instead
    """Images per process and micro-batch."""
    gradient_accumulation_steps: int = not_compared(1)
    """Micro-batches of --train-batch-size images per optimizer step. The result is that of one batch with all of these images.
    Only what is drawn once per micro-batch differs: dropout, and the degradations and keys of a pretraining.
    Splices (--local-edits, --malp-local-edits) come from the images of the same micro-batch."""
    random_crop: int | None = None
    """Side in pixels, a multiple of 4, of a square cut at random from every training image, at another place in every step.
    Evaluation is on whole images. By default, training is too; on a CPU, crops of 160 of 256 pixels take 40 % of the time."""
    mixed_precision: Literal["no", "bf16", "fp16"] | None = None
    """Autocast precision of the generator and its own discriminator. MaLP always computes in float32.
    By default, the setting of Accelerate's configuration or launcher, or else no."""
    deterministic: Annotated[bool, tyro.conf.FlagCreatePairsOff] = not_compared(False)
    """Use deterministic kernels only, so that a GPU run is meant to give the same bytes from the same seed and after a resume, at some cost in speed (untested).
    A CPU run is deterministic anyway."""
    seed: int = 0
    """Seed of the data order, the edit targets, and the initial weights, from 0 to 2^32 - 1."""
    checkpointing_steps: int = not_compared(1000)
    """Save a checkpoint every this many steps, and after the last step."""
    checkpoints_total_limit: int | None = not_compared(2)
    """Maximum number of checkpoints to keep; the oldest are deleted. None keeps all."""
    resume_from_checkpoint: str | None = not_compared(None)
    """Continue from a checkpoint: latest, a name in the run's folder (checkpoint-500), or a path.
    The result is the same as if the run had not been interrupted."""
    sample_steps: int = not_compared(500)
    """Save a grid of sample images before training and every this many steps."""
    log_steps: int = not_compared(10)
    """Write the losses to the curves file every this many steps."""
    dataloader_num_workers: int | None = not_compared(None)
    """Worker processes per process that load images. 0 loads them in the training process.
    By default, 0 without a GPU, and with one as many as there are further cores for the process, at most 8."""
    report_to: str | None = not_compared(None)
    """Also log to a tracker of Accelerate: tensorboard, wandb, and others."""

    @property
    def images_per_step(self) -> int:
        """Images per optimizer step of one process."""
        return self.train_batch_size * self.gradient_accumulation_steps


def plain(options: Any) -> dict[str, Any]:
    """The flags as JSON-ready values."""
    return {key: [str(v) if isinstance(v, Path) else v for v in value] if isinstance(value, (tuple, list)) else str(value) if isinstance(value, Path) else value
            for key, value in dataclasses.asdict(options).items()}  # fmt: skip

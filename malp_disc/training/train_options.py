"""Flags common to all trainings, named as diffusers names them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from malp_disc.run_folder.experiment import not_compared


@dataclass(kw_only=True)
class TrainOptions:
    """Flags common to the training recipes, named as diffusers names them."""

    output_dir: Path = not_compared()
    """Folder of the run; made if absent. Holds the resolved config, curves, sample grids, checkpoints and results."""
    max_train_steps: int
    """Optimizer steps of the generator's opponent; see the recipe for how often the generator steps."""
    train_batch_size: int = not_compared(8)  # but what an optimizer step takes altogether is
    """Images per process and forward pass."""
    gradient_accumulation_steps: int = not_compared(1)
    """Passes of --train-batch-size images per optimizer step. The result is that of one pass with all of them."""
    mixed_precision: Literal["no", "bf16", "fp16"] | None = None
    """Autocast type of the generator and its own discriminator; MaLP always computes in float32. Not given: what Accelerate's configuration or launcher says,
    else no."""
    deterministic: Annotated[bool, tyro.conf.FlagCreatePairsOff] = not_compared(False)
    """Deterministic kernels only: on a GPU the same bytes from the same seed, and after a resume, at some cost in speed. A CPU run has that anyway."""
    seed: int = 0
    """Decides the order of the data, the targets and the initial weights."""
    checkpointing_steps: int = not_compared(1000)
    """Write checkpoint-<step> every so many steps."""
    checkpoints_total_limit: int | None = not_compared(2)
    """Keep only the newest so many."""
    resume_from_checkpoint: str | None = not_compared(None)
    """`latest`, a name within the run's folder (checkpoint-500), or the path of one there; the run continues as if it had not been stopped."""
    sample_steps: int = not_compared(500)
    """Draw the sample grid every so many steps (and before the first)."""
    log_steps: int = not_compared(10)
    """Write a line of curves.jsonl every so many steps."""
    dataloader_num_workers: int = not_compared(0)
    """Processes that load images."""
    report_to: str | None = not_compared(None)
    """A tracker of Accelerate: tensorboard, wandb …"""

    @property
    def images_per_step(self) -> int:
        """Of one process; an optimizer step sees this times the number of processes."""
        return self.train_batch_size * self.gradient_accumulation_steps


def plain(options: Any) -> dict[str, Any]:
    """A config as JSON-ready values."""
    return {key: [str(v) if isinstance(v, Path) else v for v in value] if isinstance(value, (tuple, list)) else str(value) if isinstance(value, Path) else value
            for key, value in dataclasses.asdict(options).items()}  # fmt: skip

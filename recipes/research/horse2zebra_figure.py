"""A figure of held-out horses through the generators of a run of recipes/research/horse2zebra.py, one row per horse.

    python recipes/research/horse2zebra_figure.py --run runs/horse2zebra --before latest_net_G.pth --horses runs/horse2zebra-domains/horses --rows 3 14 15 92 \\
        --arms vision_aided cotrain --output horses.jpg

The rows are indices among the 240 held-out images. Generators are the run's ``G-<arm>.safetensors``; a path in place of an arm's name adds another run's.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from generators import create_generator
from malp_disc.data import PlainFolder
from malp_disc.evaluation.eval_set import edit
from malp_disc.plotting.image_grids import sample_grid
from malp_disc.training.launch import run_recipe


@dataclass(kw_only=True)
class Config:
    """Flags of the figure."""

    run: Path
    """Folder of a finished run."""
    before: Path
    """Checkpoint of the generator before fine-tuning."""
    horses: Path
    """Folder of the horses, trainA and testA together, as the run made it."""
    arms: tuple[str, ...] = ("control", "vision_aided")
    """Arms to show, or NAME=FILE for a generator of another run."""
    rows: tuple[int, ...] = (0, 1, 2, 3)
    """Indices of the held-out images."""
    image_size: int = 256
    test_size: int = 240
    output: Path = Path("horses.jpg")


def main(config: Config) -> None:
    held_out = PlainFolder(config.horses, split="test", image_size=config.image_size, test_size=config.test_size)
    if not config.rows or not all(0 <= row < len(held_out) for row in config.rows):
        raise ValueError(f"expected --rows from 0 to {len(held_out) - 1}, of the {len(held_out)} held-out images of {config.horses}, got {' '.join(map(str, config.rows)) or 'none'}")
    images = torch.stack([held_out[row][0] for row in config.rows])
    named = [arm.partition("=") for arm in config.arms]
    files = {"before": config.before} | {name: Path(file) if file else config.run / f"G-{name}.safetensors" for name, _, file in named}
    columns, none = {"input": images}, torch.zeros(len(images), 0)
    for name, file in files.items():
        columns[name] = edit(create_generator("cyclegan_compressed", file).eval().manipulate, images, none, current=none)
    sample_grid(columns, config.output, zoom=1)


if __name__ == "__main__":
    run_recipe(main, Config, __doc__)

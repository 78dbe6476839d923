"""The checkpoints that the project made with its own recipes and ships, see weights/README.md."""

from __future__ import annotations

from pathlib import Path

# The checkpoints that the project made with its own recipes and ships, see weights/README.md.
FACES_WEIGHTS = Path(__file__).resolve().parents[1] / "weights" / "faces64"


FACES_GENERATOR = FACES_WEIGHTS / "G.safetensors"


FACES_DISCRIMINATOR = FACES_WEIGHTS / "D.safetensors"


FACES_MALP = FACES_WEIGHTS / "malp"

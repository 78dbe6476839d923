"""Paths of the included checkpoints for drawn faces at 64x64, in the wheel or in weights/ of a checkout (weights/README.md documents their training)."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent
FACES_WEIGHTS = next((folder for folder in (_HERE / "shipped_weights" / "faces64", _HERE.parent / "weights" / "faces64") if folder.is_dir()), _HERE)
FACES_GENERATOR = FACES_WEIGHTS / "G.safetensors"
FACES_DISCRIMINATOR = FACES_WEIGHTS / "D.safetensors"
FACES_MALP = FACES_WEIGHTS / "malp"

"""Loading a command's MaLP onto the requested device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from malp_disc.malp import MaLP


def load_malp(folder: str | Path, *, key: Path | None = None, device: str = "auto") -> MaLP:
    """A saved MaLP in evaluation mode.

    Raises:
        ValueError, FileNotFoundError: as `MaLP.from_pretrained`, or a device that isn't there.
    """
    import torch

    from malp_disc.malp import MaLP

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"can't compute on --device {device} ({str(error).splitlines()[0]}); give cpu, or leave it out") from error
    return MaLP.from_pretrained(folder, key=key).to(device).eval()

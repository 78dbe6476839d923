"""Loading a command's MaLP onto the requested device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from malp_disc.keyed import KeyedMaLP
    from malp_disc.malp import MaLP


def load_malp(folder: str | Path, *, key: Path | None = None, device: str = "auto") -> MaLP | KeyedMaLP:
    """A saved MaLP in evaluation mode, of a folder or the Hub: a `KeyedMaLP` where config.json says so, otherwise a `MaLP`.

    Raises:
        ValueError, FileNotFoundError: as `MaLP.from_pretrained`, or a device that isn't there.
    """
    import torch

    from malp_disc.hub import OtherModelError
    from malp_disc.keyed import KeyedMaLP
    from malp_disc.keyed.saving import MODEL_TYPE
    from malp_disc.malp import MaLP

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"can't compute on --device {device} ({str(error).splitlines()[0]}); give cpu, or leave it out") from error
    try:
        malp = MaLP.from_pretrained(folder, key=key)
    except OtherModelError as error:
        if error.model_type != MODEL_TYPE:
            raise
        malp = KeyedMaLP.from_pretrained(folder, key=key)
    return malp.to(device).eval()

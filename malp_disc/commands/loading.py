"""Loading a command's MaLP onto the requested device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from malp_disc.keyed import KeyedMaLP
    from malp_disc.malp import MaLP


def load_malp(folder: str | Path, *, key: Path | None = None, device: str = "auto") -> MaLP | KeyedMaLP:
    """A saved MaLP in evaluation mode: a `KeyedMaLP` for a folder that says so, otherwise a `MaLP`.

    Raises:
        ValueError, FileNotFoundError: as `MaLP.from_pretrained`, or a device that isn't there.
    """
    import torch

    from malp_disc.keyed import KeyedMaLP
    from malp_disc.malp import MaLP

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"can't compute on --device {device} ({str(error).splitlines()[0]}); give cpu, or leave it out") from error
    kind = KeyedMaLP if _is_keyed(folder) else MaLP
    return kind.from_pretrained(folder, key=key).to(device).eval()


def _is_keyed(folder: str | Path) -> bool:
    from malp_disc.keyed.saving import MODEL_TYPE
    from malp_disc.serialization.reading import read_json

    config = Path(folder).expanduser() / "config.json"
    return config.is_file() and read_json(config, what="a MaLP's config.json, as save_pretrained writes it").get("model_type") == MODEL_TYPE

"""Loading the MaLP that a user gives for an experiment."""

from __future__ import annotations

from pathlib import Path

from malp_disc.hub import OtherModelError
from malp_disc.keyed.saving import MODEL_TYPE
from malp_disc.malp import MaLP


def load_learned_malp(folder: str | Path, flag: str = "--malp") -> MaLP:
    """A saved MaLP with learned templates, or a passive one, for commands that train a generator against it.

    Args:
        flag: the command-line option that names the folder, for messages.

    Raises:
        ValueError: a MaLP of the preset survive.
        ValueError, FileNotFoundError: as `MaLP.from_pretrained`.
    """
    try:
        return MaLP.from_pretrained(folder)
    except OtherModelError as error:
        if error.model_type != MODEL_TYPE:
            raise
        raise ValueError(
            f"{flag} {folder} is a MaLP of the preset survive, and no generator can be fine-tuned against those; give one of the preset paper (malp-disc pretrain)"
        ) from error

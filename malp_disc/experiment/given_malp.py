"""Loading the MaLP that a user gives for an experiment, or to a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from malp_disc.hub import KEYED_MODEL_TYPE, OtherModelError
from malp_disc.keyed import KeyedMaLP
from malp_disc.malp import MaLP


def load_saved_malp(folder: str | Path, *, key: Path | None = None, learned_only: str | None = None, **options: Any) -> MaLP | KeyedMaLP:
    """A saved MaLP of a folder or the Hub: a `KeyedMaLP` where config.json says so, otherwise a `MaLP`.

    Args:
        learned_only: the message for a MaLP of the preset survive, where only one with learned templates will do.
        options: of `MaLP.from_pretrained`.

    Raises:
        ValueError: a MaLP of the preset survive, with `learned_only`.
        ValueError, FileNotFoundError: as `MaLP.from_pretrained`.
    """
    try:
        return MaLP.from_pretrained(folder, key=key, **options)
    except OtherModelError as error:
        if error.model_type != KEYED_MODEL_TYPE:
            raise
        if learned_only is not None:
            raise ValueError(learned_only) from error
        return KeyedMaLP.from_pretrained(folder, key=key)


def load_learned_malp(folder: str | Path, flag: str = "--malp", **options: Any) -> MaLP:
    """A saved MaLP with learned templates, or a passive one, for commands that train a generator against it.

    Args:
        flag: the command-line option that names the folder, for messages.
        options: of `MaLP.from_pretrained`.

    Raises:
        ValueError, FileNotFoundError: as `load_saved_malp`.
    """
    refusal = f"{flag} {folder} is a MaLP of the preset survive, and no generator can be fine-tuned against those; give one of the preset paper (malp-disc pretrain)"
    return load_saved_malp(folder, learned_only=refusal, **options)

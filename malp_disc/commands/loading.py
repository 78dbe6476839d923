"""Flags that name a MaLP and its key, the device that a command computes on, and loading a MaLP onto it.

Heavy modules are imported only when something is loaded, so that --help is fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

if TYPE_CHECKING:
    import torch

    from malp_disc.keyed import KeyedMaLP
    from malp_disc.keyed.issued import Issued
    from malp_disc.malp import MaLP


# The string below each field is the help of its flag.
@dataclass(kw_only=True)
class MaLPFlags:
    """Flags of the commands that work with the template of a saved MaLP."""

    malp: Annotated[str, arg(metavar="DIR")]
    """Folder of a saved MaLP with its key, or a Hugging Face Hub id."""
    key: Annotated[Path | None, arg(metavar="FILE")] = None
    """Key file. By default, templates.safetensors in DIR, or secret.safetensors for a MaLP of the preset survive."""


@dataclass(kw_only=True)
class InspectionFlags(MaLPFlags):
    """Flags of the commands that examine images with a saved MaLP."""

    issued: Annotated[Path | None, arg(metavar="FILE")] = None
    """For a MaLP of the preset survive, the list of the templates that the images may have: issued.jsonl, or the protect.jsonl of some images.
    A short one is tried faster, and finds a little more. By default, issued.jsonl beside the key."""


def usable_device(name: str) -> torch.device:
    """The device of a `--device`, on which a number was computed; for auto a GPU if there is one, otherwise the CPU.

    Raises:
        ValueError: no such device, or none here that computes.
    """
    import torch

    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.zeros(1, device=device).item()  # a tensor alone can also be made on "meta", which computes nothing
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(f"can't compute on --device {name} ({str(error).splitlines()[0]}); give cpu, or leave it out") from error
    return device


def load_malp(folder: str | Path, *, key: Path | None = None, device: str = "auto") -> MaLP | KeyedMaLP:
    """A saved MaLP in evaluation mode, as `malp_disc.experiment.given_malp.load_saved_malp`, without its second branch.

    Raises:
        ValueError, FileNotFoundError: as `MaLP.from_pretrained`, or a device that isn't there.
    """
    from malp_disc.experiment.given_malp import load_saved_malp

    place = usable_device(device)
    return load_saved_malp(folder, key=key, branch=False).to(place).eval()


def key_path(folder: str | Path, key: Path | None) -> Path:
    """The file of a `KeyedMaLP`'s key, beside which the list of its templates lies.

    Raises:
        ValueError: the key is on the Hub, where nothing can be written.
    """
    from malp_disc.keyed.secret import SECRET_FILE

    if key is not None:
        return Path(key).expanduser()
    if not Path(folder).expanduser().is_dir():
        raise ValueError(f"the key of {folder} is on the Hub, where no list of its templates can be kept; download the key and give it as --key FILE")
    return Path(folder).expanduser() / SECRET_FILE


def load_issued(malp: MaLP | KeyedMaLP, folder: str | Path, *, key: Path | None, issued: Path | None) -> Issued | None:
    """The templates that images may have; None for a MaLP whose templates are learned.

    Args:
        issued: a list of `malp_disc.keyed.issued`; by default the one beside the key.

    Raises:
        ValueError: no list beside the key, one without a template, or a list for learned templates.
    """
    from malp_disc.keyed import KeyedMaLP
    from malp_disc.keyed.issued import Issued, IssuedTemplates

    if not isinstance(malp, KeyedMaLP):
        if issued is not None:
            raise ValueError(f"--issued {issued} lists templates of a MaLP of the preset survive, and {folder} has learned ones, which are all tried; leave it out")
        return None
    if issued is not None:
        return Issued.read(issued.expanduser(), key=malp.key_fingerprint)
    path = IssuedTemplates(key_path(folder, key), malp.key_fingerprint).path
    if not path.is_file():
        raise ValueError(
            f"there is no list of the templates that were issued with this key, {path}: either nothing was protected with it yet, or the list stayed elsewhere; "
            "give it, or the protect.jsonl of the images, as --issued FILE"
        )
    return Issued.read(path, key=malp.key_fingerprint)

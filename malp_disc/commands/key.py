"""``malp-disc key OUT --malp DIR``: a MaLP of your own, out of a detector for keyed templates that somebody else trained.

Heavy modules are imported only when the command runs, so that --help is fast.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


# The string below each field is the help of its flag.
@dataclass(kw_only=True)
class Key:
    """Make a secret key for a detector of the preset survive, so that you can protect images and find edits in them without training anything."""

    output: Annotated[Path, Positional, arg(metavar="OUT")]
    """New folder for the detector and its new key, which protect, localize and detect take as --malp."""
    malp: Annotated[str, arg(metavar="DIR")]
    """Folder of the detector, or a Hugging Face Hub id. Its own key isn't needed."""
    reference_size: int | None = None
    """Side of the reference grid, 32 or more, at whose area every image is protected and analysed.
    A larger one finds smaller edits, a smaller one survives stronger downsampling. It can't be changed later. By default, that of the detector."""


def key(options: Key) -> None:
    """Write the folder and print the key's fingerprint.

    Raises:
        ValueError, OSError: OUT isn't a new or empty folder, DIR has no detector of the preset survive, or the grid is too small.
    """
    if options.output.is_file() or (options.output.is_dir() and any(options.output.iterdir())):
        raise ValueError(f"{options.output} exists already; give a new folder, since a key that is replaced can never be used again for the images it protected")
    from malp_disc.keyed import KeyedMaLP
    from malp_disc.keyed.secret import new_secret
    from malp_disc.serialization.files import check_writable

    malp = KeyedMaLP.from_pretrained(options.malp, key=new_secret())
    if options.reference_size is not None:
        malp.config = dataclasses.replace(malp.config, image_size=options.reference_size)
    check_writable(options.output / malp.key_file, advice="choose another folder")
    try:
        malp.save_pretrained(options.output)
    except BaseException:  # half a folder would keep the next try from writing there
        for path in options.output.iterdir():
            path.unlink()
        raise
    side = malp.config.image_size
    print(f"detector and new key in {options.output}, for a reference grid of {side}x{side}")
    print(f"the key is {options.output / malp.key_file} (fingerprint {malp.key_fingerprint}); protect it: who has it can forge and remove templates")
    print("keep issued.jsonl, which protect will write beside it, with the key: it lists the templates that localize and detect look for")
    print(f"next: malp-disc protect photos/ protected/ --malp {options.output}, and malp-disc detect --calibrate photos/ --malp {options.output} for a threshold")

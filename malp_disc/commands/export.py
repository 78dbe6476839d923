"""``malp-disc export DIR model.onnx``: export the localizer to ONNX.

Heavy modules are imported only when the command runs, so that --help is fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


# The string below each field is the help of its flag.
@dataclass(kw_only=True)
class Export:
    """Export the localizer E_C and the classifier C to ONNX, for images of any size, and check the file against PyTorch. The key isn't exported."""

    malp: Annotated[str, Positional, arg(metavar="DIR")]
    """Folder of a saved MaLP with its key, or a Hugging Face Hub id."""
    output: Annotated[Path, Positional, arg(metavar="FILE")]
    """Output file, with a name that ends in .onnx."""
    key: Annotated[Path | None, arg(metavar="FILE")] = None
    """Key file. By default, templates.safetensors in DIR. It is needed to load the MaLP, but not exported."""
    overwrite: bool = False
    """Replace an existing file."""


def export(options: Export) -> None:
    """Export and check the model; the file appears only if the check passes.

    Raises:
        ValueError, OSError: an existing file, missing packages, or a model whose values differ from PyTorch's.
    """
    if options.output.suffix.lower() != ".onnx":
        raise ValueError(f"expected a name that ends in .onnx, got {options.output}")
    if options.output.is_dir():
        raise ValueError(f"{options.output} is a folder; give a file's name")
    if options.output.exists() and not options.overwrite:
        raise ValueError(f"{options.output} exists; --overwrite replaces it")
    from malp_disc.commands.onnx_file import TOLERANCES, check_packages, export_onnx
    from malp_disc.experiment.given_malp import load_saved_malp

    refusal = f"{options.malp} is a MaLP of the preset survive, whose detector needs the template of every image and can't be exported; see malp-disc localize"
    malp = load_saved_malp(options.malp, key=options.key, branch=False, learned_only=refusal)
    check_packages()
    side = malp.config.image_size
    found = ", ".join(f"{worst:.1e} on {kind} (allowed {TOLERANCES[kind]:.0e})" for kind, worst in export_onnx(malp, options.output).items())
    print(
        f"{options.output}: image (B, H, W, 3) uint8 -> map (B, H, W) and score (B,), float32 in [0, 1]; largest difference from PyTorch {found}; "
        f"trained at {side}x{side}"
    )

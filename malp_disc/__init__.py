"""MaLP (CVPR 2023): encrypt images, localize and detect their manipulation by a generator, and use the detector as a discriminator."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from malp_disc.discriminator import MaLPDiscriminator
    from malp_disc.fakeness import fakeness_map
    from malp_disc.keyed import KeyedConfig, KeyedMaLP
    from malp_disc.losses import LossWeights
    from malp_disc.malp import MaLP, MaLPConfig, MaLPOutput
    from malp_disc.runtime.input_checks import without_value_checks

__version__ = "0.1.0"
__all__ = ["KeyedConfig", "KeyedMaLP", "LossWeights", "MaLP", "MaLPConfig", "MaLPDiscriminator", "MaLPOutput", "fakeness_map", "without_value_checks"]

_MODULES = {
    "KeyedConfig": "keyed",
    "KeyedMaLP": "keyed",
    "LossWeights": "losses",
    "MaLP": "malp",
    "MaLPConfig": "malp",
    "MaLPDiscriminator": "discriminator",
    "MaLPOutput": "malp",
    "fakeness_map": "fakeness",
    "without_value_checks": "runtime.input_checks",
}


def __getattr__(name: str) -> object:
    """Import public names on first use, so that the command line's help doesn't import torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

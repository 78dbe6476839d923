"""Loading a generator: from the zoo by name and checkpoint, or from a user's function."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from malp_disc.import_object import call_by_name, import_own_packages, module_hint
from malp_disc.serialization.state_dicts import load_state, load_tensors
from malp_disc.shipped import FACES_GENERATOR
from malp_disc.target_kind import check_attribute_count

STARGAN = "stargan"


@dataclass(kw_only=True)
class GeneratorOptions:
    """The generator: a name of the zoo with a checkpoint, or a function."""

    generator: str = STARGAN
    """Name of a generator of the zoo (generators/README.md), or MODULE:FUNCTION, a function without arguments that returns one.
    MODULE is a module of the working folder, an installed one, or path/to/file.py."""
    generator_checkpoint: Path | None = None
    """Weights of a generator of the zoo.
    By default, stargan uses the included generator of drawn faces."""

    @property
    def generator_file(self) -> Path | None:
        """The file of its weights, whose hash goes into the report; None if the user's function loads them."""
        return self.generator_checkpoint or (FACES_GENERATOR if self.generator == STARGAN else None)

    @property
    def generator_name(self) -> str:
        """The generator's name in messages."""
        if self.generator == STARGAN and self.generator_checkpoint is None:
            return "the shipped generator"
        return str(self.generator_checkpoint or self.generator)

    def check_generator_options(self) -> None:
        """Raise ValueError for flags that contradict each other, before anything is loaded."""
        if ":" in self.generator and self.generator_checkpoint is not None:
            raise ValueError("--generator-checkpoint is for generators of the zoo; your own function loads its weights itself")


def load_generator(options: GeneratorOptions, *, attributes: int | None = None) -> nn.Module:
    """The generator on the CPU, in the mode in which it was created.

    Args:
        attributes: number of attributes of the data; a StarGAN for another number is refused.

    Raises:
        ValueError: an unknown name, a checkpoint of another network, or an error in the user's function; FileNotFoundError: no such file.
    """
    options.check_generator_options()
    generator = generator_with_weights(options.generator, options.generator_file)
    if attributes is not None and options.generator == STARGAN:
        check_attribute_count(generator.c_dim, attributes, options.generator_name)
    return generator


def generator_with_weights(generator: str, weights: Path | None) -> nn.Module:
    """A generator by name of the zoo or ``MODULE:FUNCTION``, with the weights of a file: of a checkpoint, or a ``G-<arm>.safetensors`` of a fine-tuning.

    Args:
        weights: None keeps the weights that a user's function loads.
    """
    if ":" not in generator:
        import_own_packages()  # a generators.py of the working folder is the user's
        from generators import create_generator, list_generators

        if weights is None and generator in list_generators():
            raise ValueError(f"--generator {generator} needs --generator-checkpoint: without pretrained weights it is a random network")
        if generator not in list_generators() and (hint := module_hint(generator)):
            raise ValueError(f"unknown generator {generator!r}; choose from {list_generators()}, or give MODULE:FUNCTION{hint}")
        return create_generator(generator, weights)
    made = call_by_name(generator)
    if weights is not None and isinstance(made, nn.Module):
        load_state(made, load_tensors(weights, forms=[tuple(made.state_dict())]), source=str(weights))
    return made

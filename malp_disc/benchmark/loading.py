"""Localizers as the command line names them.

    runs/ffd/method                    a folder that training wrote, or of a saved MaLP
    malp_both=weights/faces64/malp     MaLP in another form: malp, malp_both, malp_dm
    ffd_reg=000200.tar                 a checkpoint of the authors, of MaLP too (malp=2_model.pickle)
    my_module:make                     a user's
    my_module:make=runs/mine/localizer the same, with the weights that training wrote; the folder alone is refused, as no function that a file names is run
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

from malp_disc.benchmark.keyed_method import KeyedMethod
from malp_disc.benchmark.localizer import Localizer, import_localizer
from malp_disc.benchmark.malp_localizer import MaLPForm, load_malp
from malp_disc.benchmark.methods import METHODS, MODEL_TYPE, create_method, load_method, read_config
from malp_disc.hub import KEYED_MODEL_TYPE
from malp_disc.keyed import KeyedMaLP


def load_localizer(spec: str) -> Localizer:
    """The localizer that `spec` names (see the module's docstring), on the CPU, a network in evaluation mode.

    Raises:
        ValueError, FileNotFoundError: nothing has this name, or what is there can't be loaded; the message says why.
    """
    name, equals, path = spec.partition("=")
    path = os.path.expanduser(path)
    if equals and name in get_args(MaLPForm):
        return load_malp(path, name)
    if equals and name in METHODS:
        return _published(name, path)
    if equals and is_function(name):
        return load_method(path, name)
    folder = Path(spec).expanduser()
    if folder.is_dir():
        kind = read_config(folder).get("model_type")
        if kind == KEYED_MODEL_TYPE:
            return KeyedMethod(KeyedMaLP.from_pretrained(folder).eval())
        return load_malp(folder) if kind == "malp" else load_method(folder)
    if ":" in spec:
        return import_localizer(spec)
    names = ", ".join((*get_args(MaLPForm), *METHODS))
    raise ValueError(f"no localizer {spec!r}: expected a folder of a trained one or of a MaLP, NAME=CHECKPOINT with a NAME out of {names}, or MODULE:FUNCTION")


def function_of(spec: str) -> str | None:
    """The user's MODULE:FUNCTION in `spec`, None if it names none."""
    name = spec.partition("=")[0]
    return name if is_function(name) else None


def is_function(name: str) -> bool:
    """Whether a name has the form MODULE:FUNCTION."""
    module, colon, function = name.rpartition(":")
    return bool(module and colon and function.isidentifier())


def _published(name: str, path: str) -> Localizer:
    """A method with a checkpoint of its authors, or the folder of a trained one, which has to be of this method."""
    if Path(path).is_dir():
        found = read_config(Path(path))
        if found.get("model_type") == MODEL_TYPE and found.get("method") != name:
            raise ValueError(f"{path} holds a trained {found.get('method')}, not {name}")
        return load_method(path)
    method = create_method(name)
    method.load_checkpoint(path)
    return method.eval()



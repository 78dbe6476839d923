"""Import of user functions named as ``module:function`` or ``path/to/file.py:function``, by the same rules everywhere.

1. ``path/to/file.py:function`` is that file.
2. ``module:function`` is ``module.py`` (or the package ``module``) of the working folder where there is one, whatever it is called: a ``generators.py``, a
   ``recipes.py`` or a ``torch.py`` of the user's own is the user's.
3. Else it is a module of this project or an installed one, as in ``generators.example_losses:super_resolution``.

If another module of the same name is already loaded (such as this project's ``generators``), the user's file is loaded under another name, so that neither
hides the other. While the user's module is loaded and its function runs, its own folder comes first among the places where imports look.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from malp_disc.errors import did_you_mean

_PROJECT = Path(__file__).resolve().parents[1]
_OWN_PACKAGES = ("generators", "recipes")
"""Beside this one: what a user's module imports under these names is the project's, from every entry point."""


def call_by_name(spec: str) -> Any:
    """The return value of the function named by `spec`, called without arguments; a named `nn.Module` is returned itself.

    Raises:
        ValueError: a malformed name, a missing file, module or function, an error in the user's code (with file and line), or no return value.
    """
    place, colon, name = spec.rpartition(":")
    if not (place and colon and name):
        raise ValueError(f"expected MODULE:FUNCTION, as in my_module:make_generator or path/to/file.py:make_generator, got {spec!r}{module_hint(spec)}")
    module_name, folder, file = _locate(place)
    import_own_packages()
    with _torch_settings(), _first_on_path(folder):
        module = _load(module_name, folder, file)
        return _make(_function_of(module, place, name), spec)


def code_of_function(spec: str) -> str:
    """What tells the function named by `spec` from others: its name and the text of its file, wherever that is; empty if there is no such file."""
    place, _, name = spec.rpartition(":")
    try:
        module_name, _, file = _locate(place)
        found = file or Path(importlib.util.find_spec(module_name).origin)
        return f"{name}\n{found.read_text(encoding='utf-8', errors='surrogateescape')}"
    except (ValueError, ImportError, AttributeError, TypeError, OSError):  # no such file or module, or one without a source, such as a built-in
        return ""


def _locate(place: str) -> tuple[str, Path, Path | None]:
    """The module's name, the folder to search, and the module's file there, or None."""
    if not (place.endswith(".py") or "/" in place or "\\" in place):
        folder = Path.cwd()
        return place, folder, _file_of(place, folder)
    file = Path(place).expanduser().resolve()
    if not file.is_file():
        raise ValueError(f"no file {file}; expected path/to/file.py:FUNCTION")
    if file.name == "__init__.py":
        return file.parent.name, file.parent.parent, file
    return file.stem.replace(".", "_"), file.parent, file


def _file_of(name: str, folder: Path) -> Path | None:
    """The file of a module in a folder, ``a/b/__init__.py`` or ``a/b.py`` for ``a.b``, or None."""
    base = folder.joinpath(*name.split("."))
    found = [file for file in (base / "__init__.py", base.with_name(f"{base.name}.py")) if file.is_file()]
    return found[0].resolve() if found else None


def _load(name: str, folder: Path, file: Path | None) -> ModuleType:
    """Import the module. Raises ValueError with the file and line in the user's code if that fails."""
    source = str(file) if file is not None else name
    importlib.invalidate_caches()
    try:
        if file is None or (_is_free(name, folder) and _file_of(name, folder) == file):
            return importlib.import_module(name)
        return _load_beside(name, folder, file)
    except SyntaxError as error:
        raise ValueError(f"{source} can't be imported: {error.msg} ({error.filename}, line {error.lineno})") from error
    except SystemExit as error:
        raise ValueError(
            f"{source} ends the program when it is imported{users_line(error)}, by sys.exit or by argparse, which reads this command's flags; "
            'put what is to run as a script below `if __name__ == "__main__":`'
        ) from error
    except Exception as error:  # user code may raise anything
        if isinstance(error, ModuleNotFoundError) and file is None and f"{name}.".startswith(f"{error.name}."):
            near = did_you_mean(name, [path.stem for path in folder.glob("*.py")], quoted=True)
            raise ValueError(f"no module {name!r} in {folder} or among the installed ones{near}; give it as my_module:make_generator") from error
        raise ValueError(f"{source} can't be imported: {type(error).__name__}: {error}{users_line(error)}") from error


def _is_free(name: str, folder: Path) -> bool:
    """Whether no other module than the folder's own is loaded under this name or that of its package."""
    for part in (name.partition(".")[0], name):
        loaded = sys.modules.get(part)
        if loaded is None:
            continue
        file = _file_of(part, folder)
        own = Path(loaded.__file__).resolve() == file if getattr(loaded, "__file__", None) else str(folder / part) in getattr(loaded, "__path__", ())
        if not own:
            return False
    return True


def _load_beside(name: str, folder: Path, file: Path) -> ModuleType:
    """Load a module whose name is taken as ``_user_<name>``; a module of a package together with its package, so that relative imports work."""
    top, _, rest = name.partition(".")
    alias, package = f"_user_{top}", folder / top
    start = file if not rest else package / "__init__.py"
    if start.is_file():
        spec = importlib.util.spec_from_file_location(alias, start, submodule_search_locations=[str(package)] if start.parent == package else None)
        module = importlib.util.module_from_spec(spec)
    else:
        spec, module = None, ModuleType(alias)
        module.__path__ = [str(package)]
    loaded = sys.modules.get(alias)
    if getattr(loaded, "__file__", None) == getattr(module, "__file__", None) and getattr(loaded, "__path__", None) == getattr(module, "__path__", None):
        module = loaded
    else:
        for old in [key for key in sys.modules if key == alias or key.startswith(f"{alias}.")]:
            del sys.modules[old]
        sys.modules[alias] = module
        try:
            if spec is not None:
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[alias]
            raise
    return importlib.import_module(f"{alias}.{rest}") if rest else module


def _function_of(module: ModuleType, place: str, name: str) -> Any:
    function = getattr(module, name, None)
    if callable(function):
        return function
    own = [key for key, value in vars(module).items() if callable(value) and getattr(value, "__module__", None) == module.__name__]
    what = f"{name!r} there is {type(function).__name__}, which can't be called" if function is not None else f"{place} has no function {name!r}"
    listed = did_you_mean(name, own, quoted=True) or (f"; it has {', '.join(own[:5])}" if own else "")
    raise ValueError(f"{what}{listed}")


def _make(function: Any, spec: str) -> Any:
    """Call the function and return its result. Raises ValueError if it fails or returns no object."""
    from torch import nn  # not above: the command line's help must come at once

    if isinstance(function, nn.Module):
        return function
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise ValueError(f"{spec}() failed: TypeError: {error}; it is called without arguments: name a function that fills them in") from error
    except ValueError:  # a built-in without a signature
        pass
    try:
        made = function()
    except (Exception, SystemExit) as error:  # user code may raise anything
        raise ValueError(f"{spec}() failed: {type(error).__name__}: {error}{users_line(error)}") from error
    if made is None:
        raise ValueError(f"{spec}() returns None; is a `return` missing?")
    if isinstance(made, type):
        raise ValueError(f"{spec}() returns the class {made.__name__}, not an object of it; return {made.__name__}()")
    return made


@contextlib.contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    """Put `folder` first in ``sys.path``, and last on exit: the function may import later, but must not hide installed packages then."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


@contextlib.contextmanager
def _torch_settings() -> Iterator[None]:
    """What inference scripts set for the whole program (no gradients, another default type or device) is set back."""
    import torch

    def default_device() -> torch.device:
        return torch.empty(0).device  # torch.get_default_device() of torch 2.6 fails once it was set back to None

    grad, dtype, device = torch.is_grad_enabled(), torch.get_default_dtype(), default_device()
    try:
        yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        if default_device() != device:
            torch.set_default_device(None)


def import_own_packages() -> None:
    """Load the packages that lie beside this one (in a checkout, and in the wheel), before a file of that name in the working folder can be taken for them."""
    names = _OWN_PACKAGES if (_PROJECT / "pyproject.toml").is_file() else _OWN_PACKAGES[:1]  # the wheel has no recipes
    for name in names:
        file = _PROJECT / name / "__init__.py"
        if name in sys.modules or not file.is_file():
            continue
        spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=[str(file.parent)])
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise


def users_line(error: BaseException) -> str:
    """ (file, line) of the last line in an error's traceback that is the user's; nothing if there is none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def _is_users(filename: str) -> bool:
    file = Path(filename).resolve()
    not_theirs = [_PROJECT / "malp_disc", _PROJECT / "recipes", Path(sysconfig.get_path("stdlib"))]
    return not filename.startswith("<") and "site-packages" not in file.parts and not any(file.is_relative_to(place) for place in not_theirs)


def module_hint(spec: str) -> str:
    """What to say of a name without a function, if it is a file's or a module's; otherwise nothing."""
    file = Path(spec) if spec.endswith(".py") else Path(f"{spec}.py")
    if file.is_file():
        return f"; {file} is there: name its function too, {spec if file.name == str(file) else file}:FUNCTION"
    if spec.isidentifier() and (_file_of(spec, Path.cwd()) or getattr(importlib.util.find_spec(spec), "has_location", False)):
        return f"; there is a module {spec}: name its function too, {spec}:FUNCTION"
    return ""

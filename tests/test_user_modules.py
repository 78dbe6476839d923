"""``module:function`` means the same everywhere, and what doesn't work in the user's module is told with its place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import generators
from malp_disc.import_object import call_by_name
from tests.conftest import REPOSITORY

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder; afterwards no module of it is loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("name", ["generators", "recipes", "malp_disc", "torch", "json", "shared", "my_own"])
def test_a_module_of_the_working_folder_is_the_users_whatever_it_is_called(folder, name):
    write(folder / f"{name}.py", "from generators.example_losses import ContentLoss\nimport helper_of_mine\ndef make():\n    return helper_of_mine.made\n")
    write(folder / "helper_of_mine.py", f"made = 'made of {name}'\n")
    assert call_by_name(f"{name}:make") == f"made of {name}" == call_by_name(f"{name}.py:make")
    assert sys.modules["generators"] is generators and sys.modules["torch"] is torch


def test_the_projects_modules_are_found_beside_a_users_file_of_their_name(folder):
    write(folder / "generators.py", "raise RuntimeError('not me')\n")
    assert type(call_by_name("generators.example_losses:super_resolution")).__name__ == "ContentLoss"


def test_packages_and_files_elsewhere_with_relative_imports(folder):
    write(folder / "generators" / "__init__.py", "")
    write(folder / "generators" / "mine.py", "from .part import made\ndef make():\n    return made\n")
    write(folder / "generators" / "part.py", "made = 'in the package'\n")
    write(folder / "elsewhere" / "my-gen.v2.py", "import beside\ndef make():\n    import later\n    return beside.made + later.made\n")
    write(folder / "elsewhere" / "beside.py", "made = 'besi'\n")
    write(folder / "elsewhere" / "later.py", "made = 'de'\n")
    assert call_by_name("generators.mine:make") == "in the package"
    assert call_by_name("elsewhere/my-gen.v2.py:make") == call_by_name(f"{folder}/elsewhere/my-gen.v2.py:make") == "beside"


def test_two_files_of_one_name_are_two_modules_and_a_file_is_loaded_once(folder):
    for side in "ab":
        write(folder / side / "one_name.py", f"calls = []\ndef make():\n    calls.append(1)\n    return '{side}', len(calls)\n")
    assert [call_by_name(f"{side}/one_name.py:make") for side in "abb"] == [("a", 1), ("b", 1), ("b", 2)]


def test_a_module_named_itself_and_settings_of_an_inference_script(folder):
    write(
        folder / "script_like.py",
        "import torch\ntorch.set_grad_enabled(False)\ntorch.set_default_dtype(torch.float64)\ntorch.set_default_device('meta')\nG = torch.nn.Linear(1, 1)\n",
    )
    assert isinstance(call_by_name("script_like:G"), torch.nn.Linear)
    assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32 and torch.zeros(()).device.type == "cpu"


BAD = {
    "import nothing_like_this\n": ["ModuleNotFoundError: No module named 'nothing_like_this'", "bad.py, line 1)"],
    "x = 1\ndef make(:\n    pass\n": ["invalid syntax", "bad.py, line 2)"],
    "\nx = {}['k']\n": ["KeyError: 'k'", "bad.py, line 2)"],
    "import sys\nsys.exit(3)\n": ["ends the program when it is imported", "bad.py, line 2)", "__main__"],
    "import argparse\np = argparse.ArgumentParser()\np.add_argument('--ckpt', required=True)\np.parse_args()\n": ["argparse", "bad.py, line 4)"],
    "def make_it():\n    pass\n": ["has no function 'make'", "did you mean 'make_it'?"],
    "def generator():\n    pass\n": ["has no function 'make'", "it has generator"],
    "make = 3\n": ["'make' there is int"],
    "def make(checkpoint):\n    pass\n": ["missing a required argument: 'checkpoint'", "without arguments"],
    "def make():\n    pass\n": ["make() returns None", "`return`"],
    "class G:\n    pass\ndef make():\n    return G\n": ["returns the class G", "return G()"],
    "def make():\n    x = 1\n    raise RuntimeError('no file')\n": ["make() failed: RuntimeError: no file", "bad.py, line 3)"],
    "def make():\n    exit(1)\n": ["make() failed: SystemExit: 1", "bad.py, line 2)"],
}


@pytest.mark.parametrize("text", BAD)
def test_what_doesnt_work_in_it_is_told_with_its_place(folder, monkeypatch, text):
    monkeypatch.setattr(sys, "argv", ["recipe", "--generator", "bad:make"])
    write(folder / "bad.py", text)
    with pytest.raises(ValueError) as raised:
        call_by_name("bad:make")
    assert all(words in str(raised.value) for words in BAD[text]), raised.value


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("json", ["expected MODULE:FUNCTION", "there is a module json: name its function too, json:FUNCTION"]),
        ("good", ["expected MODULE:FUNCTION", "got 'good'; good.py is there: name its function too, good:FUNCTION"]),
        ("goood:make", ["no module 'goood' in", "did you mean 'good'?"]),
        ("absent/file.py:make", ["no file", "absent/file.py"]),
        ("json:absent", ["json has no function 'absent'"]),
        ("json:loads", ["json:loads() failed: TypeError"]),
    ],
)
def test_names_that_lead_nowhere_are_told(folder, name, words):
    write(folder / "good.py", "")
    with pytest.raises(ValueError) as raised:
        call_by_name(name)
    assert all(word in str(raised.value) for word in words), raised.value


def test_the_doctor_and_the_recipe_take_the_same_generators_py(folder):
    """The command line is started as `python -m`, with the working folder first on its path, the recipe with its own folder first."""
    write(folder / "generators.py", "from generators.example_losses import ContentLoss\ndef make():\n    raise RuntimeError('the user\\'s')\n")
    commands = (
        ["-m", "malp_disc.cli", "doctor", "generators:make"],
        [str(ROOT / "recipes" / "finetune.py"), "--generator", "generators:make", "--dry-run"],
    )
    for command in commands:
        code = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=folder, timeout=300)
        assert code.returncode == 1 and "generators:make() failed: RuntimeError: the user's" in code.stderr, code.stderr


def test_the_zoo_is_the_projects_in_a_folder_with_a_generators_py(tmp_path):
    """``python -m malp_disc`` and ``accelerate launch -m malp_disc`` put the working folder first among the places where imports look."""
    (tmp_path / "generators.py").write_text("raise SystemExit('the user\'s generators.py was imported')\n")
    code = "from malp_disc.generator_source import GeneratorOptions, load_generator; print(type(load_generator(GeneratorOptions())).__module__)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])}
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == "generators.stargan", result.stderr

"""The wheel alone is enough: the package, the zoo, the report's templates and the shipped weights are in it, and it runs without the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow  # builds in an isolated environment, which pip fills from the network


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(REPOSITORY)], check=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_every_file_of_both_packages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    packaged = {
        str(path.relative_to(REPOSITORY))
        for package in ("malp_disc", "generators")
        for path in (REPOSITORY / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    weights = {
        f"malp_disc/shipped_weights/{path.relative_to(REPOSITORY / 'weights')}" for path in (REPOSITORY / "weights" / "faces64").rglob("*") if path.is_file()
    }
    assert {"malp_disc/report/templates/page.html", "malp_disc/metrics/weights/faces_features.safetensors"} <= packaged
    assert names == packaged | weights


def test_the_command_runs_from_the_wheel_with_the_weights_in_it(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.linear_gradient("L").convert("RGB").resize((64, 64)).save(elsewhere / "photo.png")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}

    def output(*arguments: str) -> str:
        return subprocess.run([sys.executable, *arguments], cwd=elsewhere, env=environment, check=True, capture_output=True, text=True).stdout

    found = output("-c", "import generators; from malp_disc.shipped import FACES_MALP; print(generators.__file__); print(FACES_MALP)").split()
    assert all(Path(path).is_relative_to(tmp_path / "installed") for path in found), found
    output("-m", "malp_disc", "protect", "photo.png", "protected.png", "--malp", found[1])
    assert "P(manipulated) 0.0" in output("-m", "malp_disc", "detect", "protected.png", "--malp", found[1])

"""Time of `malp-disc fid` of two folders against pytorch-fid and clean-fid on the same images and weights, which must give the same value.

    python benchmarks/fid.py --a samples --b real --weights fid_inception.safetensors --dims 768

Every program runs as its defaults have it (batch size, workers), in this process, with the genuine resize and distance; only the weights are given, since both
packages would download theirs, and for fewer than 2,048 features clean-fid's extractor is this network with its scale. `malp-disc fid` keeps no cache here.
"""

from __future__ import annotations

import inspect
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import scipy.linalg
import torch
import tyro
from cleanfid import fid as clean_fid
from pytorch_fid import fid_score
from pytorch_fid.inception import InceptionV3
from torch import nn

from malp_disc.commands.fid import Fid, compare
from malp_disc.metrics.inception import load_inception

CPU = torch.device("cpu")
PAIRS = (("pytorch-fid", "malp-disc, legacy_pytorch"), ("clean-fid", "malp-disc, clean"))
"""Each alternative, and what does the same here."""


@dataclass
class Config:
    a: Path
    b: Path
    weights: Path
    """Inception's weights, as for `malp-disc fid --fid-weights`."""
    dims: int = 2048
    images: int = 5000
    """At most so many images of each folder."""
    against: tuple[Literal["pytorch-fid", "clean-fid"], ...] = ("pytorch-fid", "clean-fid")
    """The alternatives."""
    rounds: int = 3
    threads: int = 2


def main(config: Config) -> None:
    torch.set_num_threads(config.threads)
    restore_sqrtm()
    net = load_inception(config.dims, config.weights)
    with tempfile.TemporaryDirectory() as folder:
        sides = [linked(source, Path(folder) / name, config.images) for name, source in (("a", config.a), ("b", config.b))]
        use_in_pytorch_fid(net)
        workers = min(os.cpu_count() or 1, 8)
        all_programs = {
            "pytorch-fid": lambda: fid_score.calculate_fid_given_paths([str(side) for side in sides], 50, CPU, config.dims, workers),
            "malp-disc, legacy_pytorch": lambda: ours(config, sides, "legacy_pytorch"),
            "clean-fid": lambda: theirs_clean(sides, net),
            "malp-disc, clean": lambda: ours(config, sides, "clean"),
        }
        programs = {name: all_programs[name] for pair in PAIRS if pair[0] in config.against for name in pair}
        measured = {name: [] for name in programs}
        for _ in range(config.rounds):
            for name, program in programs.items():
                measured[name].append(timed(program))
        counts = [len(list(side.iterdir())) for side in sides]
    print(f"torch {torch.__version__}, scipy {scipy.__version__}, {config.threads} threads of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{counts[0]} against {counts[1]} images, {config.dims} features, median of {config.rounds} rounds")
    for alternative, name in PAIRS:
        if alternative not in config.against:
            continue
        for row in (alternative, name):
            print(f"{row:26} {measured[row][0][0]:.8g}   {median(x[1] for x in measured[row]):7.1f} s, {median(x[2] for x in measured[row]):7.1f} s of CPU time")
        wall, cpu = (median(theirs[i] / own[i] for theirs, own in zip(measured[alternative], measured[name])) for i in (1, 2))
        print(f"{'':26} {wall:.2f} times as fast, {cpu:.2f} times by CPU time; relative difference {measured[name][0][0] / measured[alternative][0][0] - 1:.1e}")


def timed(program: Callable[[], float]) -> tuple[float, float, float]:
    """The value, seconds, and seconds of CPU time, those of worker processes included."""
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    return program(), time.perf_counter() - wall, sum(os.times()[:4]) - cpu


def ours(config: Config, sides: list[Path], mode: str) -> float:
    with tempfile.TemporaryDirectory() as cache:
        os.environ["MALP_DISC_CACHE"] = cache
        options = Fid(a=sides[0], b=sides[1], mode=mode, dims=config.dims, fid_weights=config.weights)
        return compare(options, CPU, quiet=True)["fid"]["value"]


def theirs_clean(sides: list[Path], net: nn.Module) -> float:
    def features(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return net((images - 128) / 128).mean(dim=(2, 3))

    return clean_fid.compute_fid(*map(str, sides), mode="clean", custom_feat_extractor=features, device=CPU, verbose=False)


def use_in_pytorch_fid(net: nn.Module) -> None:
    """Give pytorch-fid's network our weights, in place of its download; what it does around its layers stays."""

    class Loaded(InceptionV3):
        def __init__(self, output_blocks: list[int]) -> None:
            nn.Module.__init__(self)
            self.resize_input = self.normalize_input = True
            self.output_blocks, self.last_needed_block = output_blocks, max(output_blocks)
            self.blocks = nn.ModuleList([nn.Identity()] * self.last_needed_block + [net])

    fid_score.InceptionV3 = Loaded


def restore_sqrtm() -> None:
    """Both packages call SciPy's root with ``disp=False``, which SciPy 1.18 no longer takes."""
    own = scipy.linalg.sqrtm
    if "disp" not in inspect.signature(own).parameters:
        scipy.linalg.sqrtm = lambda matrix, disp=True: own(matrix) if disp else (own(matrix), None)


def linked(source: Path, target: Path, count: int) -> Path:
    """A folder of links to the first images of another."""
    target.mkdir()
    for path in sorted(path for path in source.iterdir() if path.suffix in (".jpg", ".png"))[:count]:
        (target / path.name).symlink_to(path.resolve())
    return target


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))

"""How fast does a StarGAN learn? Its quality against the seconds of training, from the checkpoints of runs of recipes/train_stargan.py.

    python recipes/train_stargan.py --output-dir runs/scratch/plain --checkpointing-steps 500 --checkpoints-total-limit None …
    python recipes/train_stargan.py --realness-weight 2 --conditional-realness --output-dir runs/scratch/branch --checkpointing-steps 250 …
    python recipes/research/scratch_curve.py --runs runs/scratch/plain runs/scratch/branch --output-dir runs/scratch/curve

Every checkpoint's moving average edits the same held-out images. Its seconds are the time between the run's first file and the checkpoint, so the runs must
not have been interrupted, and should have had a core each. Written are ``curve.jsonl``, a line per checkpoint; ``curve.png``; and ``samples/``, the
same faces by the last checkpoint of each run. A checkpoint that is in ``curve.jsonl`` isn't measured again.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from generators import create_generator
from malp_disc.commands.loading import usable_device
from malp_disc.evaluation.eval_set import EvalSet
from malp_disc.evaluation.evaluation_models import EvaluationConfig, make_evaluation_models
from malp_disc.evaluation.evaluator import check_same_attributes, evaluation_sets
from malp_disc.evaluation.gallery import captions_of, rows_of
from malp_disc.evaluation.measure import measure_arm, measure_reference
from malp_disc.plotting.image_grids import sample_grid
from malp_disc.plotting.line_panels import Line, Panel, lines_figure
from malp_disc.serialization.files import write_text
from malp_disc.training.launch import run_recipe

_PANELS = {"frechet": None, "edit_accuracy": "edit accuracy", "perfect_edit": "L1 to the perfect edit"}  # None: the distance's own name


@dataclass(kw_only=True)
class Config(EvaluationConfig):
    runs: tuple[Path, ...]
    """Folders of runs of recipes/train_stargan.py, in the order of the figure."""
    output_dir: Path = Path("runs/scratch/curve")
    """Folder of the results, created if absent."""
    eval_size: int = 500
    """Number of held-out images that every checkpoint edits."""
    reference_size: int = 1000
    """Number of real images that they are compared with."""
    smaller_views: tuple[Literal[2, 4], ...] = ()
    device: str = "auto"
    """Device to compute on: cpu, cuda, cuda:1, and so on. auto takes a GPU if there is one."""


def main(config: Config) -> None:
    if missing := [str(run) for run in config.runs if not checkpoints(run)]:
        raise ValueError(f"no checkpoints in {', '.join(missing)}; expected folders of runs of recipes/train_stargan.py")
    if len({run.name for run in config.runs}) < len(config.runs):
        raise ValueError(f"expected folders of different names, which are those of the lines, got {', '.join(map(str, config.runs))}")
    sets = evaluation_sets(config)
    held_out, real = sets.held_out, sets.real
    device = usable_device(config.device)
    models = make_evaluation_models(config, held_out.attribute_names, device)
    inputs = EvalSet.take(held_out, config.eval_size)
    reference = measure_reference(real, config.reference_size, models, device=device, cache=config.output_dir / "reference.npz")
    path = config.output_dir / "curve.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    measured_with = {"label": models.extractor.label, "n": len(inputs.images), "reference_n": min(config.reference_size, len(real)), "reference": reference.text}
    check_same(lines, measured_with, path)
    for run in config.runs:
        for step, folder in checkpoints(run).items():
            if any((line["run"], line["step"]) == (run.name, step) for line in lines):
                continue
            generator = create_generator("stargan", folder / "G_average.safetensors").to(device).eval()
            check_same_attributes(held_out, generator.c_dim, str(folder))
            measured, evidence = measure_arm(generator.manipulate, inputs, reference, models, device=device, label=f"{run.name}, step {step}")
            lines.append({"run": run.name, "step": step, "seconds": seconds_of(run, folder), **scores(measured)})
            write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
            if not measured.diverged:
                shown = inputs.first(rows_of(inputs))
                columns = {"real": shown.images, run.name: evidence.edited[: len(shown.images)]}
                sample_grid(columns, config.output_dir / "samples" / f"{run.name}.png", captions=captions_of(shown))
    draw(lines, config.output_dir / "curve.png")
    print("\n".join(json.dumps(line) for line in lines))


def check_same(lines: list[dict[str, Any]], now: dict[str, Any], path: Path) -> None:
    """Raise ValueError if the checkpoints in ``curve.jsonl`` were measured with another extractor or other numbers of images: no curve compares them."""
    for line in lines:
        if differing := [f"{name} was {line[name]}, is {value}" for name, value in now.items() if line.get(name, value) != value]:
            raise ValueError(f"{path} has measurements of another kind: {'; '.join(differing)}; choose another --output-dir")


def checkpoints(run: Path) -> dict[int, Path]:
    """The checkpoints of a run by step, the first one first."""
    found = {int(folder.name.removeprefix("checkpoint-")): folder for folder in run.glob("checkpoint-*") if (folder / "state.json").is_file()}
    return dict(sorted(found.items()))


def seconds_of(run: Path, checkpoint: Path) -> float:
    """Seconds from the start of the run to the checkpoint."""
    return round((checkpoint / "state.json").stat().st_mtime - (run / "config.json").stat().st_mtime, 1)


def scores(measured: Any) -> dict[str, Any]:
    """The scores of a line of ``curve.jsonl``."""
    if measured.diverged:
        return {"diverged": True}
    return {
        "label": measured.frechet.label,
        "n": measured.frechet.n,
        "reference_n": measured.frechet.reference_n,
        "reference": measured.frechet.reference,
        "frechet": measured.frechet.value,
        "second": measured.second.value,
        "second_label": measured.second.label,
        "edit_accuracy": measured.edit_accuracy,
        "edit_accuracy_per_attribute": dict(measured.edit_accuracy_per_attribute or {}),
        "perfect_edit": measured.perfect_edit,
        "identity_l1": measured.identity_l1,
    }


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """A panel per score that was measured, a line per run, over the minutes of training; between a run's checkpoints, the values are interpolated."""
    lines = [line for line in lines if "frechet" in line]
    if not lines:
        return
    minutes = sorted({line["seconds"] / 60 for line in lines})
    panels = []
    for name, label in _PANELS.items():
        curves = {}
        for run in dict.fromkeys(line["run"] for line in lines):
            own = [(line["seconds"] / 60, line[name]) for line in lines if line["run"] == run and line[name] is not None]
            if own:
                curves[run] = Line(np.interp(minutes, *zip(*own), left=np.nan, right=np.nan).tolist())
        if curves:
            panels.append(Panel(minutes, curves, "minutes of training", label or lines[0]["label"]))
    lines_figure([panels], path)


if __name__ == "__main__":
    run_recipe(main, Config, __doc__)

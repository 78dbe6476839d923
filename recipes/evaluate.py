"""Write the report for existing generators, without training: the generator before fine-tuning, and those of any arms.

The included generator on drawn faces, then three checkpoints of a StarGAN on CelebA:

    python recipes/evaluate.py
    python recipes/evaluate.py --before 200000-G.ckpt --control runs/celeba/G-control.safetensors --cotrain runs/celeba/G-cotrain.safetensors \\
        --malp runs/celeba/malp --data celeba --data-root /data/celeba --image-size 128 --output-dir runs/celeba-evaluated

All generators edit the same held-out images with the same targets. The page is ``<output-dir>/report.html``; ``report.md`` and ``report.json`` contain the same
facts. To add other seeds of the same arms, run it again with ``--seed 1``, ``--seed 2`` and so on, and the same --output-dir.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from malp_disc import MaLP
from malp_disc.commands.loading import usable_device
from malp_disc.evaluation.evaluation_models import EvaluationConfig, make_evaluation_models
from malp_disc.evaluation.evaluator import check_same_attributes, evaluation_sets, make_evaluator
from malp_disc.evaluation.teachers import without_automatic_teacher
from malp_disc.generator_source import STARGAN, generator_with_weights
from malp_disc.report import write_report
from malp_disc.run_folder.arms import ARMS
from malp_disc.run_folder.experiment import evaluation, not_compared, shared_hash, training_settings, work
from malp_disc.run_folder.measurement import Network
from malp_disc.run_folder.schema import read_lines
from malp_disc.serialization.file_kinds import file_kind
from malp_disc.serialization.files import file_sha256
from malp_disc.serialization.state_dicts import load_metadata
from malp_disc.serialization.typed_json import from_json
from malp_disc.shipped import FACES_GENERATOR, FACES_MALP
from malp_disc.target_kind import exclusive_names
from malp_disc.training.generator_contract import check_contract
from malp_disc.training.launch import check_seeds, open_folder, run_recipe
from malp_disc.training.preflight import must_take


@dataclass(kw_only=True)
class Config(EvaluationConfig):
    output_dir: Path = not_compared(Path("runs/evaluate"))
    """Folder of the report, created if absent."""
    generator: str = evaluation("stargan")
    """Kind of all generators that are measured: a name of the zoo, or MODULE:FUNCTION that returns one."""
    before: Path | None = evaluation(None)
    """Weights of the generator before fine-tuning, with which all others are compared.
    By default, the included StarGAN, or the weights that your function loads."""
    control: Path | None = work(None)
    """Weights of the arm control: the file G-control.safetensors of a fine-tuning. The other arms are given likewise."""
    control_2xD: Path | None = work(None)
    """Weights of the arm control_2xD."""
    random: Path | None = work(None)
    """Weights of the arm random."""
    frozen: Path | None = work(None)
    """Weights of the arm frozen."""
    cotrain: Path | None = work(None)
    """Weights of the arm cotrain."""
    no_template: Path | None = work(None)
    """Weights of the arm no_template."""
    from_scratch: Path | None = work(None)
    """Weights of the arm from_scratch."""
    vision_aided: Path | None = work(None)
    """Weights of the arm vision_aided."""
    feature_map: Path | None = work(None)
    """Weights of the arm feature_map."""
    joint: Path | None = work(None)
    """Weights of the arm joint."""
    seed: int = work(0)
    """Seed of the fine-tuning that these generators come from."""
    malp: Path | None = evaluation(None)
    """Folder of the MaLP that localizes the edits. By default, the included one on drawn faces.
    On real images without one, localization isn't measured."""
    fresh: tuple[str, ...] = work(())
    """MaLPs that were trained from scratch against a tuned generator, as ARM=FOLDER.
    They show whether its edits are really harder to localize."""
    device: str = not_compared("auto")
    """Device to compute on: cpu, cuda, cuda:1, and so on. auto takes a GPU if there is one."""


def main(config: Config) -> None:
    device = usable_device(config.device)
    check_seeds(config.seed)
    sets = evaluation_sets(config)
    held_out = sets.held_out
    paths = weights_by_arm(config)
    generators = {}
    for arm, path in paths.items():
        made = generator_with_weights(config.generator, path)
        if config.generator == STARGAN:
            check_same_attributes(held_out, made.c_dim, str(path))
        check_contract(made, held_out, device, source=str(path or config.generator), tolerated=("edit", "range"))  # a tuned one may have diverged
        generators[arm] = made.to(device).eval().requires_grad_(False)
    given = config.malp or (FACES_MALP if config.data == "faces" else None)
    malp = load_malp(given, device) if given is not None else None
    if malp is not None:
        images = held_out[0][0].unsqueeze(0).to(device)
        with must_take(images, f"the MaLP {given}"), torch.no_grad():
            malp(images)
    fresh = {arm: load_malp(folder, device) for arm, folder in fresh_folders(config, paths).items()}
    teachers = {arm: teachers_in(path) for arm, path in paths.items()}
    models = without_automatic_teacher(make_evaluation_models(config, held_out.attribute_names, device), config, teachers)

    check_held_out(config, paths)
    open_folder(config, accumulates=True)
    check_measured(config.output_dir, config.seed, paths)
    exclusive = exclusive_names(next(iter(generators.values())), held_out)
    evaluator = make_evaluator(config, models, malp, config.output_dir, device, sets, exclusive=exclusive)
    if (config.output_dir / "reference_points.json").exists():
        evaluator.check_same_images()
    evaluator.measure_reference_points()
    for arm, generator in generators.items():
        if arm == "before" and config.seed != 0 and "before" in evaluator.measured(seed=config.seed):
            continue
        details = {"experiment": shared_hash(config), "teachers": teachers[arm]}
        evaluator.measure(arm, generator.manipulate, seed=config.seed, weights=paths[arm], fresh=fresh.get(arm), **details)
    record = write_report(config.output_dir)
    print(f"{record.verdict}\nreport: {config.output_dir / 'report.html'}, tables: {config.output_dir / 'report.md'}")


def weights_by_arm(config: Config) -> dict[str, Path | None]:
    """The files of "before" and of the arms that were given; None is what the user's function makes.

    Raises:
        ValueError: "before" of a generator that needs a file, without one.
    """
    if config.before is None and config.generator != STARGAN and ":" not in config.generator:
        raise ValueError(f"--generator {config.generator} needs --before, the weights of the generator before fine-tuning")
    before = config.before or (FACES_GENERATOR if config.generator == STARGAN else None)
    return {"before": before} | {arm: path for arm in ARMS if arm != "before" and (path := getattr(config, arm)) is not None}


def record_in(path: Path | None) -> dict[str, Any]:
    """What a fine-tuning wrote into the file of a tuned generator; empty for a file of another origin."""
    tuned = path is not None and path.is_file() and file_kind(path).name == "safetensors"
    return json.loads(load_metadata(path).get("malp_disc", "{}")) if tuned else {}


def teachers_in(path: Path | None) -> tuple[Network, ...]:
    """The pretrained networks that a tuned generator learned from."""
    return tuple(from_json(Network, network, str(path)) for network in record_in(path).get("teachers", []))


def check_held_out(config: Config, paths: dict[str, Path | None]) -> None:
    """Raise ValueError if a generator was fine-tuned on images of the same folder that this command holds out."""
    now = training_settings(config)
    for path in paths.values():
        was = record_in(path).get("settings", {})
        if config.data != "faces" and was.get("data_root") == now["data_root"] and was.get("test_size", config.test_size) < config.test_size:
            raise ValueError(
                f"{path} was fine-tuned with --test-size {was['test_size']}: of the {config.test_size} images that are held out here, it was trained on some; give --test-size {was['test_size']}"
            )


def load_malp(folder: Path, device: torch.device) -> MaLP:
    return MaLP.from_pretrained(folder, branch=False).to(device).eval().requires_grad_(False)


def check_measured(folder: Path, seed: int, paths: dict[str, Path | None]) -> None:
    """Raise ValueError if an arm of this seed was measured from another file: the folder's other arms belong with that one."""
    lines = [line for _, line in read_lines(folder / "measurements.jsonl")] if (folder / "measurements.jsonl").exists() else []
    for arm, path in paths.items():
        same = [line["seed"] for line in lines if line["arm"] == arm != "before" and line["seed"] != seed and path is not None and (line.get("weights") or {}).get("sha256") == file_sha256(path)]
        if same:
            raise ValueError(
                f"{folder} has the {arm} of {path} as seed {same[0]} already: a seed is a fine-tuning of its own, not another choice of images; "
                "give the file that was fine-tuned with the other seed"
            )
        was = {line["weights"]["sha256"] for line in lines if line["arm"] == arm and line["seed"] == seed and line.get("weights")}
        others = [line["arm"] for line in lines if line["seed"] == seed and line["arm"] not in paths]
        if others and was and (path is None or file_sha256(path) not in was):
            raise ValueError(
                f"{folder} has {arm} of seed {seed} from another file than {path}, and beside it {', '.join(others)}, which this command doesn't measure again; "
                "choose another --output-dir"
            )


def fresh_folders(config: Config, paths: dict[str, Path | None]) -> dict[str, Path]:
    """--fresh as folders by arm.

    Raises:
        ValueError: not ARM=FOLDER, or an arm that isn't measured.
    """
    pairs = [entry.partition("=") for entry in config.fresh]
    wrong = [arm + equals + folder for arm, equals, folder in pairs if arm not in paths or not folder]
    if wrong:
        raise ValueError(f"expected --fresh as ARM=FOLDER with an arm that is measured ({', '.join(paths)}), got {wrong}")
    return {arm: Path(folder) for arm, _, folder in pairs}


if __name__ == "__main__":
    run_recipe(main, Config, __doc__)

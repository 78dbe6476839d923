"""Robustness and generalization of trained MaLPs: degradations, image files, other generators and attributes, image size, template leakage.

    python recipes/research/probe_malp.py --malps MaLP=runs/ablation/malp/default-0 MaLP=runs/ablation/malp/default-1 passive=runs/ablation/malp/passive-0
    python recipes/research/probe_malp.py --parts generators resolution --other-generators cartoongan=hayao.npz fast_srgan=model.pt --overlays pairs …

Folders of one name are seeds of one method. Parts:

    robustness   every image is degraded before MaLP: JPEG, blur, noise, low resolution (paper, Figure 5)
    files        encrypted images are saved as PNG or JPEG before they are manipulated
    generators   generators that MaLP wasn't trained on, and masks pasted onto photographs (Table 4)
    attributes   each attribute alone; with a MaLP of `pretrain_malp.py --malp-attribute` the others are unseen (Table 3)
    resolution   images of twice the size, unscaled ("no sc.") and scaled down ("sc.", section 4.3)
    scale        predicted and true maps blurred alike: at which scale the map is correct, and the upper bound for a map without finer detail
    leak         how much of the template an attacker recovers by averaging encrypted images

Scores are written to ``probe.jsonl``; ``probe.md``, ``robustness.png`` and ``leak.png`` are made from it. Parts that are complete there aren't
repeated.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from generators import create_generator
from malp_disc import MaLP
from malp_disc.commands.loading import usable_device
from malp_disc.data import DataOptions, build_dataset
from malp_disc.data.images import load_image
from malp_disc.data.listing import list_images
from malp_disc.degradations import DEGRADATIONS, blurred, jpeg, to_8bit
from malp_disc.detection import correlation
from malp_disc.evaluation.eval_set import BATCH, EvalSet, Manipulate, load_all
from malp_disc.evaluation.localize import ManipulatedImages, measure_malp, score_malp, through_generator
from malp_disc.fakeness import fakeness_map
from malp_disc.generator_source import GeneratorOptions, load_generator
from malp_disc.metrics.template_leakage import randomly_shifted, template_leak
from malp_disc.run_folder.experiment import content_of, not_compared, work
from malp_disc.serialization.files import write_text
from malp_disc.serialization.state_dicts import fingerprint
from malp_disc.serialization.typed_json import to_json
from malp_disc.shipped import FACES_MALP
from malp_disc.target_kind import exclusive_names
from malp_disc.training.generator_contract import check_contract
from malp_disc.training.launch import check_seeds, open_folder, run_recipe
from malp_disc.training.preflight import must_take
from recipes.research.probe_report import leak_figure, probe_tables, robustness_figure

Part = Literal["robustness", "files", "generators", "attributes", "resolution", "scale", "leak"]
SCALES = (0.0, 1.0, 2.0, 4.0)  # σ of the blur, in pixels
JPEG_QUALITIES = (95, 90, 75, 50)
LEAKING = 1000  # encrypted images available to the attacker


@dataclass(kw_only=True)
class Config(GeneratorOptions, DataOptions):
    output_dir: Path = not_compared(Path("runs/probe"))
    malps: tuple[str, ...] = work((f"MaLP={FACES_MALP}",))
    """NAME=FOLDER of saved MaLPs; folders of one name are seeds of one method."""
    other_generators: tuple[str, ...] = work(())
    """NAME=CHECKPOINT for the part generators, with names of generators/README.md."""
    overlays: Path | None = work(None)
    """Folder for the part generators: real/ with photographs, manipulated/ with the same photographs after pasting."""
    parts: tuple[Part, ...] = work(("robustness", "files", "attributes", "scale", "leak"))
    """The parts to run."""
    eval_size: int = 256
    """Number of held-out images per score."""
    seed: int = 0
    """Seed of the noise and of the attacker's random draws."""
    device: str = not_compared("auto")
    """Device to compute on: cpu, cuda, cuda:1, and so on. auto takes a GPU if there is one."""


@dataclass(frozen=True)
class Probe:
    """One trained MaLP to evaluate."""

    name: str
    seed: int
    malp: MaLP


def main(config: Config) -> None:
    check_seeds(config.seed)
    config = dataclasses.replace(config, device=str(usable_device(config.device)))
    held_out = build_dataset(config, "test")
    if min(config.eval_size, len(held_out)) < 2:
        raise ValueError(f"expected --eval-size of at least 2 held-out images, got {config.eval_size} of {len(held_out)} available")
    probes = load_probes(config.malps, config.device)
    generator = load_generator(config, attributes=len(held_out.attribute_names)).eval().requires_grad_(False).to(config.device)
    source = config.generator_name
    others = other_generators(config) if "generators" in config.parts else {}
    try_networks(probes, {source: generator, **others}, held_out, config.device)
    if "generators" in config.parts and config.overlays is not None:
        overlay_pairs(config.overlays)
    open_folder(config, accumulates=True)
    inputs = EvalSet.take(held_out, config.eval_size, exclusive=exclusive_names(generator, held_out))
    path = config.output_dir / "probe.jsonl"
    common = f"generator {fingerprint(generator.state_dict())}, {held_out.description}, n = {config.eval_size}, seed {config.seed}"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    probing: dict[str, Callable[[Probe], Iterator[dict[str, Any]]]] = {
        "robustness": lambda probe: robustness(probe, generator.manipulate, inputs, config),
        "files": lambda probe: files(probe, generator.manipulate, inputs, config),
        "generators": lambda probe: generators(probe, {"stargan (trained on)": generator, **others}, inputs, config),
        "attributes": lambda probe: attributes(probe, generator.manipulate, inputs, config),
        "resolution": lambda probe: resolution(probe, generator.manipulate, config),
        "scale": lambda probe: scale(probe, generator.manipulate, inputs, config),
        "leak": lambda probe: leak(probe, config),
    }
    todo = []
    for part in config.parts:
        more = f", others {' '.join(config.other_generators)}, overlays {config.overlays and content_of(config.overlays)}" if part == "generators" else ""
        for probe in probes:
            identity = {"part": part, "name": probe.name, "seed": probe.seed}
            settings = f"detector {fingerprint(probe.malp.state_dict())}, {common}{more}"
            done = {line["settings"] for line in lines if identity.items() <= line.items()}
            if done - {settings}:
                raise ValueError(f"{path} has {part} of {probe.name} under other settings: {done.pop()}, now {settings}; choose another --output-dir")
            if not done:
                todo.append((probe, {**identity, "settings": settings}))
    for probe, about in tqdm(todo, desc="probe"):
        found = list(probing[about["part"]](probe))
        lines += [{**about, **line} for line in found]
        write_text(path, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))
    write_text(config.output_dir / "probe.md", tables := probe_tables(lines))
    robustness_figure(lines, config.output_dir / "robustness.png")
    leak_figure(lines, config.output_dir / "leak.png")
    print(tables)


@torch.no_grad()
def try_networks(probes: list[Probe], networks: dict[str, nn.Module], dataset: Dataset, device: str) -> None:
    """Raise ValueError if a MaLP or one of the generators can't be used on images of this size, before anything is scored."""
    images = torch.stack([dataset[i][0] for i in range(2)]).to(device)
    for probe in probes:
        with must_take(images, f"{probe.name}, seed {probe.seed},"):
            probe.malp(images)
    for name, network in networks.items():
        check_contract(network, dataset, device, source=name)


def load_probes(given: tuple[str, ...], device: str) -> list[Probe]:
    """Load NAME=FOLDER … in order; seeds are numbered within a name."""
    probes: list[Probe] = []
    for entry in given:
        name, equals, folder = entry.partition("=")
        if not equals:
            raise ValueError(f"expected --malps NAME=FOLDER …, got {entry!r}")
        seed = sum(probe.name == name for probe in probes)
        probes.append(Probe(name, seed, MaLP.from_pretrained(folder).to(device).eval().requires_grad_(False)))
    return probes


def robustness(probe: Probe, manipulate: Manipulate, inputs: EvalSet, config: Config) -> Iterator[dict[str, Any]]:
    """Scores of MaLP on degraded images, encrypted and manipulated ones alike."""
    seen = through_generator(manipulate, inputs, probe.malp, device=config.device)
    for kind, degradation in DEGRADATIONS.items():
        for name, level in zip(degradation.names, degradation.levels):
            noise = torch.Generator().manual_seed(config.seed)
            scores = score_malp(seen, probe.malp, degradation=lambda images: degradation(images, level, noise), device=config.device)  # noqa: B023
            yield {"kind": kind, "case": name, "n": len(seen.images), **to_json(scores)}


def files(probe: Probe, manipulate: Manipulate, inputs: EvalSet, config: Config) -> Iterator[dict[str, Any]]:
    """Scores where the generator manipulates encrypted images that were saved to a file."""
    ways = {"not saved": None, "PNG, 8 bits": to_8bit, **{f"JPEG, quality {quality}": partial(jpeg, quality=quality) for quality in JPEG_QUALITIES}}
    for name, publish in ways.items():
        seen = through_generator(manipulate, inputs, probe.malp, publish=publish, device=config.device)
        yield {"case": name, "n": len(seen.images), **to_json(score_malp(seen, probe.malp, device=config.device))}


def attributes(probe: Probe, manipulate: Manipulate, inputs: EvalSet, config: Config) -> Iterator[dict[str, Any]]:
    """Scores for each attribute separately."""
    for attribute in inputs.attribute_names:
        own = inputs.of_one_attribute(attribute)
        yield {"case": attribute, "n": len(own.images), **to_json(measure_malp(manipulate, own, probe.malp, device=config.device))}


def other_generators(config: Config) -> dict[str, nn.Module]:
    """Load NAME=CHECKPOINT …: generators by name."""
    found = {}
    for entry in config.other_generators:
        name, _, checkpoint = entry.partition("=")
        found[name] = create_generator(name, checkpoint or None).eval().requires_grad_(False).to(config.device)
    return found


def generators(probe: Probe, cases: dict[str, nn.Module], inputs: EvalSet, config: Config) -> Iterator[dict[str, Any]]:
    """Scores for the generator of the training, for others on the same images, and for pasted masks."""
    for name, other in cases.items():
        yield {"case": name, "n": len(inputs.images), **to_json(measure_malp(other.manipulate, inputs, probe.malp, device=config.device))}
    if config.overlays is not None:
        pasted = overlays(probe, config.overlays, config.image_size, config.eval_size)
        yield {"case": "pasted masks", "n": len(pasted.images), **to_json(score_malp(pasted, probe.malp, device=config.device))}


def overlay_pairs(folder: Path) -> list[str]:
    """The file names of the pairs in a folder of overlays.

    Raises:
        ValueError: there are none.
    """
    listed = {side: list_images(folder / side) for side in ("real", "manipulated")}
    for listing in listed.values():
        listing.warn()
    names = sorted(set(listed["real"].names) & set(listed["manipulated"].names))
    if not names:
        found = " and ".join(f"{len(listing)} in {side}/" for side, listing in listed.items())
        raise ValueError(f"no pairs in {folder}: expected real/NAME and manipulated/NAME, the same names in both; found {found}")
    return names


def overlays(probe: Probe, folder: Path, size: int, count: int) -> ManipulatedImages:
    """Pairs of photographs with the pasted regions, where a pair differs, put over the encrypted image."""
    names = overlay_pairs(folder)[:count]
    real, pasted = (torch.stack([load_image(folder / side / name, image_size=size) for name in names]) for side in ("real", "manipulated"))
    changed = ((real - pasted).abs().amax(1, keepdim=True) > 24 / 127.5).float()
    covered = -F.max_pool2d(-F.max_pool2d(changed, 3, 1, 1), 3, 1, 1)  # ignores JPEG noise and closes small holes
    index = torch.zeros(len(real), dtype=torch.long)
    encrypted, _ = probe.malp.encrypt(real, index)
    return ManipulatedImages(real, encrypted, covered * pasted + (1 - covered) * encrypted, index)


def resolution(probe: Probe, manipulate: Manipulate, config: Config) -> Iterator[dict[str, Any]]:
    """Scores at twice the size: the template is resampled, and the generator is convolutional."""
    large = EvalSet.take(build_dataset(dataclasses.replace(config, image_size=2 * config.image_size), "test"), config.eval_size)
    seen = through_generator(manipulate, large, probe.malp, device=config.device)
    yield {"case": f"{2 * config.image_size}x{2 * config.image_size}, no sc.", "n": len(seen.images), **to_json(score_malp(seen, probe.malp, device=config.device))}
    scaled = ManipulatedImages(*(halve(images) for images in (seen.images, seen.published, seen.manipulated)), seen.index)
    yield {"case": f"scaled to {config.image_size}x{config.image_size}, sc.", "n": len(seen.images), **to_json(score_malp(scaled, probe.malp, device=config.device))}


def halve(images: Tensor) -> Tensor:
    return F.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)


@torch.no_grad()
def scale(probe: Probe, manipulate: Manipulate, inputs: EvalSet, config: Config) -> Iterator[dict[str, Any]]:
    """Pearson correlation of blurred predicted and blurred true map; and of blurred and unblurred true map, the bound without finer detail."""
    seen = through_generator(manipulate, inputs, probe.malp, device=config.device)
    maps = torch.cat([probe.malp(to_8bit(part).to(config.device)).map.cpu() for part in seen.manipulated.split(BATCH)])
    truth = fakeness_map(seen.images, seen.manipulated)
    for sigma in SCALES:
        coarse = blurred(truth, sigma)
        scores = {"pearson": correlation(blurred(maps, sigma), coarse).mean().item(), "ceiling": correlation(coarse, truth).mean().item()}
        yield {"case": f"σ = {sigma:g} pixels", "n": len(truth), "scale": scores}


def leak(probe: Probe, config: Config) -> Iterator[dict[str, Any]]:
    """Template recovery by an attacker with encrypted training images and unprotected images of the same kind."""
    if probe.malp.passive:
        return
    images, _ = load_all(build_dataset(config, "train"), 2 * LEAKING, "images for the attacker")
    own, others = images[: len(images) // 2], images[len(images) // 2 :]
    draw = torch.Generator().manual_seed(config.seed)
    index = probe.malp.encryption.draw(len(own), draw)
    malp = probe.malp.cpu()
    templates = malp.encryption.at(own.shape[2:])
    counts = [count for count in (1, 3, 10, 30, 100, 300, 1000) if count <= len(own)]
    ways = {"fixed position": malp.encrypt(own, index.cpu())[0], "random shift per image": randomly_shifted(malp.encryption, own, index.cpu(), draw)}
    for way, encrypted in ways.items():
        for found in template_leak(to_8bit(encrypted), templates, originals_mean=others.mean(0), shifted=way != "fixed position", counts=counts, seed=config.seed):
            yield {"case": way, "set_size": malp.encryption.set_size, **dataclasses.asdict(found)}
    probe.malp.to(config.device)


if __name__ == "__main__":
    run_recipe(main, Config, __doc__)

"""``malp-disc fid A B``: the Fréchet distance between two folders of images, comparable with pytorch-fid and clean-fid.

    malp-disc fid samples/ real/ --kid --json fid.json
    torchrun --nproc-per-node 4 -m malp_disc.cli fid samples/ real/        # four GPUs share the work

Heavy modules are imported only when the command runs, so that --help is fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    import torch

    from malp_disc.metrics.extractor import FeatureExtractor
    from malp_disc.metrics.feature_sets import FeatureSet
    from malp_disc.metrics.image_folder import ImageFolder

FEWEST = 8
"""Minimum number of images in a folder; with fewer, a covariance estimate is meaningless."""
_FAMILY = {"clean": "clean", "legacy_pytorch": "inception"}


# The string below each field is the help of its flag.
@dataclass(kw_only=True)
class Fid:
    """Compute the Fréchet distance (FID) between the images in folder A and the reference B."""

    a: Annotated[Path, Positional, arg(metavar="A")]
    """Folder of the images to measure, with its sub-folders and linked folders."""
    b: Annotated[Path, Positional, arg(metavar="B")]
    """Reference: a folder, a features file from the cache (.safetensors), or statistics of pytorch-fid or clean-fid (.npz).
    The features of a folder are cached by its content (the folder of the cache is MALP_DISC_CACHE)."""
    mode: Literal["clean", "legacy_pytorch"] = "clean"
    """Resize of the images: clean-fid's antialiased one (clean), or pytorch-fid's (legacy_pytorch). The two give different numbers."""
    dims: Literal[64, 192, 768, 2048] = 2048
    """Number of Inception features. 2048 is FID; fewer features need fewer images, and the result is labelled FID-768 and so on."""
    fid_weights: Annotated[Path | None, arg(metavar="FILE")] = None
    """File of Inception's weights: pytorch-fid's state dict (.pth), or a .safetensors with the same keys, as far as --dims needs them.
    By default, they are taken from the cache, or downloaded into it and checked."""
    kid: bool = False
    """Also compute the kernel distance (KID), which is unbiased and suits small sets."""
    precision_recall: bool = False
    """Also compute precision, recall, density, and coverage with five nearest neighbours."""
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write all results to this JSON file."""
    batch_size: int = 32
    """Images per forward pass, 1 or more."""
    device: str = "auto"
    """Device to compute on: cpu, cuda, cuda:1, and so on. auto takes a GPU if there is one."""


def fid(options: Fid) -> None:
    """Compare, print, and write the JSON.

    Raises:
        ValueError, OSError: invalid folders, weights or flags, all before any long work.
    """
    for path in (options.a, options.b):
        if not path.exists():
            raise FileNotFoundError(
                f"nothing at {path}; give a folder of images (B may be a features file or statistics as well, see --help)"
            )
    if options.batch_size < 1:
        raise ValueError(f"expected --batch-size of at least 1, got {options.batch_size}")
    if options.json is not None:
        from malp_disc.serialization.files import check_writable, write_json

        check_writable(options.json, "--json")
    import torch  # from here on it takes seconds
    from accelerate import PartialState

    from malp_disc.commands.loading import usable_device
    from malp_disc.errors import memory_suffices

    # Without cpu=True Accelerate takes each process of a torchrun on a machine without GPUs for a single one.
    state = PartialState(cpu=options.device == "cpu" or (options.device == "auto" and not torch.accelerator.is_available()))
    device = state.device if options.device == "auto" else usable_device(options.device)  # a launcher gives each process its own
    with memory_suffices(f"{device} has too little memory for --batch-size {options.batch_size}; give a smaller one{', or --device cpu' * (device.type != 'cpu')}"):
        record = compare(options, device, quiet=not state.is_main_process)
    if state.is_main_process:
        _print_summary(record)
        if options.json is not None:
            write_json(options.json, record)
            print(f"written: {options.json}")
    if state.num_processes > 1:
        state.destroy_process_group()


def compare(options: Fid, device: torch.device, *, quiet: bool = False) -> dict[str, Any]:
    """The record that `--json` writes: ``fid``, ``kid`` and ``precision_recall`` (null if not asked for), ``notes``, ``versions``."""
    from malp_disc.metrics.comparison import describe_frechet, describe_kernel, describe_precision_recall
    from malp_disc.metrics.feature_sets import folder_features, read_features
    from malp_disc.metrics.features import create_extractor
    from malp_disc.metrics.image_folder import ImageFolder
    from malp_disc.run_folder.environment import collect_environment

    folders = [None if _is_kept(path) else ImageFolder.scan(path, fewest=FEWEST, quiet=quiet) for path in (options.a, options.b)]
    extractor = create_extractor(f"{_FAMILY[options.mode]}-{options.dims}", weights=options.fid_weights, device=device, instead="")  # it has Inception only
    sets = [read_features(path, extractor) if folder is None else None for path, folder in zip((options.a, options.b), folders)]
    for path, kept in zip((options.a, options.b), sets):
        if kept is not None and kept.features is None and (options.kid or options.precision_recall):
            raise ValueError(
                f"{path} holds only mean and covariance, and --kid and --precision-recall need more; give the folder of images"
            )
    for side, folder in enumerate(folders):
        if folder is not None:
            sets[side] = folder_features(folder, extractor, batch_size=options.batch_size, keep=side == 1, quiet=quiet)
    images, reference = sets
    return {
        "fid": {"mode": options.mode, **describe_frechet(images, reference, extractor)},
        "kid": describe_kernel(images, reference, extractor) if options.kid else None,
        "precision_recall": describe_precision_recall(images, reference) if options.precision_recall else None,
        "notes": _notes(sets, folders, extractor),
        "versions": collect_environment(),
    }


def _notes(sets: list[FeatureSet], folders: list[ImageFolder | None], extractor: FeatureExtractor) -> list[str]:
    """Caveats of the comparison."""
    notes = []
    known = [side.n for side in sets if side.n is not None]
    counts = [(side.n, side.n - (folder.copies if folder else 0)) for side, folder in zip(sets, folders) if side.n is not None]
    n, distinct = min(counts, key=lambda count: count[1], default=(0, 0))
    if counts and distinct <= extractor.dims:
        few = f"{n} images{f' ({distinct} distinct by content)' * (distinct < n)} don't tell the covariance of {extractor.dims} features"
        notes.append(f"{few}: the value is biased upward, so compare it at equal n only")
    if len(set(known)) > 1:
        notes.append(f"the sets differ in size ({known[0]} and {known[1]}); the fewer the images, the larger the distance")
    if extractor.dims != 2048:
        notes.append(f"{extractor.label} is not FID, which has 2048 features, and doesn't compare with one")
    scanned = [folder for folder in folders if folder is not None]
    for folder in scanned:
        notes += _folder_notes(folder)
    if len(scanned) == 2:
        a, b = scanned
        if set(a.sizes) != set(b.sizes):
            notes.append(f"the sets differ in image size ({a.describe_sizes()} and {b.describe_sizes()}), which is part of the distance")
        both = set(a.digests) & set(b.digests)
        shared = sum(digest in both for digest in a.digests)
        if shared:
            distinct = f" ({len(both)} distinct by content)" if len(both) < shared else ""
            notes.append(f"{shared} of {len(a)} images in {a.name}{distinct} are in {b.name} as well")
    return notes


def _folder_notes(folder: ImageFolder) -> list[str]:
    """Caveats about the files of one folder: skipped files, duplicates, mixed sizes."""
    notes = []
    if folder.left_out:
        notes.append(f"{folder.name}: {folder.left_out}")
    if folder.copies:
        distinct = f"so {len(folder) - folder.copies} are distinct by content"
        notes.append(f"{folder.copies} of {len(folder)} images in {folder.name} are copies of others in it, {distinct}")
    if len(set(folder.sizes)) > 1:
        sizes = f"{len(set(folder.sizes))} sizes: {folder.describe_sizes()}"
        notes.append(f"{folder.name} mixes images of {sizes}; each is resized by itself, as clean-fid does (pytorch-fid refuses such a batch)")
    if folder.animations:
        notes.append(f"of {folder.animations} animated or multi-page file{'s' * (folder.animations > 1)} in {folder.name} the first frame is taken")
    if folder.unlisted:
        notes.append(f"{folder.unlisted} of {len(folder)} images in {folder.name} have a suffix that pytorch-fid and clean-fid don't look for")
    return notes


def _print_summary(record: dict[str, Any]) -> None:
    about, kid, scores = record["fid"], record["kid"], record["precision_recall"]
    print(f"{about['label']} {about['value']:.6g}   {about['images']} from {about['reference']}")
    if kid is not None:
        spread = "" if kid["std"] is None else f" ± {kid['std']:.2g} over {kid['subsets']} subsets of {kid['subset_size']}"
        print(f"{kid['label']} {kid['value']:.4g}{spread}")
    if scores is not None:
        print("   ".join(f"{name} {scores[name]:.4f}" for name in ("precision", "recall", "density", "coverage")))
    print(f"{about['extractor']}; {about['resize']}")
    for note in record["notes"]:
        print(f"note: {note}")


def _is_kept(path: Path) -> bool:
    """Whether the path is a file of features or statistics, not a folder of that name."""
    return path.suffix in (".safetensors", ".npz") and not path.is_dir()



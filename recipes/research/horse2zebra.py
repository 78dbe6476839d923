"""Does a published generator without a discriminator improve? The compressed CycleGAN (GAN Compression) on horse2zebra, 256 pixels.

    python recipes/research/horse2zebra.py --dataset horse2zebra --generator-checkpoint latest_net_G.pth --fid-weights fid_inception.safetensors \\
        --arms control vision_aided --seeds 0
    python recipes/research/horse2zebra.py … --arms control vision_aided cotrain --seeds 0 1 --resume-from-checkpoint latest      # further arms and seeds
    python recipes/research/horse2zebra.py … --losses generators.example_losses:translation --arms control --output-dir runs/horse2zebra-patchgan

The same as ``malp-disc finetune`` with the flags of docs/results/horse2zebra.md as defaults. --dataset is the CycleGAN data set: trainA, testA (horses), trainB
and testB (zebras). 240 horses and 400 zebras are held out by the hash of their names; training sees crops of 160 pixels of the others. The generator comes
without its discriminator, so L1 to its own former output (--keep-weight 5) keeps it close, at the finest frequencies more (--keep-nyquist-weight 10), and the
self-similarity of its input (--content-weight 20) keeps what is in the image. A discriminator that anyone would write, a new PatchGAN, is
``--losses generators.example_losses:translation``, with the arm control.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from malp_disc.commands.finetune import Config as FinetuneConfig
from malp_disc.commands.finetune import main as finetune
from malp_disc.run_folder.experiment import not_compared
from malp_disc.training.diff_augment import Augmentation
from malp_disc.training.launch import run_recipe

DOMAINS = {"horses": ("trainA", "testA"), "zebras": ("trainB", "testB")}


@dataclass(kw_only=True)
class Config(FinetuneConfig):
    """Flags of `malp-disc finetune`, with the defaults of this study."""

    dataset: Path = not_compared()
    """Folder of the data set, with trainA, testA, trainB and testB."""
    domains: Path = not_compared(Path("runs/horse2zebra-domains"))
    """Folder that is made for the images of either domain, as links."""
    output_dir: Path = Path("runs/horse2zebra")
    generator: str = "cyclegan_compressed"
    keep_weight: float = 5.0
    keep_nyquist_weight: float = 10.0
    content_weight: float = 20.0
    augmentation: tuple[Augmentation, ...] = ("translation",)
    data: Literal["images"] = "images"
    image_size: int = 256
    test_size: int = 240
    reference_test_size: int | None = 400
    random_crop: int | None = 160
    train_batch_size: int = 4
    max_train_steps: int = 500
    lr_warmup_steps: int | None = 0
    discriminator_learning_rate: float = 4e-4
    backbone_depths: int | None = 4
    realness_weight: float = 5.0
    malp_pretrain_steps: int = 300
    extractor: str = "inception-768"
    second_extractor: str = "squeezenet"
    smaller_views: tuple[Literal[2, 4], ...] = ()
    eval_size: int = 240
    reference_size: int = 400
    eval_steps: int = 0
    checkpointing_steps: int = not_compared(50)


def main(config: Config) -> None:
    config.data_root, config.reference_root = (link_domain(config.dataset, folders, config.domains / name) for name, folders in DOMAINS.items())
    finetune(config)


def link_domain(dataset: Path, folders: tuple[str, ...], domain: Path) -> Path:
    """A folder with links to those of one domain's images, train and test together.

    Raises:
        FileNotFoundError: the data set lacks one of the folders.
    """
    domain.mkdir(parents=True, exist_ok=True)
    for name in folders:
        images, link = (dataset.expanduser() / name).resolve(), domain / name
        if not images.is_dir():
            raise FileNotFoundError(f"no {images}; expected --dataset to be the CycleGAN data set with {', '.join(sum(DOMAINS.values(), ()))}")
        if link.resolve() == images:
            continue  # another process or command may be reading through it
        made = domain / f".{name}.{os.getpid()}"
        made.unlink(missing_ok=True)
        made.symlink_to(images, target_is_directory=True)
        os.replace(made, link)  # at once, also beside other processes
    return domain


if __name__ == "__main__":
    run_recipe(main, Config, __doc__)

"""Fine-tune a pretrained generator against trained heads on a frozen backbone (vision_aided) or against MaLP (Eq. 12), and report whether its images improved.

Drawn faces and the included StarGAN, a few minutes on a CPU:

    malp-disc finetune

Your own generator and losses on a folder of images, after a check:

    malp-disc doctor my_module:make --losses my_module:losses --attributes 0 --image-size 128
    malp-disc finetune --generator my_module:make --losses my_module:losses --data images --data-root photos --image-size 128 \\
        --arms control vision_aided --output-dir runs/mine

A generator of the zoo without losses of its own, with images of its target domain:

    accelerate launch -m malp_disc finetune --generator cartoongan --generator-checkpoint Hayao_net_G_float.pth --keep-weight 10 \\
        --data images --data-root photos --reference-root frames --image-size 128 --arms control vision_aided --output-dir runs/cartoon

A StarGAN on CelebA, three seeds:

    accelerate launch -m malp_disc finetune --generator-checkpoint 200000-G.ckpt --discriminator-checkpoint 200000-D.ckpt --data celeba \\
        --data-root /data/celeba --image-size 128 --attribute-classifier runs/classifier.safetensors --arms control vision_aided --seeds 0 1 2 \\
        --output-dir runs/celeba

The generator's own losses keep it doing its task. They are an nn.Module with ``generator_loss(fake, batch, edit)`` and, if it has parameters to train (a
discriminator), ``forward(fake, batch)``; generators/README.md shows both in ten lines. Without them, --keep-weight keeps the generator close to the original
one. A StarGAN has its own losses built in.

--arms chooses what is compared. --dry-run prints what the run would do and what it needs. ``--resume-from-checkpoint latest`` continues an interrupted run with
the same result as an uninterrupted one. The report is ``<output-dir>/report.html``; the tuned generators are ``<output-dir>/G-<arm>.safetensors``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import nn
from torch.utils.data import Dataset

from malp_disc.backbones import create_backbone
from malp_disc.data import WithReferences, build_dataset, default_reference_test_size, held_out_references
from malp_disc.data.listing import check_folder
from malp_disc.data.overlap import check_held_out
from malp_disc.experiment.arms import Arm, ArmOptions
from malp_disc.experiment.given_malp import load_learned_malp
from malp_disc.experiment.run import run_arms
from malp_disc.generator_source import STARGAN, GeneratorOptions, load_generator
from malp_disc.import_object import call_by_name, import_own_packages
from malp_disc.malp import MaLP
from malp_disc.run_folder.arms import ARMS_HELP
from malp_disc.run_folder.experiment import work
from malp_disc.self_similarity import SelfSimilarity, WithContentLoss
from malp_disc.shipped import FACES_DISCRIMINATOR, FACES_MALP
from malp_disc.training.generator_contract import check_contract, check_objective
from malp_disc.training.launch import start
from malp_disc.training.output_folder import has_results

logger = logging.getLogger("malp_disc")


@dataclass(kw_only=True)
class Config(ArmOptions, GeneratorOptions):
    """Flags of a fine-tuning."""

    arms: tuple[Arm, ...] = work((), help=f"{ARMS_HELP}\nBy default, control, and joint where a pretrained MaLP is at hand (--malp, or the included one), else vision_aided.")
    losses: str | None = None
    """The generator's own losses, as MODULE:FUNCTION. A StarGAN has them built in.
    Any other generator without losses gets --keep-weight 10 unless that is set."""
    content_weight: float = 0.0
    """Weight of the self-similarity loss in all arms, which keeps the shapes of an image while its textures change, 0 or more.
    For translations to another domain; it looks at features of --backbone. A control without losses of its own then takes its edits back: compare with the generator before."""
    discriminator_checkpoint: Path | None = None
    """Weights of a StarGAN's own discriminator."""
    reconstruction_weight: float | None = None
    """Weight λ_rec of a StarGAN's own reconstruction loss; use the value that the generator was trained with.
    By default, the paper's 10, which the included generator was trained with."""
    reference_root: Path | None = None
    """Folder with images of the target domain, which discriminators and the generator's own losses get as real images.
    The generator's images are compared with those that were held out. They may not be among the images that are edited for the comparison.
    By default, the training data is the reference, which suits a generator whose edits are of the domain of its inputs."""
    reference_test_size: int | None = None
    """Number of images of --reference-root that are held out from training, for the comparison.
    0 compares with those of training, which a discriminator may have memorised.
    By default, half of the folder, at most --reference-size. No effect if it has folders train/ and test/."""
    paired: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Each image has a partner of the same name in --reference-root. Held-out images are compared with their partners."""

    @property
    def built_in_losses(self) -> bool:
        """Whether StarGAN's built-in losses are used."""
        return self.generator == STARGAN and self.losses is None

    @property
    def malp_at_hand(self) -> bool:
        """Whether there is a pretrained MaLP: a given one, or that of the included generator."""
        return self.malp is not None or (self.built_in_losses and self.generator_checkpoint is None)

    @property
    def given_backbone_weights(self) -> Path | None:
        """Weights of the backbone that a given MaLP's second branch has; --backbone-weights may also be those of another network, which --content-weight uses."""
        return self.malp_backbone_weights or (None if self.content_weight else self.backbone_weights)

    def check(self) -> None:
        self.arms = self.arms or ("control", "joint" if self.malp_at_hand else "vision_aided")
        if self.losses is None and not self.built_in_losses and not self.keep_weight:
            self.keep_weight = 10.0
        super().check()
        self.check_generator_options()
        if self.content_weight < 0:
            raise ValueError(f"expected --content-weight of 0 or more, got {self.content_weight}")
        if self.paired and self.reference_root is None:
            raise ValueError("--paired needs --reference-root, the folder of the partners")
        if self.reference_root is not None and self.reference_split != "auto":
            raise ValueError("--reference-split has no effect with --reference-root; --reference-test-size says how many of its images are held out for the comparison")
        if self.reference_test_size is not None and (self.paired or self.reference_root is None):
            raise ValueError("--reference-test-size is for an unpaired --reference-root; partners of held-out images are always held out")
        if self.built_in_losses and self.generator_checkpoint is not None and self.discriminator_checkpoint is None:
            raise ValueError("--generator-checkpoint of a StarGAN needs --discriminator-checkpoint: its own D stays on while it is fine-tuned")
        if not self.built_in_losses:
            for name in ("discriminator_checkpoint", "reconstruction_weight"):
                if getattr(self, name) is not None:
                    raise ValueError(f"--{name.replace('_', '-')} is for a StarGAN with its own losses; got --generator {self.generator}, --losses {self.losses}")


def main(config: Config) -> None:
    """Fine-tune every arm and seed, measure them, and write the generators and the report to ``config.output_dir``.

    Raises:
        ValueError, FileNotFoundError: invalid flags or files, or a folder that belongs to another run; before any work.
    """
    config.check()
    dataset, reference = load_datasets(config)
    check_references(config, dataset, reference)
    accelerator = start(config, dataset)
    generator, objective, malp = load_networks(config, dataset, accelerator.device, tell=accelerator.print)
    run_arms(config, generator, objective, malp, dataset, accelerator, source=config.generator_file, reference=reference)


def load_datasets(config: Config) -> tuple[Dataset, Dataset | None]:
    """The training images, and the images to compare with if these aren't the data set's own."""
    dataset = build_dataset(config, "train")
    if config.reference_root is None:
        return dataset, None
    root = config.reference_root
    check_folder(root, "--reference-root")
    test_size = config.reference_test_size
    if test_size is None and not config.paired:
        test_size = default_reference_test_size(root, most=config.reference_size)
    held_out = build_dataset(config, "test")
    reference = held_out_references(held_out, root, paired=config.paired, test_size=test_size or 0)
    return WithReferences(dataset, root, paired=config.paired, test_size=test_size or 0), reference


def check_references(config: Config, dataset: Dataset, reference: Dataset | None) -> None:
    """Raise ValueError if images of --reference-root are among the held-out ones that the generators edit; warn of it where a run of an earlier version is resumed."""
    if config.reference_root is None:
        return
    edited = build_dataset(config, "test").paths[: config.eval_size]
    compared = reference.paths[: config.eval_size if config.paired else config.reference_size]
    try:
        check_held_out(edited, compared, dataset.all_references, config.reference_root, paired=config.paired)
    except ValueError as error:
        if config.resume_from_checkpoint is None or not has_results(config.output_dir):
            raise
        logger.warning(f"{error}. This run continues, as an earlier version started it")


def load_networks(
    config: Config, dataset: Dataset, device: torch.device, *, tell: Callable[[str], None]
) -> tuple[nn.Module, nn.Module | None, MaLP | None]:
    """The generator, its own losses or None, and the pretrained MaLP or None.

    Raises:
        ValueError: networks that don't fit each other or the data, or can't be fine-tuned.
    """
    generator = load_generator(config, attributes=len(dataset.attribute_names))
    check_contract(generator, dataset, device, source=config.generator_name, training=True, tell=tell)
    generator = generator.to(device).eval()
    given = config.malp or (FACES_MALP if config.malp_at_hand else None)
    if config.built_in_losses:
        objective = stargan_objective(config, len(dataset.attribute_names))
    else:
        objective = call_by_name(config.losses) if config.losses is not None else None
        if objective is not None:
            check_objective(objective, generator, dataset, device, source=config.losses)
    if config.content_weight:
        similarity = SelfSimilarity(create_backbone(config.backbone, config.backbone_weights, depths=2), least_side=config.backbone_side)
        objective = WithContentLoss(objective, similarity, weight=config.content_weight)
    malp = load_learned_malp(given, backbone_weights=config.given_backbone_weights) if given is not None else None
    return generator, objective, malp


def stargan_objective(config: Config, attributes: int) -> nn.Module:
    """A StarGAN's own losses with its own discriminator: adversarial, classification, reconstruction."""
    import_own_packages()
    from generators.stargan import stargan_discriminator
    from generators.stargan_losses import StarGANObjective, StarGANWeights

    discriminator = stargan_discriminator(config.discriminator_checkpoint or FACES_DISCRIMINATOR, c_dim=attributes, image_size=config.image_size)
    weights = StarGANWeights() if config.reconstruction_weight is None else StarGANWeights(rec=config.reconstruction_weight)
    return StarGANObjective(discriminator, weights)

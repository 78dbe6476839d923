"""MaLPs whose template is made by an adversarial attack and then stays fixed: the rows PGD, FGSM and CW of the paper's Table 7.

    python recipes/research/attack_templates.py --output-dir runs/attacks
    accelerate launch recipes/research/attack_templates.py --target runs/passive/malp --generator-checkpoint 200000-G.ckpt --data celeba \\
        --data-root /data/celeba --image-size 128 --malp-width 64 --max-train-steps 20000 --output-dir runs/attacks-celeba

The attack lowers J_L of Eq. 8, on encrypted images and through the generator on their edits, for a MaLP that was trained without a template: --target, or one
that is pretrained first into ``<output-dir>/target``. Then a new MaLP is pretrained with the attack's template, as `malp-disc pretrain` does with a
learned one. ``<output-dir>/<attack>`` is a folder for --localizers of `malp-disc benchmark`: ``--localizers PGD=malp=runs/attacks/pgd``.
Templates of FGSM and CW have the PSNR --template-psnr; PGD stays inside the same ball, at that PSNR or above.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import Dataset

from malp_disc import MaLP
from malp_disc.benchmark.attack_templates import Loss, cw, fgsm, pgd, psnr_of
from malp_disc.data import build_dataset
from malp_disc.evaluation.eval_set import EvalSet
from malp_disc.fakeness import fakeness_map
from malp_disc.generator_source import GeneratorOptions, load_generator
from malp_disc.losses import LossWeights, localization_loss_encrypted, localization_loss_manipulated
from malp_disc.manipulate import Manipulate, call_manipulate
from malp_disc.run_folder.experiment import work
from malp_disc.runtime.random_state import random_state_kept
from malp_disc.training.generator_contract import check_contract
from malp_disc.training.launch import run_recipe, start
from malp_disc.training.pretrain import pretrain
from malp_disc.training.pretrain_options import PretrainOptions, build_malp, check_learned_templates, check_options

Attack = Literal["fgsm", "pgd", "cw"]


@dataclass(kw_only=True)
class Config(PretrainOptions, GeneratorOptions):
    output_dir: Path = Path("runs/attacks")
    attacks: tuple[Attack, ...] = work(("fgsm", "pgd", "cw"))
    """The attacks that make a template."""
    target: Path | None = None
    """Folder of a MaLP that was pretrained with --malp-strength 0, which the attacks work against.
    By default, one is pretrained first with the same flags."""
    template_psnr: float = 30.1
    """PSNR in dB of images with a template of ±ε everywhere. 30.1 is ε = 8/255, for images in [0, 1]."""
    attack_batches: int = 40
    """Minibatches of --train-batch-size images: FGSM takes their mean gradient, PGD makes a step on each, CW five."""


def main(config: Config) -> None:
    check_learned_templates(config, "an attack's template takes the place of a learned one")
    dataset = build_dataset(config, "train")
    check_options(config, dataset)
    config.check_generator_options()
    if config.malp_least_psnr > config.template_psnr:
        raise ValueError(
            f"--malp-least-psnr {config.malp_least_psnr:g} would weaken templates of --template-psnr {config.template_psnr:g}; give a lower one"
        )
    if config.malp_strength == 0:
        raise ValueError("--malp-strength 0 leaves no place for an attack's template; it is for the --target alone")
    if config.attack_batches < 1:
        raise ValueError(f"expected --attack-batches of at least 1, got {config.attack_batches}")
    target = MaLP.from_pretrained(config.target, branch=False) if config.target is not None else None
    if target is not None and not target.passive:
        raise ValueError(
            f"expected --target {config.target} without a template (pretrained with --malp-strength 0), got strength {target.config.strength:g}"
        )
    accelerator = start(config, dataset)
    generator = load_generator(config, attributes=len(dataset.attribute_names))
    check_contract(generator, dataset, accelerator.device, source=config.generator_name, tell=accelerator.print)
    generator.eval().requires_grad_(False).to(accelerator.device)
    if target is None:
        target = trained("target", build_malp(dataclasses.replace(config, malp_strength=0.0)), generator, dataset, config, accelerator)
    target = target.to(accelerator.device).eval().requires_grad_(False)
    for attack in config.attacks:
        with random_state_kept(seed=config.seed):  # the same weights for all attacks, also in a run that is resumed between two of them
            malp = build_malp(config)
        side = malp.encryption.templates.shape[-1]
        template = make_template(attack, template_loss(target, generator.manipulate, dataset, config, accelerator.device), side, config)
        accelerator.print(f"{attack}: PSNR of encrypted images {psnr_of(template):.2f} dB")
        malp.encryption.templates.data[:] = template / config.malp_strength
        trained(attack, malp, generator, dataset, dataclasses.replace(config, malp_template_learning_rate=0.0), accelerator)
    accelerator.end_training()


def template_loss(target: MaLP, manipulate: Manipulate, dataset: Dataset, config: Config, device: torch.device) -> Loss:
    """J_L of Eq. 8 for `target`, on the first ``attack_batches`` minibatches of the data set, step by step and over again."""
    inputs = EvalSet.take(dataset, config.attack_batches * config.train_batch_size)
    batches = list(zip(*(part.split(config.train_batch_size) for part in (inputs.images, inputs.targets, inputs.labels))))
    weights = LossWeights()

    def loss(template: Tensor, step: int) -> Tensor:
        images, targets, labels = (part.to(device) for part in batches[step % len(batches)])
        added = nn.functional.interpolate(template.to(device)[None, None], size=images.shape[2:], mode="bilinear", antialias=True)
        encrypted = (images + added).clamp(-1, 1)
        fake = call_manipulate(manipulate, encrypted, targets, current=labels).clamp(-1, 1)
        truth = fakeness_map(images, fake).detach()
        maps = target(torch.cat([encrypted, fake])).map
        on_encrypted, on_fake = maps.chunk(2)
        return (localization_loss_encrypted(on_encrypted, truth, weights) + localization_loss_manipulated(on_fake, truth, weights)).cpu()

    return loss


def make_template(attack: Attack, loss: Loss, side: int, config: Config) -> Tensor:
    """The attack's template (side, side) at the strength of ``template_psnr``."""
    epsilon = 2 * 10 ** (-config.template_psnr / 20)
    if attack == "fgsm":
        return fgsm(loss, side, epsilon=epsilon, batches=config.attack_batches)
    if attack == "pgd":
        return pgd(loss, side, epsilon=epsilon, step_size=epsilon / 4, steps=config.attack_batches, seed=config.seed)
    return cw(loss, side, bound=2 * epsilon, steps=5 * config.attack_batches, psnr=config.template_psnr, seed=config.seed)


def trained(name: str, malp: MaLP, generator: nn.Module, dataset: Dataset, config: Config, accelerator: Accelerator) -> MaLP:
    """Pretrain `malp` into ``<output-dir>/<name>``, or load it if the run that is resumed finished it."""
    folder = config.output_dir / name
    if config.resume_from_checkpoint is not None and (folder / "config.json").exists():
        return MaLP.from_pretrained(folder, backbone_weights=config.malp_backbone_weights)
    settings = dataclasses.replace(config, resume_from_checkpoint="latest" if config.resume_from_checkpoint else None)
    malp = pretrain(malp, generator, dataset, settings, accelerator, name=name)
    if accelerator.is_main_process:
        malp.save_pretrained(folder)
    accelerator.wait_for_everyone()
    return malp


if __name__ == "__main__":
    run_recipe(main, Config, __doc__)

"""The loop of a pretraining: a template and a detector are trained for one generator, which stays fixed (paper, section 3, Eq. 11)."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from malp_disc.discriminator import MaLPDiscriminator
from malp_disc.losses import LossWeights
from malp_disc.malp import MaLP
from malp_disc.target_kind import label_options
from malp_disc.training.checkpoints import CheckpointManager, check_space, prepare_optimizer
from malp_disc.training.loop import ShownTerm, run_steps
from malp_disc.training.pretrain_options import PretrainOptions, resume_fingerprint
from malp_disc.training.pretrain_step import PretrainStep


def pretrain(
    malp: MaLP, generator: nn.Module, dataset: Dataset, config: PretrainOptions, accelerator: Accelerator, weights: LossWeights | None = None, *, name: str = "malp"
) -> MaLP:
    """Train `malp` on pairs of T(I) and G(T(I)) by Eq. 11 and return it in evaluation mode.

    Args:
        generator: stays fixed; needs ``manipulate(images, target)``, a target of its `target_kind`.
        weights: λ of Eq. 7-11.
        name: of the checkpoints, ``<output-dir>/<name>-training``, and of the curve, ``<output-dir>/curves/<name>.jsonl``.

    Raises:
        ValueError: a checkpoint belongs to a run with other settings, or the disk has too little space.
        KeyboardInterrupt: the run was interrupted; its checkpoint is written.
    """
    # Networks
    disc = MaLPDiscriminator(malp, trainable=True, loss_weights=weights, generator_gradient=config.malp_generator_gradient)
    optimizer = torch.optim.Adam(disc.parameter_groups(lr=config.malp_learning_rate, template_lr=config.malp_template_learning_rate), foreach=True)
    base_rates = [group["lr"] for group in optimizer.param_groups]

    # Resume, then prepare
    training = CheckpointManager(
        config.output_dir / f"{name}-training", networks={"malp": malp}, optimizers={"malp": optimizer}, settings=resume_fingerprint(config)
    )
    first = training.resume(config, accelerator)["step"]
    check_space(config.output_dir, training.space(config))
    wrapped, optimizer = accelerator.prepare(disc), prepare_optimizer(accelerator, optimizer)
    train_step = PretrainStep(disc, wrapped, optimizer, generator, config, accelerator, base_rates=base_rates, **label_options(generator, dataset))

    run_steps(
        train_step,
        dataset,
        config,
        accelerator,
        training,
        ShownTerm("MaLP/total", "J"),
        first=first,
        curve=config.output_dir / "curves" / f"{name}.jsonl",
        run=name,
        label=f"pretrain {name}",
    )
    accelerator.free_memory()
    return malp.eval()

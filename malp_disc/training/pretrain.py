"""The loop of a pretraining: a template and a detector are trained for one generator, which stays fixed (paper, section 3, Eq. 11)."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from malp_disc.discriminator import MaLPDiscriminator
from malp_disc.distributed import mean_values_over_processes
from malp_disc.losses import LossWeights
from malp_disc.malp import MaLP
from malp_disc.training.batches import steps
from malp_disc.training.checkpoints import CheckpointManager, check_space
from malp_disc.training.curves import Curves, progress
from malp_disc.training.interrupt import GracefulInterrupt
from malp_disc.training.pretrain_options import PretrainOptions, resume_fingerprint
from malp_disc.training.pretrain_step import PretrainStep


def pretrain(
    malp: MaLP, generator: nn.Module, dataset: Dataset, config: PretrainOptions, accelerator: Accelerator, weights: LossWeights | None = None, *, name: str = "malp"
) -> MaLP:
    """Train `malp` on pairs of T(I) and G(T(I)) by Eq. 11 and return it in evaluation mode.

    Args:
        generator: stays fixed; needs ``manipulate(images, target)``.
        weights: λ of Eq. 7-11.
        name: of the checkpoints, ``<output-dir>/<name>-training``, and of the curve, ``<output-dir>/curves/<name>.jsonl``.

    Raises:
        ValueError: a checkpoint belongs to a run with other settings, or the disk has too little space.
        KeyboardInterrupt: the run was interrupted; its checkpoint is written.
    """
    # Networks
    disc = MaLPDiscriminator(malp, trainable=True, loss_weights=weights, generator_gradient=config.malp_generator_gradient)
    optimizer = torch.optim.Adam(disc.parameter_groups(lr=config.malp_learning_rate, template_lr=config.malp_template_learning_rate))
    base_rates = [group["lr"] for group in optimizer.param_groups]

    # Resume, then prepare
    training = CheckpointManager(
        config.output_dir / f"{name}-training", networks={"malp": malp}, optimizers={"malp": optimizer}, settings=resume_fingerprint(config)
    )
    first = training.resume(config, accelerator)["step"]
    check_space(config.output_dir, training.space(config))
    wrapped, optimizer = accelerator.prepare(disc, optimizer)
    train_step = PretrainStep(
        disc, wrapped, optimizer, generator, config, accelerator, base_rates=base_rates, attribute_names=dataset.attribute_names
    )

    # Loop
    curves = Curves(config.output_dir / "curves" / f"{name}.jsonl", accelerator, start=first, run=name)
    bar = progress(config, accelerator, start=first, label=f"pretrain {name}")
    with GracefulInterrupt() as interrupt:
        for number, batches in steps(dataset, config, accelerator, start=first):
            terms = train_step(number, batches)
            bar.update()
            if number % config.log_steps == 0:
                logged = curves.log(number, mean_values_over_processes(terms))
                bar.set_postfix_str(f"J={logged['MaLP/total']:.3g}", refresh=False)
            stop = interrupt.requested()
            if training.due(number, config) or stop:
                training.save(number, config, accelerator)
            if stop:
                raise KeyboardInterrupt
    bar.close()
    accelerator.free_memory()
    return malp.eval()

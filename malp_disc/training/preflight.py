"""A forward and backward pass on two images before training: finds networks that don't fit the images, unused parameters, and G's last layer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import Dataset

from malp_disc import MaLP, MaLPDiscriminator
from malp_disc.data.sampling import StepRandom
from malp_disc.feature_branch import FeatureBranch
from malp_disc.generator_objective import call_discriminator_loss, call_generator_loss
from malp_disc.manipulate import Editor
from malp_disc.runtime.copying import copy_module
from malp_disc.runtime.random_state import random_state_kept
from malp_disc.training.batches import Batch
from malp_disc.training.diff_augment import NUMBERS
from malp_disc.training.gradient_balance import last_layer
from malp_disc.training.options import FinetuneOptions
from malp_disc.training.train_options import TrainOptions

_NO_GRADIENT = (
    "no gradient reaches the generator's weights; does its manipulate() run under no_grad, or round its result? (malp-disc doctor checks this in detail)"
)


def check_forward_pass(
    generator: nn.Module, objective: nn.Module | None, malps: Sequence[MaLP], dataset: Dataset, config: FinetuneOptions, device: torch.device
) -> None:
    """Run the generator, its own losses and every MaLP on two images, to find out before any work whether they accept images of this size.

    No weight changes, and no random number of the run is consumed.

    Raises:
        ValueError: a network fails on them, or its result can't be used.
    """
    images, labels, *reference = two_items(dataset, config, device)
    target, editor = labels.flip(0), Editor(copy_module(generator))
    with random_state_kept(device):
        with must_take(images, "the generator"):
            fake = editor(images, target, labels)
        if not fake.requires_grad:
            raise ValueError(_NO_GRADIENT)
        with must_take(images, "MaLP"), torch.no_grad():
            for malp in malps:
                malp.to(device)(images)
        if objective is None:
            return
        losses, noise = copy_module(objective, "the module of its own losses").to(device), StepRandom(config.seed, 0, batch_size=2, device=device)
        batch = Batch(images, labels, target, reference[0] if reference else None, noise, shown=images, numbers=noise.uniform(NUMBERS))
        with must_take(images, "the generator's own losses"):
            call_generator_loss(losses, fake, batch, editor)
            if any(parameter.requires_grad for parameter in losses.parameters()):
                call_discriminator_loss(losses, fake, batch)


@torch.no_grad()
def check_branch(disc: MaLPDiscriminator, dataset: Dataset, config: FinetuneOptions, device: torch.device) -> None:
    """Run a discriminator's pretrained second branch, if it has one, on two images.

    Raises:
        ValueError: its backbone can't take images of this size.
    """
    if isinstance(disc.malp.branch, FeatureBranch):
        images = two_items(dataset, config, device)[0]
        with must_take(images, f"the backbone {disc.malp.branch.backbone.backbone}"):
            disc.malp.branch.to(device)(images)


def two_items(dataset: Dataset, config: TrainOptions, device: torch.device) -> list[Tensor]:
    """The first two items of a data set as batches of training's size: images (2, 3, H, W), labels (2, A), and references where it has them.

    A single item is taken twice.
    """
    parts = [torch.stack(part).to(device) for part in zip(dataset[0], dataset[min(1, len(dataset) - 1)])]
    side = config.random_crop
    return [part[..., :side, :side] if part.ndim == 4 else part for part in parts]


@contextlib.contextmanager
def must_take(images: Tensor, name: str) -> Iterator[None]:
    """Turn torch's errors about mismatched sizes into a ValueError that names the network and the image size; images (B, 3, H, W)."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{name} can't work with images of {images.shape[-1]}x{images.shape[-2]} ({reason}); choose another --image-size, or other networks"
        ) from error


def freeze_unused(
    editor: Editor,
    objective: nn.Module | None,
    disc: MaLPDiscriminator | None,
    dataset: Dataset,
    config: FinetuneOptions,
    accelerator: Accelerator,
) -> nn.Parameter:
    """Freeze parameters that get no gradient, found with a forward and backward pass on two images: DistributedDataParallel would wait for them forever.

    Returns the weight of the generator's last layer.

    Raises:
        ValueError: no gradient reaches the generator.
    """
    device = accelerator.device
    images, labels, *reference = two_items(dataset, config, device)

    def batch() -> Batch:
        noise = StepRandom(config.seed, 0, batch_size=2, device=device)
        return Batch(images, labels, labels.flip(0), reference[0] if reference else None, noise, shown=images, numbers=noise.uniform(NUMBERS))

    last = last_layer(editor, lambda: editor(images, labels.flip(0), labels))
    fake = editor(images, labels.flip(0), labels)
    total = fake.square().mean()
    if objective is not None:
        total = total + sum(call_generator_loss(objective, fake, batch(), editor).values())
    total.backward()
    unused = without_gradient(editor)
    if len(unused) == len(list(editor.parameters())):
        raise ValueError(_NO_GRADIENT)
    if objective is not None and any(p.requires_grad for p in objective.parameters()):
        objective.zero_grad()
        sum(call_discriminator_loss(objective, fake, batch()).values()).backward()
        unused += without_gradient(objective)
    if unused:
        names = ", ".join(name for name, _ in unused[:3])
        accelerator.print(f"{len(unused)} parameters get no gradient and stay fixed: {names}{' …' if len(unused) > 3 else ''}")
        for _, parameter in unused:
            parameter.requires_grad_(False)
    for network in (editor, objective, disc):
        if network is not None:
            network.zero_grad()
    return last


def without_gradient(network: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The trainable parameters of a network that have no gradient, with their names."""
    return [(name, p) for name, p in network.named_parameters() if p.requires_grad and p.grad is None]

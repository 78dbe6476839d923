"""What stands between a generator and a fine-tuning against MaLP: one forward and backward pass, looked at from all sides."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from malp_disc.config import MaLPConfig
from malp_disc.data.faces import ProceduralFaces
from malp_disc.data.sampling import StepRandom
from malp_disc.discriminator import MaLPDiscriminator
from malp_disc.generator_objective import call_generator_loss, check_losses
from malp_disc.malp import MaLP
from malp_disc.runtime.copying import copy_module
from malp_disc.runtime.random_state import random_state_kept
from malp_disc.training.generator_checks.interface import check_generator
from malp_disc.training.generator_checks.subject import Finding, Subject
from malp_disc.training.gradient_balance import last_layer

_ROUNDS = 3  # of which the fastest counts


def examine(
    generator: Any,
    *,
    losses: nn.Module | None = None,
    malp: MaLP | None = None,
    attributes: int = 5,
    image_size: int = 64,
    batch_size: int = 4,
    device: torch.device | str = "cpu",
) -> list[Finding]:
    """Look a generator over, with drawn faces. It is left as it was; a copy is worked on.

    Args:
        generator: an `nn.Module` with ``manipulate(images, target)``: (B, 3, H, W) in [-1, 1] and a target of its `target_kind` -> as the images.
        losses: its own, with ``generator_loss(fake, batch, edit)`` (see generators/README.md), to compare MaLP's gradient with.
        malp: pretrained on it; a fresh one if None.
        attributes: number of labels of an image; with 0, the target is (B, 0), as in a fine-tuning on images without labels.
    """
    faces = ProceduralFaces(batch_size, image_size=image_size)
    images = torch.stack([faces[i][0] for i in range(batch_size)]).to(device)
    target, current = _labels(generator, batch_size, attributes, device)
    findings, subject = check_generator(generator, images, target, current=current)
    if subject is None:
        return findings
    findings.append(_sizes(subject))
    if any(finding.level == "problem" for finding in findings):
        return findings
    batch = _batch(subject)
    if losses is not None:
        try:
            losses = check_losses(losses, batch, subject.editor, source="the losses").to(images.device)
        except ValueError as error:
            return [*findings, Finding("losses", "problem", str(error))]
    disc = MaLPDiscriminator(copy_module(malp) if malp is not None else _fresh(image_size)).to(images.device)
    with torch.no_grad():
        fake = subject.edit(images)
    return [*findings, *_detector(subject, disc, losses, batch, given=malp is not None), _half(subject, fake), *_cost(subject, disc)]


def _labels(generator: Any, count: int, attributes: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Desired and current labels (B, A) that differ: every third of a row is to be added, and every third removed; one of each row for a generator of domains."""
    if not attributes:
        return torch.zeros(count, 0, device=device), torch.zeros(count, 0, device=device)
    place = torch.arange(count * attributes, device=device).view(count, attributes)
    if getattr(generator, "target_kind", None) == "domain":
        domains = torch.arange(count, device=device) % attributes
        return tuple(nn.functional.one_hot(chosen, attributes).float() for chosen in (domains, domains.roll(1)))
    return (place % 3 == 0).float(), (place % 3 == 1).float()


def _batch(subject: Subject) -> SimpleNamespace:
    """The images as `malp_disc.training.batches.Batch` has them, for losses."""
    count, device = len(subject.images), subject.images.device
    noise = StepRandom(0, 0, batch_size=count, device=device)
    return SimpleNamespace(images=subject.images, labels=subject.current, target=subject.target, reference=subject.images, noise=noise, shown=subject.images)


def _sizes(subject: Subject) -> Finding:
    size = subject.images.shape[-1]
    taken, refused = [], []
    for height, width in ((2 * size, 2 * size), (size, size + 32), (size + 4, size + 4)):
        images = nn.functional.interpolate(subject.images[:1], (height, width), mode="bilinear")
        try:
            with torch.no_grad():
                fits = subject.edit(images).shape == images.shape
        except (Exception, SystemExit):  # somebody else's code may raise anything
            fits = False
        (taken if fits else refused).append(f"{height}x{width}")
    if refused:
        return Finding(
            "sizes",
            "note",
            f"besides {size}x{size} it takes {', '.join(taken) or 'none of those tried'}; not {', '.join(refused)}",
            "fine, as long as --image-size is one that it takes",
        )
    return Finding("sizes", "ok", f"besides {size}x{size} it takes {', '.join(taken)}")


def _fresh(image_size: int) -> MaLP:
    with random_state_kept(seed=0):
        return MaLP(MaLPConfig(image_size=image_size, width=16, branch=None))


def _detector(subject: Subject, disc: MaLPDiscriminator, losses: nn.Module | None, batch: SimpleNamespace, *, given: bool) -> list[Finding]:
    """MaLP's map of the generator's images, and its gradient at G's last layer beside that of G's own losses."""
    encrypted, index = disc.encrypt(subject.images, torch.zeros(len(subject.images), dtype=torch.long))
    encrypted = encrypted.detach()
    with torch.no_grad():
        out = disc.malp(subject.edit(encrypted))
    peak = out.map.amax().item()
    if peak < 1e-4:
        return [
            Finding(
                "map", "problem", f"MaLP's map is dead: its largest value is {peak:.1e}", "pretrain MaLP again, longer or at a lower rate"
            )
        ]
    findings = [
        Finding(
            "map",
            "ok" if given else "note",
            f"mean {out.map.mean().item():.3f}, largest {peak:.3f}",
            "" if given else "of a MaLP that was never trained; give --malp FOLDER to see its own",
        )
    ]
    layer = last_layer(subject.generator, lambda: subject.edit(encrypted))
    fake = subject.edit(encrypted)
    own = None
    if losses is not None:
        batch.shown = encrypted
        own = sum(call_generator_loss(losses, fake, batch, subject.editor).values())
    (of_malp,) = torch.autograd.grad(disc.generator_loss(fake, index, subject.target).total, layer, retain_graph=True)
    return [*findings, _gradient(of_malp.norm().item(), own, layer)]


def _gradient(length: float, own: Tensor | None, layer: nn.Parameter) -> Finding:
    """MaLP's gradient, of this length at the generator's last layer, beside that of its own losses `own`."""
    if not 0 < length < float("inf"):
        return Finding("MaLP's gradient", "problem", f"has length {length} at the last layer", "the map is flat where the generator works; pretrain MaLP longer")
    if own is None:
        return Finding("MaLP's gradient", "ok", f"has length {length:.3g} at the last layer", "give --losses to compare it with the generator's own")
    of_own = torch.autograd.grad(own, layer, allow_unused=True)[0] if own.requires_grad else None
    if of_own is None:
        said = "generator_loss doesn't depend on the weights of the generator's last layer"
        return Finding("losses", "problem", said, "compute its terms from `fake`, the generator's images; otherwise they don't train it")
    said = f"the gradient of generator_loss has length {(own_length := of_own.norm().item())} at the generator's last layer"
    if own_length == 0:
        return Finding("losses", "note", said, "right for a loss that only keeps the generator near what it was; otherwise, is a term constant, cut off or saturated?")
    if not own_length < float("inf"):
        return Finding("losses", "problem", said, "is there a division by 0, or the root or logarithm of it?")
    ratio = length / own_length
    advice = "" if 0.05 < ratio < 5 else f"--gradient-share 0.5 keeps it at half, whatever its own length; that is a --cotrain-weight of {0.5 / ratio:.3g} now"
    said = f"has {ratio:.3g} times the length of the generator's own at the last layer, at weight 1"
    return Finding("MaLP's gradient", "note" if advice else "ok", said, advice)


def _half(subject: Subject, fake: Tensor) -> Finding:
    with torch.no_grad(), torch.autocast(subject.images.device.type, dtype=torch.bfloat16):
        try:
            half = subject.edit(subject.images)
        except (Exception, SystemExit) as error:
            return Finding("bf16", "note", f"fails under autocast: {type(error).__name__}: {error}", "use --mixed-precision no")
    if not half.isfinite().all():
        return Finding("bf16", "note", "gives NaN or infinity", "use --mixed-precision no")
    difference = (half.float() - fake.float()).abs().mean().item()
    on_grid = (half.float() == half.to(torch.bfloat16).float()).float().mean().item()
    if on_grid > 0.9:
        advice = "keep the last layer and its tanh in float32 (torch.autocast(enabled=False)); else MaLP learns the grid, not the edits. Or --mixed-precision no"
        return Finding(
            "bf16", "note", f"its images fall on the grid of bf16 values ({on_grid:.0%}); mean difference {difference:.4f}", advice
        )
    return Finding(
        "bf16",
        "note" if difference > 0.05 else "ok",
        f"mean difference to float32 {difference:.4f} of a range of 2",
        "a lot; prefer --mixed-precision no" if difference > 0.05 else "",
    )


def _cost(subject: Subject, disc: MaLPDiscriminator) -> list[Finding]:
    count = len(subject.images)
    index = torch.zeros(count, dtype=torch.long)
    weights = {p.untyped_storage().data_ptr() for network in (subject.generator, disc) for p in network.parameters()}
    kept: dict[int, int] = {}  # bytes by place: one tensor may be kept by several operations

    def pack(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            kept[place] = tensor.untyped_storage().nbytes()
        return tensor

    def step(with_malp: bool) -> None:
        fake = subject.edit(subject.images)
        (disc.generator_loss(fake, index, subject.target).total if with_malp else fake.square().mean()).backward()
        subject.generator.zero_grad()

    alone, together = (_fastest(lambda with_malp=with_malp: step(with_malp), subject.images.device) for with_malp in (False, True))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step(True)
    count_weights = sum(p.numel() for p in subject.generator.parameters())
    return [
        Finding(
            "time",
            "ok",
            f"{1000 * alone / count:.1f} ms per image for G forward and backward, {1000 * together / count:.1f} with MaLP, on {subject.images.device.type}",
        ),
        Finding(
            "memory",
            "ok",
            f"{sum(kept.values()) / count / 2**20:.1f} MiB per image kept for the backward pass, MaLP included; {count_weights * 16 / 2**20:.0f} MiB for G's weights, gradients and Adam",
        ),
    ]


def _fastest(run: Callable[[], None], device: torch.device) -> float:
    times = []
    for _ in range(_ROUNDS):
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times)

"""What stands between a generator and a fine-tuning against MaLP: one forward and backward pass, looked at from all sides."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from malp_disc.balance import last_layer
from malp_disc.config import MaLPConfig
from malp_disc.data.faces import ProceduralFaces
from malp_disc.data.sampling import StepRandom
from malp_disc.discriminator import MaLPDiscriminator
from malp_disc.malp import MaLP
from malp_disc.manipulate import ResultError, call_manipulate
from malp_disc.own_losses import call_generator_loss

_ROUNDS = 3  # of which the fastest counts


@dataclass
class Finding:
    """One thing that was looked at: all right, worth knowing, or in the way; and what to do."""

    name: str
    level: Literal["ok", "note", "problem"]
    said: str
    advice: str = ""


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
    """Look a generator over. It is left as it was; a copy is worked on.

    Args:
        generator: an `nn.Module` with ``manipulate(images, target)``: (B, 3, H, W) in [-1, 1] and (B, A) in {0, 1} or None -> as the images.
        losses: its own, with ``generator_loss(fake, batch, edit)`` (see generators/README.md), to compare MaLP's gradient with.
        malp: pretrained on it; a fresh one if None.
        attributes: A; 0 for None.
    """
    if not isinstance(generator, nn.Module) or not callable(getattr(generator, "manipulate", None)):
        kind = type(generator).__name__
        return [
            Finding(
                "interface",
                "problem",
                f"got a {kind} without manipulate(images, target)",
                "return an nn.Module that has it; ten lines, see generators/README.md",
            )
        ]
    subject = _Subject(copy.deepcopy(generator).to(device).eval(), attributes, image_size, batch_size, torch.device(device))
    try:
        with torch.no_grad():
            fake = subject.edit(subject.images)
    except ResultError as error:
        return [Finding("shape", "problem", error.said, error.advice)]
    except Exception as error:  # somebody else's code may raise anything
        advice = "does it want another --image-size, or another number of --attributes?"
        return [
            Finding(
                "interface",
                "problem",
                f"manipulate failed on {tuple(subject.images.shape)} pictures: {type(error).__name__}: {error}",
                advice,
            )
        ]
    findings = [
        Finding("shape", "ok", f"{tuple(fake.shape)} in and out"),
        _range(fake),
        _edit(subject, fake),
        _colours(subject, fake),
        _repeatable(subject, fake),
        _neighbours(subject, fake),
        _sizes(subject),
    ]
    gradients = _gradients(subject)
    findings += gradients
    if any(finding.level == "problem" for finding in findings):
        return findings
    disc = MaLPDiscriminator(copy.deepcopy(malp) if malp is not None else _fresh(image_size)).to(device)
    return [*findings, *_detector(subject, disc, losses, given=malp is not None), _half(subject, fake), *_cost(subject, disc)]


class _Subject:
    """The generator and the pictures it is looked at with: drawn faces, so that nothing has to be given."""

    def __init__(self, generator: nn.Module, attributes: int, image_size: int, batch_size: int, device: torch.device) -> None:
        faces = ProceduralFaces(batch_size, image_size=image_size)
        self.generator, self.device = generator, device
        self.images = torch.stack([faces[i][0] for i in range(batch_size)]).to(device)
        self.target = (
            (torch.arange(batch_size * attributes).view(batch_size, attributes) % 3 == 0).float().to(device) if attributes else None
        )

    def edit(self, images: Tensor) -> Tensor:
        return call_manipulate(self.generator.manipulate, images, None if self.target is None else self.target[: len(images)])


def _range(fake: Tensor) -> Finding:
    if not fake.isfinite().all():
        return Finding("range", "problem", "the pictures hold NaN or infinity", "look at its weights and at what manipulate divides by")
    low, high = fake.min().item(), fake.max().item()
    said = f"values from {low:.3f} to {high:.3f}"
    if high > 2:
        return Finding("range", "problem", said, "that looks like 0..255: divide by 127.5 and subtract 1")
    if max(-low, high) > 1.05:
        return Finding("range", "problem", said, "clamp to [-1, 1], or end in a tanh")
    if low >= 0:
        return Finding("range", "problem", said, "that looks like [0, 1]: return 2 * y - 1")
    if fake.std() < 1e-3:
        return Finding("range", "problem", f"{said}: one flat colour", "are its weights loaded?")
    return Finding("range", "ok", said)


def _edit(subject: _Subject, fake: Tensor) -> Finding:
    strength = (fake - subject.images).abs().mean().item()
    said = f"mean |x - G(x)| is {strength:.4f} of a range of 2"
    if strength < 1e-4:
        return Finding(
            "edit", "problem", said + ": it copies its input", "MaLP finds nothing in a copy; is it given a target that asks for a change?"
        )
    if strength > 0.6:
        return Finding("edit", "note", said, "little of the input is left; MaLP's map will be bright everywhere")
    return Finding("edit", "ok", said)


def _colours(subject: _Subject, fake: Tensor) -> Finding:
    straight, turned = ((fake.flip(1) if flip else fake).sub(subject.images).abs().mean().item() for flip in (False, True))
    if turned < 0.7 * straight:
        return Finding(
            "colours",
            "note",
            f"with red and blue exchanged it is nearer to its input ({turned:.3f} against {straight:.3f})",
            "does it paint BGR? Then images.flip(1) on the way in and out",
        )
    return Finding("colours", "ok", "red, green, blue, as far as that can be told from its edits")


def _repeatable(subject: _Subject, fake: Tensor) -> Finding:
    with torch.no_grad():
        difference = (subject.edit(subject.images) - fake).abs().max().item()
    if difference > 1e-3:
        return Finding(
            "repeatable",
            "note",
            f"the same picture gives another result the second time (by up to {difference:.3f})",
            "noise or dropout in evaluation mode; draw it from a fixed seed, or a resumed run isn't exact",
        )
    return Finding("repeatable", "ok", "the same picture gives the same result")


def _neighbours(subject: _Subject, fake: Tensor) -> Finding:
    with torch.no_grad():
        difference = (subject.edit(subject.images[:1]) - fake[:1]).abs().max().item()
    if difference > 1e-2:
        return Finding(
            "neighbours",
            "note",
            f"a picture's result depends on what stands beside it in the batch (by up to {difference:.3f})",
            "batch norm in training mode? Then two processes don't do what one does",
        )
    return Finding("neighbours", "ok", "a picture's result doesn't depend on its batch")


def _sizes(subject: _Subject) -> Finding:
    size = subject.images.shape[-1]
    taken, refused = [], []
    for height, width in ((2 * size, 2 * size), (size, size + 32), (size + 4, size + 4)):
        images = nn.functional.interpolate(subject.images[:1], (height, width), mode="bilinear")
        try:
            with torch.no_grad():
                fits = subject.edit(images).shape == images.shape
        except Exception:
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


def _gradients(subject: _Subject) -> list[Finding]:
    images = subject.images.clone().requires_grad_(True)
    subject.generator.zero_grad()
    fake = subject.edit(images)
    if not fake.requires_grad:
        return [
            Finding(
                "gradients",
                "problem",
                "no gradient passes manipulate",
                "take torch.no_grad() and .detach() out of it, and let its parameters require gradients",
            )
        ]
    fake.square().mean().backward()
    parameters = [(name, p) for name, p in subject.generator.named_parameters() if p.requires_grad]
    broken = [name for name, p in parameters if p.grad is not None and not p.grad.isfinite().all()]
    reached = [name for name, p in parameters if p.grad is not None and p.grad.abs().max() > 0]
    missing = [name for name, p in parameters if name not in reached]
    fixed = sum(not p.requires_grad for p in subject.generator.parameters())
    if broken:
        return [
            Finding(
                "gradients",
                "problem",
                f"not finite in {broken[0]} and {len(broken) - 1} more",
                "look for a root or a logarithm of zero, or a norm without an epsilon",
            )
        ]
    if not reached:
        return [Finding("gradients", "problem", "no gradient reaches its weights", "is the result rounded, or made under no_grad?")]
    said = f"reach {len(reached)} of {len(parameters)} weights" + (f"; {fixed} are fixed and stay so" if fixed else "")
    findings = [
        Finding(
            "gradients",
            "note" if missing else "ok",
            said,
            f"{', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}: no part in manipulate; they will stay as they are"
            if missing
            else "",
        )
    ]
    if images.grad is None or not images.grad.abs().max() > 0:
        findings.append(
            Finding(
                "input gradient",
                "note",
                "none reaches the input",
                "fine-tuning doesn't need it; templates that learn through G (--malp-generator-gradient) do",
            )
        )
    return findings


def _fresh(image_size: int) -> MaLP:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MaLP(MaLPConfig(image_size=image_size, width=16, transformer=False))


def _detector(subject: _Subject, disc: MaLPDiscriminator, losses: nn.Module | None, *, given: bool) -> list[Finding]:
    """MaLP's map of the generator's pictures, and its gradient at G's last layer beside that of G's own losses."""
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
        losses = losses.to(subject.device)
        labels = torch.zeros_like(subject.target) if subject.target is not None else torch.zeros(len(fake), 0, device=subject.device)
        noise = StepRandom(0, 0, batch_size=len(fake), device=subject.device)
        target = subject.target if subject.target is not None else labels
        batch = SimpleNamespace(images=subject.images, labels=labels, target=target, reference=subject.images, noise=noise, shown=encrypted)
        own = sum(call_generator_loss(losses, fake, batch, partial(call_manipulate, subject.generator.manipulate)).values())
    (of_malp,) = torch.autograd.grad(disc.generator_loss(fake, index).total, layer, retain_graph=True)
    length = of_malp.norm().item()
    if not 0 < length < float("inf"):
        return [
            *findings,
            Finding(
                "MaLP's gradient",
                "problem",
                f"has length {length} at the last layer",
                "the map is flat where the generator works; pretrain MaLP longer",
            ),
        ]
    if own is None:
        return [
            *findings,
            Finding(
                "MaLP's gradient",
                "ok",
                f"has length {length:.3g} at the last layer",
                "give --losses to compare it with the generator's own",
            ),
        ]
    (of_own,) = torch.autograd.grad(own, layer)
    ratio = length / max(of_own.norm().item(), 1e-12)
    advice = (
        ""
        if 0.05 < ratio < 5
        else f"--gradient-share 0.5 keeps it at half, whatever its own length; that is a --cotrain-weight of {0.5 / ratio:.3g} now"
    )
    return [
        *findings,
        Finding(
            "MaLP's gradient",
            "note" if advice else "ok",
            f"has {ratio:.3g} times the length of the generator's own at the last layer, at weight 1",
            advice,
        ),
    ]


def _half(subject: _Subject, fake: Tensor) -> Finding:
    with torch.no_grad(), torch.autocast(subject.device.type, dtype=torch.bfloat16):
        try:
            half = subject.edit(subject.images)
        except Exception as error:
            return Finding("bf16", "note", f"fails under autocast: {type(error).__name__}: {error}", "use --mixed-precision no")
    if not half.isfinite().all():
        return Finding("bf16", "note", "gives NaN or infinity", "use --mixed-precision no")
    difference = (half.float() - fake.float()).abs().mean().item()
    on_grid = (half.float() == half.to(torch.bfloat16).float()).float().mean().item()
    if on_grid > 0.9:
        advice = "keep the last layer and its tanh in float32 (torch.autocast(enabled=False)); else MaLP learns the grid, not the edits. Or --mixed-precision no"
        return Finding(
            "bf16", "note", f"its pictures fall on the grid of bf16 values ({on_grid:.0%}); mean difference {difference:.4f}", advice
        )
    return Finding(
        "bf16",
        "note" if difference > 0.05 else "ok",
        f"mean difference to float32 {difference:.4f} of a range of 2",
        "a lot; prefer --mixed-precision no" if difference > 0.05 else "",
    )


def _cost(subject: _Subject, disc: MaLPDiscriminator) -> list[Finding]:
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
        (disc.generator_loss(fake, index).total if with_malp else fake.square().mean()).backward()
        subject.generator.zero_grad()

    alone, together = (_fastest(lambda with_malp=with_malp: step(with_malp), subject.device) for with_malp in (False, True))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step(True)
    count_weights = sum(p.numel() for p in subject.generator.parameters())
    return [
        Finding(
            "time",
            "ok",
            f"{1000 * alone / count:.1f} ms per picture for G forward and backward, {1000 * together / count:.1f} with MaLP, on {subject.device.type}",
        ),
        Finding(
            "memory",
            "ok",
            f"{sum(kept.values()) / count / 2**20:.1f} MiB per picture kept for the backward pass, MaLP included; {count_weights * 16 / 2**20:.0f} MiB for G's weights, gradients and Adam",
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

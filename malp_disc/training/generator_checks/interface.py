"""What of a generator has to be in order before any long work: one copy, a few forward passes and one backward pass. The doctor and every recipe begin with it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from malp_disc.import_object import users_line
from malp_disc.manipulate import ResultError, describe
from malp_disc.runtime.copying import copy_module
from malp_disc.runtime.random_state import random_state_kept
from malp_disc.target_kind import describe_target, target_for, target_kind_of
from malp_disc.training.generator_checks.gradients import check_gradients, check_trainable
from malp_disc.training.generator_checks.subject import Finding, Subject

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def require_usable(
    generator: Any,
    images: Tensor,
    target: Tensor | None,
    *,
    current: Tensor | None = None,
    source: str,
    training: bool = True,
    tolerated: Collection[str] = ("edit",),
    tell: Callable[[str], None] = print,
) -> None:
    """Raise ValueError for the first thing in the way, and tell what is worth knowing. The generator is left as it was.

    Args:
        images: (B, 3, H, W) in [-1, 1], several, of the data that it will be given.
        target, current: the desired labels and those of the images, (B, A) in {0, 1}, or None.
        source: what the messages call it.
        training: it will be fine-tuned, so that gradients matter; else it is only measured.
        tolerated: findings that are told and don't stop the run.
    """
    findings, _ = check_generator(generator, images, target, current=current, training=training)
    for finding in findings:
        said = f"{source}: {finding.said}" + (f"; {finding.advice}" if finding.advice else "")
        if finding.level == "problem" and finding.name not in tolerated:
            raise ValueError(said)
        if finding.level != "ok" and finding.name not in ("input gradient", "colours"):
            tell(f"note: {said}")


def check_generator(
    generator: Any, images: Tensor, target: Tensor | None, *, current: Tensor | None = None, training: bool = True
) -> tuple[list[Finding], Subject | None]:
    """The findings, and the copy they were made on, in evaluation mode; None where it couldn't be made or run. Labels as in `require_usable`."""
    problems = _interface(generator, images, target)
    target_finding = None if problems else _target(generator, target, current)
    problems += [target_finding] if target_finding is not None and target_finding.level == "problem" else []
    problems += [*check_trainable(generator), *_saved(generator)] if training and isinstance(generator, nn.Module) else []
    if problems:
        return problems[:1], None
    with random_state_kept(images.device), torch.enable_grad():  # the run's own random numbers are the same with and without these checks
        try:
            copied = copy_module(generator)
        except ValueError as error:
            said, _, advice = str(error).partition(". ")
            return [Finding("copy", "problem", said, advice)], None
        try:
            copied = copied.to(images.device).eval()
        except Exception as error:  # they may be overridden
            return [_problem("mode", f".to(device) or .eval() fails: {type(error).__name__}: {error}{users_line(error)}", "leave both to nn.Module")], None
        subject = Subject(copied, images, target, generator, current)
        findings, usable = _run(subject)
        findings.insert(0, target_finding)
        if usable and training:
            findings += check_gradients(subject)
    return findings, subject if usable else None


def _interface(generator: Any, images: Tensor, target: Tensor | None) -> list[Finding]:
    manipulate = getattr(generator, "manipulate", None)
    if not isinstance(generator, nn.Module) or not callable(manipulate):
        inner = getattr(generator, "module", None)
        advice = "return an nn.Module that has it; ten lines, see generators/README.md"
        if isinstance(generator, _WRAPPERS) and callable(getattr(inner, "manipulate", None)):
            advice = "return what it wraps (its .module); the recipes use several GPUs themselves"
        return [_problem("interface", f"got {_name_of(generator)} without manipulate(images, target)", advice)]
    try:
        inspect.signature(manipulate).bind(images, target)
    except TypeError:
        said = f"manipulate{inspect.signature(manipulate)} can't be called with two arguments"
        return [_problem("interface", said, "define it as manipulate(self, images, target); a generator without a choice ignores the target")]
    except ValueError:  # a built-in without a signature
        pass
    for name, part in generator.named_modules():
        if isinstance(part, _WRAPPERS):
            advice = f"take out the wrapper: self.{name} = self.{name}.module; the recipes use several GPUs themselves"
            return [_problem("interface", f"{name} is wrapped in {type(part).__name__}", advice)]
    for name, tensor in [*generator.named_parameters(), *generator.named_buffers()]:
        if is_lazy(tensor):
            advice = "run it once on an image and load its weights where it is made"
            return [_problem("weights", f"{name} belongs to a lazy layer that has seen no image yet, so it has no weights", advice)]
        if tensor.is_meta:
            return [_problem("weights", f"{name} is on the meta device and has no values", "load its weights where it is made")]
        if tensor.layout != torch.strided:
            return [_problem("weights", f"{name} is a sparse tensor, which can't be compared or saved", "keep it dense, with .to_dense()")]
    return []


def _saved(generator: nn.Module) -> list[Finding]:
    """Whether checkpoints can hold it."""
    try:
        entries = dict(generator.state_dict())
    except Exception as error:  # it may be overridden
        return [_problem("weights", f"state_dict() fails: {type(error).__name__}: {error}{users_line(error)}", "leave it to nn.Module")]
    for name, value in entries.items():
        if not isinstance(value, Tensor):
            said = f"state_dict() has {describe(value)} as {name!r}, and a checkpoint holds tensors only"
            return [_problem("weights", said, "register what belongs to the weights as a buffer, and leave out get_extra_state and state_dict")]
    return []


def _target(generator: nn.Module, desired: Tensor | None, current: Tensor | None) -> Finding:
    """What its `manipulate` is given, by the `target_kind` that it declares."""
    try:
        kind = target_kind_of(generator)
        target = target_for(kind, desired, current)
    except ValueError as error:
        said, _, advice = str(error).partition("; ")
        return _problem("target", said, advice)
    if target_kind_of(generator.manipulate) != kind:
        said = f"it declares target_kind = {kind!r}, and its manipulate is a function that doesn't belong to it"
        return _problem("target", said, "make manipulate a method of the class that declares target_kind")
    said = f"manipulate is given {describe_target(kind, target)}"
    inner = next(((name, part.target_kind) for name, part in generator.named_modules() if name and hasattr(part, "target_kind")), None)
    if inner is not None and not hasattr(generator, "target_kind"):
        advice = f"declare it too if manipulate passes its target on, or target_kind = {kind!r} if it converts the target itself"
        return Finding("target", "note", f"{said}, but its part {inner[0]} declares target_kind = {inner[1]!r}", advice)
    return Finding("target", "ok", said)


def _run(subject: Subject) -> tuple[list[Finding], bool]:
    """Forward passes, and whether they gave images that more can be said of."""
    buffers = {name: value.clone() for name, value in subject.generator.named_buffers()}
    with torch.no_grad():
        try:
            fake = subject.edit(subject.images)
        except ResultError as error:
            return [_problem("shape", error.said, error.advice)], False
        except (Exception, SystemExit) as error:  # somebody else's code may raise anything
            said = f"manipulate failed on {tuple(subject.images.shape)} images: {type(error).__name__}: {error}{users_line(error)}"
            return [_problem("interface", said, "does it want another --image-size, or another number of attributes?")], False
        findings = [Finding("shape", "ok", f"{tuple(fake.shape)} in and out"), _range(subject, fake)]
        if not fake.isfinite().all():
            return findings, True
        findings += [_edit(subject, fake), _colours(subject, fake), _repeatable(subject, fake), _neighbours(subject, fake)]
    return [*findings, *_state(subject, buffers)], True


def _range(subject: Subject, fake: Tensor) -> Finding:
    if not fake.isfinite().all():
        return _problem("range", "its images hold NaN or infinity", "look at its weights and at what manipulate divides by")
    low, high = fake.min().item(), fake.max().item()
    said = f"values from {low:.3f} to {high:.3f}, expected [-1, 1]"
    if high > 2:
        return _problem("range", said, "that looks like 0..255: divide by 127.5 and subtract 1")
    if max(-low, high) > 1.05:
        return _problem("range", said, "clamp to [-1, 1], or end in a tanh")
    if fake.std() < 1e-3:
        return _problem("range", f"{said}: one flat colour", "are its weights loaded?")
    dark, was_dark = ((x < -0.02).float().mean().item() for x in (fake, subject.images))
    if dark < 1e-3 and was_dark > 0.05:
        return _problem("range", said, "that looks like [0, 1]: return 2 * y - 1")
    return Finding("range", "ok", said.partition(",")[0])


def _edit(subject: Subject, fake: Tensor) -> Finding:
    strength = (fake - subject.images).abs().mean().item()
    said = f"mean |x - G(x)| is {strength:.4f} of a range of 2"
    if strength < 1e-4:
        return _problem("edit", f"{said}: it copies its input", "MaLP finds nothing in a copy; is it given a target that asks for a change?")
    if strength > 0.6:
        return Finding("edit", "note", said, "little of the input is left; MaLP's map will be bright everywhere")
    return Finding("edit", "ok", said)


def _colours(subject: Subject, fake: Tensor) -> Finding:
    straight, turned = ((fake.flip(1) if flip else fake).sub(subject.images).abs().mean().item() for flip in (False, True))
    if turned < 0.7 * straight:
        said = f"with red and blue exchanged it is nearer to its input ({turned:.3f} against {straight:.3f})"
        return Finding("colours", "note", said, "does it paint BGR? Then images.flip(1) on the way in and out")
    return Finding("colours", "ok", "red, green, blue, as far as that can be told from its edits")


def _repeatable(subject: Subject, fake: Tensor) -> Finding:
    difference = (subject.edit(subject.images) - fake).abs().max().item()
    if difference > 1e-3:
        said = f"the same image gives another result the second time (by up to {difference:.3f})"
        return Finding("repeatable", "note", said, "noise or dropout in evaluation mode; draw it from a fixed seed, or a resumed run isn't exact")
    return Finding("repeatable", "ok", "the same image gives the same result")


def _neighbours(subject: Subject, fake: Tensor) -> Finding:
    try:
        alone = subject.edit(subject.images[:1])
    except (Exception, SystemExit) as error:  # somebody else's code may raise anything
        said = f"it fails on a batch of one image: {error}" if isinstance(error, ResultError) else f"it fails on a batch of one image: {type(error).__name__}: {error}"
        return _problem("neighbours", said, "a data set's last batch may have one: no .squeeze(), and no batch norm in training mode")
    difference = (alone - fake[:1]).abs().max().item()
    if difference > 1e-2:
        said = f"an image's result depends on what stands beside it in the batch (by up to {difference:.3f})"
        return Finding("neighbours", "note", said, "batch norm in training mode? Then two processes don't do what one does")
    return Finding("neighbours", "ok", "an image's result doesn't depend on its batch")


def _state(subject: Subject, before: dict[str, Tensor]) -> list[Finding]:
    """What the forward passes changed in the module itself."""
    if any(part.training for part in subject.generator.modules()):
        return [_problem("mode", "manipulate puts the module into training mode", "leave train() and eval() to the caller: dropout and batch norm would change the measurement")]
    for (name, value), (_, original) in zip(subject.generator.named_parameters(), subject.original.named_parameters()):
        if not torch.allclose(value, original.to(value.device), rtol=0, atol=0, equal_nan=True):
            return [_problem("weights", f"manipulate changes its own weights ({name})", "each call then depends on those before it; compute with a changed copy instead")]
    changed = [name for name, value in subject.generator.named_buffers() if name in before and not torch.equal(value, before[name])]
    if not changed:
        return []
    said = f"it changes its buffers in evaluation mode ({changed[0]})"
    return [Finding("buffers", "note", said, "each measurement then depends on those before it; keep statistics fixed where self.training is False")]


def _name_of(value: Any) -> str:
    return describe(value) if isinstance(value, (tuple, list, dict, type)) or value is None else f"a {type(value).__name__}"


def _problem(name: str, said: str, advice: str) -> Finding:
    return Finding(name, "problem", said, advice)

"""Do gradients come from a generator's images to its weights, and to the weights of the very copy that is to learn?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from malp_disc.training.generator_checks.autograd_graph import Graph, graph_of
from malp_disc.training.generator_checks.subject import Finding, Subject

_CUT = "rounding to 8 bits, torch.no_grad(), inference_mode(), .detach(), .data, .numpy() or .item() in manipulate cuts them"


def check_trainable(generator: nn.Module) -> list[Finding]:
    """Problems of the weights themselves: none, none that learns, or half precision, in which an optimizer's steps are lost."""
    parameters = dict(generator.named_parameters())
    learning = {name: p for name, p in parameters.items() if p.requires_grad}
    if not parameters:
        advice = "networks kept in a plain list or dict aren't registered: assign them as attributes or use nn.ModuleList"
        return [Finding("weights", "problem", f"{type(generator).__name__} has no parameters, so nothing can learn", advice)]
    if not learning:
        said = f"none of its {len(parameters)} parameters requires a gradient, so nothing can learn"
        return [Finding("weights", "problem", said, "call requires_grad_(True) on those that shall be fine-tuned where the generator is made")]
    half = [name for name, p in learning.items() if p.dtype in (torch.float16, torch.bfloat16)]
    if half:
        kind = str(learning[half[0]].dtype).removeprefix("torch.")
        said = f"its weights are {kind} ({half[0]}), in which an optimizer's small steps are lost or overflow"
        return [Finding("weights", "problem", said, "return it in float32 (.float()) and choose --mixed-precision for speed")]
    return []


def check_gradients(subject: Subject) -> list[Finding]:
    """One forward and backward pass, for a random projection of the images, in evaluation mode."""
    images = subject.images.clone().requires_grad_(True)
    parameters = [(name, p) for name, p in subject.generator.named_parameters() if p.requires_grad]
    if not parameters:
        return [_problem("manipulate sets requires_grad to False on all of its parameters", "take requires_grad_(False) out of it, so that they can learn")]
    originals = [(name, p) for name, p in subject.original.named_parameters() if p.grad is None]
    subject.generator.zero_grad()
    try:
        fake = subject.edit(images)
        if not fake.requires_grad:
            said = f"no gradient passes manipulate: its output doesn't depend on its {len(parameters)} trainable parameters"
            return [_problem(said, f"{_CUT}; take that out, and let its parameters require gradients")]
        graph = graph_of(fake)
        projection = torch.randn(fake.shape, generator=torch.Generator().manual_seed(0)).to(fake.device)
        (fake * projection).sum().backward()
        grads = [(name, p.grad) for name, p in parameters]
        elsewhere = [name for name, p in originals if p.grad is not None or id(p) in graph.leaves]
    except (Exception, SystemExit) as error:  # somebody else's code may raise anything
        return [_problem(f"the backward pass fails: {type(error).__name__}: {error}", "does manipulate edit in place what a gradient needs?")]
    finally:
        subject.generator.zero_grad()
        for _, parameter in originals:
            parameter.grad = None
    return _conclusion(subject, graph, grads, elsewhere, images.grad)


def _conclusion(subject: Subject, graph: Graph, grads: list[tuple[str, Tensor | None]], elsewhere: list[str], of_images: Tensor | None) -> list[Finding]:
    reached = [name for name, grad in grads if grad is not None and grad.abs().max() > 0]
    if graph.reentrant:
        said = "torch.utils.checkpoint with use_reentrant=True: the weights inside get no gradient, because the images need none"
        return [_problem(said, "give use_reentrant=False")]
    if elsewhere:
        said = f"a copy of it still computes with the weights of the original ({elsewhere[0]})"
        advice = "manipulate, a hook or an attribute is a function that holds on to the module (a lambda, a closure): make it a method"
        return [_problem(said, advice)]
    broken = [name for name, grad in grads if grad is not None and not grad.isfinite().all()]
    if broken:
        said = f"not finite in {broken[0]} and {len(broken) - 1} more"
        return [_problem(said, "look for a root or a logarithm of zero, or a norm without an epsilon")]
    if not reached:
        return [_nothing_reached(grads)]
    missing = [name for name, _ in grads if name not in reached]
    fixed = sum(not p.requires_grad for p in subject.generator.parameters())
    said = f"reach {len(reached)} of {len(grads)} weights" + (f"; {fixed} are fixed and stay so" if fixed else "")
    left_out = f"{', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}: no part in manipulate; they will stay as they are"
    findings = [Finding("gradients", "note" if missing else "ok", said, left_out if missing else "")]
    if of_images is None or not of_images.abs().max() > 0:
        advice = "fine-tuning doesn't need it; templates that learn through G (--malp-generator-gradient) do"
        findings.append(Finding("input gradient", "note", "none reaches the input", advice))
    return findings


def _nothing_reached(grads: list[tuple[str, Tensor | None]]) -> Finding:
    zero = sum(grad is not None for _, grad in grads)
    what = f"all {len(grads)} gradients are zero" if zero == len(grads) else f"{zero} of {len(grads)} gradients are zero, the others are none"
    said = f"no gradient reaches its weights: its output doesn't depend on its parameters ({what})"
    if zero:
        return _problem(said, "is the result rounded to 8 bits, or clamped everywhere? Remove the rounding from manipulate; saving an image rounds it anyway")
    return _problem(said, _CUT)


def _problem(said: str, advice: str) -> Finding:
    return Finding("gradients", "problem", said, advice)

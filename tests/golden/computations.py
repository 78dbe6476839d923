"""Goldens of arithmetic: losses, gradients and metrics that no single network gives. They have no key list, but named numbers.

A computation gets the settings of a golden only, and gives back every number of NAME.json under its name and every array of NAME.npz.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from malp_disc.official.networks import OfficialClassifier, OfficialEncoder
from malp_disc.official.vit import OfficialViT
from tests.golden import authors_arithmetic as theirs
from tests.golden.builders import modules
from tests.golden.builders.malp import generation_of
from tests.golden.case import Computed
from tests.golden.seeded import fill, image, stream, weight

SIZE = 128

# What describes a golden's inputs; everything else is a result.
SETTINGS = ("source", "note", "inputs", "config")
# In a case these describe the inputs, as do words. The strides tell how the golden's own arrays were sampled.
CASE_SETTINGS = ("batch", "set_size", "m", "seed", "B", "S", "N", "size", "i", "t", "range_t", "stride", "down_stride", "phi_stride")
CASE_SETTINGS += ("vs_own",)  # how far the authors' numbers were from those of whoever made the golden
CASE_SETTINGS += ("t_T", "n_sample", "start_resampling", *(f"jump{k}_{of}" for k in ("", 2, 3) for of in ("length", "n_sample")))


def malp_losses(settings: Mapping[str, Any]) -> Computed:
    """Cases NAME/released and NAME/intended on seeded tensors, with the gradient that the templates get."""
    computed = Computed({"weights": theirs.MALP_WEIGHTS, "cases": {}})
    for name, case in settings["cases"].items():
        batch, seed = case["batch"], case["seed"]
        templates, index = drawn_templates(case, (SIZE, SIZE))
        truth = theirs.ground_truth(seeded_images("x", batch, 3, seed), seeded_images("g", batch, 3, seed))
        map_real, map_fake, signal_real, signal_fake = (
            rectified(key, batch, seed) for key in ("map_real", "map_fake", "sig_real", "sig_fake")
        )
        trans_real, trans_fake = (seeded_images(key, batch, 1, seed)[:, 0] for key in ("tok_real", "tok_fake"))
        variant, added = name.rpartition("/")[2], case["m"] * templates[index]
        losses = theirs.malp_losses(
            variant,
            templates=templates,
            added=added,
            truth=truth,
            map_fake=map_fake,
            signal_encrypted=signal_real,
            signal_fake=signal_fake,
            transformer_map_fake=trans_fake,
            classified=weight("pred", (2 * batch, 2), seed).sigmoid(),
            classified_transformer=weight("pred_trans", (2 * batch, 2), seed).sigmoid(),
        )
        (gradient,) = torch.autograd.grad(losses["total"], templates)
        computed.numbers["cases"][name] = {
            "losses": losses,
            "low_shape": theirs.low_frequencies(variant, added).shape,
            "gt_gray_minmax": truth.aminmax(),
            "grad_A_norm": gradient.norm(),
        }
        computed.arrays[f"{name}/grad_A"] = gradient
        computed.arrays[f"{name}/dist_fake_enc"] = theirs.map_metric(truth, map_fake, 0.2 * map_real)
        computed.arrays[f"{name}/dist_fake_trans"] = theirs.map_metric(truth, trans_fake, trans_real)
        computed.arrays[f"{name}/dist_fake"] = theirs.template_metric(templates, signal_fake, signal_real)
    return computed


def malp_train_step(settings: Mapping[str, Any]) -> Computed:
    """One step of train_loc_det.py with our networks in their place, in training mode: encrypted and fake images in separate passes, tokens detached."""
    config = settings["config"]
    batch, seed, strength = config["batch"], config["seed"], config["template_strength"]
    networks: dict[str, nn.Module] = {
        "encoder": OfficialEncoder(),
        "transformer": OfficialViT(generation_of(settings["source"]), **config["vit"]),
        "classifier": OfficialClassifier(),
    }
    for network in networks.values():
        fill(network, seed)
        network.train()
    encoder, transformer, classifier = networks.values()
    templates, index = drawn_templates({**config, "m": strength}, (SIZE, SIZE))
    images, fake = seeded_images("x", batch, 3, seed), seeded_images("g", batch, 3, seed)
    truth, added = theirs.ground_truth(images, fake), strength * templates[index]
    encrypted = images + added[:, None]
    map_real, signal_real = encoder(encrypted)
    map_fake, signal_fake = encoder(fake)
    trans_real, trans_fake = transformer(encrypted).detach(), transformer(fake).detach()
    classified = classifier.sigmoids(torch.cat([map_real, map_fake]))
    losses = theirs.malp_losses(
        "released",
        templates=templates,
        added=added,
        truth=truth,
        map_fake=map_fake,
        signal_encrypted=signal_real,
        signal_fake=signal_fake,
        transformer_map_fake=trans_fake[:, 0],
        classified=classified,
        classified_transformer=classifier.sigmoids(torch.cat([trans_real, trans_fake])),
    )
    losses["total"].backward()
    norms = {name: {key: gradient_norm(parameter) for key, parameter in network.named_parameters()} for name, network in networks.items()}
    arrays = {
        "grad_A": templates.grad,
        "dist_fake_enc": theirs.map_metric(truth, map_fake, map_real),
        "dist_fake_trans": theirs.map_metric(truth, trans_fake, trans_real),
        "dist_fake": theirs.template_metric(templates, signal_fake, signal_real),
        "pred_class": classified,
        "map_real": map_real,
        "map_fake": map_fake,
        "bn_running_mean": encoder.layers_5[1].running_mean,
        "bn_running_var": encoder.layers_5[1].running_var,
    }
    norms["signal"] = {"A": gradient_norm(templates)}
    # The bias of a convolution before a batch norm has gradient 0 but for rounding: up to 1.5e-4 in the golden, where norms are 0.16 to 310.
    # Gradients have come through thirty layers with ReLUs, where another order of summation flips a few units: between two kinds of CPU norms differ by
    # up to 2.8e-3 of their value, and the classifier's smallest (0.17) by 4e-3.
    return Computed({"losses": losses, "gradient_norms": norms}, arrays, absolute=1e-5, relative=1e-2, rounding={"gradient_norms.": 5e-3})


def imd_losses(settings: Mapping[str, Any]) -> Computed:
    computed = Computed({"weights": theirs.IMD_WEIGHTS, "cases": {}})
    for name, case in settings["cases"].items():
        batch, seed, strength = case["batch"], case["seed"], case["m"]
        templates, index = drawn_templates(case, (1, SIZE, SIZE))
        signal_real, signal_fake = (rectified(key, batch, seed) for key in ("sig_real", "sig_fake"))
        losses = theirs.imd_losses(
            templates=templates, index=index, strength=strength, signal_encrypted=signal_real, signal_fake=signal_fake
        )
        (gradient,) = torch.autograd.grad(losses["total"], templates)
        shape = theirs.centred_square(templates[index][:, 0]).shape
        computed.numbers["cases"][name] = {"losses": losses, "low_shape": shape, "grad_A_norm": gradient.norm()}
        computed.arrays[f"{name}/grad_A"] = gradient
        computed.arrays[f"{name}/dist_fake"] = theirs.imd_metric(templates, strength, signal_fake, signal_real)
    return computed


def drawn_templates(case: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A, uniform in [0, 1) and waiting for a gradient, and which one each image of the batch gets."""
    templates = torch.from_numpy(stream("A", case["seed"]).uniform(0, 1, (case["set_size"], *shape))).float().requires_grad_()
    return templates, torch.from_numpy(stream("sel", case["seed"]).integers(0, case["set_size"], (case["batch"],)))


def seeded_images(name: str, batch: int, channels: int, seed: int) -> Tensor:
    return image(name, (batch, channels, SIZE, SIZE), seed)


def rectified(name: str, batch: int, seed: int) -> Tensor:
    """A stand-in for what ends in a ReLU."""
    return (0.5 * seeded_images(name, batch, 1, seed) + 0.1).relu()


def gradient_norm(parameter: Tensor) -> Tensor | None:
    return None if parameter.grad is None else parameter.grad.norm()


# (start of `source`, an entry that only this kind has) -> computation. The first match counts. A module of builders may have such a list.
COMPUTATIONS: list[tuple[str, str, Callable[[Mapping[str, Any]], Computed]]] = [
    ("vishal3477/pro_loc@", "cases", malp_losses),
    ("vishal3477/pro_loc@", "gradient_norms", malp_train_step),
    ("vishal3477/proactive_IMD@", "cases", imd_losses),
]
COMPUTATIONS += [entry for module in modules() for entry in getattr(module, "COMPUTATIONS", [])]


def find_computation(golden: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Computed] | None:
    """The computation of a golden, or None."""
    for source, entry, computation in COMPUTATIONS:
        if golden["source"].startswith(source) and entry in golden:
            return computation
    return None


def split_settings(golden: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A golden's settings and its results. Cases are split one by one; nothing is in both."""
    settings = {key: value for key, value in golden.items() if key in SETTINGS}
    results = {key: value for key, value in golden.items() if key not in SETTINGS}
    if "cases" in golden:
        settings["cases"] = {name: _split_case(case)[0] for name, case in golden["cases"].items()}
        results["cases"] = {name: _split_case(case)[1] for name, case in golden["cases"].items()}
    return settings, results


def _split_case(case: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A case's settings and results, of the parts it consists of too."""
    settings: dict[str, Any] = {}
    results: dict[str, Any] = {}
    for key, value in case.items():
        if key in CASE_SETTINGS or isinstance(value, str):
            settings[key] = value
            continue
        inner, results[key] = _split_case(value) if isinstance(value, Mapping) else ({}, value)
        if inner:
            settings[key] = inner
    return settings, results

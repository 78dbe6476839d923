"""The guided-diffusion UNet of ILVR and RePaint, and one step of each sampler with the network's output given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from generators.diffusion_steps import TRAINED, Diffusion
from generators.guided_diffusion import GuidedUNet
from generators.ilvr import bicubic, low_pass, refined
from generators.repaint import jump_schedule, with_known
from tests.golden.case import Built, Case, Computed
from tests.golden.seeded import image, stream

SAME_NAME = ("image_size", "num_channels", "num_res_blocks", "num_heads", "num_head_channels", "num_heads_upsample", "learn_sigma")
SAME_NAME += ("use_scale_shift_norm", "resblock_updown", "dropout", "use_new_attention_order")


def unet(case: Case) -> Built:
    config = case.config
    mult, resolutions = (config[name].split(",") for name in ("channel_mult", "attention_resolutions"))
    network = GuidedUNet(
        channel_mult=tuple(float(m) for m in mult) if mult != [""] else None,
        attention_resolutions=tuple(int(resolution) for resolution in resolutions),
        num_classes=1000 if config["class_cond"] else None,
        **{name: config[name] for name in SAME_NAME},
    )
    timesteps = torch.tensor(config["timesteps"])
    return Built(network, lambda: {"y": network(case.images(), timesteps)})


def ilvr_step(settings: Mapping[str, Any]) -> Computed:
    """phi at every N, and one step on a given network output, refined while i > range_t."""
    seed, step = settings["config"]["seed"], settings["cases"]["step"]
    diffusion = respaced(settings["config"]["diffusion"]["timestep_respacing"])
    computed = schedule(diffusion)
    computed.arrays["alphas_cumprod"] = diffusion.alphas_cumprod
    for name, case in settings["cases"].items():
        if "size" in case:
            x = image("x", (1, 3, case["size"], case["size"]), seed)
            down, phi = bicubic(x, (case["size"] // case["N"],) * 2), low_pass(x, case["N"])
            computed.numbers["cases"][name] = {"down_shape": down.shape, "phi_mean": phi.mean(), "phi_std": phi.std(correction=0)}
            computed.arrays.update({f"{name}/down": down, f"{name}/phi": phi})
    given, i = Given(step, seed), step["i"]
    sample, predicted = diffusion.reverse_step(given.xt, i, given.model_out, given.noise("z1"))
    reference = diffusion.noised(given.ref, i, given.noise("z2"))
    conditioned = refined(sample, reference, step["N"]) if i > step["range_t"] else sample
    computed.numbers["cases"]["step"] = {"model_timestep": step["B"] * [diffusion.timesteps[i]]}
    return described(computed, {"p_sample": sample, "pred_xstart": predicted, "q_ref": reference, "ilvr": conditioned})


def repaint_step(settings: Mapping[str, Any]) -> Computed:
    """The times of every schedule, and one reverse and one forward step."""
    seed, step = settings["config"]["seed"], settings["cases"]["step"]
    diffusion = respaced(settings["config"]["timestep_respacing"])
    computed = schedule(diffusion)
    counts: dict[str, Any] = {}
    for name, of in settings["cases"]["schedules"].items():
        levels = [(of[f"jump{k}_length"], of[f"jump{k}_n_sample"]) for k in ("", 2, 3) if f"jump{k}_length" in of]
        times = jump_schedule(of["t_T"], n_sample=of["n_sample"], jumps=levels, start=of.get("start_resampling", math.inf))
        down = sum(after < before for before, after in zip(times, times[1:]))
        counts[name] = {"length": len(times), "reverse_steps": down, "undo_steps": len(times) - 1 - down, "head": times[:24]}
        computed.arrays[f"times/{name}"] = torch.tensor(times)
    computed.arrays["times/get_schedule_jump_paper"] = torch.tensor(jump_schedule(250))  # our defaults are the paper's
    computed.numbers["cases"]["schedules"] = counts
    given, t = Given(step, seed), step["t"]
    mask = (image("mask", (step["B"], 1, step["S"], step["S"]), seed) > 0).float()
    x = with_known(given.xt, mask, diffusion.noised(given.ref, t, given.noise("z2")))
    sample, predicted = diffusion.reverse_step(x, t, given.model_out, given.noise("z1"))
    computed.numbers["cases"]["step"] = {"model_timestep": step["B"] * [diffusion.timesteps[t]]}
    return described(computed, {"sample": sample, "pred_xstart": predicted, "undo": diffusion.forward_step(sample, t, given.noise("z3"))})


def respaced(steps: str) -> Diffusion:
    return Diffusion(int(steps) if steps else TRAINED)


def schedule(diffusion: Diffusion) -> Computed:
    return Computed({"cases": {}}, {"betas": diffusion.betas, "timestep_map": torch.tensor(diffusion.timesteps)})


def described(computed: Computed, results: Mapping[str, Tensor]) -> Computed:
    """`computed` with the arrays of a step, and the mean and deviation of each."""
    for name, value in results.items():
        computed.arrays[f"step/{name}"] = value
        computed.numbers["cases"][f"step/{name}"] = {"mean": value.mean(), "std": value.std(correction=0)}
    return computed


class Given:
    """What a step starts from, drawn as the golden's texts say."""

    def __init__(self, step: Mapping[str, Any], seed: int) -> None:
        self.shape, self.seed = (step["B"], 3, step["S"], step["S"]), seed
        self.xt = image("xt", self.shape, seed) + 0.5 * image("xt2", self.shape, seed)
        self.model_out = image("model_out", (step["B"], 6, step["S"], step["S"]), seed)
        self.ref = image("ref", self.shape, seed)

    def noise(self, name: str) -> Tensor:
        return torch.from_numpy(stream(name, self.seed).standard_normal(self.shape, dtype="float32"))


BUILDERS = [
    ("jychoi118/ilvr_adm@", "UNetModel via create_model", unet),
    ("andreas128/RePaint@", "UNetModel via create_model", unet),
    ("openai/guided-diffusion@", "UNetModel via create_model", unet),
]

COMPUTATIONS = [
    ("jychoi118/ilvr_adm@", "cases", ilvr_step),
    ("andreas128/RePaint@", "cases", repaint_step),
]

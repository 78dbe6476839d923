"""Every generator of the zoo is found in the packagings that training scripts save, and so are the discriminators."""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import tests.generators
from generators import create_generator
from generators.attgan import attgan_discriminators
from generators.bicyclegan import bicyclegan_encoder
from generators.patchgan import patch_discriminator
from generators.stargan import stargan_discriminator
from generators.starganv2 import starganv2_discriminator
from generators.stgan import stgan_discriminator
from malp_disc.serialization.state_dicts import save_tensors
from tests.generators.contract import GeneratorContract

State = dict[str, Tensor]


def contracts() -> list[type[GeneratorContract]]:
    modules = [importlib.import_module(f"tests.generators.{module.name}") for module in pkgutil.iter_modules(tests.generators.__path__)]
    found = {value for module in modules for value in vars(module).values() if isinstance(value, type) and issubclass(value, GeneratorContract)}
    return sorted((cls for cls in found if cls is not GeneratorContract), key=lambda cls: (cls.name, cls.__module__, cls.__qualname__))


def prefixed(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def other(state: State) -> State:
    """The same network with other values: what must not be taken."""
    return {key: value + 1 for key, value in state.items()}


PACKAGINGS: dict[str, Callable[[State], dict]] = {
    "module.": lambda state: prefixed("module.", state),
    "_orig_mod.": lambda state: prefixed("_orig_mod.", state),
    "module._orig_mod.": lambda state: prefixed("module._orig_mod.", state),
    "generator.": lambda state: {**prefixed("generator.", state), "discriminator.head.weight": torch.ones(1)},
    "netG.": lambda state: prefixed("netG.", state),
    "netG_A2B.": lambda state: prefixed("netG_A2B.", state),
    "G.": lambda state: prefixed("G.", state),
    "net.": lambda state: prefixed("net.", state),
    "model.": lambda state: prefixed("model.", state),
    "ema_model. before online_model.": lambda state: {"initted": torch.tensor(True), "step": torch.tensor(3), **prefixed("online_model.", other(state)), **prefixed("ema_model.", state)},
    "AveragedModel": lambda state: {"n_averaged": torch.tensor(7), **prefixed("module.", state)},
    "counters beside": lambda state: {**state, "num_updates": torch.tensor(7), "decay": torch.tensor(0.999)},
    "{model}": lambda state: {"model": state, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-4}]}, "epoch": 3},
    "{state_dict: model.}": lambda state: {"state_dict": prefixed("model.", state), "global_step": 9},
    "{state_dict: module.}": lambda state: {"state_dict": prefixed("module.", state)},
    "{module}": lambda state: {"module": state},
    "{net_G}": lambda state: {"net_G": state, "net_D": {"head.weight": torch.ones(1)}},
    "{generator}": lambda state: {"discriminator": {"head.weight": torch.ones(1)}, "generator": prefixed("module.", state)},
    "{G, G_ema}": lambda state: {"G": other(state), "D": {"head.weight": torch.ones(1)}, "G_ema": state},
    "{params, params_ema}": lambda state: {"params": other(state), "params_ema": state},
    "{model: {generator}}": lambda state: {"model": {"generator": state, "ema": {"decay": 0.999}}},
    "half": lambda state: {key: value.half() if value.is_floating_point() else value for key, value in state.items()},
    "bfloat16 parameters": lambda state: {key: nn.Parameter(value.bfloat16()) if value.is_floating_point() else value for key, value in state.items()},
    "without counters": lambda state: {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")},
}


def check(loaded: nn.Module, state: State, packaging: str) -> None:
    close = {"half": 2e-3, "bfloat16 parameters": 1e-2}.get(packaging, 0.0)
    for key, value in loaded.state_dict().items():
        assert value.dtype == state[key].dtype and torch.allclose(value, state[key], atol=close, rtol=close), (packaging, key)


def worn(state: State) -> dict:
    """Much of it at once: nested, averaged, compiled, in half precision, without batch counters, beside an optimizer."""
    kept = {key: nn.Parameter(value.half()) if value.is_floating_point() else value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    return {"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, "state_dict": {"n_averaged": torch.tensor(7), **prefixed("module._orig_mod.", kept)}}


@pytest.mark.parametrize("name", ["stargan", "cyclegan", "unit"])
@pytest.mark.parametrize("packaging", PACKAGINGS)
def test_a_generator_is_found_in_every_packaging(tmp_path, name, packaging):
    contract = next(cls for cls in contracts() if cls.name == name)
    state = {key: value.contiguous().clone() for key, value in contract().make().state_dict().items()}
    torch.save(PACKAGINGS[packaging](state), tmp_path / "G.pth")
    check(create_generator(name, tmp_path / "G.pth", **contract.config), state, packaging)


@pytest.mark.filterwarnings("ignore:.*is one domain's network")
@pytest.mark.parametrize("contract", contracts(), ids=lambda cls: f"{cls.name}-{cls.__module__.rpartition('.')[2]}-{cls.__qualname__}")
def test_every_generator_is_found_in_its_packaging(tmp_path, contract):
    state = {key: value.contiguous().clone() for key, value in contract().make().state_dict().items()}
    for name, content in (("half", worn(state)), ("{G, G_ema}", PACKAGINGS["{G, G_ema}"](state))):
        torch.save(content, tmp_path / "G.pth")
        check(create_generator(contract.name, tmp_path / "G.pth", **contract.config), state, name)


DISCRIMINATORS = {
    "stargan": (stargan_discriminator, {"image_size": 32, "conv_dim": 4, "c_dim": 3, "repeat_num": 3}),
    "attgan": (attgan_discriminators, {"img_size": 32, "dim": 4, "fc_dim": 8, "n_layers": 3, "n_attrs": 3}),
    "stgan": (stgan_discriminator, {"image_size": 32, "attr_dim": 3, "conv_dim": 4, "fc_dim": 8, "n_layers": 3}),
    "patchgan": (patch_discriminator, {"ndf": 4, "n_layers": 2}),
    "starganv2": (starganv2_discriminator, {"img_size": 32, "num_domains": 2, "max_conv_dim": 16}),
}


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_every_discriminator_is_found_and_its_own_copy_preferred_to_an_averaged_one(tmp_path, name):
    make, config = DISCRIMINATORS[name]
    state = make(**config).state_dict()
    packagings = {
        "ours": prefixed("discriminator.", state),
        "netD.": {**prefixed("netD.", state), "netG.head.weight": torch.ones(1)},
        "{generator, discriminator}": {"generator": {"head.weight": torch.ones(1)}, "discriminator": prefixed("module.", state)},
        "{D_ema, D}": {"D_ema": other(state), "D": state},
        "{G, D} alike": {"G": other(state), "D": state},
        "{state_dict: discriminator.}": {"state_dict": {**prefixed("discriminator.", state), "generator.head.weight": torch.ones(1)}},
    }
    for packaging, content in packagings.items():
        torch.save(content, tmp_path / "D.pth")
        check(make(tmp_path / "D.pth"), state, packaging)


def test_an_encoder_is_found_too(tmp_path):
    state = bicyclegan_encoder(ndf=4, n_blocks=2).state_dict()
    torch.save({"netG": {"head.weight": torch.ones(1)}, "netE": prefixed("module.", state)}, tmp_path / "E.pth")
    check(bicyclegan_encoder(tmp_path / "E.pth"), state, "netE")


# --- the rules ---------------------------------------------------------------------------------------------------------------------


def stargan_state() -> State:
    return create_generator("stargan", conv_dim=4, c_dim=3, repeat_num=2).state_dict()


def test_the_choice_among_several_is_said_in_one_line(tmp_path, caplog):
    state = stargan_state()
    torch.save({"G": other(state), "G_ema": state}, tmp_path / "both.pth")
    with caplog.at_level(logging.WARNING):
        check(create_generator("stargan", tmp_path / "both.pth"), state, "both")
    (line,) = caplog.messages
    assert line.endswith("both.pth holds this network several times: taking G_ema, not G")


def test_two_directions_give_the_first_and_say_so(tmp_path, caplog):
    state = stargan_state()
    torch.save({"netG_A2B": state, "netG_B2A": other(state)}, tmp_path / "two.pth")
    with caplog.at_level(logging.WARNING):
        check(create_generator("stargan", tmp_path / "two.pth"), state, "two")
    assert "taking netG_A2B, not netG_B2A" in caplog.text


def test_our_own_checkpoints_are_taken(tmp_path):
    """What recipes keep: ``G_average.safetensors``, and StarGAN's objective, whose discriminator nothing else holds."""
    from generators.stargan_losses import StarGANObjective

    discriminator = stargan_discriminator(image_size=32, conv_dim=4, c_dim=3, repeat_num=3)
    objective = StarGANObjective(discriminator)
    save_tensors(tmp_path / "G_average.safetensors", stargan_state())
    save_tensors(tmp_path / "D.safetensors", objective.state_dict())
    assert all(key.startswith("discriminator.") for key in objective.state_dict())
    create_generator("stargan", tmp_path / "G_average.safetensors")
    check(stargan_discriminator(tmp_path / "D.safetensors"), discriminator.state_dict(), "D")


def test_averages_without_names_are_refused_with_the_way_out(tmp_path):
    state = stargan_state()
    torch.save({"decay": 0.999, "num_updates": 3, "shadow_params": list(state.values()), "collected_params": None}, tmp_path / "ema.pth")
    with pytest.raises(ValueError, match=r"ema.pth holds weights in a list, without names \(as shadow_params.*ema.copy_to"):
        create_generator("stargan", tmp_path / "ema.pth")
    torch.save({"model": state, "ema": {"shadow_params": list(state.values())}}, tmp_path / "beside.pth")
    check(create_generator("stargan", tmp_path / "beside.pth"), state, "beside")


def test_a_nest_without_the_network_is_told_with_what_is_in_it(tmp_path):
    torch.save({"netD": {"a.weight": torch.ones(1)}, "epoch": 3}, tmp_path / "D.pth")
    with pytest.raises(ValueError, match=r"D.pth holds no state dict of this network: expected tensors by name, main.0.weight, .* among them, found netD \(1 tensors: a.weight, …\), epoch"):
        create_generator("stargan", tmp_path / "D.pth")

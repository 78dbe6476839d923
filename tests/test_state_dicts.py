"""Where a network's weights are in a file: paths, the choice among several, and what is left out."""

from __future__ import annotations

import errno
import os

import pytest
import torch
from torch import nn

from malp_disc.serialization.nesting import find_parts, find_weights, flatten, strip_to
from malp_disc.serialization.state_dicts import load_metadata, load_state, load_tensors, save_tensors

FORM = ("a.weight", "b.weight")
STATE = {"a.weight": torch.ones(1), "b.weight": torch.zeros(1)}


def at(path: str, value: float = 1.0) -> dict:
    return {path + key: torch.full((1,), value) for key in STATE}


def found(content, **options) -> float | None:
    tensors = find_weights(content, (FORM,), source="a.pth", **options)
    return None if tensors is None else tensors["a.weight"].item()


def test_names_and_prefixes_are_one_path():
    for content in (at("x.y."), {"x": at("y.")}, {"x": {"y": at("")}}, {"x": {"y": {"a": {"weight": torch.ones(1)}, "b": {"weight": torch.ones(1)}}}}, {"x": [at(""), 3]}):
        tensors = find_weights(content, (FORM,), source="a.pth")
        assert set(tensors) == set(STATE), content


def test_all_keys_of_a_form_must_be_below_the_same_path():
    assert found({"x.a.weight": torch.ones(1), "y.b.weight": torch.ones(1)}) is None
    assert found({"xa.weight": torch.ones(1), "xb.weight": torch.ones(1)}) is None  # a name ends at a dot


@pytest.mark.parametrize("name", ["G_ema", "ema", "model_ema", "ema_model", "params_ema", "generatorEMA", "g_running", "G_average", "shadow", "swa_model"])
def test_an_averaged_generator_comes_first_and_an_averaged_discriminator_last(name):
    assert found({"first": at("", 1.0), name: at("", 2.0)}) == 2.0
    assert found({name: at("", 2.0), "last": at("", 1.0)}, role="discriminator") == 1.0


def test_the_wanted_role_beats_an_average_and_the_order_asked_for_beats_the_files():
    assert found({"D_ema": at("", 1.0), "G": at("", 2.0)}) == 2.0
    assert found({"generator": at("", 1.0), "discriminator": at("", 2.0)}, role="discriminator") == 2.0
    assert found({"one": at("", 1.0), "two": at("", 2.0)}, entries=("two", "one")) == 2.0
    assert found({"one": at("", 1.0), "two": at("", 2.0)}) == 1.0


def test_which_of_several_copies_is_taken_is_said(caplog):
    assert found(at("only.")) == 1.0 and not caplog.records
    assert found({**at(""), **at("ema.", 2.0)}) == 2.0
    assert caplog.messages == ["a.pth holds this network several times: taking ema, not the top level"]


def test_a_part_with_the_same_keys_is_no_candidate_and_stays_in_the_whole():
    tensors = find_weights({**at(""), **at("inner.3.", 5.0)}, (FORM,), source="a.pth")
    assert set(tensors) == {*STATE, *at("inner.3.")}


def test_an_averaged_copy_beside_the_bare_keys_is_kept_apart():
    content = {**at("", 1.0), **at("ema.", 2.0)}
    assert found(content) == 2.0
    assert set(find_weights(content, (FORM,), role="discriminator", source="a.pth")) == set(STATE)


def test_counters_are_left_out_but_not_a_parameter_of_such_a_name():
    content = {**STATE, "step": torch.tensor(3), "decay": torch.rand(4), "n_averaged": torch.tensor(1)}
    assert set(find_weights(content, (FORM,), source="a.pth")) == {*STATE, "decay"}


def test_a_mapping_that_contains_itself_ends():
    content = {"state_dict": dict(STATE)}
    content["me"] = content
    assert set(flatten(content)) == {f"state_dict.{key}" for key in STATE}


def test_wrappers_of_submodules_are_left_out():
    assert set(flatten({"a._orig_mod.weight": torch.ones(1), "b._fsdp_wrapped_module.c._checkpoint_wrapped_module.w": torch.ones(1), "my_orig_mod.w": torch.ones(1)})) == {
        "a.weight",
        "b.c.w",
        "my_orig_mod.w",
    }


def test_parts_are_found_below_a_path_and_each_loses_its_own_module():
    content = {"nets": {"a": at("", 1.0), "b": at("")}, "nets_ema": {"a": at("module.", 2.0), "b": at("module."), "c": at("")}}
    tensors = find_parts(content, ("a", "b"), source="a.pth")
    assert set(tensors) == {*at("a."), *at("b.")} and tensors["a.a.weight"].item() == 2.0
    assert "c.a.weight" in find_parts(content, ("a", "b"), ("c",), source="a.pth")
    assert find_parts({"a": {"w": torch.ones(1)}, "step": 3}, ("a", "b"), source="a.pth") is None


def test_a_network_takes_its_keys_out_of_any_prefix():
    source, target = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    wrapped = {"n_averaged": torch.tensor(3), **{f"net.module.{key}": value for key, value in source.state_dict().items()}}
    load_state(target, wrapped, source="a.pth")
    assert torch.equal(target[0].weight, source[0].weight)
    assert strip_to(target, {"other.weight": torch.ones(1)}).keys() == {"other.weight"}


# --- values that no network has ------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda: torch.eye(2).to_sparse(), "as a tensor that is sparse_coo"),
        (lambda: torch.empty(2, device="meta"), "without its values"),
        (lambda: torch.quantize_per_tensor(torch.eye(2), 0.1, 0, torch.qint8), "as a tensor that is quantized"),
    ],
)
def test_sparse_empty_and_quantized_tensors_are_refused(tmp_path, value, message):
    torch.save({"w": value()}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=f"a.pth holds w {message}"):
        load_tensors(tmp_path / "a.pth")


def test_integers_in_place_of_floats_are_refused():
    network = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="weight has numbers of type torch.int8 in the file and torch.float32 here"):
        load_state(network, {key: value.to(torch.int8) for key, value in network.state_dict().items()}, source="a.pth")


def test_arrays_and_lists_in_place_of_tensors_are_named(tmp_path):
    torch.save({key: value.numpy() for key, value in STATE.items()}, tmp_path / "arrays.pth")
    with pytest.raises(ValueError, match="the network's keys, but no tensors under them.*torch.from_numpy"):
        load_tensors(tmp_path / "arrays.pth", forms=(FORM,))
    torch.save({"ema": list(STATE.values())}, tmp_path / "list.pth")
    with pytest.raises(ValueError, match="weights in a list, without names"):
        load_tensors(tmp_path / "list.pth", forms=(FORM,))


def test_a_disk_that_takes_no_more_is_an_os_error_with_its_number_and_the_file(tmp_path, largest_file):
    """safetensors raises an error of its own, which is neither an OSError nor a ValueError."""
    with pytest.raises(OSError, match="a.safetensors") as raised, largest_file(4096):
        save_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(4096)})
    assert raised.value.errno == errno.EFBIG and raised.value.strerror == os.strerror(errno.EFBIG)
    assert not list(tmp_path.iterdir())


def test_notes_of_a_header_are_read_and_a_damaged_file_is_named(tmp_path):
    save_tensors(tmp_path / "a.safetensors", STATE, {"kind": "x"})
    assert load_metadata(tmp_path / "a.safetensors") == {"kind": "x"}
    torch.save(STATE, tmp_path / "a.pth")
    assert load_metadata(tmp_path / "a.pth") == {}
    (tmp_path / "b.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="b.safetensors can't be read as safetensors: it is an empty file"):
        load_metadata(tmp_path / "b.safetensors")


def test_a_file_without_tensors_is_valid_and_named_as_empty(tmp_path):
    save_tensors(tmp_path / "empty.safetensors", {})
    assert load_metadata(tmp_path / "empty.safetensors") == {}
    with pytest.raises(ValueError, match=r"empty.safetensors holds no state dict: expected tensors by name, found \[\]"):
        load_tensors(tmp_path / "empty.safetensors")

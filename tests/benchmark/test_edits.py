"""The images of a benchmark and their edits, kept by content."""

import functools
from types import SimpleNamespace

import pytest
import torch

from malp_disc.benchmark.autogan import AutoGANDetector
from malp_disc.benchmark.inputs import EditCache, cases_of, code_of, content_hash, generator_identity, sampled
from malp_disc.benchmark.keyed_method import KeyedMethod
from malp_disc.benchmark.run import Competitor
from malp_disc.benchmark.suite import generator_entry
from malp_disc.data import DataOptions, build_dataset
from malp_disc.import_object import call_by_name
from malp_disc.keyed import KeyedConfig, KeyedMaLP
from malp_disc.levels import as_images, quantize
from tests.tiny import sample_images, small_generator

FACES = DataOptions(image_size=32, test_size=40)
LEVELS = quantize(sample_images(3))


class Counting:
    """manipulate that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, images, target):
        self.calls += 1
        return -images if target is None else images * target[:, :1, None, None]


def test_images_are_sampled_from_the_held_out_ones_by_seed():
    dataset = build_dataset(FACES, "test")
    one, same, other = (sampled(dataset, 8, seed)[0] for seed in (0, 0, 1))
    assert one.shape == (8, 3, 32, 32) and one.dtype == torch.uint8
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert len(sampled(dataset, 100, 0)[0]) == 40


def test_every_attribute_of_edits_is_a_case_of_its_own():
    everything, smiling = cases_of(generator_entry("stargan", data=FACES, edits=("Smiling",)), "labels", 8, 0)
    assert everything.attribute is None and smiling.attribute == "Smiling"
    changed = smiling.target != sampled(build_dataset(FACES, "test"), 8, 0)[1]
    assert changed.sum(0).tolist() == [0, 0, 0, 8, 0]


def test_targets_are_what_the_network_takes():
    labels = sampled(build_dataset(FACES, "test"), 8, 0)[1]
    entry = generator_entry("stargan", data=FACES, edits=("Smiling",))
    cases = {kind: [case.target for case in cases_of(entry, kind, 8, 0)] for kind in ("labels", "change", "domain", "none")}
    wanted, change, domain, none = (targets[0] for targets in cases.values())
    assert torch.equal(change, wanted - labels) and none is None
    assert (cases["change"][1] != 0).sum(0).tolist() == [0, 0, 0, 8, 0]
    assert domain.dtype == torch.long and domain.shape == (8,)
    smiling = cases["domain"][1]
    assert (smiling == 3).all() and len(smiling), "the fourth domain, and no other that the image had"


def test_an_unknown_attribute_is_refused():
    with pytest.raises(ValueError, match="StarGAN: no attribute Bald to edit; its images have Black_Hair"):
        cases_of(generator_entry("stargan", data=FACES, edits=("Bald",)), "labels", 8, 0)


def test_edits_are_computed_once_and_kept_by_content(tmp_path):
    manipulate = Counting()
    edits = EditCache(tmp_path, "generator", manipulate, "cpu")
    first = edits(LEVELS, None)
    assert torch.equal(first, quantize(-as_images(LEVELS))) and manipulate.calls == 1
    again = EditCache(tmp_path, "generator", manipulate, "cpu")(LEVELS.clone(), None)
    assert torch.equal(again, first) and manipulate.calls == 1
    edits(LEVELS, torch.full((3, 1), 0.5))
    EditCache(tmp_path, "another generator", manipulate, "cpu")(LEVELS, None)
    edits(LEVELS.flip(0), None)
    assert manipulate.calls == 4


def test_a_tensor_of_other_values_type_or_shape_has_another_hash():
    values = torch.zeros(2, 3)
    assert len({content_hash(other) for other in (values, values + 1, values.int(), values.view(3, 2))}) == 4 and content_hash(values.clone()) == content_hash(values)


def test_a_damaged_file_of_the_cache_is_made_again(tmp_path):
    edits = EditCache(tmp_path, "generator", Counting(), "cpu")
    first = edits(LEVELS, None)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(edits(LEVELS, None), first)


def test_edits_that_are_not_finite_are_refused(tmp_path):
    with pytest.raises(ValueError, match="3 of 3 edited images aren't finite"):
        EditCache(tmp_path, "generator", lambda images, target: images / 0 * 0, "cpu")(LEVELS, None)


def test_other_weights_or_options_are_another_generator():
    entry = generator_entry("stargan")
    identities = {
        generator_identity(entry, small_generator(0)),
        generator_identity(entry, small_generator(1)),
        generator_identity(generator_entry("attgan"), small_generator(0)),
        generator_identity(generator_entry("stargan", options={"c_dim": 5}), small_generator(0)),
    }
    assert len(identities) == 4
    assert generator_identity(entry, small_generator(0)) in identities


MINE = """
import functools
import torch
from types import SimpleNamespace

def shift(images):
    return images - 0.4

class Darker:
    def manipulate(self, images, target):
        return shift(images)

    def localize(self, images):
        return None, shift(images).mean((1, 2, 3))

class Network(Darker, torch.nn.Module):
    pass

def by_class():
    return Darker()

def as_network():
    return Network()

def by_functions():
    mine = Darker()
    return SimpleNamespace(manipulate=torch.no_grad()(mine.manipulate), localize=mine.localize)

def in_partial():
    return SimpleNamespace(manipulate=functools.partial(Darker.manipulate, None), localize=functools.partial(Darker.localize, None))
"""


@pytest.mark.parametrize("function", ["by_class", "as_network", "by_functions", "in_partial"])
def test_a_change_of_the_users_code_is_another_generator_and_another_localizer(tmp_path, function):
    """Also a change beside the class, here of a function that it calls."""
    identities = {}
    for folder, text in (("first", MINE), ("again", MINE), ("changed", MINE.replace("0.4", "0.8"))):
        file = tmp_path / folder / f"mine_{folder}_{function}.py"
        file.parent.mkdir()
        file.write_text(text)
        mine = call_by_name(f"{file}:{function}")
        identities[folder] = generator_identity(generator_entry("mine:make"), mine), Competitor(mine, "mine").identity
    assert identities["first"] == identities["again"]
    assert all(one != other for one, other in zip(identities["first"], identities["changed"]))


def test_an_option_that_changes_no_weight_makes_another_localizer():
    """The band of the spectrum that AutoGAN looks at, and the probability above which a pixel of KeyedMaLP's map counts as edited."""
    networks = [AutoGANDetector(band=band) for band in ("full", "full", "low")]
    for network in networks[1:]:
        network.load_state_dict(networks[0].state_dict())
    keyed = [KeyedMaLP(KeyedConfig(image_size=32, width=4, edited_above=above), secret=b"k" * 32) for above in (0.25, 0.25, 0.5)]
    for malp in keyed[1:]:
        malp.load_state_dict(keyed[0].state_dict())
    for kind in (networks, list(map(KeyedMethod, keyed))):
        first, same, other = (Competitor(localizer, "one").identity for localizer in kind)
        assert first == same != other


def test_two_functions_that_make_one_class_are_two_localizers_and_a_changed_one_is_another(tmp_path):
    """The class is in a file of its own; what differs is the argument that the function gives it."""
    (tmp_path / "flat_maps.py").write_text(
        "class Flat:\n    def __init__(self, value):\n        self.value = value\n\n    def localize(self, images):\n        ...\n\n    manipulate = localize\n"
    )
    made = "from flat_maps import Flat\n\ndef weak():\n    return Flat(0.1)\n\ndef strong():\n    return Flat(0.9)\n"
    found = {}
    for name, text in (("maps", made), ("copied", made), ("changed", made.replace("0.9", "0.8"))):
        (tmp_path / f"{name}.py").write_text(text)
        for function in ("weak", "strong"):
            spec = f"{tmp_path / name}.py:{function}"
            found[name, function] = Competitor(call_by_name(spec), "flat", function=spec).identity
    assert found["maps", "weak"] != found["maps", "strong"] != found["changed", "strong"]
    assert found["maps", "strong"] == found["copied", "strong"]
    entry, generator = generator_entry(spec), call_by_name(spec)
    before = generator_identity(entry, generator)
    (tmp_path / "changed.py").write_text(made)
    assert generator_identity(entry, generator) != before


def test_the_code_of_the_zoo_and_of_a_built_in_is_no_part_of_an_identity(monkeypatch):
    assert code_of(SimpleNamespace(manipulate=max), "manipulate", "localize") == "" == code_of(functools.partial(max))
    zoo = generator_entry("stargan"), small_generator(0)
    own = generator_entry("mine:make"), small_generator(0)
    before = generator_identity(*zoo), generator_identity(*own)
    monkeypatch.setattr("malp_disc.benchmark.inputs.code_of", lambda *arguments: "other code")
    after = generator_identity(*zoo), generator_identity(*own)
    assert before[0] == after[0] and before[1] != after[1]


def test_the_edits_of_a_changed_generator_are_computed_anew(tmp_path):
    edits = []
    for name, text in (("old", MINE), ("new", MINE.replace("0.4", "0.8"))):
        file = tmp_path / f"mine_{name}.py"
        file.write_text(text)
        mine = call_by_name(f"{file}:by_class")
        edits.append(EditCache(tmp_path / "edits", generator_identity(generator_entry("mine:make"), mine), mine.manipulate, "cpu")(LEVELS, None))
    assert not torch.equal(*edits)

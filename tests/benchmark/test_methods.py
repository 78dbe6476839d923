"""Every method: its predictions keep the contract, its loss reaches every parameter, and saved it predicts the same."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import nn

from malp_disc.benchmark.loading import load_localizer
from malp_disc.benchmark.localizer import family_of, name_of, predict, protect
from malp_disc.benchmark.methods import DETECTORS, LOCALIZERS, METHODS, create_method, save_method
from malp_disc.benchmark.suite import LocalizerEntry
from malp_disc.commands.benchmark import localizer_of
from tests.benchmark.small import NAMES, losses_of, small_method, small_pairs
from tests.tiny import gradients, sample_images


@pytest.fixture(scope="module", params=NAMES)
def method(request) -> nn.Module:
    return small_method(request.param)


def test_a_batch_learns_everything_and_evaluation_looks_at_each_image_by_itself(method, tmp_path):
    """One test, as building the networks takes longest: gradients, contract, independence of the batch, saving."""
    name, pairs = method.name, small_pairs()
    real, manipulated, truth = pairs
    method.train().prepare(real, manipulated, truth)
    losses = losses_of(method, pairs)
    assert all(term.ndim == 0 and term.isfinite() for term in losses.values())
    sum(losses.values()).backward()
    assert gradients(method) == {key for key, _ in method.named_parameters()}
    method.make_optimizer(method.learning_rate).step()
    method.zero_grad(set_to_none=True)

    method.eval()
    found, alone = predict(method, manipulated), predict(method, manipulated[1:])
    assert (found.map is None) == (name in DETECTORS) and name in METHODS and name_of(method) == name
    torch.testing.assert_close(found.score[1:], alone.score, rtol=1e-3, atol=1e-5)
    if found.map is not None:
        torch.testing.assert_close(found.map[1:], alone.map, rtol=1e-3, atol=1e-5)

    save_method(tmp_path / "m", method, name, {"steps": 1})
    again = load_localizer(str(tmp_path / "m"))
    assert not again.training and again.options == method.options
    for ours, theirs in zip(predict(again, manipulated), found):
        assert ours is theirs is None or torch.equal(ours, theirs)


def test_names_say_what_there_is():
    assert len(METHODS) == 19 and not set(LOCALIZERS) & set(DETECTORS)
    for name, message in (("fdd_reg", "did you mean ffd_reg"), ("x", "there are resnet50_map, ffd_reg")):
        with pytest.raises(ValueError, match=message):
            create_method(name)
    with pytest.raises(ValueError, match="nataraj doesn't take side"):
        create_method("nataraj", side=64)
    for name in ("ffd_reg", "resnet50_map", "cnndetection", "patch_forensics_widenet_kw7_d1"):
        with pytest.raises(ValueError, match="pixels a side"):
            create_method(name, side=16)


def test_only_proactive_imd_protects():
    imd, patches = small_method("proactive_imd"), small_method("patch_forensics_xception_block1")
    images = sample_images(3, 64, 64)
    assert (family_of(imd), family_of(patches)) == ("proactive", "passive")
    assert torch.equal(protect(patches, images), images) and not torch.equal(protect(imd, images), images)


def test_a_users_module_is_saved_and_made_again_by_its_function(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_map.py").write_text(
        "from torch import nn\n"
        "class Mine(nn.Conv2d):\n"
        "    def localize(self, images):\n"
        "        maps = self(images).sigmoid()\n"
        "        return maps, maps.mean((1, 2, 3))\n"
        "    def losses(self, real, manipulated, truth):\n"
        "        return {'map': (self(manipulated).sigmoid() - truth).square().mean()}\n"
        "def make():\n"
        "    return Mine(3, 1, 1)\n"
        "class Fixed(nn.Module):\n"
        "    localize = None\n"
        "def fixed():\n"
        "    return Fixed()\n"
        "def bare():\n"
        "    mine = Mine(3, 1, 1)\n"
        "    mine.losses = None\n"
        "    return mine\n"
    )
    mine = create_method("my_map:make")
    save_method(tmp_path / "saved", mine, "my_map:make")
    images = sample_images(2)
    for given in ("my_map:make", "my_map.py:make", f"{tmp_path / 'my_map.py'}:make"):
        assert torch.equal(predict(load_localizer(f"{given}={tmp_path / 'saved'}"), images).map, predict(mine, images).map)
    with pytest.raises(ValueError, match="saved holds a trained my_map:make, not my_map:fixed"):
        load_localizer(f"my_map:fixed={tmp_path / 'saved'}")
    with pytest.raises(ValueError, match="my_map:fixed is no localizer"):
        create_method("my_map:fixed")
    with pytest.raises(ValueError, match="has no losses"):
        create_method("my_map:bare")
    with pytest.raises(ValueError, match="leave side out"):
        create_method("my_map:make", side=64)


@pytest.mark.parametrize("named", ["theirs/payload.py:make", "theirs.payload:make", "/PLACE/theirs/payload.py:make"])
def test_no_function_that_a_folder_names_is_run(monkeypatch, tmp_path, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "payload.py").write_text("open('ran', 'w').close()\ndef make(): ...\n")
    named = named.replace("/PLACE", str(tmp_path))
    (tmp_path / "theirs" / "config.json").write_text(json.dumps({"model_type": "localizer", "method": named, "options": {}}))
    with pytest.raises(ValueError, match=re.escape(f"theirs holds a trained localizer that is made by {named}, and a function that a file names isn't run") + f".*: {named}=theirs$"):
        load_localizer(localizer_of("theirs").localizer)
    for other in ("other:make", "ffd_reg"):
        with pytest.raises(ValueError, match=f"theirs holds a trained {named}, not {other}"):
            load_localizer(f"{other}=theirs")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("given", "localizer", "name"),
    [
        ("my_map:make=runs/mine", "my_map:make=runs/mine", None),
        ("a/my_map.py:make=runs/mine", "a/my_map.py:make=runs/mine", None),
        ("Mine=my_map:make=runs/mine", "my_map:make=runs/mine", "Mine"),
        ("Table 7: PGD=runs/pgd", "runs/pgd", "Table 7: PGD"),
    ],
)
def test_a_function_with_its_folder_is_no_label(given, localizer, name):
    assert localizer_of(given) == LocalizerEntry(localizer=localizer, name=name)


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    save_method(tmp_path / "ffd", small_method("nataraj"), "nataraj")
    with pytest.raises(ValueError, match="ffd holds a trained nataraj, not my_map:make"):
        load_localizer(f"my_map:make={tmp_path / 'ffd'}")
    with pytest.raises(ValueError, match=r"no localizer .*expected a folder .*malp, malp_both, malp_dm, resnet50_map"):
        load_localizer("nothing")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="its model_type is 'bert'"):
        load_localizer(str(tmp_path))
    method = small_method("proactive_imd")
    save_method(tmp_path / "imd", method, "proactive_imd")
    with pytest.raises(ValueError, match="holds a trained proactive_imd, not nataraj"):
        load_localizer(f"nataraj={tmp_path / 'imd'}")

"""Checkpoints as the authors pack them load into the methods, initial weights of ImageNet classifiers too, and other files are refused."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image

from malp_disc.benchmark.ffd import FFD, make_templates
from malp_disc.benchmark.imd_detector import IMDDetector
from malp_disc.benchmark.loading import load_localizer
from malp_disc.benchmark.localizer import predict
from malp_disc.benchmark.methods import create_method
from malp_disc.benchmark.patch_networks import PATCH_NETWORKS
from malp_disc.benchmark.xception import CADENE, Xception
from tests.golden.seeded import WithoutInitialization, fill
from tests.test_proactive_imd import packed
from tests.tiny import sample_images

PACKED = {
    "patch_forensics_xception_block1": lambda state: {"state_dict": state, "optimizer": {"state": {}}, "epoch": 3, "best_val_metric": torch.tensor(0.9)},
    "patch_forensics_widenet_kw7_d1": lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}, "scheduler": {"last_epoch": 3}},
    "autogan": lambda state: {"epoch": 10, "state_dict": state},
    "cnndetection": lambda state: {"model": state, "optimizer": {"state": {}}, "total_steps": 100},
}


@pytest.mark.parametrize("name", PACKED)
def test_checkpoints_load_from_where_the_authors_put_them(name, tmp_path):
    with WithoutInitialization():
        method = create_method(name)
        fill(method.network, seed=1)
        torch.save(PACKED[name](method.network.state_dict()), tmp_path / "file.pth")
        loaded = load_localizer(f"{name}={tmp_path / 'file.pth'}")
    assert not loaded.training
    for key, value in method.network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[key], value), key


def test_another_networks_checkpoint_is_refused(tmp_path):
    torch.save({"state_dict": PATCH_NETWORKS["xception_block1"][0]().state_dict()}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="is not a checkpoint of this PatchXception"):
        load_localizer(f"patch_forensics_xception_block2={tmp_path / 'a.pth'}")


def test_ffd_with_templates_takes_the_images_beside_its_checkpoint(tmp_path):
    with WithoutInitialization():
        method = FFD("tmp")
    torch.save({"net": method.network.state_dict(), "optim": {}}, tmp_path / "000200.tar")
    with pytest.raises(FileNotFoundError, match="template0.png … template9.png"):
        method.load_checkpoint(tmp_path / "000200.tar")
    (tmp_path / "MCT").mkdir()
    levels = np.random.default_rng(0).integers(0, 256, (10, 24, 24, 3), dtype=np.uint8)
    for number, image in enumerate(levels):
        Image.fromarray(image).save(tmp_path / "MCT" / f"template{number}.png")
    method.load_checkpoint(tmp_path / "000200.tar")
    np.testing.assert_allclose(method.templates.numpy(), levels[:, :19, :19, 0] / 255, atol=1e-6)


def test_templates_span_true_maps():
    """Nine maps are combinations of their mean and eight components; the rest of the ten are zero or add nothing."""
    maps = torch.rand(9, 1, 19, 19, generator=torch.Generator().manual_seed(0))
    templates = make_templates(maps, 19).flatten(1).double()
    torch.testing.assert_close(templates[0], maps.flatten(1).double().mean(0), rtol=0, atol=1e-6)
    components = templates[1:9]
    torch.testing.assert_close(components @ components.T, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-5)
    residual = maps.flatten(1).double() - templates[0]
    torch.testing.assert_close(residual @ components.T @ components, residual, rtol=0, atol=1e-5)
    assert (templates[1:].sum(1) >= 0).all()


def test_imd_takes_the_size_of_its_template_set_from_the_file(tmp_path):
    torch.save(packed(3), tmp_path / "39_model.pickle")
    loaded = load_localizer(f"proactive_imd={tmp_path / '39_model.pickle'}")
    assert isinstance(loaded, IMDDetector) and loaded.set_size == loaded.options["set_size"] == 3
    assert predict(loaded, sample_images(2)).map is None


CLASSIFIERS = {
    "resnet50_map": ("resnet50", "layer4.2.conv3.weight", "layer4.2.conv3.weight"),
    "fakelocator": ("resnet101", "backbone.layer3.22.conv1.weight", "layer3.22.conv1.weight"),
    "cnndetection": ("resnet50", "layer4.2.conv3.weight", "layer4.2.conv3.weight"),
    "autogan": ("resnet34", "layer4.2.conv2.weight", "layer4.2.conv2.weight"),
    "patch_forensics_resnet18_layer1": ("resnet18", "layer1.1.conv2.weight", "layer1.1.conv2.weight"),
    "patch_forensics_xception_block2": ("legacy_xception", "block2.skipbn.weight", "block2.skipbn.weight"),
    "patch_forensics_xception": ("legacy_xception", "conv4.pointwise.weight", "conv4.pointwise.weight"),
    "ffd_reg": ("legacy_xception", "block3.rep.1.c.weight", "block3.rep.1.conv1.weight"),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if name == "fakelocator" else []) for name in CLASSIFIERS])
def test_methods_start_from_imagenet_classifiers_as_their_libraries_save_them(name, tmp_path):
    """Each classifier's weights are one number, so that building and saving it takes no time; the heads keep theirs."""
    classifier, own_key, its_key = CLASSIFIERS[name]
    with WithoutInitialization():
        method = create_method(name)
        source = timm.create_model(classifier) if classifier == "legacy_xception" else getattr(torchvision.models, classifier)()
    constant = {key: torch.full((1,), 0.25).expand(value.shape) if value.is_floating_point() else value for key, value in source.state_dict().items()}
    assert its_key in constant
    torch.save(constant, tmp_path / "imagenet.pth")
    before = {key: value.clone() for key, value in method.network.state_dict().items() if key.startswith(method.head)}
    method.load_initial_weights(tmp_path / "imagenet.pth")
    after = method.network.state_dict()
    assert (after[own_key] == 0.25).all() and before
    for key, value in after.items():
        if value.is_floating_point():
            assert (value == 0.25).all() if key not in before else torch.equal(value.nan_to_num(), before[key].nan_to_num()), key


def test_other_weights_to_start_from_are_refused(tmp_path):
    method = create_method("patch_forensics_xception_block1")
    torch.save({"x": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"doesn't hold the weights that patch_forensics_xception_block1 starts from: \d+ of \d+ keys are missing"):
        method.load_initial_weights(tmp_path / "other.pth")


def test_xception_is_timms():
    """An implementation of others', with the same keys but for the name of the last layer."""
    theirs, ours = timm.create_model("legacy_xception").eval(), Xception(1000, names=CADENE).eval()
    ours.load_state_dict({key.replace("fc.", "last_linear."): value for key, value in theirs.state_dict().items()})
    images = sample_images(1, 75, 75)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)

"""STGAN, the port and the authors' own: what it is told, what its units let through, the files people have, the common interface."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from generators import create_generator
from generators.stgan import SelectiveTransferUnit, STGANDiscriminator, STGANGenerator, stgan_discriminator
from generators.stgan_official import STGANOfficialGenerator
from tests.generators.contract import GeneratorContract
from tests.golden.seeded import fill
from tests.tiny import sample_images

PORT = {"attr_dim": 3, "conv_dim": 8, "n_layers": 3, "shortcut_layers": 2}
OFFICIAL = {"n_att": 3, "enc_dim": 2, "enc_layers": 3, "stu_dim": 2, "stu_layers": 2, "stu_inject_layers": 2, "dec_dim": 2, "dec_layers": 3,
            "shortcut_layers": 2, "inject_layers": 2}  # fmt: skip
CHECKPOINT = Path(__file__).parent / "data" / "stgan_tensorflow"
DATA = "stgan_tensorflow.data-00000-of-00001"


def tiny(form: str = "port", seed: int = 0, **config) -> nn.Module:
    torch.manual_seed(seed)
    return create_generator("stgan", form=form, **{**(PORT if form == "port" else OFFICIAL), **config}).eval()


def tiny_discriminator(**config) -> STGANDiscriminator:
    torch.manual_seed(0)
    return STGANDiscriminator(**{"image_size": 32, "attr_dim": 3, "conv_dim": 4, "fc_dim": 8, "n_layers": 3, **config})


def changes(count: int) -> Tensor:
    return torch.arange(3 * count).view(count, 3).remainder(3).float() - 1


class TestContract(GeneratorContract):
    name = "stgan"
    config = {"form": "port", **PORT}

    def target(self, count: int) -> Tensor:
        return changes(count)


class TestOfficialContract(GeneratorContract):
    name = "stgan"
    config = {"form": "official", **OFFICIAL, "enc_dim": 4, "stu_dim": 4, "dec_dim": 4}

    def target(self, count: int) -> Tensor:
        return torch.stack([changes(count).gt(0), changes(count).lt(0)], dim=1).float()  # wanted and present labels


FORMS = pytest.mark.parametrize("form", ["port", "official"])

# --- the target --------------------------------------------------------------------------------------------------------------------


@FORMS
def test_wanted_and_present_labels_are_told_as_their_difference(form):
    generator, images = tiny(form), sample_images(2)
    wanted, present = torch.tensor([[1, 0, 1], [0, 1, 1]]), torch.tensor([[0, 0, 1], [1, 1, 0]])
    told = torch.tensor([[1, 0, 0], [-1, 0, 1]]).float()
    with torch.no_grad():
        assert torch.equal(generator.manipulate(images, torch.stack([wanted, present], dim=1)), generator(images, told))
        assert torch.equal(generator.manipulate(images, told), generator(images, told))
        assert not torch.allclose(generator(images, told), generator(images, -told), atol=1e-4)


@FORMS
def test_no_target_and_labels_that_stay_are_told_as_no_change(form):
    generator, images = tiny(form), sample_images(2)
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    with torch.no_grad():
        unchanged = generator(images, torch.zeros(2, 3))
        assert torch.equal(generator.manipulate(images), unchanged)
        assert torch.equal(generator.manipulate(images, torch.stack([labels, labels], dim=1)), unchanged)


@FORMS
@pytest.mark.parametrize(
    ("images", "target", "message"),
    [
        (torch.zeros(2, 3, 30, 32), None, "STGAN.*sides divisible by 8.*got 30x32"),
        (torch.zeros(2, 3, 32, 32), torch.zeros(2, 4), r"target of shape \(2, 3\), the change of each attribute.*got \(2, 4\)"),
        (torch.zeros(2, 3, 32, 32), torch.zeros(1, 3), r"target of shape \(2, 3\).*got \(1, 3\)"),
        (torch.zeros(2, 3, 32, 32), torch.full((2, 3), 2.0), r"target in \[-1, 1\].*got 2 to 2"),
        (
            torch.zeros(2, 3, 32, 32),
            torch.zeros(2, 3, 3),
            r"target of shape \(2, 2, 3\), the wanted and the present labels.*got \(2, 3, 3\)",
        ),
        (torch.zeros(2, 3, 32, 32), -torch.ones(2, 2, 3), r"target in \[0, 1\].*CelebA's -1 means 0.*got -1 to -1"),
    ],
)
def test_wrong_input_is_refused(form, images, target, message):
    with pytest.raises(ValueError, match=message):
        tiny(form).manipulate(images, target)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="unknown form 'tf' of STGAN; choose 'port' or 'official'"):
        create_generator("stgan", form="tf")
    with pytest.raises(ValueError, match="as many decoder layers as encoder layers, got 4 and 3"):
        tiny("official", dec_layers=4)
    with pytest.raises(ValueError, match="fewer transfer units than encoder layers"):
        tiny("official", stu_layers=3)
    with pytest.raises(ValueError, match=r"condition of shape \(1, 3\), one column per attribute, got \(1, 2\)"):
        tiny("official")(sample_images(1), torch.zeros(1, 2))


# --- the units -----------------------------------------------------------------------------------------------------------------------


def set_gate(gate: nn.Sequential, value: float) -> None:
    """A gate that is shut (-100) or open (100) whatever comes in."""
    nn.init.zeros_(gate[1].weight), nn.init.constant_(gate[1].bias, value)


def test_the_update_gate_chooses_between_the_state_and_the_new_information():
    torch.manual_seed(0)
    unit = SelectiveTransferUnit(4, 3, kernel_size=3).eval()
    features, state, change = torch.randn(2, 4, 8, 8), torch.randn(2, 8, 4, 4), changes(2)
    with torch.no_grad():
        raised = unit.upsample(torch.cat([state, change[:, :, None, None].expand(-1, -1, 4, 4)], dim=1))
        set_gate(unit.reset_gate, 100)
        set_gate(unit.update_gate, -100)
        output, following = unit(features, state, change)
        assert torch.allclose(output, raised) and torch.allclose(following, raised)
        set_gate(unit.update_gate, 100)
        assert torch.allclose(unit(features, state, change)[0], unit.hidden(torch.cat([features, raised], dim=1)))


def test_the_reset_gate_forgets_the_state_for_the_units_that_follow_too():
    torch.manual_seed(0)
    unit = SelectiveTransferUnit(4, 3, kernel_size=3).eval()
    features, state, change = torch.randn(2, 4, 8, 8), torch.randn(2, 8, 4, 4), changes(2)
    with torch.no_grad():
        set_gate(unit.reset_gate, -100)
        set_gate(unit.update_gate, 100)
        output, following = unit(features, state, change)
        assert following.abs().max() < 1e-30
        assert torch.allclose(output, unit.hidden(torch.cat([features, torch.zeros_like(features)], dim=1)))
        assert torch.allclose(unit(features, -state, -change)[0], output)


def test_without_units_the_features_go_over_as_they_are():
    """A shut update gate and an encoder that says nothing about the change: then only the decoder's first layer is told."""
    generator, images = tiny(use_stu=False), sample_images(1)
    assert not any(key.startswith("stu") for key in generator.state_dict())
    with torch.no_grad():
        generator.decoder[0][0].weight[-3:] = 0
        assert torch.equal(generator(images, torch.ones(1, 3)), generator(images, -torch.ones(1, 3)))


def test_tf_slims_batch_norm():
    """eps is 1e-3, and a step moves the running averages by a thousandth."""
    norm = tiny("official").Genc["Conv"].BatchNorm.train()
    norm(torch.full((2, 2, 4, 4), 3.0))
    assert torch.allclose(norm.running_mean, torch.full((2,), 0.003)) and torch.allclose(norm.running_var, torch.full((2,), 0.999))
    norm.running_mean.zero_(), norm.running_var.fill_(0.001)
    assert torch.allclose(norm.eval()(torch.ones(1, 2, 1, 1)), torch.full((1, 2, 1, 1), 0.002**-0.5))


# --- published files ---------------------------------------------------------------------------------------------------------------

LAYOUTS = {
    "the port's": lambda state: {"state_dict": state, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]}},
    "the port's, several GPUs": lambda state: {"state_dict": {"module." + key: value for key, value in state.items()}, "optimizer": {}},
    "old torch": lambda state: {"state_dict": {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}},
    "bare": lambda state: state,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_the_port_load(tmp_path, layout):
    generator, images = tiny(), sample_images(2)
    torch.save(LAYOUTS[layout](generator.state_dict()), tmp_path / "G_100000.pth.tar")
    loaded = create_generator("stgan", tmp_path / "G_100000.pth.tar").eval()
    assert loaded.config == generator.config
    assert torch.equal(loaded.manipulate(images, changes(2)), generator.manipulate(images, changes(2)))


@pytest.mark.parametrize(
    "config",
    [
        {"shortcut_layers": 0}, {"shortcut_layers": 1, "one_more_conv": False}, {"use_stu": False}, {"stu_kernel_size": 5}, {"attr_dim": 1},
        {"n_layers": 4, "shortcut_layers": 3},
    ],
)  # fmt: skip
def test_the_shape_of_the_port_is_read_from_the_file(tmp_path, config):
    generator = tiny(**config)
    torch.save({"state_dict": generator.state_dict()}, tmp_path / "G.pth.tar")
    loaded = create_generator("stgan", tmp_path / "G.pth.tar", form="port")
    assert loaded.config == generator.config


@pytest.mark.parametrize(
    "config",
    [
        {}, {"shortcut_layers": 0, "inject_layers": 0}, {"shortcut_layers": 1, "stu_layers": 1, "stu_inject_layers": 1}, {"stu_inject_layers": 0},
        {"inject_layers": 1}, {"one_more_conv": 3, "dec_dim": 8}, {"one_more_conv": 1, "dec_dim": 8}, {"stu_kernel_size": 5}, {"enc_dim": 4, "stu_dim": 2, "dec_dim": 8},
    ],
)  # fmt: skip
def test_the_shape_of_the_authors_is_read_from_the_file(tmp_path, config):
    generator, images = tiny("official", **config), sample_images(1)
    torch.save(generator.state_dict(), tmp_path / "stgan.pth")
    loaded = create_generator("stgan", tmp_path / "stgan.pth", form="official").eval()
    assert loaded.config == generator.config
    assert torch.equal(loaded.manipulate(images), generator.manipulate(images))


@pytest.mark.parametrize("ending", ["", ".index"])
def test_a_checkpoint_that_tensorflow_wrote_loads(ending):
    """With G's variables are the optimizer's slots, D's and the step. The weights were drawn by their names, as for a golden."""
    loaded = create_generator("stgan", f"{CHECKPOINT}{ending}")
    assert isinstance(loaded, STGANOfficialGenerator) and loaded.config == {**OFFICIAL, "stu_kernel_size": 3, "one_more_conv": 0}
    expected = tiny("official")
    fill(expected)
    for key, value in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_variables_as_arrays_load_too(tmp_path):
    from generators.tensorflow_files import read_variables

    np.savez(tmp_path / "stgan.npz", **{name: value.numpy() for name, value in read_variables(CHECKPOINT).items()})
    loaded, images = create_generator("stgan", tmp_path / "stgan.npz").eval(), sample_images(1)
    assert torch.equal(loaded.manipulate(images), create_generator("stgan", CHECKPOINT).eval().manipulate(images))


def test_other_forms_arguments_and_networks_are_refused(tmp_path):
    torch.save(tiny().state_dict(), tmp_path / "port.pth")
    np.savez(tmp_path / "other.npz", **{"gen/conv0/kernel": np.zeros((4, 4, 3, 2), np.float32)})
    with pytest.raises(ValueError, match="port.pth: form is port in the file and official was asked for"):
        create_generator("stgan", tmp_path / "port.pth", form="official")
    with pytest.raises(ValueError, match="port.pth: attr_dim is 3 in the file and 10 was asked for"):
        create_generator("stgan", tmp_path / "port.pth", attr_dim=10)
    with pytest.raises(ValueError, match="stgan_tensorflow: n_att is 3 in the file and 13 was asked for"):
        create_generator("stgan", CHECKPOINT, n_att=13)
    with pytest.raises(ValueError, match=r"other.npz is not a checkpoint of STGANOfficialGenerator: .*found \['gen.conv0.weight'\]"):
        create_generator("stgan", tmp_path / "other.npz")
    shutil.copy(f"{CHECKPOINT}.index", tmp_path)
    with pytest.raises(FileNotFoundError, match=f"needs {DATA} beside it"):
        create_generator("stgan", tmp_path / "stgan_tensorflow")


# --- the discriminator ---------------------------------------------------------------------------------------------------------------


def test_the_discriminator_gives_a_value_and_a_logit_per_attribute_in_both_modes(tmp_path):
    discriminator, images = tiny_discriminator(), sample_images(2)
    value, logits = discriminator.train()(images)
    assert value.shape == (2, 1) and logits.shape == (2, 3)
    (value.sum() + logits.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in discriminator.parameters())
    assert torch.equal(discriminator.eval()(images)[1], logits)  # running averages are neither moved nor read
    with pytest.raises(ValueError, match=r"images \(B, 3, 32, 32\), got \(2, 3, 64, 64\)"):
        discriminator(sample_images(2, 64, 64))
    with pytest.raises(ValueError, match="divisible by 2\\^3 = 8, got 36"):
        tiny_discriminator(image_size=36)
    torch.save({"state_dict": discriminator.state_dict(), "optimizer": {}}, tmp_path / "D_100000.pth.tar")
    loaded = stgan_discriminator(tmp_path / "D_100000.pth.tar", attr_dim=3)
    assert loaded.config == discriminator.config and torch.equal(loaded(images)[0], value)
    torch.save(STGANGenerator(**PORT).state_dict(), tmp_path / "G.pth")
    with pytest.raises(ValueError, match=r"G.pth is not a checkpoint of STGANDiscriminator: .*found \['encoder.0"):
        stgan_discriminator(tmp_path / "G.pth")
    with pytest.raises(ValueError, match=r"D_100000.pth.tar is not a checkpoint of STGANGenerator: .*found \['conv.0"):
        create_generator("stgan", tmp_path / "D_100000.pth.tar")

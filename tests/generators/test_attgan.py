"""AttGAN: what its decoder is told and when, the files people have, and the interface that all generators share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from generators import create_generator
from generators.attgan import AttGANDiscriminators, AttGANGenerator, attgan_discriminators, attgan_target
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images

TINY = {"enc_dim": 4, "enc_layers": 3, "dec_dim": 4, "dec_layers": 3, "n_attrs": 3}


def tiny(seed: int = 0, **config) -> AttGANGenerator:
    torch.manual_seed(seed)
    return AttGANGenerator(**{**TINY, **config}).eval()


def tiny_discriminators(**config) -> AttGANDiscriminators:
    torch.manual_seed(0)
    return AttGANDiscriminators(**{"dim": 4, "fc_dim": 8, "fc_acti_fn": "relu", "n_layers": 3, "img_size": 32, "n_attrs": 3, **config})


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])


class TestContract(GeneratorContract):
    name = "attgan"
    config = {**TINY, "inject_layers": 1}

    def target(self, count: int) -> Tensor:
        return (torch.arange(3 * count).view(count, 3) % 2).float()


# --- the target --------------------------------------------------------------------------------------------------------------------


def test_labels_are_told_as_minus_and_plus_one_half(labels):
    generator, images = tiny(), sample_images(2)
    told = torch.tensor([[0.5, -0.5, 0.5], [-0.5, -0.5, 0.5]])
    assert torch.equal(generator.manipulate(images, labels), generator(images, told))
    assert torch.equal(generator.manipulate(images, labels.long()), generator(images, told))


def test_the_edited_attribute_is_emphasised_and_no_other(labels):
    """Eyeglasses come and go with ±1; the hair that is driven out goes with -0.5 as if it had never been there."""
    names = ["Black_Hair", "Eyeglasses", "Blond_Hair"]
    assert AttGANGenerator.vector(attgan_target(labels, "Eyeglasses", names)).tolist() == [[0.5, 1.0, 0.5], [-0.5, 1.0, 0.5]]
    assert AttGANGenerator.vector(attgan_target(labels, "Black_Hair", names, intensity=0.75)).tolist() == [
        [-0.75, -0.5, 0.5],
        [0.75, -0.5, -0.5],
    ]
    tiny().manipulate(sample_images(2), attgan_target(labels, "Eyeglasses", names))


@pytest.mark.parametrize(("inject", "shortcut"), [(0, 0), (1, 0), (2, 2)])
def test_the_attributes_come_in_where_they_are_injected(inject, shortcut):
    """With the weights of the first injection at zero the attributes still act through the later ones, and only then."""
    generator, images = tiny(inject_layers=inject, shortcut_layers=shortcut), sample_images(1)
    with torch.no_grad():
        generator.dec_layers[0].layers[0].weight[-3:] = 0
        one, other = (generator.manipulate(images, torch.full((1, 3), value)) for value in (0.0, 1.0))
    assert torch.equal(one, other) == (inject == 0)


def test_one_file_serves_every_size(labels):
    generator = tiny()
    for size in ((32, 32), (48, 64)):
        assert generator.manipulate(sample_images(2, *size), labels).shape == (2, 3, *size)


@pytest.mark.parametrize(
    ("images", "target", "message"),
    [
        (torch.zeros(2, 3, 30, 32), torch.zeros(2, 3), "AttGAN.*sides divisible by 8.*got 30x32"),
        (torch.zeros(2, 3, 32, 32), torch.zeros(2, 4), r"target of shape \(2, 3\), the wanted labels as 0 and 1.*got \(2, 4\)"),
        (torch.zeros(2, 3, 32, 32), torch.zeros(1, 3), r"target of shape \(2, 3\).*got \(1, 3\)"),
        (torch.zeros(2, 3, 32, 32), None, r"target of shape \(2, 3\).*got None"),
        (torch.zeros(2, 3, 32, 32), torch.tensor([[-1.0, 1, 1]] * 2), r"target in \[-0.5, 1.5\].*CelebA's -1 means 0.*got -1 to 1"),
        (torch.zeros(2, 3, 32, 32), torch.full((2, 3), torch.nan), r"target in \[-0.5, 1.5\]"),
    ],
)
def test_wrong_input_is_refused(images, target, message):
    with pytest.raises(ValueError, match=message):
        tiny().manipulate(images, target)


def test_wrong_vectors_and_arguments_are_refused():
    with pytest.raises(ValueError, match=r"condition of shape \(1, 3\), one column per attribute, got \(1, 2\)"):
        tiny()(sample_images(1), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="as many decoder layers as encoder layers, got 3 and 5"):
        AttGANGenerator(enc_dim=4, dec_dim=4, dec_layers=3)
    with pytest.raises(ValueError, match="unknown norm 'switchnorm'; choose from"):
        tiny(enc_norm_fn="switchnorm")


# --- published files ---------------------------------------------------------------------------------------------------------------

LAYOUTS = {
    "G alone": lambda state: {"G": state},
    "with the rest of the training": lambda state: {
        "G": state,
        "D": {"conv.0": torch.ones(1)},
        "optim_G": {"state": {}, "param_groups": [{"lr": 1e-4}]},
    },
    "several GPUs": lambda state: {"G": {"module." + key: value for key, value in state.items()}},
    "old torch": lambda state: {"G": {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}},
    "bare": lambda state: state,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layouts_load(tmp_path, labels, layout):
    generator, images = tiny(inject_layers=1), sample_images(2)
    torch.save(LAYOUTS[layout](generator.state_dict()), tmp_path / "weights.149.pth")
    loaded = create_generator("attgan", tmp_path / "weights.149.pth").eval()
    assert loaded.config == generator.config
    assert torch.equal(loaded.manipulate(images, labels), generator.manipulate(images, labels))


@pytest.mark.parametrize("norm", ["batchnorm", "instancenorm", "none"])
@pytest.mark.parametrize(("shortcut", "inject"), [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1), (1, 2), (9, 9)])
def test_what_joins_the_decoder_is_read_from_the_file(tmp_path, shortcut, inject, norm):
    generator = tiny(shortcut_layers=shortcut, inject_layers=inject, enc_norm_fn=norm, dec_norm_fn=norm)
    torch.save({"G": generator.state_dict()}, tmp_path / "weights.pth")
    loaded = create_generator("attgan", tmp_path / "weights.pth", img_size=384)  # img_size as setting.txt has it; no file tells it
    assert loaded.config == generator.config and loaded.config["shortcut_layers"] == min(shortcut, 2)


def test_published_widths_are_read_from_the_file():
    """On the meta device, so that the 43 million weights cost nothing."""
    with torch.device("meta"):
        state = AttGANGenerator(inject_layers=1).state_dict()
    from generators.attgan import _read_generator

    assert _read_generator(state, "file") == AttGANGenerator(**TINY, inject_layers=1).config | {
        "enc_dim": 64, "enc_layers": 5, "dec_dim": 64, "dec_layers": 5, "n_attrs": 13,
    }  # fmt: skip


def test_other_arguments_than_the_files_are_refused(tmp_path):
    torch.save({"G": tiny().state_dict()}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="weights.pth: n_attrs is 3 in the file and 13 was asked for"):
        create_generator("attgan", tmp_path / "weights.pth", n_attrs=13)


# --- the discriminators --------------------------------------------------------------------------------------------------------------


def test_the_discriminators_give_a_value_and_a_logit_per_attribute():
    discriminators, images = tiny_discriminators(), sample_images(2)
    value, logits = discriminators(images)
    assert value.shape == (2, 1) and logits.shape == (2, 3)
    (value.sum() + logits.square().sum()).backward()
    assert all(parameter.grad.any() for parameter in discriminators.parameters())
    assert torch.allclose(discriminators(images[:1])[1], logits[:1], atol=1e-5)
    with pytest.raises(ValueError, match=r"images \(B, 3, 32, 32\), got \(2, 3, 64, 64\)"):
        discriminators(sample_images(2, 64, 64))
    with pytest.raises(ValueError, match="divisible by 2\\^3 = 8, got 36"):
        tiny_discriminators(img_size=36)
    with pytest.raises(ValueError, match="fc_norm_fn 'none', got 'batchnorm'"):
        tiny_discriminators(fc_norm_fn="batchnorm")


@pytest.mark.parametrize("norm", ["instancenorm", "none"])
def test_the_discriminators_file_loads_with_the_activation_of_the_ports_training(tmp_path, norm):
    discriminators = tiny_discriminators(norm_fn=norm, img_size=64)
    torch.save({"G": tiny().state_dict(), "D": discriminators.state_dict()}, tmp_path / "weights.pth")
    loaded, images = attgan_discriminators(tmp_path / "weights.pth"), sample_images(1, 64, 64)
    assert loaded.config == discriminators.config
    assert any(isinstance(module, nn.ReLU) for module in loaded.fc_cls.modules())
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(loaded(images), discriminators(images)))


def test_the_generators_file_is_no_discriminators_and_the_other_way_round(tmp_path):
    torch.save(tiny().state_dict(), tmp_path / "G.pth")
    torch.save(tiny_discriminators().state_dict(), tmp_path / "D.pth")
    with pytest.raises(ValueError, match=r"G.pth is not a checkpoint of AttGANDiscriminators: .*found \['enc_layers"):
        attgan_discriminators(tmp_path / "G.pth")
    with pytest.raises(ValueError, match=r"D.pth is not a checkpoint of AttGANGenerator: .*found \['conv.0"):
        create_generator("attgan", tmp_path / "D.pth")

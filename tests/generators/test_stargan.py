"""StarGAN against the authors' own outputs, the files people have of it, and the interface that all generators share."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from generators import create_generator, list_generators
from generators.stargan import ImageNorm, StarGANDiscriminator, StarGANGenerator, deepest_repeat_num, stargan_discriminator, with_attention
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images


def tiny(seed: int = 0, **config) -> StarGANGenerator:
    torch.manual_seed(seed)
    return StarGANGenerator(**{"conv_dim": 4, "c_dim": 3, "repeat_num": 2, **config})


def tiny_discriminator(seed: int = 0, **config) -> StarGANDiscriminator:
    torch.manual_seed(seed)
    return StarGANDiscriminator(**{"image_size": 32, "conv_dim": 4, "c_dim": 3, "repeat_num": 3, **config})


@pytest.fixture
def target() -> Tensor:
    return torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])


# --- behaviour ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 24)])
def test_images_in_images_out(target, height, width):
    output = tiny()(sample_images(2, height, width), target)
    assert output.shape == (2, 3, height, width) and output.abs().max() <= 1


def test_manipulate_is_the_forward_pass(target):
    generator, images = tiny(), sample_images(2)
    assert torch.equal(generator.manipulate(images, target), generator(images, target))


def test_the_target_matters_and_whole_numbers_do_as_labels(target):
    generator, images = tiny(), sample_images(2)
    assert not torch.allclose(generator(images, target), generator(images, 1 - target), atol=1e-4)
    assert torch.equal(generator(images, target.long()), generator(images, target))


def test_training_and_evaluation_use_the_image_at_hand(target):
    """The files' running averages are never read nor moved: what .eval() does to the official code makes bad images."""
    generator, images = tiny(), sample_images(2)
    norms = [module for module in generator.modules() if isinstance(module, ImageNorm)]
    before = generator.train()(images, target)
    for norm in norms:
        assert not norm.running_mean.any() and (norm.running_var == 1).all() and norm.num_batches_tracked == 0
        norm.running_mean.fill_(3.0), norm.running_var.fill_(9.0)
    assert torch.equal(generator.eval()(images, target), before)
    assert torch.equal(generator.train()(images, target), before)


def test_an_image_doesnt_depend_on_its_neighbours(target):
    generator, images = tiny(), sample_images(2)
    assert torch.allclose(generator(images, target)[:1], generator(images[:1], target[:1]), atol=1e-5)


def test_running_statistics_are_used_where_asked_for(target):
    generator, images = tiny(use_running_statistics=True), sample_images(2)
    before = generator(images, target)
    for module in generator.modules():
        if isinstance(module, ImageNorm):
            module.running_mean.fill_(0.5)
    assert not torch.allclose(generator(images, target), before, atol=1e-4)


def test_the_gradient_reaches_the_image_and_every_parameter(target):
    """Measured through a weighting: the mean of a normed image doesn't depend on most of what came before."""
    generator, images = tiny(), sample_images(2).requires_grad_(True)
    (generator(images, target) * sample_images(2, seed=3)).sum().backward()
    assert images.grad.isfinite().all() and (images.grad.flatten(1).abs().sum(1) > 0).all()
    assert [name for name, parameter in generator.named_parameters() if parameter.grad is None or not parameter.grad.any()] == []


def test_the_output_is_float32_under_bf16_autocast_and_off_the_bf16_grid(target):
    generator, images = tiny(), sample_images(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = generator(images, target)
    assert output.dtype == torch.float32
    assert (output != output.bfloat16().float()).float().mean() > 0.9  # the last layers weren't computed in bf16
    assert torch.allclose(output, generator(images, target), atol=0.1)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 30, 32), torch.zeros(2, 3), "sides divisible by 4, got 30x32"),
        (torch.zeros(2, 3, 32, 33), torch.zeros(2, 3), "sides divisible by 4, got 32x33"),
        (torch.zeros(2, 1, 32, 32), torch.zeros(2, 3), r"images \(B, 3, H, W\), got \(2, 1, 32, 32\)"),
        (torch.zeros(3, 32, 32), torch.zeros(1, 3), r"images \(B, 3, H, W\), got \(3, 32, 32\)"),
        (torch.zeros(2, 3, 32, 32), torch.zeros(2, 5), r"target of shape \(2, 3\), one column per attribute, got \(2, 5\)"),
        (torch.zeros(2, 3, 32, 32), torch.zeros(1, 3), r"target of shape \(2, 3\).*got \(1, 3\)"),
    ],
)
def test_wrong_shapes_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        tiny()(images, labels)


def test_the_discriminator_has_a_patch_map_and_a_logit_per_attribute():
    discriminator = tiny_discriminator()
    realness, logits = discriminator(sample_images(2))
    assert realness.shape == (2, 1, 4, 4) and logits.shape == (2, 3)
    (realness.square().sum() + logits.square().sum()).backward()
    assert all(parameter.grad.any() for parameter in discriminator.parameters())
    with pytest.raises(ValueError, match=r"images \(B, 3, 32, 32\), got \(2, 3, 64, 64\)"):
        discriminator(sample_images(2, 64, 64))
    with pytest.raises(ValueError, match=r"divisible by 2\^6 = 64, got 32; use fewer layers"):
        StarGANDiscriminator(image_size=32)


@pytest.mark.parametrize(("size", "layers"), [(128, 6), (256, 6), (64, 5), (32, 4), (96, 5), (16, 3), (20, 2)])
def test_a_discriminator_is_as_deep_as_its_images_allow(size, layers):
    assert deepest_repeat_num(size) == layers
    StarGANDiscriminator(image_size=size, conv_dim=2, repeat_num=layers)


# --- the attention mask of GANimation ----------------------------------------------------------------------------------------------


def test_a_mask_decides_what_is_copied(target):
    """A·x + (1 − A)·C, written out with the two layers one after the other."""
    generator, images = tiny(attention=True), sample_images(2)
    labels = target[:, :, None, None].expand(-1, -1, 32, 32)
    features = generator.main[:-2](torch.cat([images, labels], dim=1))
    colours, mask = generator.main[-2:](features), generator.attention(features).sigmoid()
    assert torch.allclose(generator(images, target), mask * images + (1 - mask) * colours, atol=1e-6)
    assert torch.allclose(generator.attention_mask(images, target), mask, atol=1e-6)
    nn.init.constant_(generator.attention.bias, 40.0)
    assert torch.equal(generator(images, target), images)


def test_an_untrained_mask_keeps_most_of_the_image(target):
    mask = tiny(attention=True).attention_mask(sample_images(2), target)
    assert mask.shape == (2, 1, 32, 32) and mask.min() >= 0 and mask.max() <= 1 and 0.7 < mask.mean() < 0.95


def test_the_mask_learns(target):
    generator, images = tiny(attention=True), sample_images(2)
    generator(images, target).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in generator.attention.parameters())


def test_a_trained_stargan_gets_a_mask_and_keeps_its_weights(target):
    generator, images = tiny(), sample_images(2)
    masked = with_attention(generator.eval())
    assert masked.config == {**generator.config, "attention": True} and not masked.training
    nn.init.constant_(masked.attention.bias, -40.0)
    assert torch.allclose(masked(images, target), generator(images, target), atol=1e-6)
    assert torch.equal(with_attention(masked)(images, target), masked(images, target))


def test_a_checkpoint_tells_whether_there_is_a_mask(tmp_path, target):
    generator, images = tiny(attention=True), sample_images(2)
    save_file(generator.state_dict(), tmp_path / "G.safetensors")
    loaded = create_generator("stargan", tmp_path / "G.safetensors")
    assert loaded.config["attention"] and torch.equal(loaded(images, target), generator(images, target))
    with pytest.raises(ValueError, match="attention"):
        create_generator("stargan", tmp_path / "G.safetensors", attention=False)
    with pytest.raises(ValueError, match="no attention mask"):
        tiny().attention_mask(images, target)


# --- published files ---------------------------------------------------------------------------------------------------------------

LAYOUTS = {
    "bare": lambda state: state,
    "old torch, without counters": lambda state: {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")},
    "DataParallel": lambda state: {"module." + key: value for key, value in state.items()},
    "nested": lambda state: {"epoch": 3, "state_dict": state},
    "both networks": lambda state: {"G": state, "D": {}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("legacy", [False, True])
def test_published_layouts_load_and_the_widths_are_read_from_the_file(tmp_path, target, layout, legacy):
    generator = tiny()
    torch.save(LAYOUTS[layout](generator.state_dict()), tmp_path / "200000-G.ckpt", _use_new_zipfile_serialization=not legacy)
    loaded = create_generator("stargan", checkpoint=tmp_path / "200000-G.ckpt")
    assert loaded.config == {"conv_dim": 4, "c_dim": 3, "repeat_num": 2, "attention": False}
    images = sample_images(2)
    assert torch.equal(loaded(images, target), generator(images, target))


def test_safetensors_and_agreeing_arguments_load_too(tmp_path):
    save_file(tiny().state_dict(), tmp_path / "G.safetensors")
    loaded = create_generator("stargan", str(tmp_path / "G.safetensors"), c_dim=3, use_running_statistics=True)
    assert loaded.c_dim == 3 and all(module.use_running_statistics for module in loaded.modules() if isinstance(module, ImageNorm))


def test_the_discriminators_file_loads(tmp_path):
    discriminator = tiny_discriminator()
    torch.save(discriminator.state_dict(), tmp_path / "200000-D.ckpt")
    loaded = stargan_discriminator(tmp_path / "200000-D.ckpt", c_dim=3, image_size=32)
    assert loaded.config == {"image_size": 32, "conv_dim": 4, "c_dim": 3, "repeat_num": 3}
    for one, other in zip(loaded(sample_images(2)), discriminator(sample_images(2))):
        assert torch.equal(one, other)


def test_one_networks_file_given_as_the_others_is_named(tmp_path):
    torch.save(tiny().state_dict(), tmp_path / "G.ckpt")
    torch.save(tiny_discriminator().state_dict(), tmp_path / "D.ckpt")
    for config in ({}, {"c_dim": 3}):
        with pytest.raises(ValueError, match=r"D.ckpt is not a checkpoint of StarGANGenerator: .*is it the discriminator's file\?"):
            create_generator("stargan", tmp_path / "D.ckpt", **config)
        with pytest.raises(ValueError, match=r"G.ckpt is not a checkpoint of StarGANDiscriminator: .*is it the generator's file\?"):
            stargan_discriminator(tmp_path / "G.ckpt", **config)


def test_other_arguments_than_the_files_are_refused(tmp_path):
    torch.save(tiny().state_dict(), tmp_path / "G.ckpt")
    torch.save(tiny_discriminator().state_dict(), tmp_path / "D.ckpt")
    with pytest.raises(ValueError, match="G.ckpt: c_dim is 3 in the file and 5 was asked for"):
        create_generator("stargan", tmp_path / "G.ckpt", c_dim=5)
    with pytest.raises(ValueError, match="D.ckpt: image_size is 32 in the file and 64 was asked for"):
        stargan_discriminator(tmp_path / "D.ckpt", image_size=64)


def test_another_networks_file_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(ValueError, match=r"linear.pth is not a checkpoint of StarGANGenerator.*found \['weight', 'bias'\]"):
        create_generator("stargan", tmp_path / "linear.pth")
    state = tiny().state_dict()
    state["main.99.weight"] = state.pop("main.3.weight")
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"1 missing, first \['main.3.weight'\]; 1 unknown, first \['main.99.weight'\]"):
        create_generator("stargan", tmp_path / "odd.pth")
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*absent.ckpt"):
        create_generator("stargan", tmp_path / "absent.ckpt")


# --- the interface -----------------------------------------------------------------------------------------------------------------


def test_generators_are_made_by_name():
    assert "stargan" in list_generators() and list_generators() == sorted(list_generators())
    assert isinstance(create_generator("stargan", conv_dim=4, c_dim=2, repeat_num=1), StarGANGenerator)
    with pytest.raises(ValueError, match=r"unknown generator 'startgan'; choose from \[.*'stargan'"):
        create_generator("startgan")


class TestContract(GeneratorContract):
    name = "stargan"
    config = {"conv_dim": 4, "c_dim": 3, "repeat_num": 2, "attention": False}

    def target(self, count: int) -> Tensor:
        return (torch.arange(3 * count).view(count, 3) % 2).float()

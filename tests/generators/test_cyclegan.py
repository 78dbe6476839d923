"""CycleGAN: the files people have of it, and what its network is; its outputs are checked in tests/golden."""

from __future__ import annotations

import pytest
import torch

from generators import create_generator
from generators.cyclegan import ResnetGenerator
from generators.patchgan import PatchDiscriminator, patch_discriminator
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images


def tiny(seed: int = 0, **config) -> ResnetGenerator:
    torch.manual_seed(seed)
    return ResnetGenerator(**{"ngf": 4, "n_blocks": 2, **config}).eval()


class TestContract(GeneratorContract):
    name = "cyclegan"
    config = {"ngf": 4, "n_blocks": 2}


# --- published files -----------------------------------------------------------------------------------------------------------------

LAYOUTS = {
    "bare": lambda state: state,
    "DataParallel": lambda state: {"module." + key: value for key, value in state.items()},
    "nested": lambda state: {"epoch": 3, "state_dict": state},
    "old torch, without counters": lambda state: {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_files_load_and_their_running_averages_are_dropped(tmp_path, layout):
    """horse2zebra.pth and its like have three buffers for every norm; the result is as if they weren't there."""
    published = tiny(norm="instance_tracked")
    assert "model.2.running_mean" in published.state_dict()
    for key, value in published.state_dict().items():
        if "running" in key:
            value.fill_(7.0)
    torch.save(LAYOUTS[layout](published.state_dict()), tmp_path / "horse2zebra.pth")
    loaded = create_generator("cyclegan", tmp_path / "horse2zebra.pth").eval()
    assert loaded.config == tiny().config and list(loaded.state_dict()) == list(tiny().state_dict())
    assert torch.equal(loaded(sample_images(2)), tiny()(sample_images(2)))
    tracked = create_generator("cyclegan", tmp_path / "horse2zebra.pth", norm="instance_tracked").eval()
    assert torch.equal(tracked(sample_images(2)), tiny()(sample_images(2)))


@pytest.mark.parametrize(
    "config",
    [
        {"norm": "batch"},
        {"use_dropout": True},
        {"padding_type": "zero"},
        {"padding_type": "zero", "use_dropout": True, "norm": "batch"},
        {"input_nc": 1, "output_nc": 2, "n_blocks": 1, "ngf": 6},
    ],
)
def test_the_shapes_of_a_file_tell_the_network(tmp_path, config):
    torch.save(tiny(**config).state_dict(), tmp_path / "G.pth")
    loaded = create_generator("cyclegan", tmp_path / "G.pth").eval()
    assert loaded.config == tiny(**config).config
    images = sample_images(2)[:, : loaded.input_nc]
    assert torch.equal(loaded(images), tiny(**config)(images))


def test_what_a_file_cant_tell_may_be_said(tmp_path):
    torch.save(tiny().state_dict(), tmp_path / "G.pth")
    loaded = create_generator("cyclegan", tmp_path / "G.pth", padding_type="replicate").eval()
    assert not torch.allclose(loaded(sample_images(1)), tiny()(sample_images(1)), atol=1e-3)
    for config, message in [({"n_blocks": 9}, "n_blocks is 2 in the file and 9"), ({"padding_type": "zero"}, "and zero was asked for")]:
        with pytest.raises(ValueError, match=f"G.pth: .*{message}"):
            create_generator("cyclegan", tmp_path / "G.pth", **config)


def test_the_discriminators_file_loads(tmp_path):
    for config in ({"norm": "instance"}, {"norm": "batch", "input_nc": 6, "n_layers": 2}):
        torch.manual_seed(0)
        discriminator = PatchDiscriminator(ndf=4, **config).eval()
        torch.save(discriminator.state_dict(), tmp_path / "latest_net_D_A.pth")
        loaded = patch_discriminator(tmp_path / "latest_net_D_A.pth").eval()
        x = sample_images(4, 64, 64).reshape(-1, discriminator.input_nc, 64, 64)
        assert loaded.config == discriminator.config and torch.equal(loaded(x), discriminator(x))
    with pytest.raises(ValueError, match="input_nc is 6 in the file and 3 was asked for"):
        patch_discriminator(tmp_path / "latest_net_D_A.pth", input_nc=3)
    torch.save(tiny().state_dict(), tmp_path / "G.pth")
    with pytest.raises(ValueError, match="G.pth is not a checkpoint of this PatchDiscriminator"):
        patch_discriminator(tmp_path / "G.pth")


# --- the network ---------------------------------------------------------------------------------------------------------------------


def test_a_patch_is_70_pixels():
    """A map's value depends on the 70×70 pixels around it, and on no others (paper, section 4)."""
    torch.manual_seed(0)
    x = sample_images(1, 128, 128).requires_grad_()
    PatchDiscriminator(ndf=2, norm="batch").eval()(x)[0, 0, 7, 7].backward()
    rows = (x.grad.abs().sum((0, 1, 3)) > 0).nonzero()
    assert rows.max() - rows.min() + 1 == 70


def test_odd_sizes_come_out_rounded_up_and_manipulate_refuses_them():
    assert tiny()(sample_images(1, 30, 33)).shape == (1, 3, 32, 36)
    with pytest.raises(
        ValueError, match="CycleGAN.* divisible by 4 .*at least 8.* 30x32"
    ):
        tiny().manipulate(sample_images(1, 30, 32))
    with pytest.raises(ValueError, match="at least 8, got 4x32"):
        tiny().manipulate(sample_images(1, 4, 32))
    with pytest.raises(ValueError, match=r"CycleGAN: expected an input \(B, 3, H, W\), got \(1, 1, 32, 32\)"):
        tiny()(torch.zeros(1, 1, 32, 32))


def test_a_network_of_one_channel_is_given_the_luminance_and_paints_grey():
    generator, images = tiny(input_nc=1, output_nc=1), sample_images(1)
    output = generator.manipulate(images)
    grey = (0.299 * images[:, 0] + 0.587 * images[:, 1] + 0.114 * images[:, 2])[:, None]
    assert torch.equal(output[:, 0], output[:, 2]) and torch.allclose(output[:, :1], generator(grey), atol=1e-5)
    with pytest.raises(ValueError, match="paints 2 channels, which are no image in RGB"):
        tiny(output_nc=2).manipulate(images)
    with pytest.raises(ValueError, match="takes 4 channels"):
        tiny(input_nc=4).manipulate(images)


def test_the_output_is_float32_under_bf16_autocast_and_off_the_bf16_grid():
    generator, images = tiny(), sample_images(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = generator.manipulate(images)
    assert output.dtype == torch.float32
    assert (output != output.bfloat16().float()).float().mean() > 0.9

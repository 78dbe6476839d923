"""DR-GAN: its 96 pixels, poses and noise, several images of one person, the files people have, the common interface."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators import create_generator
from generators.dr_gan import Crop, DRGANGenerator
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images

CONFIG = {"n_poses": 3, "n_noise": 4, "conv_dim": 4}


def make(**config) -> DRGANGenerator:
    """Kernels that keep a signal's size, as trained ones do: torch's own let it die out over the thirty layers."""
    torch.manual_seed(0)
    generator = DRGANGenerator(**{**CONFIG, **config}).eval()
    for module in generator.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, std=1.4 / (9 * module.in_channels) ** 0.5)
    return generator


@pytest.fixture(scope="module")
def generator() -> DRGANGenerator:
    return make()


@pytest.fixture(scope="module")
def multi() -> DRGANGenerator:
    return make(multi=True)


def one_hot(*poses: int) -> Tensor:
    return F.one_hot(torch.tensor(poses), 3).float()


class TestContract(GeneratorContract):
    name = "dr_gan"
    config = {**CONFIG, "multi": True}
    size = (96, 96)

    def make(self, seed: int = 0) -> nn.Module:
        return make(multi=True)

    def target(self, count: int) -> Tensor:
        return one_hot(*(i % 3 for i in range(count)))


# --- the target --------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_without_a_target_it_is_the_first_pose_and_the_usual_noise(generator):
    images = sample_images(2, 96, 96)
    result = generator.manipulate(images)
    assert torch.equal(result, generator.manipulate(images, one_hot(0, 0)))
    assert torch.equal(result, generator(images, one_hot(0, 0), generator.usual_noise.expand(2, -1)))
    assert not torch.allclose(result, generator.manipulate(images, one_hot(1, 1)), atol=1e-3)


@torch.no_grad()
def test_noise_may_follow_the_pose(generator):
    images, noise = sample_images(2, 96, 96), torch.tensor([[0.1, -0.9, 0.5, 1.0], [-1.0, 0.0, 0.3, 0.2]])
    pose = one_hot(2, 1)
    assert torch.equal(generator.manipulate(images, torch.cat([pose, noise], dim=1)), generator(images, pose, noise))
    usual = torch.cat([pose, generator.usual_noise.expand(2, -1)], dim=1)
    assert torch.equal(generator.manipulate(images, usual), generator.manipulate(images, pose))


def test_the_usual_noise_is_uniform_the_same_in_every_network_and_in_no_file(generator):
    noise = DRGANGenerator(n_noise=400, conv_dim=1).usual_noise
    assert -1 <= noise.min() < -0.9 and 0.9 < noise.max() <= 1 and noise.mean().abs() < 0.1
    assert torch.equal(generator.usual_noise, make().usual_noise)
    assert "usual_noise" not in generator.state_dict()


@torch.no_grad()
def test_other_sizes_are_resized_there_and_back(generator):
    images = sample_images(1, 128, 160)
    small = F.interpolate(images, (96, 96), mode="bilinear", antialias=True)
    expected = F.interpolate(generator.manipulate(small), (128, 160), mode="bicubic", antialias=True).clamp(-1, 1)
    assert torch.allclose(generator.manipulate(images), expected, atol=1e-6)


@torch.no_grad()
def test_a_grey_network_sees_the_luminance_and_paints_grey():
    grey, images = make(channel_num=1), sample_images(1, 96, 96)
    output = grey.manipulate(images)
    assert output.shape == (1, 3, 96, 96) and torch.equal(output[:, 0], output[:, 1]) and torch.equal(output[:, 0], output[:, 2])
    luminance = (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    assert torch.allclose(output[:, :1], grey(luminance, one_hot(0), grey.usual_noise[None]), atol=1e-5)


@pytest.mark.parametrize(
    ("images", "target", "message"),
    [
        (torch.zeros(2, 3, 96, 8), None, "DR-GAN.*at least 16.*got 96x8"),
        (
            torch.zeros(2, 3, 96, 96),
            torch.zeros(2, 5),
            r"target of shape \(2, 3\), a one-hot row per image.*or \(B, 7\), pose and noise, got \(2, 5\)",
        ),
        (torch.zeros(2, 3, 96, 96), torch.zeros(1, 3), r"target of shape \(2, 3\).*got \(1, 3\)"),
        (torch.zeros(2, 3, 96, 96), torch.full((2, 3), -1.0), r"target in \[0, 1\].*got -1 to -1"),
        (torch.zeros(2, 3, 96, 96), torch.full((2, 7), 1.5), r"target in \[-1, 1\], the noise after the pose, got 1.5 to 1.5"),
    ],
)
def test_wrong_input_is_refused(generator, images, target, message):
    with pytest.raises(ValueError, match=message):
        generator.manipulate(images, target)


def test_the_network_itself_takes_its_own_size_and_channels_only(generator):
    with pytest.raises(ValueError, match="DR-GAN works at 96x96, got 64x96; `manipulate` resizes"):
        generator.encode(torch.zeros(1, 3, 64, 96))
    with pytest.raises(ValueError, match=r"expected an input \(B, 3, H, W\), got \(1, 1, 96, 96\)"):
        generator.encode(torch.zeros(1, 1, 96, 96))
    with pytest.raises(ValueError, match=r"condition of shape \(1, 4\), one column per number of noise, got \(1, 5\)"):
        generator(torch.zeros(1, 3, 96, 96), one_hot(0), torch.zeros(1, 5))


# --- several images of one person --------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_fused_person_is_the_sum_of_its_images_by_confidence(multi):
    images = sample_images(4, 96, 96)
    features, confidence = multi.encode(images)
    assert features.shape == (4, 40) and confidence.shape == (4, 1) and 0 < confidence.min() and confidence.max() < 1
    fused = multi.fuse_features(images.unflatten(0, (2, 2)))
    by_hand = torch.stack(
        [features[0] * confidence[0] + features[1] * confidence[1], features[2] * confidence[2] + features[3] * confidence[3]]
    )
    assert torch.allclose(fused, by_hand, atol=1e-5)


@torch.no_grad()
def test_the_order_of_a_persons_images_and_other_persons_dont_matter(multi):
    images, pose, noise = sample_images(6, 96, 96).unflatten(0, (2, 3)), one_hot(1, 2), multi.usual_noise.expand(2, -1)
    together = multi.fuse(images, pose, noise)
    assert torch.allclose(multi.fuse(images.flip(1), pose, noise), together, atol=1e-4)
    assert torch.allclose(multi.fuse(images[1:], pose[1:], noise[1:]), together[1:], atol=1e-4)


@torch.no_grad()
def test_one_image_of_full_confidence_fuses_to_itself():
    """The confidence is a sigmoid of the last feature, here driven to 1; the single path never looks at it."""
    network, images = make(multi=True), sample_images(1, 96, 96)
    pose, noise = one_hot(1), torch.zeros(1, 4)
    before = network(images, pose, noise)
    network.G_enc_convLayers[44].bias[-1] = 100
    assert torch.equal(network(images, pose, noise), before)
    assert torch.allclose(network.fuse(images[:, None], pose, noise), before, atol=1e-5)


def test_networks_for_single_images_and_wrong_shapes_dont_fuse(generator, multi):
    with pytest.raises(ValueError, match="expected one with multi=True"):
        generator.fuse(torch.zeros(1, 2, 3, 96, 96), one_hot(0), torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r"images \(B, n, 3, 96, 96\), got \(2, 3, 96, 96\)"):
        multi.fuse(torch.zeros(2, 3, 96, 96), one_hot(0, 0), torch.zeros(2, 4))


def test_a_doubling_is_the_transposed_convolution_without_its_last_row_and_column():
    """Twice the size, and the place (2i, 2j) is the middle of the kernel's reach of (i, j)."""
    up = nn.Sequential(nn.ConvTranspose2d(1, 1, 3, 2, 0, bias=False), Crop())
    nn.init.constant_(up[0].weight, 0)
    with torch.no_grad():
        up[0].weight[0, 0, 0, 0] = 1
        x = torch.rand(1, 1, 3, 3)
        output = up(x)
    assert output.shape == (1, 1, 6, 6) and torch.equal(output[..., ::2, ::2], x) and output.sum() == x.sum()


# --- files -----------------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_state_dicts_load_and_poses_channels_and_kind_are_read(tmp_path, multi):
    state = {f"module.{key}": value for key, value in multi.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save({"epoch": 780, "state_dict": state}, tmp_path / "dr_gan.pth")
    loaded, images = create_generator("dr_gan", tmp_path / "dr_gan.pth", n_noise=4).eval(), sample_images(1, 96, 96)
    assert loaded.config == {"n_poses": 3, "n_noise": 4, "channel_num": 3, "multi": True, "conv_dim": 4}
    assert torch.equal(loaded.manipulate(images), multi.manipulate(images))
    with pytest.raises(
        ValueError, match="dr_gan.pth .*7 .*50 .*n_noise"
    ):
        create_generator("dr_gan", tmp_path / "dr_gan.pth")
    with pytest.raises(ValueError, match="dr_gan.pth: multi is True in the file and False was asked for"):
        create_generator("dr_gan", tmp_path / "dr_gan.pth", n_noise=4, multi=False)


class Spy(nn.Module):
    """What would run if a whole pickled module were opened."""

    opened = False

    def __setstate__(self, state):
        Spy.opened = True
        super().__setstate__(state)


def test_the_ports_own_files_are_refused_unopened(tmp_path):
    torch.save(Spy(), tmp_path / "epoch780_G.pt")
    with pytest.raises(ValueError, match="epoch780_G.pt can't be read as plain tensors"):
        create_generator("dr_gan", tmp_path / "epoch780_G.pt")
    assert not Spy.opened

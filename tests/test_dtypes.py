"""Casts and half-precision images: MaLP computes in float32 whatever it is turned into and whatever it is given."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from malp_disc import MaLP, MaLPDiscriminator, fakeness_map
from malp_disc.detection import MapClassifier, manipulation_score, template_similarity
from malp_disc.encryption import Encryption
from malp_disc.localization import GlobalTransformer, ShallowCNN
from malp_disc.metrics.attribute_net import AttributeNet
from malp_disc.metrics.detection import detection_scores
from malp_disc.metrics.frechet import frechet_distance
from malp_disc.metrics.localization import localization_scores
from malp_disc.official.proactive_imd import ProactiveIMD
from malp_disc.runtime.precision import full_precision
from malp_disc.ssim import structural_similarity
from tests.tiny import Snapshot, sample_images, tiny_malp, with_rectangles

DTYPES = [torch.float16, torch.bfloat16, torch.float64]
CASTS = [
    lambda m: m.half(),
    lambda m: m.bfloat16(),
    lambda m: m.double(),
    lambda m: m.to(torch.float16),
    lambda m: m.to("cpu", torch.bfloat16),
    lambda m: nn.ModuleList([m]).half()[0],
    lambda m: nn.ModuleDict({"g": nn.ModuleList([m])}).to(torch.float64)["g"][0],
]
IMAGES = sample_images(2, 16, 16)
INDEX = torch.zeros(2, dtype=torch.long)


def discriminator(**options) -> MaLPDiscriminator:
    return MaLPDiscriminator(tiny_malp(image_size=16), trainable=True, map_weight=1.0, classifier_weight=1.0, template_weight=1.0, **options)


def all_losses(disc: MaLPDiscriminator, images: Tensor = IMAGES, fake: Tensor | None = None) -> list[Tensor]:
    """Of G and of MaLP, and what MaLP sees."""
    encrypted, index = disc.encrypt(images, INDEX)
    fake = with_rectangles(encrypted) if fake is None else fake
    losses = disc.generator_loss(fake, index), disc.discriminator_loss(images, encrypted, fake, index), disc.malp(fake)
    values = [getattr(part, field.name) for part in losses for field in dataclasses.fields(part) if field.name not in ("features", "known_map")]
    return [encrypted, *(value for value in values if value is not None)]


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize(
    ("make", "call"),
    [
        (discriminator, lambda disc: torch.cat([value.flatten() for value in all_losses(disc)])),
        (lambda: tiny_malp(image_size=16), lambda malp: malp(malp.encrypt(IMAGES, INDEX)[0]).score),
        (lambda: Encryption(template_size=16), lambda encryption: encryption(IMAGES, INDEX)),
        (lambda: ShallowCNN(8), lambda cnn: cnn(IMAGES)[0]),
        (lambda: GlobalTransformer(16).eval(), lambda branch: branch(IMAGES)),
        (lambda: MapClassifier(8), lambda classifier: classifier(IMAGES[:, :1])),
        (lambda: ProactiveIMD().eval(), lambda imd: imd.encrypt(IMAGES, INDEX)[0]),
        (lambda: AttributeNet(["Smiling"], width=4).eval(), lambda net: net(IMAGES)),
    ],
    ids=["MaLPDiscriminator", "MaLP", "Encryption", "ShallowCNN", "GlobalTransformer", "MapClassifier", "ProactiveIMD", "AttributeNet"],
)
def test_a_cast_leaves_the_weights_and_the_results_as_they_are(make, call, cast):
    network = make()
    before, expected = Snapshot(network), call(network)
    cast(network)
    assert {value.dtype for value in network.state_dict().values() if value.is_floating_point()} == {torch.float32}
    assert before.moved() == set() and torch.equal(call(network), expected)


def test_an_optimizer_made_before_a_cast_still_moves_the_weights():
    disc = discriminator()
    optimizer, before = torch.optim.SGD(disc.parameter_groups(lr=0.1)), Snapshot(disc)
    disc.half()
    encrypted, index = disc.encrypt(IMAGES)
    disc.discriminator_loss(IMAGES, encrypted, with_rectangles(encrypted), index).total.backward()
    disc.half()  # with gradients
    optimizer.step()
    assert before.moved() == before.names


@pytest.mark.parametrize("dtype", DTYPES)
def test_images_of_any_dtype_give_float32_and_gradients_in_their_own(dtype):
    """Bit for bit what their values give in float32; R1 included."""
    disc = MaLPDiscriminator(tiny_malp(image_size=16), trainable=True, r1_weight=0.1, template_dropout=1.0)
    images, fake = IMAGES.to(dtype), with_rectangles(IMAGES).to(dtype).requires_grad_(True)
    found, expected = all_losses(disc, images, fake), all_losses(disc, images.float(), fake.detach().float())
    assert {value.dtype for value in found} == {torch.float32} and all(torch.equal(*pair) for pair in zip(found, expected))
    disc.generator_loss(fake, INDEX).total.backward()
    assert fake.grad.dtype == dtype and fake.grad.isfinite().all() and fake.grad.any()
    disc.discriminator_loss(images, images, fake, INDEX).total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in disc.parameters())


@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_and_metrics_take_every_dtype(dtype):
    images, fake = sample_images(2, 16, 16).to(dtype), with_rectangles(sample_images(2, 16, 16)).to(dtype)
    truth = fakeness_map(images, fake)
    assert truth.dtype == torch.float32 and torch.equal(truth, fakeness_map(images.float(), fake.float()))
    values = torch.tensor([0.25, 0.75], dtype=dtype)
    assert torch.equal(manipulation_score(values, values), manipulation_score(values.float(), values.float()))
    assert localization_scores(truth.to(dtype), images, fake).images == 2
    assert detection_scores(torch.tensor([0, 1]), values.requires_grad_()).auc == 1
    features = torch.randn(6, 2, generator=torch.manual_seed(0)).to(dtype)
    assert frechet_distance(features, features.requires_grad_()) == pytest.approx(0, abs=1e-6)
    similarity = structural_similarity(images, fake, data_range=2.0)
    assert similarity.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(similarity.float(), structural_similarity(images.float(), fake.float(), data_range=2.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_under_autocast_nothing_is_rounded(dtype):
    disc, fake = discriminator(r1_weight=0.1), with_rectangles(IMAGES)
    expected = [*all_losses(disc), template_similarity(IMAGES, fake), structural_similarity(IMAGES, fake, data_range=2.0)]
    with torch.autocast("cpu", dtype):
        found = [*all_losses(disc), template_similarity(IMAGES, fake), structural_similarity(IMAGES, fake, data_range=2.0)]
        assert (IMAGES[0, 0] @ IMAGES[0, 0]).dtype == dtype, "autocast is back afterwards"
    assert all(torch.equal(*pair) for pair in zip(found, expected))


def test_full_precision_keeps_float64_whole_numbers_and_the_signature():
    @full_precision
    def dtypes(a, *, b=None):
        return a.dtype, b.dtype if b is not None else None

    assert dtypes(torch.zeros(1).half(), b=torch.zeros(1).bfloat16()) == (torch.float32, torch.float32)
    assert dtypes(torch.zeros(1).double(), b=torch.zeros(1, dtype=torch.long)) == (torch.float64, torch.long)
    assert dtypes(torch.zeros(1, device="meta")) == (torch.float32, None) and dtypes.__name__ == "dtypes"


def test_made_under_another_default_dtype_it_is_float32_all_the_same():
    torch.set_default_dtype(torch.float64)
    try:
        disc = discriminator()
        assert {value.dtype for value in disc.state_dict().values()} == {torch.float32}
        losses = disc.generator_loss(IMAGES.double(), INDEX)
        assert losses.map.dtype == losses.total.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_weights_that_were_put_into_half_precision_by_hand_are_named():
    malp = tiny_malp(image_size=16)
    malp.load_state_dict({name: value.half() for name, value in malp.state_dict().items()}, assign=True)
    for call in (lambda: malp(IMAGES), lambda: malp.encrypt(IMAGES)):
        with pytest.raises(ValueError, match=r"expected the weights of \w+ in float32, got .*templates in torch.float16; call .float\(\) on it"):
            call()
    assert MaLP.forward(malp.float(), IMAGES).score.dtype == torch.float32

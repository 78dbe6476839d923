"""Every public entry point refuses what are no images, no index or no map in one sentence, before anything is computed or remembered."""

from __future__ import annotations

import pytest
import torch

from malp_disc import LossWeights, MaLPDiscriminator, fakeness_map
from malp_disc.detection import manipulation_score
from malp_disc.fakeness import signed_fakeness_map_official
from malp_disc.losses import classification_loss, localization_loss_encrypted, localization_loss_manipulated, recovery_loss
from malp_disc.metrics.attribute_net import AttributeNet
from malp_disc.official.proactive_imd import ProactiveIMD
from malp_disc.ssim import structural_similarity
from tests.tiny import sample_images, tiny_malp, with_rectangles

IMAGES = sample_images(3, 16, 16)
FAKE, INDEX = with_rectangles(IMAGES), torch.zeros(3, dtype=torch.long)
TRUTH = fakeness_map(IMAGES, FAKE)
DISC = MaLPDiscriminator(tiny_malp(image_size=16), trainable=True)
MALP, IMD, WEIGHTS = DISC.malp, ProactiveIMD().eval(), LossWeights()

WITH_IMAGES = {
    "encrypt": lambda x: DISC.encrypt(x),
    "encrypt with an index": lambda x: DISC.encrypt(x, INDEX),
    "generator_loss": lambda x: DISC.generator_loss(x, INDEX),
    "calibrate": lambda x: DISC.calibrate([(x, INDEX)]),
    "discriminator_loss: images": lambda x: DISC.discriminator_loss(x, IMAGES, FAKE, INDEX),
    "discriminator_loss: encrypted": lambda x: DISC.discriminator_loss(IMAGES, x, FAKE, INDEX),
    "discriminator_loss: fake": lambda x: DISC.discriminator_loss(IMAGES, IMAGES, x, INDEX),
    "MaLP": lambda x: MALP(x),
    "MaLP.encrypt": lambda x: MALP.encrypt(x),
    "MaLP.losses: encrypted": lambda x: MALP.losses(x, FAKE, TRUTH, INDEX),
    "MaLP.losses: manipulated": lambda x: MALP.losses(IMAGES, x, TRUTH, INDEX),
    "Encryption": lambda x: MALP.encryption(x, INDEX),
    "fakeness_map: images": lambda x: fakeness_map(x, FAKE),
    "fakeness_map: fake": lambda x: fakeness_map(IMAGES, x),
    "signed map": lambda x: signed_fakeness_map_official(IMAGES, x),
    "ProactiveIMD.encrypt": lambda x: IMD.encrypt(x),
    "ProactiveIMD.normalized": lambda x: IMD.normalized(x),
    "AttributeNet": AttributeNet(["Smiling"], width=4),
}
NO_IMAGES = {
    "on 0 to 255": (IMAGES + 1) * 127.5,
    "whole numbers": IMAGES.mul(100).to(torch.uint8),
    "boolean": IMAGES > 0,
    "complex": IMAGES.to(torch.complex64),
    "grey": IMAGES[:, :1],
    "with alpha": torch.cat([IMAGES, IMAGES[:, :1]], 1),
    "one image": IMAGES[0],
    "no rows": IMAGES[:, :, :0],
    "NaN": torch.full_like(IMAGES, torch.nan),
    "infinite": -torch.full_like(IMAGES, torch.inf),
    "half precision on 0 to 255": ((IMAGES + 1) * 127.5).half(),
    "an array": IMAGES.numpy(),
    "a list": IMAGES.tolist(),
    "nothing": None,
}
PAIRS = ("discriminator_loss", "MaLP.losses", "fakeness_map", "signed")
TAKES_ANY_DEVICE = ("ProactiveIMD.normalized", "AttributeNet")


@pytest.mark.parametrize("entry", WITH_IMAGES)
def test_what_are_no_images_is_refused_in_one_sentence(entry):
    scale = DISC.scale.clone()
    for what, images in NO_IMAGES.items():
        with pytest.raises(ValueError, match=r"^expected .*, got ") as error:
            WITH_IMAGES[entry](images)
        assert "\n" not in str(error.value), what
    assert torch.equal(DISC.scale, scale)


@pytest.mark.parametrize("entry", [name for name in WITH_IMAGES if name not in TAKES_ANY_DEVICE])
def test_images_on_another_device_are_refused(entry):
    with pytest.raises(ValueError, match=r"expected .* on (cpu, where the network is|one device), got .*meta.*\.to\(device\)"):
        WITH_IMAGES[entry](IMAGES.to("meta"))


@pytest.mark.parametrize("entry", [name for name in WITH_IMAGES if name.startswith(PAIRS)])
@pytest.mark.parametrize("other", [IMAGES[:2], IMAGES[:1], IMAGES[..., :8], sample_images(3, 32, 32)], ids=["two", "one", "narrow", "large"])
def test_images_of_another_size_or_number_are_refused(entry, other):
    with pytest.raises(ValueError, match="of one shape, got .*; resize the originals"):
        WITH_IMAGES[entry](other)


@pytest.mark.parametrize("entry", [name for name in WITH_IMAGES if name.startswith(("generator_loss", "calibrate"))])
def test_a_mean_over_no_images_is_refused(entry):
    none = IMAGES[:0]
    with pytest.raises(ValueError, match="at least one image in fake"):
        WITH_IMAGES[entry](none)
    for call in (lambda: DISC.discriminator_loss(none, none, none, INDEX[:0]), lambda: MALP.losses(none, none, TRUTH[:0], INDEX[:0])):
        with pytest.raises(ValueError, match="at least one image in"):
            call()
    assert MALP.encrypt(none)[0].shape == MALP(none).map.expand(0, 3, 16, 16).shape == (0, 3, 16, 16)


WITH_INDEX = {
    "encrypt": lambda index: DISC.encrypt(IMAGES, index),
    "MaLP.encrypt": lambda index: MALP.encrypt(IMAGES, index),
    "Encryption": lambda index: MALP.encryption(IMAGES, index),
    "generator_loss": lambda index: DISC.generator_loss(FAKE, index),
    "calibrate": lambda index: DISC.calibrate([(FAKE, index)]),
    "discriminator_loss": lambda index: DISC.discriminator_loss(IMAGES, IMAGES, FAKE, index),
    "MaLP.losses": lambda index: MALP.losses(IMAGES, FAKE, TRUTH, index),
    "recovery_loss": lambda index: recovery_loss(TRUTH, TRUTH, MALP.encryption.at((16, 16)), index, WEIGHTS),
    "ProactiveIMD.encrypt": lambda index: IMD.encrypt(IMAGES, index),
}
NO_INDEX = {
    "short": INDEX[:2],
    "a column": INDEX[:, None],
    "real": INDEX.float(),
    "boolean": INDEX > 0,
    "complex": INDEX.to(torch.complex64),
    "too large": INDEX + 1,
    "too small": INDEX - 2,
    "a list": [0, 0, 0],
    "a number": 0,
    "no values": INDEX.to("meta"),
}


@pytest.mark.parametrize("entry", WITH_INDEX)
def test_what_is_no_index_is_refused_in_one_sentence(entry):
    for what, index in NO_INDEX.items():
        with pytest.raises(ValueError, match=r"^expected (an index|template numbers).*, got "):
            WITH_INDEX[entry](index)
            pytest.fail(what)
    for kind in (torch.uint8, torch.int8, torch.int32):
        WITH_INDEX[entry](INDEX.to(kind))


@pytest.mark.parametrize("entry", ["generator_loss", "calibrate", "discriminator_loss", "MaLP.losses", "recovery_loss"])
def test_a_loss_without_an_index_draws_none(entry):
    with pytest.raises(ValueError, match="expected an index as a tensor"):
        WITH_INDEX[entry](None)


@pytest.mark.parametrize("truth", [TRUTH[:2], TRUTH[..., :8], TRUTH[:, 0], TRUTH * 255, -1 - TRUTH, TRUTH * torch.nan, TRUTH > 0, TRUTH.to("meta"), None])
def test_what_is_no_fakeness_map_is_refused(truth):
    with pytest.raises(ValueError, match=r"expected a map .*, got .*; make it with fakeness_map"):
        MALP.losses(IMAGES, FAKE, truth, INDEX)


def test_terms_refuse_shapes_that_would_broadcast():
    logit, similarity = torch.zeros(3), torch.zeros(3)
    calls = [
        lambda: manipulation_score(logit, similarity[:, None]),
        lambda: manipulation_score(logit[:, None], similarity[:, None]),
        lambda: classification_loss(logit, similarity, torch.zeros(3, 1), True, WEIGHTS),
        lambda: localization_loss_encrypted(TRUTH, TRUTH[:1], WEIGHTS),
        lambda: localization_loss_manipulated(TRUTH, TRUTH[:1], WEIGHTS),
        lambda: localization_loss_manipulated(TRUTH[:0], TRUTH[:0], WEIGHTS),
        lambda: recovery_loss(TRUTH, TRUTH[:1], TRUTH[:1], INDEX, WEIGHTS),
        lambda: structural_similarity(TRUTH.long(), TRUTH.long(), data_range=1.0),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="expected .*, got "):
            call()


def test_what_a_generator_returned_is_asked_for_finite_values_only():
    """`ProactiveIMD.recover` takes images on either of the authors' scales."""
    assert IMD.recover(IMAGES * 5).isfinite().all()
    for images in (IMAGES * torch.nan, IMAGES[0], IMAGES.to("meta"), IMAGES.long()):
        with pytest.raises(ValueError, match="expected "):
            IMD.score(images)


def test_values_that_are_not_finite_are_counted_with_advice():
    images = IMAGES.clone()
    images[0, 0, 0, :2] = torch.tensor([torch.nan, torch.inf])
    with pytest.raises(ValueError, match=rf"got min nan max nan: 2 of {images.numel()} values aren't finite; check what made them"):
        fakeness_map(IMAGES, images)

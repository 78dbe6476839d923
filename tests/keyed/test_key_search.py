"""Why every image has a template of its own: from a few with the same one, an attacker who knows how it is made finds the key's filter."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from malp_disc.degradations import to_8bit
from malp_disc.evaluation.key_search import FoundKey, filter_basis, responses, search_key, turn
from malp_disc.keyed import KeyedConfig, KeyedMaLP
from malp_disc.keyed.carrier import carrier
from malp_disc.keyed.evidence import whole_image
from malp_disc.keyed.template import Parts, content_filter, filter_turn, level_weights
from tests.keyed.conftest import natural_images

SECRET = bytes(range(32))


def test_the_filters_of_all_keys_nearly_lie_in_nine_dimensions():
    basis, _ = filter_basis()
    filters = content_filter.__wrapped__(b"\xff" * 32).flatten(1)  # of a key that the basis wasn't made of
    kept = (filters @ basis.flatten(1).T).square().sum() / filters.square().sum()
    assert 0.95 < kept <= 1 + 1e-5


def known(malp: KeyedMaLP, found: FoundKey) -> float:
    """How well the filter that was found tells φ of other images: 1 if it is the key's or its mirror image, about 0.1 by chance."""
    grey = natural_images(8, 128, 128, seed=2).mean(1, keepdim=True)
    true, guess = filter_turn(grey, malp.secret)[:, 0], turn(responses(grey), found.weights)
    return max((guess * other).mean((1, 2)).abs().mean().item() for other in (true, true.conj()))


def presences(malp: KeyedMaLP, images: Tensor, numbers: list[int]) -> Tensor:
    """`KeyedOutput.presence` of each template in each image, (N, B); the images, which are the same for all, are whitened once."""
    size = malp.config.image_size
    parts, seen = Parts.of(images, malp.secret, numbers[:1] * len(images), size), whole_image(images)
    return torch.stack([replace(parts, carrier=carrier(malp.secret, [number], size, tuple(images.shape[2:]))).correlation(seen) for number in numbers])


@torch.no_grad()
def test_a_few_images_with_the_same_template_suffice_to_forge_and_with_their_own_they_dont():
    malp, victims = KeyedMaLP(KeyedConfig(image_size=128, width=4), secret=SECRET).eval(), natural_images(8, 128, 128, seed=2)
    originals = natural_images(100, 128, 128, seed=1)
    presence = {}
    for name, index in (("same", torch.full((100,), 7)), ("own", torch.arange(100))):
        found = search_key(to_8bit(malp.encrypt(originals, index)[0]), level_weights(malp.secret))
        forged = to_8bit((victims + found.template(victims, malp.config.psnr)).clamp(-1, 1))
        numbers = index.unique().tolist()
        held = presences(malp, forged, numbers)
        torch.testing.assert_close(held[-1], malp(forged, numbers[-1]).presence)
        presence[name] = held.median(1).values.max(), known(malp, found)
    assert (malp(victims, 7).presence < 4).all()
    assert presence["same"][0] > 4 and presence["same"][1] > 0.5
    assert presence["own"][0] < 2.5 and presence["own"][1] < 0.3

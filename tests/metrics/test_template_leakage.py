"""How much of a template leaks: closed forms on noise, and attackers that get as far as they should and no further."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from malp_disc.encryption import NO_TEMPLATE, Encryption
from malp_disc.metrics.template_leakage import Leak, randomly_shifted, template_leak
from tests.tiny import sample_images

SIZE = 32
ZERO = torch.zeros(3, SIZE, SIZE)


def encryption(set_size: int = 1, *, strength: float = 0.3, size: int = SIZE, seed: int = 5) -> Encryption:
    """Templates of white noise with deviation 0.2, as `Encryption` starts."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Encryption(set_size, template_size=size, strength=strength).requires_grad_(False)


def noise(count: int, sigma: float, *, size: int = SIZE) -> torch.Tensor:
    return (sigma * torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))).clamp(-1, 1)


def round_robin(count: int, set_size: int) -> torch.Tensor:
    return torch.arange(count) % set_size


def table(leaks: list[Leak]) -> dict[str, dict[int, Leak]]:
    found: dict[str, dict[int, Leak]] = {}
    for leak in leaks:
        found.setdefault(leak.attacker, {})[leak.images] = leak
    return found


def test_the_average_of_noise_about_a_known_image_leaks_as_the_closed_form_says():
    """The mean of N images is F + m·S plus noise of variance σ²/N: without F, cos² = N m²σ_S² / (N m²σ_S² + σ²), σ² = σ_channel²/3 of grey."""
    own = encryption(size=64)
    face = 0.4 * sample_images(1, 64, 64)[0]
    encrypted = own(face + noise(200, 0.15, size=64), round_robin(200, 1))
    leaks = table(template_leak(encrypted, own.at((64, 64)), originals_mean=face, counts=(1, 4, 20, 200)))
    signal, background = own.strength**2 * own.templates.var().item(), 0.15**2 / 3
    for count, leak in leaks["average"].items():
        assert leak.cosine == pytest.approx(math.sqrt(count * signal / (count * signal + background)), abs=0.015)
    assert leaks["average"][1].cosine < 0.6 < 0.99 < leaks["average"][200].cosine


def test_a_passive_malp_leaks_nothing_to_anybody():
    """Strength 0: no more than the same estimates share with templates that never were."""
    passive = encryption(3, strength=0)
    images = sample_images(60, SIZE, SIZE)
    for encrypted in (passive(images, round_robin(60, 3)), randomly_shifted(passive, images, round_robin(60, 3))):
        leaks = template_leak(encrypted, passive.at((SIZE, SIZE)), originals_mean=ZERO, shifted=True, counts=(1, 10, 60))
        assert {leak.attacker for leak in leaks} == {"average", "residuals", "weighted residuals", "clustered residuals", "aligned residuals"}
        for leak in leaks:
            assert leak.cosine == pytest.approx(leak.chance, abs=0.06)
            assert leak.cosine < 0.25


def test_without_shifts_a_passive_malp_leaks_one_over_root_of_pixels():
    """|CS| of independent noise in D dimensions has the mean √(2 / πD)."""
    passive = encryption(strength=0)
    leaks = table(template_leak(passive(noise(400, 0.3), round_robin(400, 1)), passive.at((SIZE, SIZE)), originals_mean=ZERO, counts=(2,), groups=200))
    expected = math.sqrt(2 / math.pi) / SIZE
    assert leaks["average"][2].cosine == pytest.approx(expected, rel=0.25)
    assert leaks["average"][2].chance == pytest.approx(expected, rel=0.25)


def test_residuals_need_fewer_images_than_the_average_and_weights_fewer_still():
    """Smooth images, rough in the left or in the right half: each half of the template shows in half of the images."""
    own = encryption()
    images, rough = sample_images(200, SIZE, SIZE), noise(200, 0.5)
    images[::2, ..., : SIZE // 2] += rough[::2, ..., : SIZE // 2]
    images[1::2, ..., SIZE // 2 :] += rough[1::2, ..., SIZE // 2 :]
    leaks = table(template_leak(own(images.clamp(-1, 1), round_robin(200, 1)), own.at((SIZE, SIZE)), originals_mean=images.mean(0), counts=(3, 10, 30)))
    for count in (3, 10, 30):
        low, middle, high = (leaks[name][count].cosine for name in ("average", "residuals", "weighted residuals"))
        assert low < middle < high - 0.02
    assert leaks["weighted residuals"][30].cosine > 0.85


def test_a_set_hides_from_averages_but_not_from_clusters():
    """The mean of n orthogonal templates has CS 1/√n with each."""
    own = encryption(4)
    leaks = table(template_leak(own(sample_images(120, SIZE, SIZE), round_robin(120, 4)), own.at((SIZE, SIZE)), counts=(1, 2, 120)))
    assert leaks["weighted residuals"][120].cosine == pytest.approx(0.5, abs=0.06)
    assert leaks["clustered residuals"][120].cosine > 0.88
    assert leaks["clustered residuals"][1].cosine == leaks["weighted residuals"][1].cosine  # nothing to sort


@pytest.mark.parametrize("set_size", [1, 3])
def test_shifts_hide_from_averages_but_not_from_alignment(set_size):
    own = encryption(set_size)
    shifted = randomly_shifted(own, sample_images(120, SIZE, SIZE), round_robin(120, set_size), torch.Generator().manual_seed(2))
    leaks = table(template_leak(shifted, own.at((SIZE, SIZE)), originals_mean=ZERO, shifted=True, counts=(120,)))
    assert leaks["average"][120].cosine < 0.25
    assert leaks["weighted residuals"][120].cosine < 0.4
    assert leaks["aligned residuals"][120].cosine > 0.85
    assert leaks["aligned residuals"][120].chance < 0.25


def test_a_template_is_the_same_secret_wherever_it_is_rolled_and_with_either_sign():
    own = encryption()
    encrypted = randomly_shifted(own, sample_images(20, SIZE, SIZE), round_robin(20, 1), torch.Generator().manual_seed(2))
    true = own.at((SIZE, SIZE))
    first, second = (
        template_leak(encrypted, templates, shifted=True, counts=(20,)) for templates in (true, -true.roll((5, -9), dims=(2, 3)))
    )
    assert [leak.cosine for leak in first] == pytest.approx([leak.cosine for leak in second], abs=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_chance_is_chance_even_for_templates_drawn_with_the_same_seed(seed):
    """torch.manual_seed(0) before making a MaLP, seed=0 here: the stand-ins must not come out as the templates."""
    own = encryption(seed=seed)
    leaks = template_leak(own(sample_images(30, SIZE, SIZE), round_robin(30, 1)), own.at((SIZE, SIZE)), counts=(30,), seed=seed)
    assert all(leak.cosine > 0.7 and leak.chance < 0.15 for leak in leaks)


def test_the_same_seed_gives_the_same_and_groups_do_not_share_images():
    own = encryption(3)
    encrypted = own(sample_images(45, SIZE, SIZE), round_robin(45, 3))
    untouched = encrypted.clone()

    def measure(seed: int) -> list[Leak]:
        return template_leak(encrypted, own.at((SIZE, SIZE)), originals_mean=ZERO, shifted=True, counts=(1, 10, 23), groups=7, seed=seed)

    assert measure(0) == measure(0)
    assert measure(0) != measure(1)
    assert torch.equal(encrypted, untouched)
    by_count = table(measure(0))["residuals"]
    assert [leak.groups for leak in by_count.values()] == [7, 4, 1]  # 45 // 10 = 4
    assert [leak.error is None for leak in by_count.values()] == [False, False, True]
    assert set(dataclasses.asdict(by_count[1])) == {"attacker", "images", "cosine", "error", "chance", "groups"}


def test_the_error_is_that_of_the_mean_over_groups():
    """|CS| of single images of noise spreads by about (1 − c²)/√D; over 16 groups the mean is four times surer."""
    own = encryption(size=64)
    encrypted = own(noise(16, 0.2, size=64), round_robin(16, 1))
    leak = table(template_leak(encrypted, own.at((64, 64)), originals_mean=torch.zeros(3, 64, 64), counts=(1,), groups=16))["average"][1]
    assert leak.groups == 16
    assert leak.error == pytest.approx((1 - leak.cosine**2) / 64 / 4, rel=0.5)


def test_without_a_mean_image_the_attacker_who_needs_it_is_left_out():
    own = encryption()
    leaks = template_leak(own(sample_images(4, SIZE, SIZE), round_robin(4, 1)), own.at((SIZE, SIZE)), counts=(4,))
    assert [leak.attacker for leak in leaks] == ["residuals", "weighted residuals"]


def test_a_shifted_template_is_the_template_rolled_in_every_image_elsewhere():
    own = encryption(2)
    black = torch.zeros(12, 3, SIZE, SIZE)
    index = round_robin(12, 2).clone()
    index[3] = NO_TEMPLATE
    shifted = randomly_shifted(own, black, index, torch.Generator().manual_seed(0))
    places = set()
    for image, i in zip(shifted, index.tolist()):
        if i == NO_TEMPLATE:
            assert (image == 0).all()
            continue
        added = own.strength * own.templates[i]
        matches = [(y, x) for y in range(SIZE) for x in range(SIZE) if torch.equal(added.roll((y, x), dims=(0, 1)), image[0])]
        assert len(matches) == 1
        assert torch.equal(image[0], image[1])
        places.add(matches[0])
    assert len(places) > 9


def test_shifts_depend_on_the_generator_not_on_the_batches_and_keep_the_range():
    own = encryption(strength=1)
    images = sample_images(7, SIZE, 48)
    whole = randomly_shifted(own, images, round_robin(7, 1), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    parts = [randomly_shifted(own, part, round_robin(len(part), 1), generator) for part in images.split([1, 4, 2])]
    assert torch.equal(whole, torch.cat(parts))
    assert whole.abs().max() == 1
    assert not torch.equal(whole, randomly_shifted(own, images, round_robin(7, 1), torch.Generator().manual_seed(1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"counts": (1, 9)}, r"counts of 1 … 8 images, all there are, in at least one group, got \(1, 9\) in 10"),
        ({"counts": (0,)}, "counts of 1 … 8"),
        ({"counts": ()}, "counts of 1 … 8"),
        ({"counts": (1,), "groups": 0}, "at least one group"),
        ({"counts": (1,), "originals_mean": torch.zeros(1, SIZE, SIZE)}, r"a mean image \(3, 32, 32\)"),
        ({"counts": (1,), "templates": torch.zeros(1, SIZE, SIZE)}, r"templates \(n, 1, 32, 32\) like the images, got \(1, 32, 32\); use Encryption.at"),
        ({"counts": (1,), "templates": torch.zeros(1, 1, 16, 16)}, "use Encryption.at"),
        ({"counts": (1,), "encrypted": torch.full((2, 3, 8, 8), 200.0)}, r"expected encrypted in \[-1, 1\]"),
    ],
)
def test_what_does_not_fit_together_is_refused(options, message):
    arguments = {"encrypted": torch.zeros(8, 3, SIZE, SIZE), "templates": torch.ones(1, 1, SIZE, SIZE)} | options
    with pytest.raises(ValueError, match=message):
        template_leak(**arguments)

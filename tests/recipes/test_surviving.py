"""The preset "survive": pairs with local edits and degradation chains, and the command as a user runs it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from generators.stargan import StarGANGenerator
from malp_disc.benchmark.keyed_method import KeyedChangeMethod, KeyedMethod, random_crops, training_key
from malp_disc.benchmark.loading import load_localizer
from malp_disc.data.faces import DEFAULT_SELECTION, ProceduralFaces
from malp_disc.data.local_edits import LOCAL_EDITS
from malp_disc.data.sampling import StepRandom
from malp_disc.degradation_chain import DegradationChain
from malp_disc.degradations import to_8bit
from malp_disc.keyed import KeyedConfig, KeyedMaLP, identification
from malp_disc.keyed.alignment import Alignment
from malp_disc.keyed.secret import load_secret
from malp_disc.training import localizer_step
from malp_disc.training.batches import Batch
from malp_disc.training.local_pairs import EDIT_DRAWS, needs_generator, through_chains, with_local_edits
from malp_disc.training.localizer_step import LocalizerStep, LossOf
from malp_disc.training.output_folder import set_aside
from malp_disc.training.pretrain_options import PretrainOptions, check_options
from malp_disc.training.surviving import (
    calibrate_surviving,
    change_options,
    initial_detector,
    pretrain_surviving,
    surviving_options,
    with_change_net,
)
from tests.keyed.conftest import natural_images
from tests.tiny import sample_images


def test_local_edits_replace_the_share_and_the_rest_is_the_generators():
    published, originals, generated = (sample_images(64, seed=seed) for seed in range(3))
    draws = torch.rand(64, EDIT_DRAWS, generator=torch.Generator().manual_seed(0))
    edited, regions = with_local_edits(published, originals, generated, draws, 0.5)
    local = draws[:, 0] < 0.5
    assert torch.equal(edited[~local], generated[~local]) and regions[~local].all()
    outside = (local[:, None, None, None] & ~regions).expand_as(edited)
    assert torch.equal(edited[outside], published[outside])
    assert 0.04 < regions[local].float().mean() < 0.45
    rows = needs_generator(draws, 0.5)
    blank = torch.zeros_like(generated)
    blank[rows] = generated[rows]
    assert torch.equal(with_local_edits(published, originals, blank, draws, 0.5)[0], edited)


def test_some_local_edits_are_small():
    images = sample_images(1, 128, 128)
    shares = [with_local_edits(images, images, images, torch.tensor([[0.0, 0.1, mask, 0.6, small]]), 1.0)[1].float().mean().item() for small in (0.0, 0.9) for mask in (0.1, 0.3, 0.5, 0.7)]
    assert max(shares[:4]) < 0.1 and min(shares[4:]) > 0.03


def test_every_local_edit_changes_the_image_also_in_a_batch_of_one():
    images, generated = sample_images(1), sample_images(1, seed=1)
    for number in range(len(LOCAL_EDITS)):
        draws = torch.tensor([[0.0, (number + 0.5) / len(LOCAL_EDITS), 0.3, 0.6, 0.9]])
        edited, region = with_local_edits(images, images, generated, draws, 1.0)
        changed = (edited != images).any(1, keepdim=True)
        assert changed[region].float().mean() > 0.9 and not changed[~region].any(), LOCAL_EDITS[number]


def test_each_image_goes_through_its_own_chain_or_none():
    images = sample_images(3)
    chain = DegradationChain((("jpeg", 30),))
    seen = through_chains(images, [chain] * 3, torch.tensor([True, False, True]))
    assert torch.equal(seen[1], to_8bit(images)[1])
    assert torch.equal(seen[2], chain(images)[2])


def step_of(method: KeyedMethod, generator, **options) -> LocalizerStep:
    config = SimpleNamespace(**{"degradation": 0.5, "degradation_chain": True, "local_edits": 0.5, "edit_attribute": None, **options})
    accelerator = SimpleNamespace(autocast=torch.no_grad)
    return LocalizerStep(method, LossOf(method), None, generator, config, accelerator, base_rate=1e-3, attribute_names=("a",))


def batch_of(images: torch.Tensor, step: int = 1) -> Batch:
    labels = torch.zeros(len(images), 1)
    return Batch(images, labels, labels, None, StepRandom(0, step, batch_size=len(images)))


def test_the_pairs_of_a_step_are_a_function_of_its_number_and_arrive_in_8_bits():
    torch.manual_seed(0)
    method = KeyedMethod(KeyedMaLP(KeyedConfig(image_size=32, width=4), secret=b"m" * 32))
    generator = SimpleNamespace(manipulate=lambda images, target: -images)
    step, images = step_of(method, generator), sample_images(8)
    first, again = (step.pairs(batch_of(images)) for _ in range(2))
    assert torch.equal(first.real, again.real) and torch.equal(first.manipulated, again.manipulated)
    assert not torch.equal(first.manipulated, step.pairs(batch_of(images, 2)).manipulated)
    for seen in (first.real, first.manipulated):
        levels = (seen + 1) * 127.5
        assert (levels - levels.round()).abs().max() < 1e-3
    whole = first.edited.flatten(1).all(1)
    assert 0 < whole.sum() < 8
    terms = step.losses(batch_of(images))
    assert all(value.isfinite() for value in terms.values())


def test_splices_come_from_unprotected_images_and_the_generator_edits_published_ones_as_asked_for(monkeypatch):
    torch.manual_seed(0)
    method, images, given, asked = KeyedMethod(KeyedMaLP(KeyedConfig(image_size=32, width=4), secret=b"m" * 32)), sample_images(8), [], []
    monkeypatch.setattr(localizer_step, "with_local_edits", lambda *arguments: given.append(arguments) or with_local_edits(*arguments))
    batch = batch_of(images)
    batch.target = torch.linspace(0, 1, 8)[:, None]
    pairs = step_of(method, SimpleNamespace(manipulate=lambda images, target: asked.append(target) or -images), degradation=0.0).pairs(batch)
    ((published, originals, generated, draws, share),) = given
    rows = needs_generator(draws, share)
    assert torch.equal(originals, images) and torch.equal(published, to_8bit(method.encrypt(images, pairs.index)))
    assert 0 < len(rows) < 8 and torch.equal(generated[rows], -published[rows]) and torch.equal(asked[0], batch.target[rows])


def test_training_keys_follow_the_steps_number_and_arent_the_malps():
    malp = KeyedMaLP(KeyedConfig(image_size=32, width=4), secret=b"m" * 32)
    method, images = KeyedMethod(malp), sample_images(2)
    numbers = torch.tensor([3, 9])
    assert torch.equal(method.encrypt(images, numbers), malp.encrypt(images, numbers, secret=training_key(numbers))[0])
    assert not torch.equal(method.encrypt(images, numbers), method.protect(images))
    assert training_key(numbers) != training_key(numbers.flip(0))


def test_training_crops_are_aligned_with_the_template_that_the_whole_image_got():
    malp = KeyedMaLP(KeyedConfig(image_size=96, width=4), secret=b"m" * 32)
    for images in (natural_images(4, 96, 96), natural_images(4, 120, 160)):
        protected, index = malp.encrypt(images, torch.arange(4))
        (crops, whole), alignment = random_crops((protected, protected.mean(1, keepdim=True)), 96, (0.3, 0.8, 0.4))
        assert crops.shape[2:] == whole.shape[2:] and 0.6 < alignment.share < 0.8
        found = malp(crops, index, alignment).presence.mean()
        assert found > 0.4 * malp(protected, index).presence.mean()  # it loses its border and half of its area
        for wrong in (Alignment(), *(dataclasses.replace(alignment, offset=(alignment.offset[0] + down, alignment.offset[1] + right)) for down, right in ((2, 0), (0, 2)))):
            assert found > malp(crops, index, wrong).presence.mean() + 3
    parts, alignment = random_crops((protected,), 96, (1.0, 0.0, 0.0))
    assert torch.equal(parts[0], protected) and alignment == Alignment()


def test_one_batch_in_four_is_cropped_before_the_losses():
    torch.manual_seed(0)
    method = KeyedMethod(KeyedMaLP(KeyedConfig(image_size=64, width=4), secret=b"m" * 32))
    images, fake = natural_images(2), natural_images(2, seed=1)
    regions, index = torch.ones(2, 1, 64, 64, dtype=torch.bool), torch.tensor([3, 9])
    truth = regions.float()
    draws = torch.tensor([[0.9, 0.3, 0.8, 0.4], [0.1, 0.3, 0.8, 0.4]])
    whole = method.losses(images, fake, truth, index, regions, draws)
    assert whole == method.malp.losses(images, fake, truth, regions, index, secret=training_key(index))
    parts, alignment = random_crops((images, fake, truth, regions), 64, draws[1, 1:].tolist())
    assert method.losses(images, fake, truth, index, regions, draws.flip(0)) == method.malp.losses(*parts, index, alignment=alignment, secret=training_key(index))


def test_localize_is_the_malps_map_and_score_also_of_a_saved_one(tmp_path):
    malp = KeyedMaLP(KeyedConfig(image_size=32, width=4), secret=b"m" * 32)
    images = sample_images(2)
    found, out = KeyedMethod(malp).localize(images), malp(images, 0)
    assert torch.equal(found.map, out.map) and torch.equal(found.score, out.score)
    malp.save_pretrained(tmp_path)
    assert torch.equal(load_localizer(str(tmp_path)).localize(images).score, out.score)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"malp_local_edits": 0.5}, "--malp-local-edits: for --preset survive only"),
        ({"malp_psnr": 40.0}, "--malp-psnr: for --preset survive only"),
        ({"malp_change_steps": 5}, "--malp-change-steps: for --preset survive only"),
        ({"preset": "survive", "malp_start": "weights/survive", "malp_width": 8}, "--malp-width 8 has no effect with --malp-start"),
        ({"preset": "survive", "malp_change_only": True}, "--malp-change-only needs a trained detector as --malp-start"),
        ({"malp_change_only": True}, "--malp-change-only: for --preset survive only"),
        ({"preset": "survive", "malp_change_steps": -1}, "--malp-change-steps of 0 or more, got -1"),
        ({"preset": "survive", "malp_strength": 0.1, "malp_template_dropout": 0.5}, "--malp-strength, --malp-template-dropout: for --preset paper only.*leave them out"),
        ({"malp_backbone_weights": Path("x.pth")}, "--malp-backbone-weights x.pth has no effect with --malp-branch vit"),
        ({"preset": "survive", "malp_psnr": 5.0}, "a PSNR of 20 to 60 dB, got 5"),
        ({"preset": "survive", "image_size": 64, "random_crop": 16}, "at least 32 pixels, got 16"),
    ],
)
def test_flags_without_effect_and_impossible_settings_are_refused_before_work(flags, said):
    with pytest.raises(ValueError, match=said):
        check_options(PretrainOptions(**flags), SimpleNamespace(attribute_names=()))


def test_a_start_that_isnt_there_is_refused_before_work(tmp_path):
    with pytest.raises((ValueError, OSError), match="nowhere"):
        check_options(PretrainOptions(preset="survive", malp_start=str(tmp_path / "nowhere")), SimpleNamespace(attribute_names=()))


def test_local_edits_belong_to_the_preset():
    dataset = SimpleNamespace(attribute_names=())
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 2"):
        check_options(PretrainOptions(malp_local_edits=2, preset="survive"), dataset)
    options = surviving_options(PretrainOptions(preset="survive", malp_learning_rate=0.002))
    assert (options.learning_rate, options.local_edits, options.degradation, options.degradation_chain) == (0.002, 0.5, 0.75, True)


def test_the_change_net_is_trained_on_the_generators_edits_alone_and_nothing_else_is():
    torch.manual_seed(0)
    malp = with_change_net(KeyedMaLP(KeyedConfig(image_size=32, width=4), secret=b"m" * 32), 4)
    method = KeyedChangeMethod(malp)
    options = change_options(PretrainOptions(preset="survive", malp_change_steps=7, output_dir=Path("run"), resume_from_checkpoint="checkpoint-5"))
    assert (options.max_train_steps, options.output_dir, options.resume_from_checkpoint) == (7, Path("run/change"), "latest")
    seen = SimpleNamespace(generated=0)

    def negative(images, target):
        seen.generated += len(images)
        return -images

    step = step_of(method, SimpleNamespace(manipulate=negative), degradation=options.degradation, local_edits=options.local_edits)
    terms = step.losses(batch_of(sample_images(8)))
    assert seen.generated == 8 and set(terms) == {"map"}
    terms["map"].backward()
    moved = {name for name, parameter in malp.named_parameters() if parameter.grad is not None and parameter.grad.abs().sum() > 0}
    assert moved == {name for name, _ in malp.named_parameters() if name.startswith("change.")}
    assert all(parameter.requires_grad == name.startswith("change.") for name, parameter in malp.named_parameters())


def test_the_detectors_training_leaves_the_change_net_alone():
    torch.manual_seed(0)
    malp = with_change_net(KeyedMaLP(KeyedConfig(image_size=32, width=4), secret=b"m" * 32), 4)
    KeyedChangeMethod(malp)  # trained before
    step = step_of(KeyedMethod(malp), SimpleNamespace(manipulate=lambda images, target: -images))
    sum(step.losses(batch_of(sample_images(8))).values()).backward()
    moved = {name for name, parameter in malp.named_parameters() if parameter.grad is not None}
    assert moved == {name for name, _ in malp.named_parameters() if name.startswith("cnn.")}


def test_pretraining_on_crops_gives_a_reference_grid_for_whole_images(tmp_path):
    config = PretrainOptions(
        preset="survive", output_dir=tmp_path, image_size=64, random_crop=32, malp_width=4, max_train_steps=1, malp_change_steps=2, train_batch_size=2, mixed_precision="no"
    )
    generator = StarGANGenerator(conv_dim=4, c_dim=len(DEFAULT_SELECTION), repeat_num=1).eval().requires_grad_(False)
    malp = pretrain_surviving(generator, ProceduralFaces(8, image_size=64), config, Accelerator(cpu=True))
    assert malp.config.image_size == 64 and malp.config.change_width == 4
    assert all(parameter.requires_grad for parameter in malp.parameters())
    assert malp(sample_images(1, 64, 64), 0).edited.shape == (1, 1, 64, 64)


def test_an_interrupted_or_repeated_pretraining_keeps_the_key_and_the_list_of_its_templates(tmp_path, monkeypatch):
    config = PretrainOptions(preset="survive", output_dir=tmp_path, image_size=64, malp_width=4, mixed_precision="no")
    found = []

    def interrupted(method, *arguments):
        found.append(method.malp.secret)
        raise KeyboardInterrupt

    monkeypatch.setattr("malp_disc.training.surviving.train_localizer", interrupted)
    for attempt in range(3):
        with pytest.raises(KeyboardInterrupt):
            pretrain_surviving(None, None, config, Accelerator(cpu=True))
        key = tmp_path / "malp" / "secret.safetensors"
        assert load_secret(key, grid=64) == found[0] == found[-1] and key.stat().st_mode & 0o777 == 0o600
        if attempt == 1:  # the same command again, without --resume-from-checkpoint
            (tmp_path / "malp" / "issued.jsonl").write_text("one")
            (tmp_path / "malp" / "model.safetensors").write_text("old")
            set_aside(tmp_path)
            assert {path.name for path in (tmp_path / "malp").iterdir()} == {"secret.safetensors", "issued.jsonl"}
            assert (tmp_path / "previous" / "malp" / "model.safetensors").is_file()


def test_the_pretrainings_threshold_counts_what_detect_would_call_manipulated(monkeypatch):
    """Copies that lost their template raise no alarm, and every image is aligned first."""
    torch.manual_seed(0)
    malp = KeyedMaLP(KeyedConfig(image_size=64, width=4), secret=bytes(range(32))).eval()
    inputs = SimpleNamespace(images=natural_images(3))
    untouched = [malp(image, number).score.item() for number, image in enumerate(to_8bit(malp.encrypt(inputs.images, torch.arange(3))[0]).split(1))]
    aligned = []

    def threshold(change) -> float:
        monkeypatch.setattr(DegradationChain, "seeded", lambda *seed: change)
        return calibrate_surviving(malp, inputs, 0.3, 0).threshold

    assert malp(torch.ones(1, 3, 64, 64), 0).score > max(untouched)
    assert threshold(torch.ones_like) == pytest.approx(max(untouched), abs=1e-6)
    searched = identification.find_alignment
    monkeypatch.setattr(identification, "find_alignment", lambda *arguments, **options: aligned.append(1) or searched(*arguments, **options))
    assert threshold(to_8bit) == pytest.approx(max(untouched), abs=1e-6) and len(aligned) >= 6


def test_a_training_starts_from_another_detector_with_a_key_of_its_own(tmp_path):
    torch.manual_seed(0)
    start = with_change_net(KeyedMaLP(KeyedConfig(image_size=128, width=4), secret=b"s" * 32), 8)
    start.save_pretrained(tmp_path / "start", key=tmp_path / "kept.safetensors")
    config = PretrainOptions(preset="survive", malp_start=str(tmp_path / "start"), image_size=64, malp_psnr=36.0)
    malp = initial_detector(config, None)
    assert (malp.config.width, malp.config.change_width, malp.config.image_size, malp.config.psnr) == (4, 8, 64, 36.0)
    assert malp.secret != start.secret and initial_detector(config, b"o" * 32).secret == b"o" * 32
    assert all(torch.equal(value, start.state_dict()[name]) for name, value in malp.state_dict().items())
    config = dataclasses.replace(config, malp_change_only=True, malp_change_steps=1, output_dir=tmp_path, train_batch_size=2, mixed_precision="no")
    generator = StarGANGenerator(conv_dim=4, c_dim=len(DEFAULT_SELECTION), repeat_num=1).eval().requires_grad_(False)
    trained = pretrain_surviving(generator, ProceduralFaces(8, image_size=64), config, Accelerator(cpu=True))
    changed = {name for name, value in trained.state_dict().items() if not torch.equal(value, start.state_dict()[name])}
    assert changed and all(name.startswith("change.") for name in changed)

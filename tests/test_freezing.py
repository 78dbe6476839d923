"""Frozen networks resist what a parent asks for; a loss that the generator takes leaves nothing in a network that learns, whatever the order of calls."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from malp_disc import MaLPDiscriminator
from malp_disc.runtime.freezing import Freezable, called_for_two_losses, called_on_copies, freeze, gradients_to_inputs_only, unfreeze
from tests.tiny import Snapshot, sample_images, tiny_malp, with_rectangles

IMAGES, INDEX = sample_images(2, 16, 16), torch.zeros(2, dtype=torch.long)
ALL_TERMS = {"map_weight": 1.0, "classifier_weight": 1.0, "template_weight": 1.0}


class Net(Freezable):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def learns(network: nn.Module) -> bool:
    return network.training or any(module.training for module in network.modules()) or any(p.requires_grad for p in network.parameters())


def one_by_one(parent: nn.Module) -> None:
    for parameter in parent.parameters():
        parameter.requires_grad = True


AWAKE = [
    lambda parent: parent.train().requires_grad_(True),
    one_by_one,
    lambda parent: parent.to("cpu").float().train(),
    lambda parent: parent.double().half().float().requires_grad_(),
    lambda parent: parent.to("meta").requires_grad_(),
    lambda parent: [p.requires_grad_() for p in parent.parameters()],
]


@pytest.mark.parametrize("make", [lambda: freeze(Net()), lambda: MaLPDiscriminator(tiny_malp(image_size=16))], ids=["any", "MaLPDiscriminator"])
def test_what_is_frozen_stays_frozen_whatever_a_parent_asks_for(make):
    for awake in AWAKE:
        parent = nn.ModuleDict({"g": nn.Linear(1, 1), "frozen": make()})
        awake(parent)
        assert not learns(parent["frozen"]) and learns(parent["g"])
    again = [copy.deepcopy(make()), pickle.loads(pickle.dumps(make()))] if isinstance(make(), Net) else [copy.deepcopy(make())]
    for network in again:
        assert not learns(network.train().requires_grad_(True))


def test_a_frozen_discriminator_loads_moves_and_can_be_saved_whole():
    disc, file = MaLPDiscriminator(tiny_malp(image_size=16)), io.BytesIO()
    torch.save(disc, file)
    file.seek(0)
    again = torch.load(file, weights_only=False).requires_grad_(True)
    assert not learns(again) and torch.equal(again.generator_loss(IMAGES, INDEX).map, disc.generator_loss(IMAGES, INDEX).map)
    again.load_state_dict(MaLPDiscriminator(tiny_malp(1, image_size=16)).state_dict())
    assert not learns(again.requires_grad_(True))


def test_unfreezing_gives_back_what_learned():
    malp = tiny_malp(image_size=16)
    frozen = MaLPDiscriminator(malp)
    assert not frozen.trainable and not learns(malp)
    trainable = MaLPDiscriminator(malp, trainable=True)
    assert trainable.trainable and all(p.requires_grad and type(p) is nn.Parameter for p in malp.parameters()) and malp.training
    net = unfreeze(freeze(Net()))
    assert learns(net.train()) and all(p.requires_grad for p in net.parameters())


def test_an_optimizer_over_everything_moves_nothing_that_is_frozen():
    parent = nn.ModuleDict({"g": nn.Conv2d(3, 3, 1), "disc": MaLPDiscriminator(tiny_malp(image_size=16), **ALL_TERMS)}).train().requires_grad_(True)
    before = Snapshot(parent["disc"])
    optimizer = torch.optim.SGD(parent.parameters(), lr=0.1, weight_decay=0.1)
    parent["disc"].generator_loss(parent["g"](IMAGES).tanh(), INDEX).total.backward()
    optimizer.step()
    assert before.moved() == set() and parent["g"].weight.grad.any()


def test_gradients_to_inputs_only_restores_modes_and_what_was_fixed_also_after_an_error():
    net, x = Net(), torch.ones(3, 2, requires_grad=True)
    net.layers[1].eval()
    net.layers[0].bias.requires_grad_(False)
    with pytest.raises(ZeroDivisionError), gradients_to_inputs_only(net, None, evaluation=True):
        net(x).sum().backward()
        assert not net.layers.training
        raise ZeroDivisionError
    assert [m.training for m in net.modules()] == [True, True, True, False]
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == ["layers.0.bias"]
    assert x.grad is not None and all(p.grad is None for p in net.parameters())


def test_a_graph_on_copies_survives_a_step_and_new_running_statistics():
    """The gradient is that of the weights at the time of the call."""
    net, x = Net().double().eval(), torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(net(x).square().sum(), x)
    loss = called_on_copies(net, x).square().sum()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3)
    net.train()(torch.randn(4, 2, dtype=torch.float64))
    loss.backward()
    assert torch.allclose(x.grad, expected) and all(p.grad is None for p in net.parameters())


def test_one_call_for_two_losses_has_the_gradients_of_two_calls():
    """The first to the inputs alone and twice if asked for, the second to the weights alone."""
    net, x, passed = Net().double().eval(), torch.randn(4, 2, dtype=torch.float64, requires_grad=True), []
    (expected,) = torch.autograd.grad(net(x).square().sum(), x)
    expected_weights = torch.autograd.grad(net(x).exp().sum(), [p for p in net.parameters() if p.requires_grad])
    net.register_forward_hook(lambda *_: passed.append(1))
    to_inputs, to_weights = called_for_two_losses(net, x)
    loss = to_inputs.square().sum()
    assert torch.equal(torch.autograd.grad(loss, x, retain_graph=True)[0], expected)
    loss.backward()
    assert torch.equal(x.grad, expected) and all(p.grad is None for p in net.parameters())
    to_weights.exp().sum().backward()
    assert torch.equal(x.grad, expected) and len(passed) == 1
    assert all(torch.equal(p.grad, value) for p, value in zip([p for p in net.parameters() if p.requires_grad], expected_weights, strict=True))


def test_one_call_for_two_losses_refuses_weights_that_changed_in_between():
    net, x = Net().double().eval(), torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    for output in called_for_two_losses(net, x):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(3)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.square().sum().backward()


# --- MaLPDiscriminator: G's loss in any order ---------------------------------------------------------------------------------------


def gradient_of_g(disc: MaLPDiscriminator, order: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Steps of a loop in the given order: g G's loss, G its backward, d MaLP's backward, s its step. The gradient of `fake`, and MaLP's before its step."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(disc.parameter_groups(lr=0.5))
    encrypted, index = disc.encrypt(IMAGES)
    fake, found = with_rectangles(encrypted).requires_grad_(True), {}
    for step in order:
        if step == "g":
            loss = disc.generator_loss(fake, index).total
        elif step == "G":
            loss.backward()
        elif step == "d":
            disc.discriminator_loss(IMAGES, encrypted, fake, index).total.backward()
        else:
            found = {name: p.grad.clone() for name, p in disc.named_parameters()}
            optimizer.step()
            optimizer.zero_grad()
    assert all(p.grad is None for p in disc.parameters())
    return fake.grad, found


def with_batch_norm(trainable: bool = True) -> MaLPDiscriminator:
    """As the authors' networks have it; of a few thousand weights."""
    malp = tiny_malp(image_size=16)
    malp.cnn.trunk.append(nn.BatchNorm2d(8))
    return MaLPDiscriminator(malp, trainable=trainable, **ALL_TERMS)


@pytest.mark.parametrize("make", [lambda: MaLPDiscriminator(tiny_malp(image_size=16), trainable=True, **ALL_TERMS), with_batch_norm], ids=["paper", "batch norm"])
def test_malp_learns_and_g_is_told_the_same_in_every_order(make):
    """MaLP's gradient never contains G's loss, and G's is that of the weights, and running statistics, at the time of the call."""
    found = [gradient_of_g(make(), order) for order in ("gGds", "gdGs", "gdsG")]
    told, learned = found[0]
    for other_told, other_learned in found[1:]:
        assert torch.equal(told, other_told) and told.any()
        assert all(torch.equal(value, other_learned[name]) for name, value in learned.items())


def test_the_printed_order_with_accumulated_passes_gives_malp_its_own_gradient_alone():
    disc, plain = (MaLPDiscriminator(tiny_malp(image_size=16), trainable=True, **ALL_TERMS) for _ in range(2))
    for number in range(2):
        images = sample_images(2, 16, 16, seed=number)
        encrypted, index = disc.encrypt(images)
        fake = with_rectangles(encrypted).requires_grad_(True)
        disc.discriminator_loss(images, encrypted, fake, index).total.backward()
        disc.generator_loss(fake, index).total.backward()
        plain.discriminator_loss(images, encrypted, fake, index).total.backward()
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(disc.parameters(), plain.parameters()))


def test_wrapped_for_several_processes_g_leaves_nothing_and_malp_still_learns(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/start", rank=0, world_size=1)
    try:
        disc = MaLPDiscriminator(tiny_malp(image_size=16), trainable=True, **ALL_TERMS)
        wrapped = DistributedDataParallel(disc)
        for _ in range(2):
            encrypted, index = disc.encrypt(IMAGES)
            fake = with_rectangles(encrypted).requires_grad_(True)
            loss = disc.generator_loss(fake, index).total
            wrapped(IMAGES, encrypted, fake, index).total.backward()
            held = [p.grad.clone() for p in disc.parameters()]
            loss.backward()
            assert fake.grad.any() and all(torch.equal(p.grad, before) for p, before in zip(disc.parameters(), held))
            disc.zero_grad()
    finally:
        torch.distributed.destroy_process_group()


def test_modes_that_the_user_set_are_as_before_after_gs_loss():
    disc = with_batch_norm()
    disc.malp.cnn.eval()  # batch norms held
    modes = [module.training for module in disc.modules()]
    disc.generator_loss(IMAGES, INDEX)
    assert [module.training for module in disc.modules()] == modes and len(set(modes)) == 2


def test_malps_step_leaves_nothing_in_the_network_that_made_the_images():
    source, disc = nn.Conv2d(3, 3, 1), MaLPDiscriminator(tiny_malp(image_size=16), trainable=True, r1_weight=0.1)
    images = source(IMAGES).tanh()
    encrypted, index = disc.encrypt(images)
    disc.discriminator_loss(images, encrypted, with_rectangles(encrypted.detach()), index).total.backward()
    assert all(p.grad is None for p in source.parameters()) and all(p.grad is not None for p in disc.parameters())


def test_templates_that_learn_through_the_generator_are_not_for_gs_own_loss():
    disc = MaLPDiscriminator(tiny_malp(image_size=16), trainable=True, generator_gradient="map")
    encrypted, index = disc.encrypt(IMAGES)
    with pytest.raises(ValueError, match="'map' is for pretraining .* with generator_gradient='none'"):
        disc.generator_loss(encrypted * 0.9, index)
    assert disc.generator_loss(encrypted.detach(), index).map > 0

"""What stands for AuGAN: CycleGAN's network at the size of the paper's table."""

from __future__ import annotations

import torch

from generators.augan import SIZE, augan
from generators.cyclegan import cyclegan
from tests.generators.contract import GeneratorContract
from tests.generators.test_cyclegan import tiny
from tests.tiny import sample_images


class TestContract(GeneratorContract):
    name = "augan"
    config = {"ngf": 2, "n_blocks": 1}
    size = (SIZE, SIZE)


def test_it_is_cyclegans_network_of_nine_blocks(tmp_path):
    assert augan(ngf=2).config == cyclegan(ngf=2).config and augan(ngf=2).config["n_blocks"] == 9
    torch.save(tiny().state_dict(), tmp_path / "G.pth")
    assert torch.equal(augan(tmp_path / "G.pth")(sample_images(1)), cyclegan(tmp_path / "G.pth")(sample_images(1)))

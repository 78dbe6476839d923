"""StarGAN, generator and discriminator."""

from __future__ import annotations

from generators.stargan import StarGANDiscriminator, StarGANGenerator
from tests.golden.case import Built, Case


def stargan_generator(case: Case) -> Built:
    network = StarGANGenerator(**case.args, use_running_statistics=case.config["mode"] == "eval")
    return Built(network, lambda: {"y": network(case.images(), case.condition("c"))})


def stargan_discriminator(case: Case) -> Built:
    network = StarGANDiscriminator(**case.args)
    return Built(network, lambda: dict(zip(("src", "cls"), network(case.images()))))


BUILDERS = [
    ("yunjey/stargan@", "Generator", stargan_generator),
    ("yunjey/stargan@", "Discriminator", stargan_discriminator),
]

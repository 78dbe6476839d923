"""ESRGAN and Real-ESRGAN."""

from __future__ import annotations

from generators.esrgan import ESRGANGenerator
from generators.real_esrgan import RealESRGANCompact, RealESRGANGenerator
from tests.golden.case import Built, Case

# Name-seeded weights give outputs of up to 80, where the published ones give [0, 1]: hence a relative tolerance and a small absolute one.
TOLERANCE = {"absolute": 1e-6, "relative": 1e-4}


def esrgan(case: Case) -> Built:
    network = ESRGANGenerator(**{key: case.config[key] for key in ("nf", "nb", "gc")})
    return Built(network, lambda: {"y": network(case.images())}, **TOLERANCE)


def real_esrgan(case: Case) -> Built:
    network = RealESRGANGenerator(**{key: case.config[key] for key in ("scale", "num_feat", "num_block", "num_grow_ch")})
    return Built(network, lambda: {"y": network(case.images())}, **TOLERANCE)


def compact(case: Case) -> Built:
    network = RealESRGANCompact(scale=case.config["upscale"], **{key: case.config[key] for key in ("num_feat", "num_conv", "act_type")})
    return Built(network, lambda: {"y": network(case.images())}, **TOLERANCE)


BUILDERS = [
    ("xinntao/ESRGAN@", "RRDBNet", esrgan),
    ("XPixelGroup/BasicSR@", "RRDBNet", real_esrgan),
    ("xinntao/Real-ESRGAN@", "RRDBNet", real_esrgan),
    ("xinntao/Real-ESRGAN@", "SRVGGNetCompact", compact),
    ("XPixelGroup/BasicSR@", "SRVGGNetCompact", compact),
]

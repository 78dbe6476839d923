"""The shipped Accelerate files are ones that Accelerate takes."""

from __future__ import annotations

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from tests.recipes.in_process import ROOT

FILES = sorted((ROOT / "recipes" / "accelerate").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_accelerate_reads_it_and_it_leaves_precision_and_accumulation_to_the_recipes(path):
    config = load_config_from_file(str(path))
    assert config.distributed_type.value in ("NO", "MULTI_GPU") and config.use_cpu is False
    assert config.mixed_precision == "no" and not getattr(config, "gradient_accumulation_steps", None)
    assert (config.num_machines > 1) == (path.stem == "two_nodes")


def test_there_is_one_for_a_gpu_a_node_and_two_nodes():
    """test_accelerate_settings.py starts a recipe with the first."""
    assert {path.stem for path in FILES} == {"one_gpu", "one_node", "two_nodes"}

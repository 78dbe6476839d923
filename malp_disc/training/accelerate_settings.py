"""Settings from Accelerate's configuration and launcher: each is applied, or refused before any work.

`accelerate launch` hands its flags and its configuration file to the script as environment variables, which `Accelerator` reads.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

import torch
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType

logger = logging.getLogger("malp_disc")
_WITHOUT_BF16 = {"NO AVX", "AVX2"}  # by torch.backends.cpu.get_cpu_capability(); from AVX-512 on, oneDNN has kernels for bf16
_FALSE = {"", "0", "false", "no", "off", "none"}
_SHARDING = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism configuration",
}


def check_launcher(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse settings of the launcher that these recipes don't support.

    Raises:
        ValueError: sharded training, torch.compile by Accelerate, gradient accumulation or clipping other than by the recipe's own flags, or a device that
            doesn't exist.
    """
    for variable, name in _SHARDING.items():
        if _on(environment.get(variable)):
            raise ValueError(
                f"Accelerate's configuration asks for {name}; these recipes run on one process or with data parallelism (docs/scaling.md says why). "
                "Launch with a configuration without it, as those in recipes/accelerate"
            )
    backend = environment.get("ACCELERATE_DYNAMO_BACKEND")
    if _on(backend):
        raise ValueError(
            f"Accelerate's configuration sets dynamo_backend to {backend}; gradient penalties need a second derivative, which torch.compile doesn't give. "
            "Launch with --dynamo_backend no"
        )
    steps = environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS")
    if steps not in (None, "", "1"):  # it would divide every loss once more
        raise ValueError(
            f"Accelerate's configuration sets gradient_accumulation_steps to {steps}; leave it at 1 there and give the recipe's own "
            "--gradient-accumulation-steps, with which every network goes through all micro-batches of a step before the next network's update"
        )
    if _on(environment.get("ACCELERATE_GRADIENT_CLIPPING")):
        raise ValueError("Accelerate's configuration sets gradient_clipping; give the recipe's own --max-grad-norm instead")
    if device := environment.get("ACCELERATE_TORCH_DEVICE"):
        try:
            torch.zeros(1, device=device).item()
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            said = str(error).splitlines()[0]
            raise ValueError(f"can't compute on the device that ACCELERATE_TORCH_DEVICE names, {device} ({said}); unset it, or set it to cpu or cuda") from error


def resolve_mixed_precision(flag: str | None, environment: Mapping[str, str] = os.environ, *, cuda: bool | None = None) -> str:
    """The precision of a run: the recipe's flag, else the launcher's setting, else "no".

    Args:
        flag: ``--mixed-precision``, or None if it wasn't given.
        cuda: whether the run has a GPU; detected if None.

    Returns:
        "no", "bf16" or "fp16".

    Raises:
        ValueError: flag and launcher contradict each other, the precision isn't one of the three, or it is fp16 without a GPU.
    """
    asked = (environment.get("ACCELERATE_MIXED_PRECISION") or "no").lower()
    if flag is not None and asked != "no" and flag != asked:
        raise ValueError(f"--mixed-precision {flag}, but Accelerate's configuration or launcher says {asked}; drop one of them or make them agree")
    resolved = flag or asked
    if resolved not in ("no", "bf16", "fp16"):
        raise ValueError(f"expected a mixed precision out of no, bf16, fp16, got {resolved} from Accelerate's configuration")
    if cuda is None:
        cuda = torch.cuda.is_available() and not _on(environment.get("ACCELERATE_USE_CPU"))
    if resolved == "fp16" and not cuda:
        raise ValueError("fp16 needs a GPU, and this run is on the CPU, where autocast would stay in float32; use bf16 or no mixed precision")
    if resolved == "bf16" and not cuda and torch.backends.cpu.get_cpu_capability() in _WITHOUT_BF16:
        logger.warning(
            "this CPU has no instructions for bf16, so that bf16 is many times slower on it than float32 (a step of recipes/train_stargan.py 16 times on an AMD EPYC with AVX2); "
            "--mixed-precision no is faster"
        )
    return resolved


def check_tracker(name: str | None) -> None:
    """Raise ValueError unless the tracker of ``--report-to`` exists and its package is installed; Accelerate would ignore it silently."""
    if name is None:
        return
    known = [kind for kind in LoggerType.list() if kind != "all"]
    available = [kind.value for kind in get_available_trackers()]
    if name not in known and name != "all":
        raise ValueError(f"expected a tracker for --report-to out of {', '.join(known)}, got {name!r}")
    if name not in available and (name != "all" or not available):
        raise ValueError(f"--report-to {name} needs a package that isn't installed; pip install {name if name != 'all' else 'tensorboard'}, or leave the flag out")


def _on(value: str | None) -> bool:
    return value is not None and value.strip().lower() not in _FALSE

"""The exponential moving average of a generator's weights."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from malp_disc.runtime.copying import copy_module


def moving_average(module: nn.Module, decay: float, *, warmup: bool = False) -> AveragedModel:
    """The exponential moving average of a module's weights; buffers are copied.

    Until the first update it is a copy of the module. The first update replaces it by the module's weights at that time, and later ones average.

    Args:
        warmup: let the decay rise to `decay` as (1 + n) / (10 + n), n being the number of updates so far, so that a training of some hundred updates doesn't end
            with an average that is mostly the weights it started from.

    Raises:
        ValueError: the module can't be copied, see `malp_disc.runtime.copying.copy_module`.
    """

    def update(averages: list[Tensor], weights: list[Tensor], count: Tensor) -> None:
        n = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averages, weights, count)

    average = AveragedModel(nn.Identity(), multi_avg_fn=update if warmup else get_ema_multi_avg_fn(decay))
    average.module = copy_module(module)  # AveragedModel's own deepcopy can't copy what copy_module can
    return average

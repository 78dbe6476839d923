"""The flags of training a generator of the paper's Table 3 or a CycleGAN from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from malp_disc.run_folder.experiment import not_compared
from malp_disc.training.train_options import TrainOptions

Method = Literal["stargan", "attgan", "stgan", "cyclegan"]


@dataclass(frozen=True)
class Schedule:
    """Settings of a paper: learning rate of all networks, discriminator updates per generator update."""

    learning_rate: float
    n_critic: int


SCHEDULES: dict[Method, Schedule] = {
    "stargan": Schedule(1e-4, 5),  # section 5.1 of the paper
    "attgan": Schedule(2e-4, 5),  # section 4 and the authors' train.py
    "stgan": Schedule(2e-4, 5),  # section 4.1, train.py
    "cyclegan": Schedule(2e-4, 1),  # section 4
}


@dataclass(kw_only=True)
class AttributeGANOptions(TrainOptions):
    """Schedule and losses. The defaults are the papers', but for the number of steps and the batch size."""

    method: Method = "attgan"
    """The generator to train.
    stargan, attgan, stgan: edit attributes. cyclegan: translates between two folders of images, --data-root and --reference-root."""
    max_train_steps: int = 100_000
    """Number of discriminator updates. Every --n-critic of them, the generator is updated too."""
    train_batch_size: int = 16
    """Images per process and micro-batch. The papers use 16 (StarGAN), 32 (AttGAN, STGAN) and 1 (CycleGAN)."""
    n_critic: int | None = None
    """Discriminator updates per generator update, 1 or more. By default 5, and 1 for cyclegan."""
    learning_rate: float | None = None
    """Learning rate of the generator, above 0. It is constant for the first half of the steps and then falls linearly to 0.
    By default 2e-4, and 1e-4 for stargan. AttGAN and STGAN divide it by 10 after the first half instead."""
    discriminator_learning_rate: float | None = None
    """Learning rate of the discriminator, with the same schedule. By default, --learning-rate."""
    reconstruction_weight: float | None = None
    """Weight of the L1 reconstruction, which preserves what isn't edited; for stargan and cyclegan, of the cycle.
    By default 100 for attgan and stgan, 10 for stargan and cyclegan."""
    classification_weight: float | None = None
    """Weight of the attribute classification in the generator's loss. By default 10 for attgan and stgan, 1 for stargan."""
    identity_weight: float | None = None
    """For cyclegan: weight of the identity loss, 0 or more. By default 5; 0 trains without it."""
    pool_size: int | None = None
    """For cyclegan: number of past images from which half of the discriminator's fakes are drawn. By default 50; 0 draws none."""
    ema_decay: float = 0.999
    """Decay of the exponential moving average of the generator's weights, in [0, 1), which is what is saved. The papers have none: 0.
    It is smaller for the first updates of the generator, so that a short training isn't outweighed by the weights it starts from."""
    save_precision: Literal["float32", "float16"] = not_compared("float32")
    """Precision of the saved networks. float16 halves the files; they are computed with in float32 either way."""

    @property
    def rates(self) -> tuple[float, float]:
        """Learning rates of the generator and the discriminator before the schedule."""
        rate = SCHEDULES[self.method].learning_rate if self.learning_rate is None else self.learning_rate
        return rate, rate if self.discriminator_learning_rate is None else self.discriminator_learning_rate

    @property
    def critic_updates(self) -> int:
        """Discriminator updates per generator update."""
        return SCHEDULES[self.method].n_critic if self.n_critic is None else self.n_critic

    def check(self) -> None:
        """Raise ValueError for flags that the method can't honour, before any work."""
        if self.random_crop is not None and self.method != "cyclegan":
            raise ValueError(f"--random-crop has no place here: the discriminator of {self.method} takes images of one size")
        if self.critic_updates < 1:
            raise ValueError(f"expected --n-critic of at least 1, got {self.n_critic}")
        if self.method == "cyclegan" and self.critic_updates != 1:
            raise ValueError(f"CycleGAN updates its discriminators once per update of its generators; leave --n-critic {self.n_critic} out")
        if not all(rate > 0 for rate in self.rates):
            raise ValueError(f"expected learning rates above 0, got {self.rates[0]:g} and {self.rates[1]:g}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"expected --ema-decay in [0, 1), got {self.ema_decay}")
        for name in ("reconstruction_weight", "classification_weight", "identity_weight", "pool_size"):
            value, flag = getattr(self, name), f"--{name.replace('_', '-')}"
            if value is not None and value < 0:
                raise ValueError(f"expected {flag} of 0 or more, got {value}")
            wrong = name == "classification_weight" if self.method == "cyclegan" else name in ("identity_weight", "pool_size")
            if value is not None and wrong:
                raise ValueError(f"{flag} has no effect with --method {self.method}; leave it out")

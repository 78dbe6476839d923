"""The flags of training a StarGAN from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from malp_disc.backbones import DEFAULT_BACKBONE
from malp_disc.run_folder.experiment import not_compared
from malp_disc.training.train_options import TrainOptions


@dataclass(kw_only=True)
class StarGANOptions(TrainOptions):
    """Schedule and losses of a StarGAN's training. The paper's values are in the help texts; the included generator's are in weights/README.md."""

    max_train_steps: int = 40_000
    """Number of discriminator updates."""
    train_batch_size: int = 16
    """Images per process and micro-batch."""
    n_critic: int = 2
    """Discriminator updates per generator update, 1 or more. The paper uses 5."""
    learning_rate: float = 3e-4
    """Learning rate of the generator. It is constant for the first half of the steps and then falls linearly to 0."""
    discriminator_learning_rate: float = 4e-4
    """Learning rate of the discriminator, with the same schedule. The paper trains five times longer with 1e-4 for both."""
    reconstruction_weight: float = 10.0
    """Weight λ_rec of the reconstruction loss. The paper uses 10.
    At 64x64 the L1 loss is weak compared with WGAN's; a larger weight preserves the face."""
    adversarial_weight: float = 1.0
    """Weight of the adversarial loss by StarGAN's own discriminator, 0 or more (WGAN-GP). 0 leaves it the classification alone, which takes less time."""
    realness_weight: float = 0.0
    """Weight of -log P(not manipulated) by MaLP's second branch, trained heads on a frozen pretrained backbone, 0 or more. 0 trains without it, as the paper.
    It acts beside StarGAN's own discriminator, or in its place with --adversarial-weight 0."""
    conditional_realness: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Tell the second branch which attributes an image is meant to have, so that it asks "is this a real image with these attributes?"."""
    backbone: str = DEFAULT_BACKBONE
    """The frozen pretrained backbone, the name of a timm model, or squeezenet1_0. Don't evaluate with the same network."""
    backbone_weights: Path | None = None
    """Weights of --backbone, a state dict as timm or torchvision saves it.
    By default, the installed ones of tf_efficientnet_lite0, and timm's download for others."""
    backbone_side: int = 128
    """Images whose shorter side has fewer pixels are enlarged to this for the backbone. At least 32."""
    backbone_depths: int | None = None
    """Number of the backbone's feature maps that the heads look at, 1 or more: of the strides 4, 8, 16 and 32, the finest first.
    By default, 2 for images that are enlarged to --backbone-side, and otherwise 4."""
    branch_learning_rate: float = 4e-4
    """Learning rate of the second branch's heads, above 0, with the same schedule as the other two."""
    identity_share: float = 0.0
    """Share of each batch, in [0, 1], whose target is its own labels; an L1 loss to the input with the same weight is added for these images.
    The paper doesn't have it. The included generator was trained with 0.25, without an ablation."""
    warmup_steps: int = 4000
    """Number of first steps in which the generator only learns to copy, G(x, own labels) -> x, with an L1 loss.
    The discriminator joins in the last quarter of them, so that adversarial training starts from recognisable faces."""
    ema_decay: float = 0.999
    """Decay of the exponential moving average of the generator's weights, in [0, 1). The average is saved as G.safetensors.
    It is smaller for the first updates of the generator, so that a short training isn't outweighed by the weights it starts from."""
    save_precision: Literal["float32", "float16"] = not_compared("float32")
    """Precision of the saved G and D files. float16 halves their size; they are computed with in float32 either way."""

    def check(self) -> None:
        """Raise ValueError for flags that a StarGAN's training can't honour, before any work."""
        if self.random_crop is not None:
            raise ValueError("--random-crop has no place here: StarGAN's discriminator takes images of one size")
        for name in ("adversarial_weight", "realness_weight", "reconstruction_weight", "warmup_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"expected --{name.replace('_', '-')} of 0 or more, got {getattr(self, name)}")
        for name in ("learning_rate", "discriminator_learning_rate", "branch_learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"expected --{name.replace('_', '-')} above 0, got {getattr(self, name)}")
        if self.n_critic < 1:
            raise ValueError(f"expected --n-critic of at least 1, got {self.n_critic}")
        if not 0 <= self.identity_share <= 1:
            raise ValueError(f"expected --identity-share in [0, 1], got {self.identity_share}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"expected --ema-decay in [0, 1), got {self.ema_decay}")
        if self.backbone_depths is not None and self.backbone_depths < 1:
            raise ValueError(f"expected --backbone-depths of at least 1, got {self.backbone_depths}")
        if not (self.adversarial_weight or self.realness_weight):
            raise ValueError("--adversarial-weight 0 leaves nothing that asks for realistic images; give a --realness-weight above 0")

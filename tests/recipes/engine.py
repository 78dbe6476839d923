"""The fine-tuning loop on toys: a generator of three layers and losses of its own, as a user would bring them; run by the tests, in one process or two.

    python engine.py --output-dir out --toy-arms control cotrain --max-train-steps 6

Leaves ``G-<arm>.safetensors`` and ``hashes-<rank>.json``, the sha256 of every network of every arm as this process has it.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from malp_disc import MaLP, MaLPConfig
from malp_disc.data.faces import ProceduralFaces
from malp_disc.malp import with_pretrained_branch
from malp_disc.run_folder.experiment import not_compared, work
from malp_disc.serialization.files import write_json
from malp_disc.serialization.state_dicts import save_tensors
from malp_disc.training import finetune as finetuning
from malp_disc.training.finetune import ArmSetup, FineTuning
from malp_disc.training.launch import run_recipe, start
from malp_disc.training.options import FinetuneOptions


class ToyGenerator(nn.Module):
    """Adds something to the image, by its target. `unused` takes no part, as a decoder of another domain wouldn't."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.unused = nn.Linear(3, 3)
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def manipulate(self, images: Tensor, target: Tensor) -> Tensor:
        labels = target[:, :, None, None].expand(-1, -1, *images.shape[2:])
        return (images + 0.5 * torch.tanh(self.last(torch.tanh(self.first(torch.cat([images, labels], 1)))))).clamp(-1, 1)


class ToyLosses(nn.Module):
    """Adversarial, with a discriminator that learns, and reconstruction. A step number in `broken` gives a NaN there."""

    def __init__(self, broken: tuple[int, ...] = (), dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.discriminator = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 4, 2, 1))
        self.unused = nn.Linear(2, 2)
        self.broken, self.calls = broken, -1  # the probe before the first step is call 0

    def generator_loss(self, fake, batch, edit) -> dict[str, Tensor]:
        self.calls += 1
        factor = float("nan") if self.calls in self.broken else 1.0
        rebuilt = (edit(fake, batch.labels) - batch.images).abs().mean()
        return {"adversarial": -factor * self.discriminator(fake).mean(), "reconstruction": 10 * rebuilt}

    def forward(self, fake, batch) -> dict[str, Tensor]:
        on_real, on_fake = (self.discriminator(self.dropout(images)) for images in (batch.images, fake))
        noise = batch.noise.uniform().view(-1, 1, 1, 1)
        return {"adversarial": F.softplus(on_fake).mean() + F.softplus(-on_real).mean(), "penalty": (noise * on_real.square()).mean()}


def setups_of_each_kind() -> dict[str, ArmSetup]:
    """A setup for each way in which MaLP takes part in a step, for images of 16×16 with five attributes."""
    malp = MaLP(MaLPConfig(image_size=16, width=8, branch=None))
    both = with_pretrained_branch(malp, "squeezenet1_0", side=32, labels=5)
    return {
        "control": ArmSetup(),
        "frozen": ArmSetup(malp, weight=1.0),
        "cotrain": ArmSetup(malp, trainable=True, weight=1.0, template_dropout=0.5),
        "joint": ArmSetup(both, trainable=True, weight=1.0, map_weight=0.0, classifier_weight=1.0, realness_weight=1.0, template_dropout=1.0),
    }


@dataclass(kw_only=True)
class Config(FinetuneOptions):
    output_dir: Path
    toy_arms: tuple[str, ...] = work(("control", "control_2xD", "frozen", "cotrain"))
    losses: bool = True
    broken: tuple[int, ...] = ()
    dropout: float = 0.0
    """Of the discriminator's input, drawn from torch's global generator."""
    kill_at: int = not_compared(0)
    """Send SIGKILL to this process when checkpoint number so many is half written; 0 for never."""
    interrupt_at: int = not_compared(0)
    """Send SIGINT to this process at this step's grid; 0 for never."""
    image_size: int = 16


def main(config: Config) -> None:
    config.check()
    accelerator = start(config)
    torch.manual_seed(0)  # the same networks whatever --seed says
    generator, own = ToyGenerator(), ToyLosses(config.broken, config.dropout) if config.losses else None
    malp = MaLP(MaLPConfig(image_size=config.image_size, width=8)).to(accelerator.device)
    with torch.no_grad():
        malp.cnn.map_head.weight.mul_(20)  # a map that isn't one grey
    dataset = ProceduralFaces(48, image_size=config.image_size)
    setups = {
        "control": ArmSetup(),
        "control_2xD": ArmSetup(second_discriminator_update=True),
        "frozen": ArmSetup(malp, weight=config.frozen_weight),
        "cotrain": ArmSetup(malp, trainable=True, weight=config.cotrain_weight, template_dropout=config.template_dropout),
    }
    if config.kill_at:
        kill_while_saving(config.kill_at)
    hashes = {}
    real = finetuning.CheckpointManager

    class Spied(real):
        """Remembers the networks as this process has them."""

        def save(self, *arguments, **options):
            super().save(*arguments, **options)
            hashes[self.folder.name] = {name: digest(network) for name, network in self.networks.items()}

    def sample_grid(step: int, manipulate) -> None:
        if step == config.interrupt_at and step:
            os.kill(os.getpid(), signal.SIGINT)

    finetuning.CheckpointManager = Spied
    try:
        for arm in config.toy_arms:
            tuned = FineTuning(arm, setups[arm], generator, own, dataset, config, accelerator, sample_grid=sample_grid).run()
            if accelerator.is_main_process:
                save_tensors(config.output_dir / f"G-{arm}.safetensors", tuned.state_dict())
    finally:
        finetuning.CheckpointManager = real
    write_json(config.output_dir / f"hashes-{accelerator.process_index}.json", hashes)
    accelerator.end_training()


def digest(network: nn.Module) -> str:
    return hashlib.sha256(b"".join(value.cpu().numpy().tobytes() for value in network.state_dict().values())).hexdigest()


def kill_while_saving(number: int) -> None:
    """SIGKILL in the middle of writing checkpoint `number`: its networks are written, its optimizers aren't."""
    import malp_disc.training.checkpoints as resume

    written, save = [], resume.torch.save

    def dying(*arguments, **options):
        written.append(1)
        if len(written) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        save(*arguments, **options)

    resume.torch.save = dying


if __name__ == "__main__":
    run_recipe(main, Config, __doc__)

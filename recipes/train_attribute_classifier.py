"""Train a small attribute network: the classifier that measures edit accuracy, or a feature extractor for a Fréchet distance of your own.

The two included networks were trained with these commands on one CPU core (malp_disc/metrics/weights/README.md has their accuracy):

    python recipes/train_attribute_classifier.py --output malp_disc/metrics/weights/faces_features.safetensors \\
        --purpose features
    python recipes/train_attribute_classifier.py --output malp_disc/metrics/weights/faces_classifier.safetensors \\
        --first-index 40000000 --seed 1 --width 20 --steps 500

A classifier for your own images, for the evaluation's --attribute-classifier:

    python recipes/train_attribute_classifier.py --data celeba --data-root /data/celeba --output classifier.safetensors --steps 5000

An evaluation model must be independent of the generator: never fine-tune a generator against the network that measures it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm

from malp_disc.commands.loading import usable_device
from malp_disc.data import FACE_RANGES, DataOptions, ProceduralFaces, build_dataset
from malp_disc.data.faces import ATTRIBUTES
from malp_disc.data.sampling import StepBatches
from malp_disc.metrics.attribute_net import AttributeNet
from malp_disc.run_folder.lock import lock_folder
from malp_disc.training.launch import check_has_attributes, check_seeds, claim_folder, run_recipe
from malp_disc.training.loading import image_batches

MAX_BLUR = 1.5  # standard deviation, pixels
MAX_NOISE = 0.15  # standard deviation, images in [-1, 1]
MAX_BOARD = 0.12  # amplitude of a checkerboard of single pixels, what transposed convolutions leave behind
MAX_SHIFT = 4  # pixels
THUMBNAIL = 4
WHITENED_ON = 4096  # images that the features are whitened on
FLAW_WEIGHT = 10  # at the end of the training, see nuisance_loss


@dataclass(kw_only=True)
class Config(DataOptions):
    output: Path
    """File to write the network to, with a name that ends in .safetensors."""
    steps: int = 700
    """Number of optimizer steps."""
    train_batch_size: int = 64
    """Images per step."""
    learning_rate: float = 2e-3
    """Highest learning rate. It falls to 0 along half a cosine."""
    width: int = 24
    """Channels at full resolution. The features have four times as many."""
    seed: int = 0
    """Seed of the initial weights, the data order, and the augmentation."""
    first_index: int = FACE_RANGES["features"]
    """Number of the first drawn face, with --data faces.
    Evaluation models are trained on a range of their own, which no other recipe draws from."""
    purpose: Literal["classifier", "features"] = "classifier"
    """classifier: predicts attributes, robust to artefacts of a generator.
    features: for a Fréchet distance. It also learns to predict blur, noise, checkerboards, and colours, and its features are whitened."""
    mixed_precision: Literal["no", "bf16"] | None = None
    """Autocast precision of the training. By default, bf16 on a GPU and no on a CPU: one without bf16 instructions took 13 times as long with it."""
    dataloader_num_workers: int | None = None
    """Worker processes that load images. 0 loads them in the training process.
    By default, 0 without a GPU, and with one as many as there are further cores, at most 8."""
    device: str = "auto"
    """Device to compute on: cpu, cuda, cuda:1, and so on. auto takes a GPU if there is one."""


def main(config: Config) -> None:
    if config.output.suffix != ".safetensors":
        raise ValueError(f"expected --output to end in .safetensors, got {config.output}")
    for name in ("steps", "train_batch_size"):
        if getattr(config, name) < 1:
            raise ValueError(f"expected --{name.replace('_', '-')} of at least 1, got {getattr(config, name)}")
    check_seeds(config.seed)
    device = usable_device(config.device)
    torch.manual_seed(config.seed)

    # Data
    train, held_out = datasets(config)
    check_has_attributes(train, config.data, "the network learns attributes")
    if (config.dataloader_num_workers or 0) < 0:
        raise ValueError(f"expected --dataloader-num-workers of 0 or more, got {config.dataloader_num_workers}")
    if config.purpose == "features" and len(train) < 16 * config.width:
        raise ValueError(
            f"features of width {config.width} are whitened on at least {16 * config.width} images, got {len(train)}; more --steps or images"
        )
    sampler = StepBatches(len(train), config.train_batch_size, seed=config.seed, stop=config.steps)
    if not len(held_out):
        raise ValueError("no held-out images to measure the accuracy on; see --test-size")
    claim_folder(config.output.parent, flag="--output")
    lock_folder(config.output.parent, name=f"{config.output.name}.lock", flag="--output")
    loader = image_batches(train, sampler, device=device, workers=config.dataloader_num_workers)

    # Networks
    net = AttributeNet(train.attribute_names, width=config.width).to(device, memory_format=torch.channels_last)
    nuisance_head = nn.Linear(net.dims, 3 + 3 * THUMBNAIL**2).to(device)
    optimizer = torch.optim.AdamW([*net.parameters(), *nuisance_head.parameters()], lr=config.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    print(f"{train.description}; {config.steps} steps of {config.train_batch_size} images on {device}")

    # Loop
    precision = config.mixed_precision or ("bf16" if device.type == "cuda" else "no")
    started = time.monotonic()
    bar = tqdm(loader, total=config.steps, unit="step", mininterval=1.0, dynamic_ncols=True)
    for step, (images, labels) in enumerate(bar):
        images, flaws = augment(images)
        if config.purpose == "features":
            images, board = checkerboard(images)
            flaws = torch.cat([flaws, board], dim=1)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            features = net.features(images.contiguous(memory_format=torch.channels_last))
        features = features.float()
        loss = F.binary_cross_entropy_with_logits(net.head(features), labels)
        if config.purpose == "features":
            loss = loss + nuisance_loss(nuisance_head(features), images, flaws, progress=step / config.steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix_str(f"loss={loss.item():.3f}", refresh=False)
    print(f"trained in {time.monotonic() - started:.0f} s")

    # Results, measured with the weights as they are saved
    net.save(config.output)
    saved = AttributeNet.load(config.output).to(device)
    if config.purpose == "features":
        subset = Subset(train, range(min(WHITENED_ON, len(train))))
        saved = saved.whiten(torch.cat([saved.pooled(images) for images, _ in batches(subset, device)]))
        saved.save(config.output)
    clean, degraded = accuracy(saved, held_out, device, degrade=False), accuracy(saved, held_out, device, degrade=True)
    print(f"accuracy on {held_out.description}; in brackets with blur, noise and shift as in training")
    for name, a, b in zip(net.attribute_names, clean, degraded):
        print(f"  {name:16s} {a:.4f} ({b:.4f})")
    print(f"wrote {config.output}, {config.output.stat().st_size / 1000:.0f} kB")


def datasets(config: Config) -> tuple[Dataset, Dataset]:
    """Training and held-out images. For drawn faces, all attributes are used, and no image is repeated."""
    held_out = build_dataset(config, "test")  # also checks the flags of the data: a folder has no effect on drawn faces
    if config.data != "faces":
        return build_dataset(config, "train"), held_out
    names = config.selected_attributes or ATTRIBUTES
    length = config.train_size or config.steps * config.train_batch_size
    return (
        ProceduralFaces(length, image_size=config.image_size, selected_attributes=names, first_index=config.first_index),
        ProceduralFaces(config.test_size, image_size=config.image_size, selected_attributes=names, first_index=FACE_RANGES["test"]),
    )


def augment(images: Tensor) -> tuple[Tensor, Tensor]:
    """Random mirroring and shift, blur of half of the images, and noise on half, so that a generator's artefacts don't change the predictions.

    Returns the images and the amounts of blur and noise of each, (B, 2) in [0, 1].
    """
    b, device = len(images), images.device
    images = torch.where(torch.rand(b, 1, 1, 1, device=device) < 0.5, images.flip(-1), images)
    padded = F.pad(images, (MAX_SHIFT,) * 4, mode="reflect")
    y, x = torch.randint(2 * MAX_SHIFT + 1, (2,)).tolist()  # one shift per batch suffices, since there are many batches
    images = padded[..., y : y + images.shape[-2], x : x + images.shape[-1]]
    amount = torch.rand(b, 2, device=device) * (torch.rand(b, 2, device=device) < 0.5)
    images = gaussian_blur(images, MAX_BLUR * amount[:, 0])
    noise = torch.randn_like(images) * (MAX_NOISE * amount[:, 1]).view(-1, 1, 1, 1)
    return (images + noise).clamp(-1, 1), amount


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image with its own standard deviation (B,), pixels; 0 leaves it as it is."""
    b, c, h, w = images.shape
    offsets = torch.arange(-4, 5, device=images.device)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3).unsqueeze(1)) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(c, dim=0)  # (B*C, 9)
    planes = F.pad(images, (4,) * 4, mode="reflect").reshape(1, b * c, h + 8, w + 8)
    planes = F.conv2d(planes, kernel.view(b * c, 1, 9, 1), groups=b * c)
    return F.conv2d(planes, kernel.view(b * c, 1, 1, 9), groups=b * c).view(b, c, h, w)


def checkerboard(images: Tensor) -> tuple[Tensor, Tensor]:
    """Add a faint checkerboard of single pixels to half of the images. Returns the images and its amount (B, 1) in [0, 1]."""
    b, _, h, w = images.shape
    amount = torch.rand(b, 1, device=images.device) * (torch.rand(b, 1, device=images.device) < 0.5)
    sign = torch.where(torch.rand(b, 1, device=images.device) < 0.5, 1.0, -1.0)
    board = 1.0 - 2 * ((torch.arange(h).unsqueeze(1) + torch.arange(w)) % 2).to(images)
    return (images + (MAX_BOARD * amount * sign).view(-1, 1, 1, 1) * board).clamp(-1, 1), amount


def nuisance_loss(predicted: Tensor, images: Tensor, flaws: Tensor, *, progress: float) -> Tensor:
    """Auxiliary loss of the features, which also predict the amounts of blur, noise and checkerboard (B, 3) and the colours of a thumbnail (B, 48).

    The weight of the first three grows with the square of `progress`. With the full weight from the start, the network didn't learn the attribute Smiling;
    with a constant weight of 1, the distance separated a generator's progress over 1000 steps from noise only a third as clearly.
    """
    thumbnail = F.adaptive_avg_pool2d(images, THUMBNAIL).flatten(1)
    return FLAW_WEIGHT * progress**2 * F.mse_loss(predicted[:, :3], flaws) + F.mse_loss(predicted[:, 3:], thumbnail)


@torch.no_grad()
def accuracy(net: AttributeNet, dataset: Dataset, device: torch.device, *, degrade: bool) -> list[float]:
    """Accuracy per attribute."""
    torch.manual_seed(0)
    right: list[Tensor] = []
    for images, labels in batches(dataset, device):
        images = augment(images)[0] if degrade else images
        right.append((net(images) > 0) == (labels > 0.5))
    return torch.cat(right).double().mean(dim=0).tolist()


def batches(dataset: Dataset, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of images and labels on `device`, in order."""
    for images, labels in DataLoader(dataset, batch_size=64):
        yield images.to(device), labels.to(device)


if __name__ == "__main__":
    run_recipe(main, Config, __doc__)

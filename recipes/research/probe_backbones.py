"""Which backbone for which images? How well a linear probe on each one's features tells a generator's images from real ones, as vision-aided GANs choose theirs.

    python recipes/research/probe_backbones.py                                                                         # drawn faces, the included StarGAN
    python recipes/research/probe_backbones.py --backbones tf_efficientnet_lite0 tf_efficientnet_lite0=random --depths 2 4

The generator edits training images. A logistic regression on the means of the feature maps tells these from other real training images; each fifth is scored by a probe that was
fitted to the other four (Kumari et al., arXiv:2112.09130, where the network with the most accurate probe is the teacher). Results are appended to ``probe.jsonl``, one line per
backbone and number of depths. Whether they predict the gain of a fine-tuning is measured in docs/results/real-faces.md.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.utils.data import Dataset

from malp_disc.backbones import DEFAULT_BACKBONE, Backbone, create_backbone
from malp_disc.data import DataOptions, build_dataset
from malp_disc.degradations import to_8bit
from malp_disc.evaluation.eval_set import EvalSet, edit, load_all
from malp_disc.generator_source import GeneratorOptions, load_generator
from malp_disc.target_kind import exclusive_names
from malp_disc.training.launch import run_recipe

_FOLDS = 5


@dataclass(kw_only=True)
class Config(GeneratorOptions, DataOptions):
    output_dir: Path = Path("runs/probe-backbones")
    """Folder of probe.jsonl, created if absent."""
    backbones: tuple[str, ...] = (DEFAULT_BACKBONE, f"{DEFAULT_BACKBONE}=random")
    """Names of backbones, as --backbone of a fine-tuning takes them; NAME=WEIGHTS for other weights, a file or "random"."""
    depths: tuple[int, ...] = (2, 4)
    """Numbers of feature maps to try, the finest first."""
    backbone_side: int = 128
    """Smaller images are enlarged to this side."""
    size: int = 500
    """Number of images of each kind, 10 or more."""
    reference_root: Path | None = None
    """Folder of images of the target domain, if it isn't the one of the inputs."""

    def __post_init__(self) -> None:
        if self.size < 2 * _FOLDS:
            raise ValueError(f"expected --size of at least {2 * _FOLDS}, got {self.size}")


@torch.no_grad()
def main(config: Config) -> None:
    dataset = build_dataset(config, "train")
    domain = dataset if config.reference_root is None else build_dataset(dataclasses.replace(config, data_root=config.reference_root), "train")
    check_enough(dataset, domain, config)
    generator = load_generator(config, attributes=len(dataset.attribute_names)).eval().requires_grad_(False)
    if config.reference_root is None:
        images, _ = load_all(dataset, 2 * config.size, "images")
        real = images[config.size :]
    else:
        real, _ = load_all(domain, config.size, "images of the target domain")
    inputs = EvalSet.take(dataset, config.size, exclusive=exclusive_names(generator, dataset))
    kinds = [to_8bit(images.clamp(-1, 1)) for images in (real, edit(generator.manipulate, inputs.images, inputs.targets, current=inputs.labels))]
    config.output_dir.mkdir(parents=True, exist_ok=True)
    with open(config.output_dir / "probe.jsonl", "a", encoding="utf-8") as file:
        for name in config.backbones:
            for depths in config.depths:
                architecture, _, weights = name.partition("=")
                backbone = create_backbone(architecture, weights or None, depths=depths)
                features = [means(backbone, images, config.backbone_side) for images in kinds]
                line = {"data": dataset.description, "backbone": name, "depths": depths, "n": [len(rows) for rows in features], **probe(*features)}
                print(json.dumps(line), file=file, flush=True)
                print(f"{name}, {depths} depths: accuracy {line['accuracy']:.3f}, AUC {line['auc']:.3f}, cross-entropy {line['cross_entropy']:.3f}", flush=True)


def check_enough(dataset: Dataset, domain: Dataset, config: Config) -> None:
    """Raise ValueError for fewer images of a kind than --size: a probe that always says the more frequent kind would be right for most images."""
    if domain is dataset and len(dataset) < 2 * config.size:
        raise ValueError(f"--size {config.size} takes {2 * config.size} training images, {config.size} to edit and {config.size} others, got {len(dataset)}")
    for images in (dataset, domain):
        if len(images) < config.size:
            raise ValueError(f"--size {config.size} takes {config.size} training images, got {len(images)} in {images.description}")


def means(backbone: Backbone, images: Tensor, side: int) -> np.ndarray:
    """The mean of every channel of every feature map, (N, D)."""
    return torch.cat([torch.cat([found.mean((2, 3)) for found in backbone(rows, least_side=side)], 1) for rows in images.split(32)]).double().numpy()


def probe(real: np.ndarray, edited: np.ndarray) -> dict[str, float]:
    """Accuracy, AUC and cross-entropy (nats) of probes on images that they weren't fitted to."""
    features, labels = np.concatenate([real, edited]), np.repeat([0, 1], [len(real), len(edited)])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    found = cross_val_predict(model, features, labels, cv=StratifiedKFold(_FOLDS, shuffle=True, random_state=0), method="predict_proba")[:, 1]
    return {"accuracy": float(accuracy_score(labels, found > 0.5)), "auc": float(roc_auc_score(labels, found)), "cross_entropy": float(log_loss(labels, found))}


if __name__ == "__main__":
    run_recipe(main, Config, __doc__)

"""Creates feature extractors by name, for Fréchet and kernel distances."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from malp_disc.levels import as_images, quantize
from malp_disc.metrics.attribute_net import INPUT_SIZE, AttributeNet, shipped_weights
from malp_disc.metrics.extractor import INCEPTION_DIMS as DIMS
from malp_disc.metrics.extractor import FeatureExtractor, extract_features, gather_features
from malp_disc.serialization.files import file_sha256
from malp_disc.serialization.state_dicts import values_fingerprint

__all__ = ["EXTRACTORS", "FacesExtractor", "FeatureExtractor", "as_images", "create_extractor", "extract_features", "gather_features", "quantize"]

EXTRACTORS = ("faces", "clean", *(f"clean-{dims}" for dims in DIMS), *(f"inception-{dims}" for dims in DIMS), "squeezenet", "squeezenet-128")


class FacesExtractor(FeatureExtractor):
    """Whitened features of an `AttributeNet`, trained on the drawn faces: fast and part of the package. Distances aren't called FID."""

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        path = shipped_weights("faces_features") if weights is None else Path(weights)
        self.net = AttributeNet.load(path)
        self.dims = self.net.dims
        self.label = "FD-faces" if weights is None else f"FD-{path.stem}"
        self.name = f"AttributeNet {path.stem} ({self.dims} features), weights sha256 {file_sha256(path)[:8]}"
        self.resize = f"antialiased bilinear to {INPUT_SIZE}, in float"
        self.backbone, self.fingerprint = "attribute_net", values_fingerprint(self.net.state_dict().values())

    def _features(self, levels: Tensor) -> Tensor:
        return self.net.features(as_images(levels))


def create_extractor(
    name: str, *, weights: str | Path | None = None, device: torch.device | str | None = None, instead: str = "or take an included extractor: --extractor squeezenet"
) -> FeatureExtractor:
    """Create a feature extractor by name, in evaluation mode.

    Args:
        name: "faces" (part of the package); "inception-64", "-192", "-768", "-2048" (pytorch-fid); "clean-64" … "clean-2048" (the same
            network with clean-fid's resize) and "clean" (2048 features from clean-fid's file); "squeezenet" (another backbone than Inception,
            trained on ImageNet, part of the package); "squeezenet-128" (the same on images resized to 128 pixels instead of 227: four times as fast).
        weights: path of the weights; None for the packaged, cached or downloaded ones, in this order.
        device: device of the extractor.
        instead: what else to do if the weights can't be downloaded, for the message; empty if nothing.

    Raises:
        ValueError: unknown name, or weights of another network.
        FileNotFoundError: the weights are missing and can't be downloaded.
    """
    if name not in EXTRACTORS:
        raise ValueError(f"no feature extractor {name!r}; choose from {', '.join(EXTRACTORS)}")
    family, _, dims = name.partition("-")
    if family == "faces":
        extractor: FeatureExtractor = FacesExtractor(weights)
    elif family == "squeezenet":
        from malp_disc.metrics.squeezenet import SqueezeNetExtractor  # imported late, as below: torchvision takes as long as torch

        extractor = SqueezeNetExtractor(weights, **({"side": int(dims)} if dims else {}))
    else:
        from malp_disc.metrics.inception import CleanExtractor, InceptionExtractor

        try:
            extractor = CleanExtractor(int(dims) if dims else None, weights) if family == "clean" else InceptionExtractor(int(dims), weights)
        except FileNotFoundError as error:
            if weights is not None or not instead:
                raise
            raise FileNotFoundError(f"{error}; {instead}") from error
    return extractor.to(device).eval()

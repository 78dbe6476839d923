"""SPADE, the network of GauGAN: semantic image synthesis with spatially-adaptive normalization (Park et al., CVPR 2019).

Official code: https://github.com/NVlabs/SPADE (CC BY-NC-SA 4.0: no commercial use of code or weights), which links the checkpoints
(``latest_net_G.pth`` for Cityscapes, ADE20K and COCO-Stuff). Written from the paper and the published key list, with the authors' state-dict keys.

Note:
    The network generates an image from a label map only. Its style encoder was not released, so the image passed to `manipulate` has no
    influence on the result except for its size.
    The authors' networks generate images of one size, ``crop_size``. All layers after the initial resizing are convolutions, so `manipulate`
    generates at the size of the images.
    Synchronized batch norm is implemented as batch norm: same keys, and same outputs in evaluation mode.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.images import check_input
from generators.label_maps import UNKNOWN, check_label_map, edges, one_hot
from generators.loading import agree
from generators.spade_layers import SPADEBlock, restore_spectral_norms, rgb_output, upsample
from malp_disc.serialization.state_dicts import load_state, load_tensors

DATA_SETS: dict[str, dict[str, Any]] = {
    "cityscapes": {
        "label_nc": 35,
        "contain_dontcare_label": False,
        "no_instance": False,
        "num_upsampling_layers": "more",
        "crop_size": 512,
        "aspect_ratio": 2.0,
    },
    "ade20k": {"label_nc": 150, "contain_dontcare_label": True, "no_instance": True},
    "coco": {"label_nc": 182, "contain_dontcare_label": True, "no_instance": False},
}
"""Arguments of the published networks that differ from the defaults of `SPADEGenerator`."""

CHANNELS = {name: of["label_nc"] + of["contain_dontcare_label"] + (not of["no_instance"]) for name, of in DATA_SETS.items()}
"""Input channels of the published networks, by which a checkpoint's data set is inferred."""

UPSAMPLINGS = {"normal": 5, "more": 6, "most": 7}
"""Number of upsamplings by 2, by the authors' option `num_upsampling_layers`."""


class SPADEGenerator(nn.Module):
    """Synthesizes an image from a label map: (B, semantic_nc, H, W) -> (B, 3, H, W) in [-1, 1].

    Args:
        label_nc: number of labels.
        contain_dontcare_label: whether there is an additional label for unlabelled pixels.
        no_instance: False if instance boundaries are an input channel.
        ngf: channels of the last layer; the first has 16 times as many.
        norm_G: the authors' option string: "spectral" or nothing, "spade", then "syncbatch", "batch" or "instance", then the kernel size, "3x3".
        num_upsampling_layers: "normal", "more" or "most": 5, 6 or 7 upsamplings by 2.
        crop_size, aspect_ratio: width, and width / height, of the image that `forward` generates by default.
    """

    def __init__(
        self,
        *,
        label_nc: int = 182,
        contain_dontcare_label: bool = True,
        no_instance: bool = False,
        ngf: int = 64,
        norm_G: str = "spectralspadesyncbatch3x3",
        num_upsampling_layers: str = "normal",
        crop_size: int = 256,
        aspect_ratio: float = 1.0,
    ) -> None:
        super().__init__()
        kind = re.fullmatch(r"(spectral)?spade(?:sync)?(batch|instance)([1357])x\3", norm_G)
        if kind is None:
            raise ValueError(f"expected a norm_G like 'spectralspadesyncbatch3x3', got {norm_G!r}")
        if num_upsampling_layers not in UPSAMPLINGS:
            raise ValueError(f"unknown num_upsampling_layers {num_upsampling_layers!r}; choose from {list(UPSAMPLINGS)}")
        self.config = {
            "label_nc": label_nc,
            "contain_dontcare_label": contain_dontcare_label,
            "no_instance": no_instance,
            "ngf": ngf,
            "norm_G": norm_G,
            "num_upsampling_layers": num_upsampling_layers,
            "crop_size": crop_size,
            "aspect_ratio": aspect_ratio,
        }
        self.label_nc, self.has_unknown, self.has_edges = label_nc, contain_dontcare_label, not no_instance
        self.semantic_nc = label_nc + self.has_unknown + self.has_edges
        self.factor = 2 ** UPSAMPLINGS[num_upsampling_layers]
        self.more, self.most = num_upsampling_layers != "normal", num_upsampling_layers == "most"
        first_width = crop_size // self.factor
        self.first_size = (round(first_width / aspect_ratio), first_width)

        def block(inputs: int, outputs: int) -> SPADEBlock:
            return SPADEBlock(inputs, outputs, self.semantic_nc, spectral=bool(kind[1]), norm=kind[2], kernel=int(kind[3]))

        self.fc = nn.Conv2d(self.semantic_nc, 16 * ngf, 3, padding=1)
        self.head_0 = block(16 * ngf, 16 * ngf)
        self.G_middle_0 = block(16 * ngf, 16 * ngf)
        self.G_middle_1 = block(16 * ngf, 16 * ngf)
        self.up_0 = block(16 * ngf, 8 * ngf)
        self.up_1 = block(8 * ngf, 4 * ngf)
        self.up_2 = block(4 * ngf, 2 * ngf)
        self.up_3 = block(2 * ngf, ngf)
        if self.most:
            self.up_4 = block(ngf, ngf // 2)
        self.conv_img = nn.Conv2d(ngf // 2 if self.most else ngf, 3, 3, padding=1)

    def forward(self, semantics: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Generate an image of `size` (height, width), divisible by 2^upsamplings. None: the size given by ``crop_size``, whatever the size of the map."""
        first = self.first_size if size is None else (size[0] // self.factor, size[1] // self.factor)
        x = self.head_0(self.fc(F.interpolate(semantics, first)), semantics)
        x = self.G_middle_0(upsample(x), semantics)
        x = self.G_middle_1(upsample(x) if self.more else x, semantics)
        for block in (self.up_0, self.up_1, self.up_2, self.up_3, *([self.up_4] if self.most else [])):
            x = block(upsample(x), semantics)
        return rgb_output(self.conv_img, x)

    def semantics(self, target: Tensor) -> Tensor:
        """The network's input, (B, semantic_nc, H, W), for labels (B, H, W) or (B, 1, H, W), or labels and instance ids (B, 2, H, W)."""
        labels = target if target.ndim == 3 else target[:, 0]
        if self.has_unknown:
            labels = torch.where(labels == UNKNOWN, self.label_nc, labels if labels.is_floating_point() else labels.long())
        map_ = one_hot(labels, self.label_nc + self.has_unknown)
        return torch.cat([map_, edges(target[:, -1:] if target.ndim == 4 else target[:, None])], dim=1) if self.has_edges else map_

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: the image synthesized from `target`, in [-1, 1]. See the module's note: the input image isn't used.

        Args:
            images: (B, 3, H, W), sides divisible by 2^upsamplings (32, Cityscapes 64); only batch size and resolution are used.
            target: the label of every pixel, integers (B, H, W) or (B, 1, H, W): 0 … label_nc - 1, and, with `contain_dontcare_label`, 255 (or
                label_nc) for unlabelled pixels. Subtract 1 from ADE20K's label images first (in uint8, so that 0 becomes 255).
                If instance boundaries are an input, (B, 2, H, W) adds instance ids as a second map; without them the boundaries between
                labels are used. None is refused.

        Raises:
            ValueError: other shapes or labels, or no target.
        """
        check_input(images, "SPADE", divisor=self.factor)
        check_label_map(images, target, "SPADE paints a label map and can't read one from an image", 2 if self.has_edges else 1)
        return self(self.semantics(target).to(images.dtype), tuple(images.shape[2:]))


def spade(checkpoint: str | Path | None = None, *, data_set: str | None = None, **config: Any) -> SPADEGenerator:
    """Build a SPADE generator; with a checkpoint, the architecture is inferred from its tensors, and arguments given explicitly must agree with it.

    Args:
        checkpoint: the authors' ``latest_net_G.pth``.
        data_set: "cityscapes", "ade20k" or "coco": use the arguments of that published network. By default it is inferred from the checkpoint's
            number of input channels. For other networks pass label_nc, contain_dontcare_label, no_instance, and num_upsampling_layers
            unless it is "normal".
        config: arguments of `SPADEGenerator`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if data_set not in (None, *DATA_SETS):
        raise ValueError(f"unknown data_set {data_set!r}; choose from {list(DATA_SETS)}")
    if checkpoint is None:
        return SPADEGenerator(**{**DATA_SETS.get(data_set, {}), **config})
    tensors = restore_spectral_norms(load_tensors(checkpoint, forms=(("fc.weight", "conv_img.weight", "head_0.norm_0.mlp_shared.0.weight"),), entries=("state_dict", "G")))
    found = read_trunk(tensors, checkpoint, "head_0.norm_0.mlp_shared.0.weight", SPADEGenerator)
    spectral = "spectral" if "head_0.conv_0.weight_orig" in tensors else ""
    norm = "syncbatch" if "head_0.norm_0.param_free_norm.running_mean" in tensors else "instance"
    side = tensors["head_0.norm_0.mlp_shared.0.weight"].shape[-1]
    found["norm_G"] = f"{spectral}spade{norm}{side}x{side}"
    channels = found.pop("channels")
    if "up_4.conv_0.bias" in tensors:
        found |= {"num_upsampling_layers": "most", "ngf": 2 * found["ngf"]}
    if data_set or "label_nc" not in config:
        names = [name for name in DATA_SETS if CHANNELS[name] == channels and data_set in (None, name)]
        if not names:
            raise ValueError(
                f"{checkpoint} has {channels} input channels, which {data_set or 'none of the published networks'} has not: "
                "say label_nc, contain_dontcare_label and no_instance"
            )
        config = {**DATA_SETS[names[0]], **config}
    if norm == "syncbatch" and "norm_G" in config:
        found["norm_G"] = found["norm_G"].replace("syncbatch", "syncbatch" if "syncbatch" in config["norm_G"] else "batch")
    network = SPADEGenerator(**agree(found, config, checkpoint))
    agree({"channels": channels}, {"channels": network.semantic_nc}, checkpoint)
    load_state(network, tensors, source=str(checkpoint), optional=("num_batches_tracked",))
    return network


def read_trunk(tensors: Mapping[str, Tensor], source: str | Path, key: str, cls: type[nn.Module]) -> dict[str, int]:
    """Number of input channels, and `ngf`, of a state dict of SPADE or SEAN.

    Raises:
        ValueError: it is neither, or has no tensor `key`.
    """
    first, last = tensors.get("fc.weight"), tensors.get("conv_img.weight")
    if first is None or first.ndim != 4 or last is None or last.ndim != 4 or key not in tensors:
        raise ValueError(f"{source} is not a checkpoint of {cls.__name__}: expected fc.weight, {key}, …, found {list(tensors)[:3]}")
    return {"channels": first.shape[1], "ngf": last.shape[1]}

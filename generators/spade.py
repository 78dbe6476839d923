"""GauGAN: semantic image synthesis with spatially-adaptive normalization (SPADE; Park et al., CVPR 2019).

Official code: https://github.com/NVlabs/SPADE (CC BY-NC-SA 4.0: neither the code nor the published weights may be used commercially). Written
from the paper and the published key list; the state-dict keys are the authors', so ``latest_net_G.pth`` loads as it is.

Note:
    The network paints a label map and never sees an image: without its style encoder, which the authors didn't release, the image that is
    manipulated has no part in the result but its size.
    The authors' networks paint one size, that of ``crop_size``. All their layers but the first resizing are convolutions, so `manipulate` paints
    at the size of the images.
    Sync batch norm is batch norm here: the same keys, and in evaluation the same numbers.
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
from generators.loading import agree
from malp_disc.serialization.state_dicts import load_state, load_tensors

UNKNOWN = 255
"""How label images mark pixels without a label."""

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
"""What was published; the rest is as `SPADEGenerator` has it by default."""

CHANNELS = {name: of["label_nc"] + of["contain_dontcare_label"] + (not of["no_instance"]) for name, of in DATA_SETS.items()}

HIDDEN = 128
UPSAMPLINGS = {"normal": 5, "more": 6, "most": 7}


class SPADE(nn.Module):
    """Batch norm whose scale and shift are drawn from a label map, pixel by pixel: norm(x) (1 + γ(map)) + β(map).

    Shape: x (B, C, h, w), label map (B, labels, H, W) -> (B, C, h, w).
    """

    def __init__(self, channels: int, labels: int, *, norm: str = "batch", kernel: int = 3) -> None:
        super().__init__()
        make = nn.InstanceNorm2d if norm == "instance" else nn.BatchNorm2d
        self.param_free_norm = make(channels, affine=False)
        self.mlp_shared = nn.Sequential(nn.Conv2d(labels, HIDDEN, kernel, padding=kernel // 2), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(HIDDEN, channels, kernel, padding=kernel // 2)
        self.mlp_beta = nn.Conv2d(HIDDEN, channels, kernel, padding=kernel // 2)

    def modulation(self, semantics: Tensor) -> tuple[Tensor, Tensor]:
        """γ and β of a label map of the features' size."""
        hidden = self.mlp_shared(semantics)
        return self.mlp_gamma(hidden), self.mlp_beta(hidden)

    def forward(self, x: Tensor, semantics: Tensor) -> Tensor:
        gamma, beta = self.modulation(F.interpolate(semantics, x.shape[2:]))
        return self.param_free_norm(x) * (1 + gamma) + beta


class SPADEBlock(nn.Module):
    """Residual block with SPADE before each convolution; a learned shortcut where the width changes."""

    def __init__(self, inputs: int, outputs: int, labels: int, *, spectral: bool, norm: str, kernel: int) -> None:
        super().__init__()
        self.conv_0, self.conv_1, self.conv_s = block_convolutions(inputs, outputs, spectral=spectral)
        self.norm_0 = SPADE(inputs, labels, norm=norm, kernel=kernel)
        self.norm_1 = SPADE(min(inputs, outputs), labels, norm=norm, kernel=kernel)
        self.norm_s = None if self.conv_s is None else SPADE(inputs, labels, norm=norm, kernel=kernel)

    def forward(self, x: Tensor, semantics: Tensor) -> Tensor:
        shortcut = x if self.conv_s is None else self.conv_s(self.norm_s(x, semantics))
        x = self.conv_0(F.leaky_relu(self.norm_0(x, semantics), 0.2))
        return shortcut + self.conv_1(F.leaky_relu(self.norm_1(x, semantics), 0.2))


def block_convolutions(inputs: int, outputs: int, *, spectral: bool = True) -> tuple[nn.Module, nn.Module, nn.Module | None]:
    """The two convolutions of a residual block and that of its shortcut, None where the width stays."""
    middle, wrap = min(inputs, outputs), spectral_norm if spectral else lambda conv: conv
    shortcut = None if inputs == outputs else wrap(nn.Conv2d(inputs, outputs, 1, bias=False))
    return wrap(nn.Conv2d(inputs, middle, 3, padding=1)), wrap(nn.Conv2d(middle, outputs, 3, padding=1)), shortcut


def spectral_norm(conv: nn.Conv2d, iterations: int = 5) -> nn.Module:
    """The weight over its largest singular value, in torch's older key layout: ``weight_orig``, ``weight_u``, ``weight_v``.

    torch starts with random vectors u and v, which mean nothing until some training steps have been made. Here they have been iterated.
    """
    conv = torch.nn.utils.spectral_norm(conv)
    with torch.no_grad():
        matrix = conv.weight_orig.flatten(1)
        for _ in range(iterations):
            conv.weight_v.copy_(F.normalize(matrix.T @ conv.weight_u, dim=0))
            conv.weight_u.copy_(F.normalize(matrix @ conv.weight_v, dim=0))
    conv.register_forward_hook(_forget_graph)
    return conv


def _forget_graph(conv: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """A module that holds on to a tensor of the last step's graph can't be copied."""
    conv.weight = conv.weight.detach()


def with_right_vectors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torch 1.0 kept the normed weight of a spectral norm, ``weight``, in place of the vector v: here is a v that norms it the same."""
    renewed = dict(tensors)
    for key in [key for key in tensors if key.endswith(".weight_orig")]:
        normed, right, left = (key.removesuffix("weight_orig") + name for name in ("weight", "weight_v", "weight_u"))
        if normed in renewed and left in renewed and right not in renewed:
            matrix, divided = renewed[key].double().flatten(1), renewed.pop(normed).double().flatten(1)
            direction = matrix.T @ renewed[left].double()
            sigma = (matrix * divided).sum() / divided.square().sum()
            renewed[right] = (direction * sigma / direction.square().sum()).float()  # u · W v = sigma
    return renewed


class SPADEGenerator(nn.Module):
    """Paints a label map: (B, semantic_nc, H, W) -> (B, 3, H, W) in [-1, 1].

    Args:
        label_nc: number of labels.
        contain_dontcare_label: there is one more, for pixels of which nothing is known.
        no_instance: False if borders between instances are a channel of the map.
        ngf: channels of the last layer, 16 times as many in the first.
        norm_G: the authors' name of the layers: "spectral" or nothing, "spade", "syncbatch", "batch" or "instance", "3x3".
        num_upsampling_layers: "normal", "more" or "most", 5, 6 or 7 doublings.
        crop_size, aspect_ratio: width, and width over height, of what `forward` paints.
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
        """Paints at `size`, a multiple of 2^doublings; without it at that of ``crop_size``, whatever the map's."""
        first = self.first_size if size is None else (size[0] // self.factor, size[1] // self.factor)
        x = self.head_0(self.fc(F.interpolate(semantics, first)), semantics)
        x = self.G_middle_0(doubled(x), semantics)
        x = self.G_middle_1(doubled(x) if self.more else x, semantics)
        for block in (self.up_0, self.up_1, self.up_2, self.up_3, *([self.up_4] if self.most else [])):
            x = block(doubled(x), semantics)
        return last_layer(self.conv_img, x)

    def semantics(self, target: Tensor) -> Tensor:
        """The map that the network takes of labels, (B, H, W) or (B, 1, H, W), or labels and instances, (B, 2, H, W)."""
        labels = target if target.ndim == 3 else target[:, 0]
        if self.has_unknown:
            labels = torch.where(labels == UNKNOWN, self.label_nc, labels if labels.is_floating_point() else labels.long())
        map_ = one_hot(labels, self.label_nc + self.has_unknown)
        return torch.cat([map_, edges(target[:, -1:] if target.ndim == 4 else target[:, None])], dim=1) if self.has_edges else map_

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """The library's common entry, [-1, 1] out. Only the target decides, see the note of this file.

        Args:
            images: (B, 3, H, W), sides divisible by 2^doublings: 32, for Cityscapes 64; only their number and size count.
            target: a label per pixel, whole numbers (B, H, W) or (B, 1, H, W): 0 … label_nc - 1, and where the network knows it 255 (or label_nc)
                for "unknown". ADE20K's label images are to be lessened by 1 first (in uint8, so that their 0 becomes 255).
                Where the network has a channel of instance borders, (B, 2, H, W) gives numbers of instances as the second map; without them
                the borders between labels are taken. There is no default.

        Raises:
            ValueError: other shapes or labels, or no target.
        """
        check_input(images, "SPADE", divisor=self.factor)
        check_label_map(images, target, "SPADE paints a label map and can't read one from an image", 2 if self.has_edges else 1)
        return self(self.semantics(target).to(images.dtype), tuple(images.shape[2:]))


def doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2)


def last_layer(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Features to colours, in float32 under autocast as well: in bf16 they would fall on a coarse grid that a detector learns to see."""
    with torch.autocast(x.device.type, enabled=False):
        return torch.tanh(conv(F.leaky_relu(x.to(conv.weight.dtype), 0.2)))


def one_hot(labels: Tensor, count: int) -> Tensor:
    """A map of ones and zeros per label: (B, H, W) -> (B, count, H, W) float32.

    Raises:
        ValueError: a label that isn't a whole number in 0 … count - 1.
    """
    whole = labels.long()
    if (whole != labels).any() or whole.min() < 0 or whole.max() >= count:
        raise ValueError(
            f"expected labels that are whole numbers in 0 … {count - 1}, got {labels.min().item():g} … {labels.max().item():g}"
        )
    map_ = torch.zeros(len(whole), count, *whole.shape[1:], device=whole.device)
    return map_.scatter_(1, whole[:, None], 1.0)


def edges(instances: Tensor) -> Tensor:
    """1 where a pixel's instance isn't that of the pixel beside, above or below it, both sides of a border: (B, 1, H, W) -> float32."""
    marked = torch.zeros_like(instances, dtype=torch.bool)
    across, down = instances[..., 1:] != instances[..., :-1], instances[..., 1:, :] != instances[..., :-1, :]
    for part, border in (
        (marked[..., 1:], across),
        (marked[..., :-1], across),
        (marked[..., 1:, :], down),
        (marked[..., :-1, :], down),
    ):
        part |= border
    return marked.float()


def check_label_map(images: Tensor, target: Tensor | None, why: str, maps: int) -> None:
    """Raises: ValueError: no target, or not one of 1 … `maps` maps of the images' size."""
    count, _, height, width = images.shape
    shapes = [(count, height, width)] + [(count, i + 1, height, width) for i in range(maps)]
    expected = " or ".join(map(str, shapes))
    if target is None:
        raise ValueError(f"{why}: give the labels of all pixels as the target, {expected}")
    if tuple(target.shape) not in shapes:
        raise ValueError(f"expected as the target a label map of the images' size, {expected}, got {tuple(target.shape)}")


def spade(checkpoint: str | Path | None = None, *, data_set: str | None = None, **config: Any) -> SPADEGenerator:
    """A SPADE generator; with a checkpoint its widths are read from it, and any that are given must agree.

    Args:
        checkpoint: the authors' ``latest_net_G.pth``.
        data_set: "cityscapes", "ade20k" or "coco", for the arguments of the published network; a file with as many input channels as one of
            these is taken for it. For others say label_nc, contain_dontcare_label, no_instance, and num_upsampling_layers unless "normal".
        config: of `SPADEGenerator`.

    Raises:
        FileNotFoundError, ValueError: no such file, an unsafe file, a checkpoint of another network, or of another `config`.
    """
    if data_set not in (None, *DATA_SETS):
        raise ValueError(f"unknown data_set {data_set!r}; choose from {list(DATA_SETS)}")
    if checkpoint is None:
        return SPADEGenerator(**{**DATA_SETS.get(data_set, {}), **config})
    tensors = with_right_vectors(load_tensors(checkpoint, forms=(("fc.weight", "conv_img.weight", "head_0.norm_0.mlp_shared.0.weight"),), entries=("state_dict", "G")))
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
    """Number of input channels, and width of the last layer, of a state dict of SPADE or SEAN.

    Raises:
        ValueError: it is neither, or hasn't the `key`.
    """
    first, last = tensors.get("fc.weight"), tensors.get("conv_img.weight")
    if first is None or first.ndim != 4 or last is None or last.ndim != 4 or key not in tensors:
        raise ValueError(f"{source} is not a checkpoint of {cls.__name__}: expected fc.weight, {key}, …, found {list(tensors)[:3]}")
    return {"channels": first.shape[1], "ngf": last.shape[1]}

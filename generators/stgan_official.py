"""STGAN in its authors' implementation (Liu et al., CVPR 2019), the generator that MaLP was trained on.

Official code: https://github.com/csmliu/STGAN (MIT), TensorFlow 1. Written from the paper and the published list of variables. The state-dict keys
are the variables' names in PyTorch's convention: ``Genc/Conv_1/BatchNorm/gamma`` is ``Genc.Conv_1.BatchNorm.weight``; kernels are transposed to
(out, in, h, w), those of transposed convolutions to (in, out, h, w). The authors' TensorFlow checkpoints (Google Drive) load directly.

Note:
    It differs from the PyTorch port (`generators.stgan`) in more than its keys: the gates have a bias and no norm, the attributes are concatenated with
    every state and every decoder input, batch norm has eps 1e-3, the last layer has a bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generators.attributes import check_condition, difference, tell
from generators.images import check_input, in_float32
from generators.loading import agree
from generators.tensorflow_files import is_tensorflow
from generators.tensorflow_names import load_tensorflow
from malp_disc.serialization.state_dicts import load_state, load_tensors

MOST_CHANNELS = 1024
_FORMS = (("encoder.0.0.weight", "decoder.0.0.weight"), ("Genc.Conv.weight", "Gdec.Conv2d_transpose.weight"))  # the port, the authors


class BatchNorm(nn.BatchNorm2d):
    """TF-slim's batch norm: eps 1e-3, momentum 0.001, no counter of batches."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-3, momentum=1e-3)
        self.num_batches_tracked = None

    def _load_from_state_dict(self, *arguments: Any) -> None:
        nn.Module._load_from_state_dict(self, *arguments)  # torch's own would require the counter


class Layer(nn.Module):
    """A convolution of a TensorFlow scope: `weight`, then a `bias` or a `BatchNorm`. Here SAME padding is always symmetric.

    Args:
        factor: 0.5 downsamples (4×4, stride 2), 2 upsamples (4×4, transposed, stride 2), 1 keeps the size (`kernel_size`, odd).
        transposed: for factor 1, whether the kernel is stored as that of a transposed convolution.
    """

    def __init__(
        self, channels_in: int, channels_out: int, factor: float, *, norm: bool, kernel_size: int = 4, transposed: bool = False
    ) -> None:
        super().__init__()
        self.factor, self.padding = factor, 1 if factor != 1 else kernel_size // 2
        self.transposed = transposed or factor == 2
        pair = (channels_in, channels_out) if self.transposed else (channels_out, channels_in)
        self.weight = nn.Parameter(torch.empty(*pair, kernel_size, kernel_size))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.bias = None if norm else nn.Parameter(torch.zeros(channels_out))
        self.BatchNorm = BatchNorm(channels_out) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        convolve = nn.functional.conv_transpose2d if self.transposed else nn.functional.conv2d
        x = convolve(x, self.weight, self.bias, stride=1 if self.factor == 1 else 2, padding=self.padding)
        return x if self.BatchNorm is None else self.BatchNorm(x)


class STGANOfficialGenerator(nn.Module):
    """G(x, a): `Genc`, the selective transfer units `Gstu`, `Gdec`, by the names of the authors' scopes and options.

    Args:
        n_att: number of attributes.
        enc_dim, stu_dim, dec_dim: channels of the first encoder layer, of the last unit, of the last decoder layer but one.
        enc_layers, dec_layers: downsampling and upsampling layers, of equal number.
        stu_layers: number of transfer units.
        stu_inject_layers: number of units whose state gets the attributes as well.
        stu_kernel_size: kernel size of the gates.
        shortcut_layers, inject_layers: number of decoder layers whose output is concatenated with transferred features, and with the attributes.
        one_more_conv: 0, or the kernel size of an additional layer at full resolution (not verified against the authors' code).

    Shape:
        images (B, 3, H, W) in [-1, 1] with H and W divisible by 2^enc_layers (32), difference (B, n_att) -> (B, 3, H, W) in [-1, 1].
    """

    target_kind = "change"

    def __init__(
        self,
        *,
        n_att: int = 13,
        enc_dim: int = 64,
        enc_layers: int = 5,
        stu_dim: int = 64,
        stu_layers: int = 4,
        stu_inject_layers: int = 4,
        stu_kernel_size: int = 3,
        dec_dim: int = 64,
        dec_layers: int = 5,
        shortcut_layers: int = 4,
        inject_layers: int = 4,
        one_more_conv: int = 0,
    ) -> None:
        super().__init__()
        if enc_layers != dec_layers:
            raise ValueError(
                f"expected as many decoder layers as encoder layers, got {dec_layers} and {enc_layers}: the image would change its size"
            )
        if stu_layers >= enc_layers:
            raise ValueError(f"expected fewer transfer units than encoder layers ({enc_layers}), got {stu_layers}")
        shortcut_layers, inject_layers = min(shortcut_layers, dec_layers - 1), min(inject_layers, dec_layers - 1)
        self.n_attrs, self.n_layers, self.stu_layers = n_att, enc_layers, stu_layers
        self.stu_inject_layers, self.shortcut_layers, self.inject_layers = stu_inject_layers, shortcut_layers, inject_layers
        self.config = {
            "n_att": n_att, "enc_dim": enc_dim, "enc_layers": enc_layers, "stu_dim": stu_dim, "stu_layers": stu_layers,
            "stu_inject_layers": stu_inject_layers, "stu_kernel_size": stu_kernel_size, "dec_dim": dec_dim, "dec_layers": dec_layers,
            "shortcut_layers": shortcut_layers, "inject_layers": inject_layers, "one_more_conv": one_more_conv,
        }  # fmt: skip
        widths = [min(enc_dim * 2**i, MOST_CHANNELS) for i in range(enc_layers)]
        self.Genc = _scope(Conv=[Layer(*pair, 0.5, norm=True) for pair in zip([3, *widths], widths)])

        ups, gates, channels, passed = [], [], widths[-1] + n_att, list(widths)
        for i in range(stu_layers):
            width, features = min(stu_dim * 2 ** (stu_layers - 1 - i), MOST_CHANNELS), widths[enc_layers - 2 - i]
            ups.append(Layer(channels, width, 2, norm=False))
            gates += [Layer(features + width, width, 1, norm=False, kernel_size=stu_kernel_size) for _ in range(3)]
            channels = width + (n_att if i < stu_inject_layers else 0)
            passed[enc_layers - 2 - i] = width
        self.Gstu = _scope(Conv2d_transpose=ups, Conv=gates)

        layers, channels = [], widths[-1] + n_att
        for i in range(dec_layers - 1):
            width = min(dec_dim * 2 ** (dec_layers - 1 - i), MOST_CHANNELS)
            layers.append(Layer(channels, width, 2, norm=True))
            channels = width + (passed[dec_layers - 2 - i] if i < shortcut_layers else 0) + (n_att if i < inject_layers else 0)
        if one_more_conv:
            layers += [
                Layer(channels, dec_dim // 4, 2, norm=True),
                Layer(dec_dim // 4, 3, 1, norm=False, kernel_size=one_more_conv, transposed=True),
            ]
        else:
            layers.append(Layer(channels, 3, 2, norm=False))
        self.Gdec = _scope(Conv2d_transpose=layers)

    def forward(self, images: Tensor, difference: Tensor) -> Tensor:
        check_input(images, "STGAN", divisor=2**self.n_layers)
        check_condition(difference, (len(images), self.n_attrs), "attribute")
        encoded = [images]
        for layer in self.Genc.children():
            encoded.append(nn.functional.leaky_relu(layer(encoded[-1]), 0.2))
        passed = self._transfer(encoded[1:], difference)
        x = tell(encoded[-1], difference)
        *layers, last = self.Gdec.children()
        for i, layer in enumerate(layers):
            x = layer(x).relu()
            if i < self.shortcut_layers:
                x = torch.cat([x, passed[-2 - i]], dim=1)
            if i < self.inject_layers:
                x = tell(x, difference)
        return in_float32(nn.Sequential(last, nn.Tanh()), x)

    def _transfer(self, encoded: list[Tensor], difference: Tensor) -> list[Tensor]:
        """The encoder's features, where those with a transfer unit are replaced by its output."""
        passed = list(encoded)
        state = tell(encoded[-1], difference)
        units = list(self.Gstu.children())
        ups, gates = units[: self.stu_layers], units[self.stu_layers :]
        for i, up in enumerate(ups):
            reset, update, information = gates[3 * i : 3 * i + 3]
            features, state = encoded[-2 - i], up(state)
            both = torch.cat([features, state], dim=1)
            update = update(both).sigmoid()
            kept = reset(both).sigmoid() * state
            new = information(torch.cat([features, kept], dim=1)).tanh()
            passed[-2 - i] = (1 - update) * state + update * new
            state = tell(kept, difference) if i < self.stu_inject_layers else kept
        return passed

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: images in [-1, 1] -> edited images in [-1, 1]. `target` as in `generators.stgan.STGANGenerator.manipulate`."""
        check_input(images, "STGAN", divisor=2**self.n_layers)
        return self(images, difference(target, images, self.n_attrs))


def load(path: str | Path) -> dict[str, Tensor]:
    """Tensors of an STGAN of either implementation: the generator's from a TensorFlow checkpoint (or a ``.npz`` of its variables), else those of `load_tensors`.

    Raises:
        FileNotFoundError, ValueError: no such file, an unsafe or damaged file, or one without STGAN's variables.
    """
    if not is_tensorflow(path):
        return load_tensors(path, forms=_FORMS, entries=("state_dict", "G"))
    everything = load_tensorflow(path)
    tensors = {key: value for key, value in everything.items() if key.startswith(("Genc.", "Gstu.", "Gdec."))}
    if not tensors:
        raise ValueError(
            f"{path} is not a checkpoint of STGANOfficialGenerator: expected Genc.Conv.weight, …, found {list(everything)[:3]}"
        )
    return tensors


def from_tensors(tensors: Mapping[str, Tensor], config: Mapping[str, Any], source: str | Path) -> STGANOfficialGenerator:
    """Build a generator with these tensors; its widths are inferred. Raises ValueError for another network's, or a contradicting `config`."""
    network = STGANOfficialGenerator(**agree(_read_generator(tensors, source), config, source))
    load_state(network, tensors, source=str(source))
    return network


def _read_generator(tensors: Mapping[str, Tensor], source: str | Path) -> dict[str, Any]:
    """Constructor arguments inferred from the tensors."""
    down, up = _layers(tensors, "Genc.Conv"), _layers(tensors, "Gdec.Conv2d_transpose")
    states, gates = _layers(tensors, "Gstu.Conv2d_transpose"), _layers(tensors, "Gstu.Conv")
    if len(down) < 2 or len(up) < 2:
        raise ValueError(f"{source} is not a checkpoint of STGANOfficialGenerator: expected Genc.Conv.weight, …, found {list(tensors)[:3]}")
    n_att, more = up[0].shape[0] - down[-1].shape[0], up[-1].shape[-1] if len(up) > len(down) else 0
    shortcuts = injections = 0
    for i in range(len(down) - 1):  # channels concatenated with a layer's output
        joined = up[i + 1].shape[0] - up[i].shape[1]
        feature = states[i].shape[1] if i < len(states) else down[-2 - i].shape[0]
        shortcuts += joined in (feature, feature + n_att) and joined > 0
        injections += joined in (n_att, feature + n_att) and joined > 0
    # Whether the last unit's state gets the attributes can't be inferred, since nothing uses it; assume the same as for the others.
    told = sum(following.shape[0] > state.shape[1] for state, following in zip(states, states[1:]))
    found = {
        "n_att": n_att,
        "enc_dim": down[0].shape[0],
        "enc_layers": len(down),
        "stu_layers": len(states),
        "stu_inject_layers": told + (told == len(states) - 1),
        "dec_dim": up[len(down) - 2].shape[1] // 2,
        "dec_layers": len(down),
        "shortcut_layers": shortcuts,
        "inject_layers": injections,
        "one_more_conv": more,
    }
    if states and gates:
        found |= {"stu_dim": states[-1].shape[1], "stu_kernel_size": gates[0].shape[-1]}
    return found


def _layers(tensors: Mapping[str, Tensor], scope: str) -> list[Tensor]:
    """The kernels of ``scope``, ``scope_1``, …, until one is missing."""
    found: list[Tensor] = []
    while (kernel := tensors.get(f"{_name(scope, len(found))}.weight")) is not None and kernel.ndim == 4:
        found.append(kernel)
    return found


def _scope(**layers: list[nn.Module]) -> nn.ModuleDict:
    """Layers with TensorFlow's names: the first of a kind without a number, the others numbered."""
    return nn.ModuleDict({_name(kind, i): layer for kind, some in layers.items() for i, layer in enumerate(some)})


def _name(kind: str, number: int) -> str:
    return f"{kind}_{number}" if number else kind

"""StyleGAN: a style-based generator architecture for generative adversarial networks (Karras et al., CVPR 2019).

Official code: https://github.com/NVlabs/stylegan (TensorFlow; CC BY-NC 4.0, weights too). The checkpoints for PyTorch, ``stylegan_ffhq.pth`` and
``stylegan_celebahq.pth``, are converted from NVIDIA's pickles by InterFaceGAN's port, https://github.com/genforce/interfacegan (MIT), whose
state-dict keys are used here. The other widely used port, https://github.com/rosinality/style-based-gan-pytorch, is in ``style_based_gan.py``;
`stylegan` builds either. Written from the papers and the key lists.

Note:
    StyleGAN generates images from latents and has no encoder: `manipulate` takes latents as its target, and the input image has no influence on
    the result. To edit a photograph, invert it with a tool of your choice, move the latents with `generators.interfacegan.edit`, and pass them as
    the target.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from generators.loading import agree
from generators.style_based_gan import StyleBasedGAN, style_based_gan
from generators.style_layers import check_latents
from generators.stylegan_layers import Mapping, Synthesis, Truncation
from malp_disc.serialization.state_dicts import load_state, load_tensors


class StyleGANGenerator(nn.Module):
    """StyleGAN: z -> w (mapping) -> one style per layer (truncation) -> image (synthesis).

    Args:
        resolution: R, side of the images, a power of 2 (published: 1024).
        w_space_dim: D, dimension of z and w.
        fused_scale: whether upsampling is fused into the convolution; "auto", as published: from 128 pixels on.
        output_channels: image channels.
        truncation_psi, truncation_layers: ψ of the truncation trick, and the number of layers it applies to.
        fmaps_base, fmaps_max: a layer of resolution r has min(fmaps_base / r, fmaps_max) channels.
    """

    def __init__(
        self,
        *,
        resolution: int = 1024,
        w_space_dim: int = 512,
        fused_scale: bool | str = "auto",
        output_channels: int = 3,
        truncation_psi: float = 0.7,
        truncation_layers: int = 8,
        fmaps_base: int = 16384,
        fmaps_max: int = 512,
    ) -> None:
        super().__init__()
        if resolution < 8 or resolution & (resolution - 1):
            raise ValueError(f"expected a resolution that is a power of 2 and at least 8, got {resolution}")
        if fused_scale not in ("auto", True, False):
            raise ValueError(f"expected fused_scale 'auto', True or False, got {fused_scale!r}")
        self.config = {
            "resolution": resolution,
            "w_space_dim": w_space_dim,
            "fused_scale": fused_scale,
            "output_channels": output_channels,
            "truncation_psi": truncation_psi,
            "truncation_layers": truncation_layers,
            "fmaps_base": fmaps_base,
            "fmaps_max": fmaps_max,
        }
        self.resolution, self.size, self.layers = resolution, w_space_dim, 2 * int(math.log2(resolution)) - 2
        widths = [min(fmaps_base // 2**i, fmaps_max) for i in range(2, int(math.log2(resolution)) + 1)]
        self.mapping = Mapping(w_space_dim)
        self.truncation = Truncation(w_space_dim, self.layers, truncation_psi, truncation_layers)
        self.synthesis = Synthesis(w_space_dim, widths, output_channels, lambda side: side >= 128 if fused_scale == "auto" else fused_scale)

    def forward(self, latents: Tensor) -> Tensor:
        """Codes of Z (B, D), which are mapped and truncated, or styles (B, L, D), which are used as they are -> (B, 3, R, R), not clamped."""
        return self.synthesis(self.truncation(self.mapping(latents)) if latents.ndim == 2 else latents)

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: the images generated from `target`, in [-1, 1]. See the module's note: the input image isn't used.

        Args:
            images: (B, 3, R, R); only batch size and resolution are used.
            target: codes of Z (B, D), or styles (B, L, D), L = 2 log2(R) - 2. None is refused.

        Raises:
            ValueError: other shapes, or no target.
        """
        check_latents(images, target, resolution=self.resolution, layers=self.layers, size=self.size)
        return self(target.to(images.dtype)).clamp(-1, 1)


def stylegan(checkpoint: str | Path | None = None, *, port: str | None = None, **config: Any) -> StyleGANGenerator | StyleBasedGAN:
    """Build StyleGAN (v1); with a checkpoint, port and architecture are inferred from its tensors, and arguments given explicitly must agree with it.

    Args:
        checkpoint: InterFaceGAN's ``stylegan_ffhq.pth`` (a bare state dict, with or without ``truncation.truncation``) or rosinality's
            ``stylegan-256px-new.model`` (its ``g_running`` is loaded).
        port: "interfacegan" (the default without a checkpoint) or "rosinality".
        config: arguments of `StyleGANGenerator` or `StyleBasedGAN`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if port not in (None, "interfacegan", "rosinality"):
        raise ValueError(f"unknown port {port!r}; choose 'interfacegan' or 'rosinality'")
    if checkpoint is None:
        return StyleBasedGAN(**config) if port == "rosinality" else StyleGANGenerator(**config)
    tensors = load_tensors(checkpoint, forms=(("generator.progression.0.conv1.input",), ("synthesis.layer0.first_layer",)), entries=("g_running", "generator", "state_dict"))
    starts = {"rosinality": "generator.progression.", "interfacegan": "synthesis."}
    found = next((name for name, start in starts.items() if any(key.startswith(start) for key in tensors)), port)
    agree({"port": found}, {"port": port or found}, checkpoint)
    if found == "rosinality":
        return style_based_gan(tensors, checkpoint, **config)
    return _from_interfacegan(tensors, checkpoint, **config)


def _from_interfacegan(tensors: dict[str, Tensor], source: str | Path, **config: Any) -> StyleGANGenerator:
    first, last = tensors.get("synthesis.layer0.first_layer"), "synthesis.layer{}.epilogue.bias"
    layers = sum(re.fullmatch(r"synthesis\.layer\d+\.epilogue\.bias", key) is not None for key in tensors)
    size = tensors.get("truncation.w_avg")
    if first is None or first.ndim != 4 or layers < 4 or size is None or size.ndim != 1 or last.format(layers - 1) not in tensors:
        raise ValueError(
            f"{source} is not a checkpoint of StyleGANGenerator: expected synthesis.layer0.first_layer, truncation.w_avg, … "
            f"(or generator.progression.0.conv1.input, … of rosinality's port), found {list(tensors)[:3]}"
        )
    resolution = 2 ** (layers // 2 + 1)
    narrow, fused = (
        len(tensors[last.format(layers - 1)]),
        {4 * 2**i for i in range(1, layers // 2) if f"synthesis.layer{2 * i}.weight" in tensors},
    )
    found: dict[str, Any] = {"resolution": resolution, "w_space_dim": len(size), "fmaps_max": first.shape[1]}
    if narrow < first.shape[1]:
        found["fmaps_base"] = narrow * resolution
    else:
        config.setdefault("fmaps_base", max(16384, narrow * resolution))
    if all((side in fused) == (side >= 128) for side in (8 * 2**i for i in range(layers // 2 - 1))):
        config.setdefault("fused_scale", "auto")
    else:
        found["fused_scale"] = bool(fused)
    output = tensors.get(f"synthesis.output{layers // 2 - 1}.bias")
    found["output_channels"] = 3 if output is None else len(output)
    network = StyleGANGenerator(**agree(found, config, source))
    if "synthesis.lod" in tensors and tensors["synthesis.lod"].abs().max() > 0:
        raise ValueError(
            f"{source} comes from the middle of progressive training: its synthesis.lod is {float(tensors['synthesis.lod'].max()):g}, not 0"
        )
    load_state(network, tensors, source=str(source), optional=("truncation.truncation",))
    return network

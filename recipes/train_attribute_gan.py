"""Train StarGAN, AttGAN, STGAN or CycleGAN from scratch on your own data, each with its paper's losses.

An AttGAN on drawn faces, one process on the CPU; then an STGAN on CelebA at the paper's size; then a CycleGAN between two folders of images:

    python recipes/train_attribute_gan.py --max-train-steps 4000 --conv-dim 16 --layers 4 --output-dir runs/attgan
    accelerate launch recipes/train_attribute_gan.py --method stgan --data celeba --data-root /data/celeba --image-size 128 --train-batch-size 32 \\
        --selected-attributes Bald Bangs Black_Hair Blond_Hair Brown_Hair Eyeglasses Male Mustache Pale_Skin Young --output-dir runs/stgan
    accelerate launch recipes/train_attribute_gan.py --method cyclegan --data images --data-root horses --reference-root zebras --image-size 288 \\
        --random-crop 256 --train-batch-size 1 --output-dir runs/horse2zebra

Steps count discriminator updates; the generator is updated every --n-critic steps. The result, ``G.safetensors``, is the moving average of the generator with the
keys of its published checkpoints, so `generators.create_generator`, malp-disc benchmark and all other commands load it (``--generators attgan=runs/attgan/G.safetensors``).
``D.safetensors`` is its discriminator. A CycleGAN gives ``G_A`` (from --data-root to --reference-root), ``G_B``, ``D_A`` and ``D_B``. Look at ``samples.png``: every row is an
image, its reconstruction, and an edit of every attribute.

recipes/train_stargan.py is another training of StarGAN, with a warm-up, for small networks. The losses are in generators/attgan_losses.py, stgan_losses.py,
stargan_losses.py and cyclegan_losses.py, the loop is malp_disc/training/attribute_gan.py.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn
from torch.utils.data import Dataset

from generators.attgan import AttGANDiscriminators, AttGANGenerator
from generators.attgan_losses import AttGANObjective, AttGANWeights
from generators.cyclegan import ResnetGenerator
from generators.cyclegan_losses import CycleGANObjective, CycleGANWeights, CycleGenerators, ImagePool
from generators.patchgan import PatchDiscriminator
from generators.stargan import StarGANDiscriminator, StarGANGenerator, deepest_repeat_num
from generators.stargan_losses import StarGANObjective, StarGANWeights
from generators.stgan import STGANDiscriminator, STGANGenerator
from generators.stgan_losses import STGANObjective
from malp_disc.data import DataOptions, WithReferences, build_dataset
from malp_disc.training.attribute_gan import train_attribute_gan, train_cyclegan
from malp_disc.training.attribute_gan_options import AttributeGANOptions
from malp_disc.training.launch import check_has_attributes, run_recipe, start

LARGEST_HEAD = 1024  # hidden channels of the discriminators' heads in the papers, at a width of 64
SMALLEST_PATCH = 24  # pixels a side, from which a PatchGAN with three stride-2 layers has one output


@dataclass(kw_only=True)
class Config(AttributeGANOptions, DataOptions):
    output_dir: Path = Path("runs/attribute-gan")
    """Folder of the run, created if absent."""
    reference_root: Path | None = None
    """For cyclegan: folder with images of the domain to translate to."""
    conv_dim: int = 64
    """Channels of the generator's first layer. The papers use 64."""
    discriminator_conv_dim: int | None = None
    """Channels of the discriminator's first layer. By default, those of --conv-dim."""
    layers: int = 5
    """For attgan and stgan: number of stride-2 layers of encoder, decoder and discriminator. The papers use 5, for 128 pixels.
    The image's side has to be divisible by 2^layers."""
    shortcut_layers: int | None = None
    """For attgan and stgan: number of decoder layers with skip connections. By default 1 for attgan.
    By default 3 for stgan, through its selective transfer units."""
    residual_blocks: int | None = None
    """For stargan and cyclegan: residual blocks of the generator.
    By default 6, and 9 for cyclegan at 256 pixels and above."""


def main(config: Config) -> None:
    config.check()
    check_networks(config)
    dataset, held_out = build_dataset(config, "train"), build_dataset(config, "test")
    if config.method == "cyclegan":
        dataset = WithReferences(dataset, config.reference_root)
    else:
        check_has_attributes(dataset, config.data, f"{config.method} edits attributes", ", or --method cyclegan")
    # In training, batch norm takes the statistics of the batch. Broadcasting its averages between two passes of one update would break the backward pass.
    accelerator = start(config, dataset, kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)])
    accelerator.print(f"{dataset.description}; {config.images_per_step * accelerator.num_processes} images per optimizer step")
    if config.method == "cyclegan":
        cyclegan(config, dataset, held_out, accelerator)
    else:
        generator, objective = networks(config, len(dataset.attribute_names))
        train_attribute_gan(generator, objective, dataset, held_out, config, accelerator)
    accelerator.print(f"wrote {config.output_dir / ('G_A.safetensors' if config.method == 'cyclegan' else 'G.safetensors')}; look at {config.output_dir / 'samples.png'}")
    accelerator.end_training()


def check_networks(config: Config) -> None:
    """Raise ValueError for flags of the networks that contradict the method or the images, before any work."""
    if (config.method == "cyclegan") != (config.reference_root is not None):
        raise ValueError(
            "--method cyclegan translates to the images of --reference-root; give both, or leave --reference-root out"
            if config.method == "cyclegan"
            else f"--reference-root has no effect with --method {config.method}; leave it out"
        )
    if config.method == "cyclegan" and (side := config.random_crop or config.image_size) < SMALLEST_PATCH:
        raise ValueError(f"CycleGAN's discriminators take images of at least {SMALLEST_PATCH} pixels a side, got {side}; see --image-size and --random-crop")
    least = 4 if config.method == "stgan" else 1  # STGAN's last layer but one has a quarter of the channels
    if config.conv_dim < least:
        raise ValueError(f"expected --conv-dim of at least {least}, got {config.conv_dim}")
    for name, smallest in (("discriminator_conv_dim", 1), ("residual_blocks", 1), ("shortcut_layers", 0)):
        value = getattr(config, name)
        if value is not None and value < smallest:
            raise ValueError(f"expected --{name.replace('_', '-')} of at least {smallest}, got {value}; leave it out for the default")
    if config.method in ("attgan", "stgan"):
        if not 2 <= config.layers <= 6:
            raise ValueError(f"expected --layers from 2 to 6, got {config.layers}")
        if config.image_size % 2**config.layers:
            raise ValueError(f"--layers {config.layers} needs an --image-size divisible by {2**config.layers}, got {config.image_size}")


def networks(config: Config, attributes: int) -> tuple[nn.Module, nn.Module]:
    """An attribute editor with random weights, and its losses with their discriminator."""
    width, side = config.discriminator_conv_dim or config.conv_dim, config.image_size
    if config.method == "stargan":
        generator = StarGANGenerator(conv_dim=config.conv_dim, c_dim=attributes, repeat_num=6 if config.residual_blocks is None else config.residual_blocks)
        discriminator = StarGANDiscriminator(image_size=side, conv_dim=width, c_dim=attributes, repeat_num=deepest_repeat_num(side))
        weights = StarGANWeights(**given(rec=config.reconstruction_weight, cls=config.classification_weight))
        return generator, StarGANObjective(discriminator, weights)
    head = min(LARGEST_HEAD, 16 * width)
    weights = AttGANWeights(**given(rec=config.reconstruction_weight, cls=config.classification_weight))
    if config.method == "attgan":
        generator = AttGANGenerator(
            enc_dim=config.conv_dim, enc_layers=config.layers, dec_dim=config.conv_dim, dec_layers=config.layers, n_attrs=attributes,
            shortcut_layers=1 if config.shortcut_layers is None else config.shortcut_layers,
        )  # fmt: skip
        discriminator = AttGANDiscriminators(dim=width, fc_dim=head, fc_acti_fn="relu", n_layers=config.layers, img_size=side, n_attrs=attributes)
        return generator, AttGANObjective(discriminator, weights)
    generator = STGANGenerator(
        attr_dim=attributes, conv_dim=config.conv_dim, n_layers=config.layers, shortcut_layers=3 if config.shortcut_layers is None else config.shortcut_layers
    )
    discriminator = STGANDiscriminator(image_size=side, attr_dim=attributes, conv_dim=width, fc_dim=head, n_layers=config.layers)
    return generator, STGANObjective(discriminator, weights)


def cyclegan(config: Config, dataset: Dataset, held_out: Dataset, accelerator: Accelerator) -> nn.Module:
    """Build and train a CycleGAN."""
    side = config.random_crop or config.image_size
    blocks = config.residual_blocks if config.residual_blocks is not None else 9 if side >= 256 else 6
    weights = CycleGANWeights(**given(cycle=config.reconstruction_weight, identity=config.identity_weight))
    forth, back = (ResnetGenerator(ngf=config.conv_dim, n_blocks=blocks) for _ in range(2))
    width = config.discriminator_conv_dim or config.conv_dim
    of_a, of_b = (PatchDiscriminator(ndf=width, norm="instance") for _ in range(2))
    generators = CycleGenerators(forth, back, identity=weights.identity > 0)
    generators.apply(small_weights)
    pools = nn.ModuleDict({name: ImagePool(side, **given(size=config.pool_size)) for name in ("a", "b")})
    return train_cyclegan(generators, CycleGANObjective(of_a, of_b, weights).apply(small_weights), pools, dataset, held_out, config, accelerator)


def small_weights(module: nn.Module) -> None:
    """CycleGAN's initialization: N(0, 0.02²), biases 0 (section 7.1 of its appendix)."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def given(**options: float | int | None) -> dict[str, float | int]:
    """The options that aren't None."""
    return {name: value for name, value in options.items() if value is not None}


if __name__ == "__main__":
    run_recipe(main, Config, __doc__)

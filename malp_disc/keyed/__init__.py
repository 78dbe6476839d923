"""A MaLP whose templates follow from a secret key and from each image's own content, and survive recompression, resizing and cropping.

The parts, in the order of use: `secret` (the key), `template` (Eq. 3 with a template for each image), `alignment` (where a crop was cut from), `evidence` (where
the template is still there), `network` (what is predicted from both), and `malp`, which puts them together.
"""

from __future__ import annotations

from malp_disc.keyed.malp import KeyedConfig, KeyedMaLP, KeyedOutput

__all__ = ["KeyedConfig", "KeyedMaLP", "KeyedOutput"]

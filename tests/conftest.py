"""One thread: the networks here are tiny, and two OpenMP threads on two busy cores are 3 to 20 times slower than one (measured)."""

from __future__ import annotations

import torch

torch.set_num_threads(1)

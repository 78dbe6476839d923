"""Arguments of metrics as NumPy arrays: from lists, arrays, and tensors of any dtype and device."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def as_float64(values: ArrayLike) -> np.ndarray:
    """`values` as a float64 array. A tensor may be in half precision, on a GPU, or part of a graph, none of which NumPy reads by itself."""
    if hasattr(values, "detach"):  # a tensor; torch isn't needed to know
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)

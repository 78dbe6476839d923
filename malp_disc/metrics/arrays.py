"""Conversion of lists, arrays and tensors to NumPy arrays, for the arguments of metrics."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def as_float64(values: ArrayLike) -> np.ndarray:
    """`values` as a float64 array. Tensors may be in half precision, on a GPU or require gradients, which NumPy alone can't convert."""
    if hasattr(values, "detach"):  # a tensor, recognized without importing torch
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)

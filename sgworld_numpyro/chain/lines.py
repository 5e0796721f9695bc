"""Data stored in the order of a contiguous scheme: consecutive rows that are taken together lie in one line."""

import math

import numpy as np
from jax import Array
from jaxtyping import Int

ALIGNMENT = 64  # bytes


def in_lines(array: np.ndarray, order: Int[np.ndarray, "rows"], axis: int, width: int) -> np.ndarray:
    """The rows of an array in this order, ``width`` of them a line: (lines, width · elements of a row).

    They begin where JAX takes what NumPy holds for its own, without a copy.
    """
    rows = np.moveaxis(array, axis, 0)
    bytes_ = np.empty(len(order) * rows[:1].nbytes + ALIGNMENT, np.uint8)
    begin = -bytes_.ctypes.data % ALIGNMENT
    found = bytes_[begin : begin + len(order) * rows[:1].nbytes].view(rows.dtype).reshape(len(order), *rows.shape[1:])
    np.take(rows, order, axis=0, out=found, mode="clip")  # else it would buffer them
    return found.reshape(len(order) // width, -1)


def as_rows(lines: Array, shape: tuple[int, ...], axis: int) -> Array:
    """Lines as rows of an array of this shape along this axis, the inverse of ``in_lines``."""
    axis = axis % len(shape)
    row = shape[:axis] + shape[axis + 1 :]
    rows = lines.reshape(lines.size // math.prod(row), *row)
    # without a transposition, which compilers have been seen to carry out where it is none
    return rows if axis == 0 else rows.transpose(*range(1, axis + 1), 0, *range(axis + 1, len(shape)))

"""Rows of a file that NumPy maps, read from the file itself: what is mapped counts as memory of the process."""

import mmap
import os
import weakref

import numpy as np


class MappedFile:
    """The file of a ``numpy.memmap``.

    Args:
        array: with rows one after the other in the file.
        file: an open descriptor of it, which is closed with this object.
    """

    def __init__(self, array: np.memmap, file: int):
        self._file, self._shape, self._dtype = file, array.shape[1:], array.dtype
        self._row = array.nbytes // len(array)
        first = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
        base = np.frombuffer(array._mmap, np.uint8).ctypes.data  # type: ignore[attr-defined]
        self._start = first + array.ctypes.data - base
        weakref.finalize(self, os.close, file)

    @classmethod
    def of(cls, array: np.ndarray) -> "MappedFile | None":
        """That of an array, if its rows can be read there; a private copy may have others, and so may a new file."""
        name, mode = getattr(array, "filename", None), getattr(array, "mode", "c")
        if not isinstance(array, np.memmap) or not hasattr(os, "preadv") or name is None or mode == "c":
            return None
        if getattr(array, "_mmap", None) is None or not array.flags.c_contiguous or array.nbytes == 0:
            return None
        try:
            found = cls(array, os.open(name, os.O_RDONLY))
            ends = np.array([0, len(array) - 1])
            same = found.rows(ends).tobytes() == np.take(array, ends, axis=0).tobytes()
        except OSError:  # it is not there any more, and what is mapped still is
            return None
        return found if same else None

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """The rows of these numbers, those that follow each other in one piece.

        Raises:
            OSError: if the file cannot be read, or ends before.
        """
        found = np.empty((len(numbers), *self._shape), self._dtype)
        into = found.reshape(-1).view(np.uint8).data
        breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
        starts = [0, *breaks.tolist()]
        for start, stop, number in zip(starts, [*starts[1:], len(numbers)], numbers[starts].tolist(), strict=True):
            there, at = into[start * self._row : stop * self._row], self._start + number * self._row
            while there:
                count = os.preadv(self._file, [there], at)
                if not count:
                    raise OSError(f"the file ends before row {number + stop - start - 1}")
                there, at = there[count:], at + count
        return found

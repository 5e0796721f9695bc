"""Reading the draws of a run from its directory, while it goes on or after, and no more of them than is asked."""

import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from sgworld_numpyro.store.files import DamagedRunError, read_arrays
from sgworld_numpyro.store.stretches import Stretch, read_about, read_stretch


class StoredRun:
    """What a directory holds of a run at the moment that this is made.

    Args:
        path: the directory that ``long_run`` was given.

    Attributes:
        about: what run it is, as ``run.json`` says.
        stretches: that are there, in their order.

    Raises:
        DamagedRunError: if it holds no run.
    """

    def __init__(self, path: str | PathLike):
        self.path = Path(path)
        self.about = read_about(self.path)
        self.stretches: list[Stretch] = []
        while True:
            try:
                self.stretches.append(read_stretch(self.path, len(self.stretches)))
            except DamagedRunError:
                if (self.path / f"stretch-{len(self.stretches):05}.json").exists():
                    raise
                break
        if not self.stretches:
            raise DamagedRunError(f"{self.path} has no stretch yet: the run is being tuned, or was stopped then.")

    @property
    def draws(self) -> int:
        """Draws of each chain that are there."""
        return self.stretches[-1].draws

    @property
    def wanted(self) -> int:
        """Draws of each chain that the run is to have."""
        return self.stretches[-1].num_samples // self.about["thinning"]

    @property
    def complete(self) -> bool:
        """Whether the run has all its draws."""
        return self.draws >= self.wanted

    @property
    def attributes(self) -> dict[str, Any]:
        """What the run said of itself at the end of the last stretch."""
        return self.stretches[-1].attributes

    @property
    def shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape and dtype of one draw of one chain, by field and site, as ``"z['w']"``."""
        return {name: (tuple(shape), jnp.dtype(dtype)) for name, (shape, dtype) in self.about["variables"].items()}

    def __repr__(self):
        return (
            f"StoredRun({str(self.path)!r}): {self.draws} of {self.wanted} draws of {self.about['num_chains']} chains"
        )

    def read(self, name: str, draws: slice = slice(None), elements: np.ndarray | None = None) -> np.ndarray:
        """Draws of one variable, (chain, draw, ...); of each stretch only this variable is read.

        Args:
            name: as in ``shapes``.
            draws: which of them, with a positive step.
            elements: numbers of its elements, as they lie in one line; then the result is (chain, draw, element).

        Raises:
            KeyError: if there is no such variable.
            DamagedRunError: if a file is missing or damaged.
        """
        shape, dtype = self.shapes[name]
        first, last, step = draws.indices(self.draws)
        if step < 1:
            raise ValueError(f"draws={draws}: want a positive step.")

        def chosen(part):
            return part if elements is None else part.reshape(*part.shape[:2], math.prod(shape))[..., elements]

        before, parts = 0, [chosen(np.empty((self.about["num_chains"], 0, *shape), dtype))]
        for stretch in self.stretches:
            start = first + max(0, -(-(before - first) // step)) * step  # the first one wanted that is not before it
            if stretch.drawn is not None and start < min(last, stretch.draws):
                part = read_arrays(self.path / stretch.drawn.name, [name])[name].view(dtype)
                parts.append(chosen(part[:, start - before : last - before : step]))
            before = stretch.draws
        return np.concatenate(parts, axis=1)

    def sites(self) -> dict[str, str]:
        """The names of variables by site, of those that are draws."""
        return dict(self.about["sites"])

    def fields(self) -> Sequence[str]:
        """The names of variables that are other fields of the state, such as ``"diverging"``."""
        return [name for name in self.shapes if name not in self.about["sites"].values()]

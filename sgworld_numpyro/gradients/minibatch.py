"""The minibatch's own gradient."""

from dataclasses import dataclass
from typing import ClassVar

import jax


@dataclass(frozen=True)
class Minibatch:
    """Prior gradient plus N/B times the batch's: unbiased for a uniformly drawn batch (Robbins & Monro 1951)."""

    needs_anchor: ClassVar[bool] = False

    def __call__(self, potential, anchor):
        return jax.value_and_grad(potential)

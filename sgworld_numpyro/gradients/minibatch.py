"""The minibatch's own gradient."""

from dataclasses import dataclass

import jax


@dataclass(frozen=True)
class Minibatch:
    """Prior gradient plus N/B times the batch's: unbiased for a uniformly drawn batch (Robbins & Monro 1951)."""

    def __call__(self, potential):
        return jax.value_and_grad(potential)

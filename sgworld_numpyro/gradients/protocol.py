"""What a gradient estimator is."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from jax import Array
from jaxtyping import Float

Potential = Callable[[Float[Array, "dim"]], Float[Array, ""]]
"""Position to the minibatch's estimate of the potential energy, in nats."""


@runtime_checkable
class GradientEstimator(Protocol):
    """From the potential energy on one minibatch to an estimate of the full gradient."""

    def __call__(
        self, potential: Potential
    ) -> Callable[[Float[Array, "dim"]], tuple[Float[Array, ""], Float[Array, "dim"]]]:
        """A function of position that returns (potential energy, gradient)."""
        ...

"""What a gradient estimator is."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from jax import Array
from jaxtyping import Float

Potential = Callable[[Float[Array, "dim"]], Float[Array, ""]]
"""Position to the minibatch's estimate of the potential energy, in nats."""


class Anchor(NamedTuple):
    """A fixed position, near the mode, and the gradient of all the data there."""

    position: Float[Array, "dim"]
    gradient: Float[Array, "dim"]


@runtime_checkable
class GradientEstimator(Protocol):
    """From the potential energy on one minibatch to an estimate of the full gradient.

    Attributes:
        needs_anchor: whether it wants an ``Anchor``, which the kernel then finds before the first sample.
    """

    @property
    def needs_anchor(self) -> bool: ...

    def __call__(
        self, potential: Potential, anchor: Anchor | None
    ) -> Callable[[Float[Array, "dim"]], tuple[Float[Array, ""], Float[Array, "dim"]]]:
        """A function of position that returns (potential energy, gradient).

        Args:
            potential: the potential energy on the step's minibatch.
            anchor: the anchor; None if there is none.
        """
        ...

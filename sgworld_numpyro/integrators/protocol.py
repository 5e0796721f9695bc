"""What an integrator is."""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

from jax import Array
from jaxtyping import Float

from sgworld_numpyro.preconditioners.protocol import Preconditioner
from sgworld_numpyro.randomness.noise import NoiseName

Gradient = Callable[[Float[Array, "dim"]], tuple[Float[Array, ""], Float[Array, "dim"]]]
"""Position to (potential energy in nats, its gradient), on the step's minibatch."""


@runtime_checkable
class Integrator(Protocol):
    """One step of dx = -M ∇U(x) dt + √(2T) M^½ dW.

    Attributes:
        noise: the law of its noise, "gaussian" or "three_point".
        noise_vectors: how many independent noise vectors a step uses.
    """

    @property
    def noise(self) -> NoiseName: ...

    @property
    def noise_vectors(self) -> int: ...

    def init(self, position: Float[Array, "dim"]) -> Any:
        """The integrator's own state at the start of a chain: a pytree, ``()`` if it has none."""
        ...

    def step(
        self,
        gradient: Gradient,
        position: Float[Array, "dim"],
        state: Any,
        noise: Float[Array, "noise_vectors dim"] | None,
        step_size: Float[Array, ""],
        temperature: float,
        preconditioner: Preconditioner,
    ) -> tuple[Float[Array, "dim"], Any, Float[Array, ""]]:
        """Advance by one step.

        Args:
            gradient: evaluate it at as few positions as the method allows.
            position: the position.
            state: the integrator's own state.
            noise: noise vectors of unit variance; None at temperature 0.
            step_size: h, in the units of 1 / ∇²U.
            temperature: T; 1 samples the posterior.
            preconditioner: M.

        Returns:
            The new position, the new state, and the potential energy where the gradient was taken.
        """
        ...


class NamedIntegrator(Integrator, Protocol):
    """An integrator that says what it is, as the package's own do; one of your own need not.

    They hold for the class itself: one that inherits from it may step otherwise. An integrator that does not say is
    kinetic if it has a ``friction``. Stationary laws are known of the package's own, as
    ``linear_gaussian.knows_integrator`` says; any other wants a ``step_size``.

    Attributes:
        name: what saved runs call it.
        kinetic: whether it has velocities, and so a ``friction`` and a ``KineticState``.
        bias_order: order in h of the error of its stationary law with full gradients.
    """

    name: ClassVar[str]
    kinetic: ClassVar[bool]
    bias_order: ClassVar[int]

    def variance_error(self, step: Float[Array, "*steps"]) -> Float[Array, "*steps"] | float:
        """Size of the relative error of the variance of a Gaussian with full gradients.

        Args:
            step: h λ of a direction of curvature λ; h √λ if kinetic.
        """
        ...

"""Step sizes that change with the step."""

from collections.abc import Callable
from dataclasses import dataclass

from jax import Array
from jaxtyping import Float, Int

Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]
"""Number of inner steps taken so far to step size. Any such callable will do, optax's schedules included."""


@dataclass(frozen=True)
class WellingTeh:
    """The decreasing schedule ``a (b + t) ** -gamma`` of Welling & Teh (2011, ICML), t counting inner steps.

    With 1/2 < gamma <= 1 the sum of the steps diverges and that of their squares does not, so the bias goes to
    zero; draws are then to be weighted by their step size.

    Args:
        a, b: positive.
        gamma: in (0.5, 1].

    Raises:
        ValueError: for parameters outside these ranges.
    """

    a: float
    b: float = 1.0
    gamma: float = 0.55

    def __post_init__(self):
        if not (self.a > 0 and self.b > 0 and 0.5 < self.gamma <= 1):
            raise ValueError(
                f"WellingTeh wants a > 0, b > 0 and 0.5 < gamma <= 1, got a={self.a}, b={self.b}, gamma={self.gamma}."
            )

    def __call__(self, step):
        return self.a * (self.b + step) ** -self.gamma

"""What tuning is asked."""

from dataclasses import dataclass

from sgworld_numpyro.gradients import GradientEstimator
from sgworld_numpyro.model.target import Target
from sgworld_numpyro.preconditioners import Preconditioner
from sgworld_numpyro.tuning.step_size import Discretisation


@dataclass(frozen=True)
class Plan:
    """What to learn.

    Attributes:
        target: the model.
        preconditioner: the given one, or the kind to learn, ``Diagonal()`` or ``Dense()``.
        learns_preconditioner: which of both.
        step_size: h if it was given, else None.
        friction: γ of a kinetic integrator if it was given, else None.
        kinetic: whether the integrator has velocities.
        temperature: T; at 0 a direction in which the potential does not rise does no harm.
        discretisation: what decides the bias; None if the integrator's law is not known or T is 0, and the step size is
            given.
        window_law: what decides the bias of pilot chains.
        estimators: of the gradient, among which to choose; one if it was given.
        steps: of a sample if they were given, else None.
        default_steps: of a sample if they are not chosen: a period of the scheme, or a pass.
        period: of the scheme.
    """

    target: Target
    preconditioner: Preconditioner
    learns_preconditioner: bool
    step_size: float | None
    friction: float | None
    kinetic: bool
    temperature: float
    discretisation: Discretisation | None
    window_law: Discretisation
    estimators: tuple[GradientEstimator, ...]
    steps: int | None
    default_steps: int
    period: int

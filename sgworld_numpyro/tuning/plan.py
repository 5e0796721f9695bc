"""What tuning is asked and what it found."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from jax import Array

from sgworld_numpyro.gradients import Anchor
from sgworld_numpyro.model.target import Target
from sgworld_numpyro.preconditioners import Preconditioner
from sgworld_numpyro.tuning.curvature import Rates
from sgworld_numpyro.tuning.step_size import Discretisation


class Report(NamedTuple):
    """What was found and chosen; curvatures in the coordinates q = L⁻¹θ of the preconditioner M = L Lᵀ.

    - **step_size** - h.
    - **friction** - γ of kinetic integrators, else NaN.
    - **predicted_bias** - relative error of the posterior variance in the fastest direction.
    - **predicted_shift** - of the posterior mean by Hessians that differ between minibatches, in posterior sds.
    - **fastest_rate** - λ, the largest curvature.
    - **mean_rate** - the mean curvature.
    - **gradient_noise** - ρ: minibatch noise by its size in a well-specified model.
    - **hessian_noise** - E|δH_b u|², of minibatches' Hessians.
    - **slope** - what the correlation of minibatches' Hessians and gradients moves the mean by; see ``Rates``.
    - **distance** - root mean square distance of the anchor from the mode, in posterior sds.
    - **flattest** - smallest curvature found, by its standard error; ∞ if not looked for.
    - **restarted** - chains that found no finite energy and gradient by themselves, and start where the best one is.
    - **warm_start_passes** - over the data, in gradients, that the warm start took.
    - **tuning_passes** - the same of what came after it; a Hessian-vector product counts as two gradients.
    """

    step_size: Array
    friction: Array
    predicted_bias: Array
    predicted_shift: Array
    fastest_rate: Array
    mean_rate: Array
    gradient_noise: Array
    hessian_noise: Array
    slope: Array
    distance: Array
    flattest: Array
    restarted: Array
    warm_start_passes: Array
    tuning_passes: Array

    @property
    def rates(self) -> Rates:
        """What decides the bias."""
        return Rates(self.fastest_rate, self.mean_rate, self.gradient_noise, self.hessian_noise, self.slope)


class Tuning(NamedTuple):
    """What a run learnt before its first sample.

    - **preconditioner** - the learnt one; () if it was given.
    - **anchor** - position and full gradient near the mode.
    - **report** - scalars; see ``Report``.
    """

    preconditioner: Any
    anchor: Anchor
    report: Report


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
    """

    target: Target
    preconditioner: Preconditioner
    learns_preconditioner: bool
    step_size: float | None
    friction: float | None
    kinetic: bool
    temperature: float
    discretisation: Discretisation | None

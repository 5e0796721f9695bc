r"""One step of each integrator, overdamped or kinetic, as a linear map with additive noise.

The state z is θ alone (m = 1) or position and velocity (θ, v) at unit mass (m = 2). A step is

    z' = C K_b(A z + ζ) + ζ',    K_b z = z + kick · g_b(θ),

in which only the gradient g_b depends on the minibatch; A, C and the covariances of the noises ζ and ζ' are
numbers times the identity of the d dimensions. With x = γh, T the temperature and U(t) the exact flow of
dθ = v dt, dv = −γ v dt + √(2γT) dW,

    EulerMaruyama         θ' = θ − h g_b(θ) + √(2hT) ξ
    LeimkuhlerMatthews    θ' = θ − h g_b(θ) + √(hT/2) (ξ_n + ξ_{n+1})
    BAOAB                 θ' = θ + (h/2)(1 + e⁻ˣ) w + (h/2) √(T(1 − e⁻²ˣ)) ξ,
                          w' = e⁻ˣ w + √(T(1 − e⁻²ˣ)) ξ − h g_b(θ')
    UBU                   U(h/2); v −= h g_b(θ); U(h/2)

BAOAB's two half kicks that meet between steps are joined into one: w is the velocity after both.

Sources: Leimkuhler and Matthews (Molecular Dynamics, 2015, ch. 7); Sanz-Serna and Zygalakis (arXiv 2104.12384)
for UBU.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeGuard

import numpy as np
from jaxtyping import Float

from sgworld_numpyro.integrators import (
    BAOAB,
    UBU,
    EulerMaruyama,
    Integrator,
    LeimkuhlerMatthews,
    NamedIntegrator,
)

Eigenvalues = Float[np.ndarray, " d"]


class LinearStep(NamedTuple):
    """A step's parts, for one dimension.

    Attributes:
        before: A, what happens to the state before its gradient is taken.
        before_noise: covariance of ζ.
        kick: what a unit of gradient adds to the state.
        after: C, what happens after the kick.
        after_noise: covariance of ζ'.
        met_again: covariance of the state at which the gradient is taken with ζ', of a noise that is used twice.
    """

    before: Float[np.ndarray, "m m"]
    before_noise: Float[np.ndarray, "m m"]
    kick: Float[np.ndarray, " m"]
    after: Float[np.ndarray, "m m"]
    after_noise: Float[np.ndarray, "m m"]
    met_again: Float[np.ndarray, "m m"]

    def with_curvature(self, eigenvalues: Eigenvalues) -> Float[np.ndarray, "d m m"]:
        """C K A along each eigenvector of one Hessian, where the gradient is λθ."""
        position = np.eye(len(self.kick))[0]
        kicked = np.eye(len(self.kick)) + np.multiply.outer(eigenvalues, np.outer(self.kick, position))
        return self.after @ kicked @ self.before


class Law(NamedTuple):
    """What the exact moments need to know of an integrator.

    Attributes:
        step: its parts from step size h, temperature T and friction γ.
        variance: stationary variance of θ at temperature 1 with full gradients λθ, from h, γ and λ, in a form
            without cancellation: it must not hide how little the best schemes are off.
    """

    step: Callable[[float, float, float], LinearStep]
    variance: Callable[[float, float, Eigenvalues], Eigenvalues]


def _overdamped(step_size: float, noise: float, met_again: float) -> LinearStep:
    one, none = np.ones((1, 1)), np.zeros((1, 1))
    return LinearStep(one, none, np.array([-step_size]), one, noise * one, met_again * one)


def _baoab(step_size: float, temperature: float, friction: float) -> LinearStep:
    decay = np.exp(-friction * step_size)
    drift = np.array([[1, step_size / 2], [0, 1]])
    refreshed = np.diag([0, -temperature * np.expm1(-2 * friction * step_size)])
    none = np.zeros((2, 2))
    return LinearStep(
        before=drift @ np.diag([1, decay]) @ drift,
        before_noise=drift @ refreshed @ drift.T,
        kick=np.array([0, -step_size]),
        after=np.eye(2),
        after_noise=none,
        met_again=none,
    )


def _ubu(step_size: float, temperature: float, friction: float) -> LinearStep:
    flow, noise = free_flow(step_size / 2, temperature, friction)
    return LinearStep(flow, noise, np.array([0, -step_size]), flow, noise, np.zeros((2, 2)))


def free_flow(
    time: float, temperature: float, friction: float
) -> tuple[Float[np.ndarray, "2 2"], Float[np.ndarray, "2 2"]]:
    r"""Mean map and covariance of U(t), the flow of (θ, v) without a force, to full precision at any γt.

    With x = γt and τ = tanh(x/2) the variance of θ, (T/γ²)(2x − 3 + 4e⁻ˣ − e⁻²ˣ), is a sum of positive terms,
    (T/γ²)[2(x − 2τ) + 4τ³/(1 + τ)²].

    Args:
        time: t.
        temperature: T.
        friction: γ.
    """
    x = friction * time
    half = np.tanh(x / 2)
    lost = -np.expm1(-x)
    position = 2 * _x_less_twice_tanh(x) + 4 * half**3 / (1 + half) ** 2
    covariance = np.array([[position / friction**2, lost**2 / friction], [lost**2 / friction, -np.expm1(-2 * x)]])
    return np.array([[1, lost / friction], [0, np.exp(-x)]]), temperature * covariance


def _ubu_variance(step_size: float, friction: float, eigenvalues: Eigenvalues) -> Eigenvalues:
    r"""1/λ + (x − 2τ) (1/τ − (hλ/2γ)(1 − σ²)) / (γ²(2 − hλτ/γ)) − hσ/γ, x = γh, τ = tanh(x/2), σ = tanh(x/4).

    It solves the stationarity of (θ, v) at the moment of the kick, carried on to the end of the step. To second
    order it is (1 − h²λ/6)/λ at any friction. Stationary while hλτ/γ < 2, which h√λ < 2 suffices for.
    """
    x = friction * step_size
    half, quarter = np.tanh(x / 2), np.tanh(x / 4)
    stiffness = step_size * eigenvalues / friction
    gained = _x_less_twice_tanh(x) * (1 / half - stiffness / 2 * (1 - quarter**2)) / (2 - stiffness * half)
    return 1 / eigenvalues + gained / friction**2 - step_size / friction * quarter


def _x_less_twice_tanh(x: float) -> float:
    """The difference x − 2 tanh(x/2), by its series where it would cancel."""
    if x > 0.1:
        return x - 2 * np.tanh(x / 2)
    return x**3 / 12 * (1 - x**2 / 10 * (1 - 17 / 168 * x**2 * (1 - 31 / 306 * x**2)))


# 1/λ from Leimkuhler–Matthews and BAOAB, whatever the step size; Euler–Maruyama heats by 1/(1 − hλ/2).
LAWS: dict[type[NamedIntegrator], Law] = {
    EulerMaruyama: Law(
        step=lambda step_size, temperature, _: _overdamped(step_size, 2 * step_size * temperature, 0.0),
        variance=lambda step_size, _, eigenvalues: 2 / (eigenvalues * (1 + (1 - step_size * eigenvalues))),
    ),
    # the state already holds √(hT/2) of the ξ that it meets again
    LeimkuhlerMatthews: Law(
        step=lambda step_size, temperature, _: _overdamped(
            step_size, step_size * temperature, step_size * temperature / 2
        ),
        variance=lambda _step_size, _friction, eigenvalues: 1 / eigenvalues,
    ),
    BAOAB: Law(step=_baoab, variance=lambda _step_size, _friction, eigenvalues: 1 / eigenvalues),
    UBU: Law(step=_ubu, variance=_ubu_variance),
}


def knows_integrator(integrator: Integrator) -> TypeGuard[NamedIntegrator]:
    """Whether the stationary law of an integrator is known here; not of one that inherits, which may step otherwise."""
    return type(integrator) in LAWS


def checked_integrator(integrator: Integrator) -> NamedIntegrator:
    """The integrator, if its law is known.

    Raises:
        TypeError: for a name, a class or anything else that is no integrator.
        ValueError: for an integrator of one's own.
    """
    known = ", ".join(f"{law.__name__}({'friction=...' * law.kinetic})" for law in LAWS)
    if isinstance(integrator, type) or not isinstance(integrator, Integrator):
        raise TypeError(f"integrator={integrator!r} is no integrator; pass an instance: {known}")
    if not knows_integrator(integrator):
        raise ValueError(f"integrator={integrator!r} has no known law; choose one of {known}")
    return integrator


def checked_friction(integrator: NamedIntegrator, slowest: float) -> float:
    """The friction of an integrator, zero for an overdamped one.

    Args:
        integrator: of a known law.
        slowest: smallest eigenvalue of the Hessian, for the advice.

    Raises:
        ValueError: if it was left to tuning.
    """
    friction = getattr(integrator, "friction", None)
    if integrator.kinetic and friction is None:
        raise ValueError(
            f"integrator={integrator!r} has no friction yet, on which its law depends; "
            f"pass {type(integrator).__name__}(friction={2 * np.sqrt(slowest):.6g}), which is 2√λ_min(problem.hessian)"
        )
    return friction or 0.0


def stable_below(integrator: NamedIntegrator, steepest: float) -> float:
    """Step size below which the mean converges: 2/λ, and 2/√λ for the kinetic ones (UBU's own is a little larger)."""
    return 2 / np.sqrt(steepest) if integrator.kinetic else 2 / steepest

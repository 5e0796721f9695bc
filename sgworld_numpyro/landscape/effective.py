"""The landscape that a chain samples or descends, which is not quite the potential."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from sgworld_numpyro.integrators import EulerMaruyama, Integrator, LeimkuhlerMatthews
from sgworld_numpyro.landscape.gradient_noise import NoiseUnits, noise_units, units_variance, with_known_law
from sgworld_numpyro.landscape.hessians import hessian, laplacian
from sgworld_numpyro.landscape.row_potentials import RowPotential
from sgworld_numpyro.subsampling import FullBatch, SubsamplingScheme

MAX_STEPS = 100
HALVINGS = 30


def effective_potential(
    potential: RowPotential,
    x: Float[Array, "dim"],
    scheme: SubsamplingScheme,
    integrator: Integrator,
    step_size: float | Float[Array, ""],
    *,
    temperature: float = 1.0,
    probes: int | None = None,
    seed: int = 0,
) -> Float[Array, ""]:
    """The potential of the chain's stationary law at the ends of periods, to first order in the step size.

    At temperature T > 0 the density is ∝ exp(-U_eff/T), up to O(h²), with

        U_eff = U + (h/4) tr V,                              V = Cov(g_b), for Leimkuhler–Matthews,
        U_eff = U + (h/4) (tr V + 2TΔU - |∇U|²)              for Euler–Maruyama.

    At T = 0 the mean motion is the gradient flow, of duration h a step, of

        U + (h/4) E|g_b|² = U + (h/4) (|∇U|² + tr V),

    tr V only where the batches of a period use every row equally often. Differentiable in x.

    Args:
        potential: the model.
        x: position.
        scheme: a reshuffled one, or ``FullBatch``; at temperature 0 also one of independent batches.
        integrator: ``EulerMaruyama`` or ``LeimkuhlerMatthews``, without preconditioner; at T = 0 they are the same.
        step_size: h, in units of 1 / ∇²U.
        temperature: T of the injected noise; 0 for stochastic gradient descent.
        probes: for ΔU, see ``laplacian``; None for the exact one.
        seed: of the probes.

    Raises:
        ValueError: for a scheme without such a potential, an integrator that is not one of the two, or an x that is
            not a vector of length d.

    Source: Smith et al. 2021 (arXiv 2101.12176) at T = 0; arXiv 2306.03521.
    """
    x = potential.position(x)
    return _landscape(potential, x, step_size, _terms(potential, scheme, integrator, temperature), probes, seed)


def effective_gradient(
    potential: RowPotential,
    x: Float[Array, "dim"],
    scheme: SubsamplingScheme,
    integrator: Integrator,
    step_size: float | Float[Array, ""],
    *,
    temperature: float = 1.0,
    probes: int | None = None,
    seed: int = 0,
) -> Float[Array, "dim"]:
    """The gradient of ``effective_potential``, whose arguments these are."""
    x = potential.position(x)
    return _slope(potential, x, step_size, _terms(potential, scheme, integrator, temperature), probes, seed)


def landscape_minimum(
    potential: RowPotential,
    x: Float[Array, "dim"],
    scheme: SubsamplingScheme,
    integrator: Integrator,
    step_size: float | Float[Array, ""],
    *,
    temperature: float = 1.0,
    tolerance: float = 1e-4,
    probes: int | None = None,
    seed: int = 0,
) -> Float[Array, "dim"]:
    """The minimum of ``effective_potential`` near x, by quasi-Newton steps in the metric of ∇²U.

    Args:
        potential: the model.
        x: where to start, best at the minimum of U.
        scheme: as in ``effective_potential``.
        integrator: likewise.
        step_size: h.
        temperature: T.
        tolerance: stop where √(Gᵀ|∇²U|⁻¹G), with G the gradient, is this small. That is the distance to the
            minimum in standard deviations of the posterior.
        probes: as in ``effective_potential``.
        seed: likewise.

    Raises:
        ValueError: as ``effective_potential``, and if the tolerance is not reached.
    """

    def gradient(x):
        return effective_gradient(
            potential, x, scheme, integrator, step_size, temperature=temperature, probes=probes, seed=seed
        )

    return _minimum(potential, gradient, x, tolerance)


def potential_minimum(
    potential: RowPotential, x: Float[Array, "dim"], *, tolerance: float = 1e-4
) -> Float[Array, "dim"]:
    """The minimum of U near x, the mode of the posterior; see ``landscape_minimum``.

    Raises:
        ValueError: if the tolerance is not reached, or x is not a vector of length d.
    """
    return _minimum(potential, potential.gradient, x, tolerance)


def _check(potential, scheme, integrator, temperature):
    if not temperature >= 0:
        raise ValueError(f"temperature={temperature} must not be negative; pass 1.0 for the posterior")
    if not isinstance(integrator, EulerMaruyama | LeimkuhlerMatthews):
        raise ValueError(
            f"integrator={integrator!r} has no known effective potential; pass EulerMaruyama() or LeimkuhlerMatthews()"
        )
    if with_known_law(scheme).redraws == "never":
        raise ValueError(
            f"scheme={scheme!r} has a landscape that depends on the one order it repeats, and in general a drift "
            "that is no gradient; use RandomReshuffle() or BatchReshuffle()"
        )
    if temperature > 0 and scheme.redraws == "step" and not isinstance(scheme, FullBatch):
        raise ValueError(
            f"scheme={scheme!r} has no effective potential at temperature={temperature}: the drift is -∇U and the "
            "diffusion depends on the position, which in general makes currents. Use diffusion_matrix for its noise, "
            "or a reshuffled scheme"
        )


class _Terms(NamedTuple):
    """What to add to U in units of h/4: numbers, so that one compiled landscape serves many; None to leave out."""

    noise: NoiseUnits | None = None  # φ times the variance of the units' gradients
    slope: float | None = None  # times |∇U|²
    curvature: float | None = None  # times ΔU


def _terms(potential, scheme, integrator, temperature):
    _check(potential, scheme, integrator, temperature)
    noise = None
    if scheme.redraws != "step":
        units = noise_units(scheme, potential.plate)
        noise = units if units.factor > 0 else None
    if temperature == 0:
        return _Terms(noise, 1.0)
    if isinstance(integrator, EulerMaruyama):
        return _Terms(noise, -1.0, 2.0 * temperature)
    return _Terms(noise)


def _landscape(potential, x, step_size, terms, probes, seed):
    correction = jnp.zeros((), x.dtype)
    if terms.noise is not None:
        correction = correction + terms.noise.factor * units_variance(potential, x, terms.noise.rows)
    if terms.slope is not None:
        gradient = potential.gradient(x)
        correction = correction + terms.slope * (gradient @ gradient)
    if terms.curvature is not None:
        correction = correction + terms.curvature * laplacian(potential, x, probes=probes, seed=seed)
    return potential.full(x) + step_size / 4 * correction


@partial(jax.jit, static_argnames=("probes", "seed"))
def _slope(potential, x, step_size, terms, probes, seed):
    return jax.grad(_landscape, argnums=1)(potential, x, step_size, terms, probes, seed)


def _minimum(potential, gradient, x, tolerance):
    x = potential.position(x)
    force, distance = gradient(x), jnp.asarray(jnp.inf)
    for _ in range(MAX_STEPS):
        step, distance = _newton_step(hessian(potential, x), force)
        if distance <= tolerance:
            return x
        x, force = _downhill(gradient, x, force, step)
        if not jnp.isfinite(force).all():
            break
    raise ValueError(
        f"no minimum within tolerance={tolerance}: √(Gᵀ|∇²U|⁻¹G) is still {float(distance):.3g}; start x nearer to a "
        "minimum, take a smaller step_size, or a larger tolerance (in float32 round-off has its share: "
        "jax.enable_x64)"
    )


@jax.jit
def _newton_step(matrix, force):
    """The step to the minimum in the metric |matrix|, and its length there."""
    curvatures, vectors = jnp.linalg.eigh(matrix)
    curvatures = jnp.abs(curvatures)  # where the potential is not convex, downhill all the same
    curvatures = jnp.maximum(curvatures, jnp.finfo(matrix.dtype).eps * curvatures.max())
    along = vectors.T @ force
    return -vectors @ (along / curvatures), jnp.sqrt(jnp.sum(along**2 / curvatures))


def _downhill(gradient, x, force, step):
    """A step, halved until the slope at its end is uphill by no more than half of what it was downhill."""
    for _ in range(HALVINGS):
        there = gradient(x + step)
        if there @ step <= -(force @ step) / 2:
            return x + step, there
        step = step / 2
    return x, jnp.full_like(force, jnp.nan)  # no step is short enough

"""What an integrator owes the sampler, tried out on a Gaussian posterior of two dimensions with full gradients."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from sgworld_numpyro.integrators.protocol import Integrator
from sgworld_numpyro.preconditioners.dense import Dense
from sgworld_numpyro.randomness.counter_rng import seed_words
from sgworld_numpyro.randomness.noise import NOISES, noise_block
from sgworld_numpyro.testing.claims import check_value, compiled, demand

MODE, ENERGY = np.array([1.0, -2.0]), 3.0  # of the potential energy: where it is least, and its value there
START = MODE + np.array([2.0, 1.0])
# M = L Lᵀ with Lᵀ H L = _RATES: a confusion of L with Lᵀ or of M with its root changes the stationary law.
_L = np.array([[1.0, 0.0], [0.5, 0.8]])
_RATES = np.array([[0.9, 0.2], [0.2, 0.5]])  # its eigenvalues are 0.98 and 0.42
HESSIAN = np.linalg.inv(_L).T @ _RATES @ np.linalg.inv(_L)
COARSE = 4  # times the step size: what is simulated in many steps
STEPS_TO_MODE = 5000  # enough for frictions up to about 20
LINEAR_STEPS = 20
LINEAR = 1e-4  # relative; single precision keeps a linear step far below
EXACT = 1e-4  # relative, of the covariance; what single precision leaves is below
DOUBLINGS = 40  # of the number of steps whose noise is summed up
CHAINS, BURN_IN, SAMPLED = 2048, 20, 40  # of integrators whose step is not linear; times in units of 1 / rate
ERRORS = 5  # Monte Carlo standard errors


class IntegratorProperties(NamedTuple):
    """What ``check_integrator`` found out about an integrator.

    Attributes:
        gradients: how many gradients a step takes, as traced: one in a loop or a branch counts once.
        linear: whether a step is linear on a quadratic potential; its stationary law is then known without sampling.
        step_sizes: h and h/2, those at which the stationary covariance was compared.
        covariance_errors: its relative errors there, the largest over directions.
        order: of the error in the step size, log₂ of the errors' ratio; infinite where the covariance is exact, NaN
            where Monte Carlo errors hide it.
    """

    gradients: int
    linear: bool
    step_sizes: tuple[float, float]
    covariance_errors: tuple[float, float]
    order: float


def check_integrator(
    integrator: Integrator, *, step_size: float = 0.05, key: Array | None = None
) -> IntegratorProperties:
    """Raise unless an integrator is one that the sampler can rely on.

    On a Gaussian posterior whose fastest rate, the largest eigenvalue of M ∇²U, is about 1, with full gradients:

    - It is a value: hashable and, if a dataclass, frozen. Its ``noise`` is a law that is known.
    - A step is a pure function, traced and under ``vmap``. It takes at least one gradient, keeps shape and dtype of
      position and state, as ``lax.scan`` wants, and returns the energy as a scalar.
    - At temperature 0, where ``noise`` is None, it ends in the mode.
    - At temperature 1 its stationary covariance tends to the posterior's, at first order at least: with E(h) the
      relative error at step size h, 2 E(h/2) - E(h) is below h². To that come five Monte Carlo errors where the law is
      simulated, as it is where a step is not linear; otherwise it is computed.

    Args:
        integrator: the integrator. One whose friction is left to tuning wants a number here.
        step_size: h, in units in which the fastest rate is 1. What is simulated is so at 4 h and 2 h.
        key: where randomness comes from; by default ``jax.random.key(0)``.

    Returns:
        What was found out, the measured order of convergence among it.

    Raises:
        AssertionError: with what is wrong and what mends it.
    """
    name = type(integrator).__name__
    demand(
        isinstance(integrator, Integrator),
        f"{name} is no integrator: it wants noise, noise_vectors, init(position) and step(gradient, position, state, "
        "noise, step_size, temperature, preconditioner).",
    )
    check_value(name, integrator)
    demand(integrator.noise in NOISES, f"{name}: noise is {integrator.noise!r}; choose one of {', '.join(NOISES)}.")
    vectors = integrator.noise_vectors
    demand(isinstance(vectors, int) and vectors >= 0, f"{name}: noise_vectors is {vectors!r}, wants an int, 0 or more.")
    demand(
        getattr(integrator, "friction", 0) is not None,
        f"{name} leaves its friction to tuning; check it with a number, {name}(friction=2.0).",
    )
    key = jax.random.key(0) if key is None else key
    gradients = _check_shapes(name, integrator)
    step = compiled(lambda x, state, noise, h: _step(integrator, x, state, noise, h, 1.0))
    _check_pure(name, integrator, step, key)
    resting = _check_mode(name, integrator, COARSE * step_size)
    slopes = _linearised(integrator, resting)
    if _is_linear(step, slopes, resting, step_size, key):
        errors: Any = [(_exact_error(name, slopes, size), 0.0) for size in (step_size, step_size / 2)]
        return _check_law(name, gradients, True, step_size, errors)
    errors = [_simulated_error(name, integrator, size, key) for size in (COARSE * step_size, COARSE * step_size / 2)]
    return _check_law(name, gradients, False, COARSE * step_size, errors)


def _check_law(name: str, gradients: int, linear: bool, h: float, errors: Any) -> IntegratorProperties:
    """The limit of the stationary covariance, from its relative errors (value, standard error) at h and h/2."""
    (first, error), (second, half_error) = errors
    limit, chance = 2 * second - first, ERRORS * np.hypot(error, 2 * np.asarray(half_error))
    demand(
        (abs(limit) <= h**2 + chance).all(),
        f"{name}: the stationary covariance does not tend to the posterior's. Relative to it the variances along two "
        f"directions are {_shown(first)} at step size {h:g}, {_shown(second)} at {h / 2:g}, and so {_shown(limit)} in "
        "the limit, where both want to be 1. Look at the scale of the noise, which is √(2hT) M^½ ξ for dx = -M ∇U dt, "
        "and at M: apply_root for the noise, apply for the force.",
    )
    coarse, fine = (float(abs(np.linalg.eigvalsh(error)).max()) for error in (first, second))
    if max(coarse, fine) < EXACT:
        order = np.inf
    elif fine > ERRORS * np.max(half_error):
        order = float(np.log2(coarse / fine))
    else:
        order = np.nan
    return IntegratorProperties(gradients, linear, (h, h / 2), (coarse, fine), order)


def _gradient(position):
    """Potential energy and its gradient."""
    away = position - jnp.asarray(MODE, position.dtype)
    force = jnp.asarray(HESSIAN, position.dtype) @ away
    return ENERGY + 0.5 * away @ force, force


def _step(integrator: Integrator, position, state, noise, step_size, temperature, gradient=_gradient):
    """A step, preconditioned."""
    preconditioner = Dense.from_root(jnp.asarray(_L, position.dtype))
    size = jnp.asarray(step_size, position.dtype)
    return integrator.step(gradient, position, state, noise, size, temperature, preconditioner)


def _start(integrator: Integrator):
    position = jnp.asarray(START, float)
    return position, integrator.init(position)


def _shape_of(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf).name), tree)


def _check_shapes(name: str, integrator: Integrator) -> int:
    """Position, state and energy keep their shapes; the number of gradients a step."""
    calls = []

    def counted(position):
        calls.append(position)
        return _gradient(position)

    position, state = _start(integrator)
    counts = set()
    for noise, temperature in ((jnp.zeros((integrator.noise_vectors, len(MODE)), position.dtype), 1.0), (None, 0.0)):
        calls.clear()
        step = partial(_step, integrator, noise=noise, step_size=0.1, temperature=temperature, gradient=counted)
        try:
            found = jax.eval_shape(step, position, state)
        except TypeError as error:
            if noise is not None:
                raise
            raise AssertionError(
                f"{name}: a step at temperature 0 fails ({error}). There noise is None: leave its term out."
            ) from error
        counts.add(len(calls))
        demand(
            isinstance(found, tuple) and len(found) == 3,
            f"{name}: step returns {type(found).__name__}, wants a tuple (position, state, energy).",
        )
        for what, before, after in (("position", position, found[0]), ("state", state, found[1])):
            demand(
                _shape_of(before) == _shape_of(after),
                f"{name}: a step changes the {what} from {_shape_of(before)} to {_shape_of(after)} (shape, dtype), at "
                f"temperature {temperature:g}. It is carried through lax.scan, which wants the same pytree, shapes and "
                "dtypes after each step as init makes.",
            )
        demand(
            jnp.shape(found[2]) == (),
            f"{name}: step returns an energy of shape {jnp.shape(found[2])}, wants the scalar that gradient returned.",
        )
    demand(min(counts) > 0, f"{name}: a step takes no gradient.")
    return max(counts)


def _check_pure(name: str, integrator: Integrator, step: Any, key: Array) -> None:
    """Steps one at a time against the same under vmap, which are traced anew."""
    position, state = _start(integrator)
    noise = jax.random.normal(key, (3, integrator.noise_vectors, len(MODE)), position.dtype)
    positions = position + jax.random.normal(jax.random.fold_in(key, 1), (3, len(MODE)), position.dtype)
    try:
        loop = [step(x, state, n, 0.1) for x, n in zip(positions, noise, strict=True)]
        together = compiled(jax.vmap(lambda x, n: _step(integrator, x, state, n, 0.1, 1.0)))(positions, noise)
    except jax.errors.UnexpectedTracerError:
        raise AssertionError(
            f"{name} keeps a value of one step for the next outside of its state; return it as the state."
        ) from None
    looped = jax.tree.map(lambda *leaves: jnp.stack(leaves), *loop)
    close = jax.tree.map(lambda a, b: np.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True), looped, together)
    demand(
        all(jax.tree.leaves(close)),
        f"{name}: the same steps, traced again under vmap, have other results. A step wants to be a pure function of "
        "its arguments: what it remembers belongs in its state, and what is random comes as noise.",
    )


def _check_mode(name: str, integrator: Integrator, step_size: float):
    """Temperature 0 ends in the mode; position and state there."""

    @compiled
    def descend(position, state):
        def one(carry, _):
            position, state = carry
            position, state, energy = _step(integrator, position, state, None, step_size, 0.0)
            return (position, state), energy

        return lax.scan(one, (position, state), length=STEPS_TO_MODE)

    (position, state), energy = descend(*_start(integrator))
    away = np.abs(np.asarray(position) - MODE).max()
    demand(
        away < 1e-3 * np.abs(START - MODE).max(),
        f"{name}: at temperature 0 and step size {step_size:g} it ends at {np.asarray(position).tolist()} and not in "
        f"the mode {MODE.tolist()}, where the fastest rate is 1 and {STEPS_TO_MODE} steps are plenty. Look at the sign "
        "of the force, or take a smaller step_size.",
    )
    demand(
        abs(float(energy[-1]) - ENERGY) < 1e-2,
        f"{name}: step returns the energy {float(energy[-1]):.3g} at the mode, where gradient says {ENERGY:g}; return "
        "the energy as gradient gave it.",
    )
    return position, state


def _linearised(integrator: Integrator, resting: Any) -> Any:
    """The step at rest as a function of the step size: slopes in position and state, made flat, and in the noise."""
    origin, unravel = ravel_pytree(resting)
    shape = (integrator.noise_vectors, len(MODE))

    def step(z, noise, step_size):
        position, state = unravel(z)
        position, state, _ = _step(integrator, position, state, noise.reshape(shape), step_size, 1.0)
        return ravel_pytree((position, state))[0]

    nothing = jnp.zeros(shape[0] * shape[1], origin.dtype)
    return compiled(lambda step_size: jax.jacfwd(step, argnums=(0, 1))(origin, nothing, step_size))


def _is_linear(step: Any, slopes: Any, resting: Any, step_size: float, key: Array) -> bool:
    """Whether noisy steps are those of the step linearised at rest."""
    A, B = (np.asarray(part, float) for part in slopes(step_size))
    (position, state), dim = resting, len(MODE)
    noise = 3 * jax.random.normal(key, (LINEAR_STEPS, B.shape[1] // dim, dim), position.dtype)  # far out: a bend shows
    away, scale, found = np.zeros(len(A)), 1.0, 0.0
    for vectors in noise:
        position, state, _ = step(position, state, vectors, step_size)
        away = A @ away + B @ np.asarray(vectors, float).ravel()
        scale = max(scale, np.abs(away[:dim]).max())
        found = max(found, np.abs(np.asarray(position, float) - np.asarray(resting[0], float) - away[:dim]).max())
    return bool(found <= LINEAR * scale)


def _exact_error(name: str, slopes: Any, step_size: float) -> np.ndarray:
    """Relative error of the stationary Σ = A Σ Aᵀ + B Bᵀ, in coordinates in which the posterior is white."""
    A, B = (np.asarray(part, float) for part in slopes(step_size))
    covariance = B @ B.T
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(DOUBLINGS):  # the noise of twice as many steps
            covariance, A = covariance + A @ covariance @ A.T, A @ A
            if np.abs(A[:2]).max(initial=0.0) < 1e-12:
                break
    covariance = covariance[:2, :2]  # the position comes first
    _check_finite(name, covariance, step_size)
    root = np.linalg.cholesky(HESSIAN)
    return root.T @ covariance @ root - np.eye(2)


def _simulated_error(name: str, integrator: Integrator, step_size: float, key: Array) -> tuple[np.ndarray, np.ndarray]:
    """The same from chains that start in the posterior, and the standard error of each entry."""
    root = np.linalg.cholesky(HESSIAN)
    dim, vectors = len(MODE), integrator.noise_vectors
    burn_in, steps = round(BURN_IN / step_size), round((BURN_IN + SAMPLED) / step_size)

    def chain(key):
        white = jax.random.normal(key, (dim,))
        position = jnp.asarray(MODE, white.dtype) + jnp.linalg.solve(jnp.asarray(root.T, white.dtype), white)
        seed = seed_words(key)

        def one(carry, n):
            position, state, sums = carry
            noise = noise_block(integrator.noise, seed, n[None], vectors, dim, position.dtype)[0]
            position, state, _ = _step(integrator, position, state, noise, step_size, 1.0)
            white = jnp.asarray(root.T, position.dtype) @ (position - jnp.asarray(MODE, position.dtype))
            return (position, state, sums + jnp.where(n < burn_in, 0.0, jnp.outer(white, white))), None

        start = (position, integrator.init(position), jnp.zeros((dim, dim), position.dtype))
        return lax.scan(one, start, jnp.arange(steps, dtype=jnp.int32))[0][2] / (steps - burn_in)

    found = np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(key, CHAINS)), float)
    _check_finite(name, found, step_size)
    return found.mean(0) - np.eye(dim), found.std(0) / np.sqrt(CHAINS)


def _check_finite(name: str, covariance: np.ndarray, step_size: float) -> None:
    demand(
        np.isfinite(covariance).all(),
        f"{name} has no stationary law at step size {step_size:g}, where the fastest rate is 1: its noise adds up. "
        "Look at its stability, or take a smaller step_size.",
    )


def _shown(error: np.ndarray) -> str:
    """The variances of a covariance with this relative error."""
    return " and ".join(f"{1 + value:.3g}" for value in np.linalg.eigvalsh(error))

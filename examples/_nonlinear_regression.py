"""The regression problem of arXiv 2306.03521 and what theory predicts for it, and chains that run chunk by chunk."""

import itertools
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax
from tqdm import tqdm

from sgworld_numpyro import EulerMaruyama, RandomReshuffle
from sgworld_numpyro.landscape import RowPotential, diffusion_matrix, hessian, landscape_minimum, potential_minimum
from sgworld_numpyro.nonequilibrium.autoregression import LinearDynamics, linear_dynamics
from sgworld_numpyro.nonequilibrium.entropy import entropy_production
from sgworld_numpyro.nonequilibrium.moments import LaggedMoments

BATCH_SIZE = 10
LEARNING_RATE = 1e-7
NOISE_SCALE = 0.1
REGULARISATION = 0.001
DIM = 7
CHUNK_DRAWS = 2_000_000


def net(w, x):
    """f = w5 tanh(w1 x + w3) + w6 tanh(w2 x + w4) + w7."""
    return w[4] * jnp.tanh(w[0] * x + w[2]) + w[5] * jnp.tanh(w[1] * x + w[3]) + w[6]


def model(x, y):
    """The prior's sd makes its share of the potential energy (N/2σ²) 0.001 |w|², as in the paper."""
    prior_scale = NOISE_SCALE / np.sqrt(REGULARISATION * len(x))
    w = numpyro.sample("w", dist.Normal(0, prior_scale).expand([DIM]).to_event(1))
    with numpyro.plate("rows", len(x), subsample_size=BATCH_SIZE):
        xb, yb = numpyro.subsample(x, event_dim=0), numpyro.subsample(y, event_dim=0)
        numpyro.sample("obs", dist.Normal(net(w, xb), NOISE_SCALE), obs=yb)


def read_data(directory):
    """x and y from x_train.txt and y_train.txt, one number a line."""
    x, y = (_read_numbers(Path(directory) / f"{name}_train.txt") for name in "xy")
    if len(x) != len(y):
        raise ValueError(f"{directory}: x_train.txt has {len(x)} numbers and y_train.txt {len(y)}; want as many.")
    if len(x) < 2 * BATCH_SIZE or len(x) % BATCH_SIZE:
        raise ValueError(
            f"{directory}: {len(x)} rows; want a multiple of the batch size {BATCH_SIZE}, and two batches or more, so "
            "that an epoch is a whole number of batches."
        )
    return x, y


def _read_numbers(path):
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(f"cannot read {path} ({error.strerror}); --data wants a directory that holds it.") from error
    numbers = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            numbers.append(float(line))
        except ValueError:
            raise ValueError(f"{path}, line {number}: {line!r} is not a number; want one a line.") from None
        if not np.isfinite(numbers[-1]):
            raise ValueError(f"{path}, line {number}: {line!r} is not finite.")
    return np.array(numbers)


def symmetric_copies(w):
    """The eight weights that make the same net: hidden units exchanged, and signs of each changed."""
    copies = []
    for order, signs in itertools.product(([0, 1], [1, 0]), itertools.product((1, -1), repeat=2)):
        units = np.asarray(w[:6]).reshape(3, 2)[:, order] * signs
        copies.append(np.append(units.ravel(), w[6]))
    return np.array(copies)


def global_minimum(potential: RowPotential, seed: int, starts: int = 64, steps: int = 200):
    """The lowest minimum of U that regularised Newton steps from random weights lead to.

    Of its symmetric copies, that with w1 >= w2 >= 0.
    """
    energy, slope, curvature = potential.full, jax.grad(potential.full), jax.hessian(potential.full)

    def step(carry, _):
        w, damping = carry
        curvatures, vectors = jnp.linalg.eigh(curvature(w))
        new = w - vectors @ ((vectors.T @ slope(w)) / (jnp.abs(curvatures) + damping))
        better = energy(new) < energy(w)
        return (jnp.where(better, new, w), jnp.where(better, damping / 3, damping * 4)), None

    def descend(w):
        (w, _), _ = lax.scan(step, (w, 1e3), length=steps)
        return w, energy(w)

    found, energies = jax.jit(jax.vmap(descend))(1.5 * jax.random.normal(jax.random.key(seed), (starts, DIM)))
    lowest = symmetric_copies(np.asarray(found)[np.nanargmin(energies)])
    chosen = max(lowest, key=lambda w: (w[1] >= 0, w[0] >= w[1], w[0]))
    w = potential_minimum(potential, jnp.asarray(chosen), tolerance=1e-9)
    curvatures = np.linalg.eigvalsh(np.asarray(hessian(potential, w)))
    if curvatures[0] <= 0:
        raise ValueError(f"the lowest point found, w = {np.asarray(w)}, is no minimum: curvatures {curvatures}.")
    return np.asarray(w)


def nearest_mode_is_home(draws, mode, covariance):
    """Whether each draw (..., dim) is nearer to ``mode`` than to its symmetric copies, in the metric of its law."""
    root = np.linalg.cholesky(np.linalg.inv(covariance))
    distances = [np.linalg.norm((draws - copy) @ root, axis=-1) for copy in symmetric_copies(mode)]
    home = np.linalg.norm((draws - mode) @ root, axis=-1)
    return home <= np.min(distances, axis=0) * (1 + 1e-9)


def posterior_of_mode(potential: RowPotential, mode, covariance, rng, proposals: int = 200_000):
    """Independent draws of the posterior around one mode, by importance resampling, and the weights' sample size.

    The proposals are of Student's t with 8 degrees of freedom about the Laplace approximation.
    """
    freedom = 8
    scale = np.sqrt(freedom / rng.chisquare(freedom, proposals))
    normal = rng.standard_normal((proposals, DIM))
    draws = mode + scale[:, None] * normal @ np.linalg.cholesky(covariance).T
    energy = np.asarray(jax.jit(lambda draws: lax.map(potential.full, draws, batch_size=1000))(draws))
    log_weight = -energy + (freedom + DIM) / 2 * np.log1p((scale * np.linalg.norm(normal, axis=1)) ** 2 / freedom)
    weight = np.exp(log_weight - log_weight.max()) * nearest_mode_is_home(draws, mode, covariance)
    weight /= weight.sum()
    return rng.choice(draws, size=proposals // 2, p=weight), float(1 / (weight**2).sum())


class Prediction(NamedTuple):
    """What theory says of the stationary state of plain SGD.

    Attributes:
        loss_minimum: the minimum of L.
        landscape_minimum: the minimum of the effective landscape.
        curvatures: eigenvalues of the Hessian of L at ``landscape_minimum``.
        directions: its eigenvectors, in columns.
        dynamics: mean, propagator, noise and covariance of a recorded transition. With replacement the mean lies
            beside the minimum, where E ∇L = 0 over the whole stationary law.
    """

    loss_minimum: np.ndarray
    landscape_minimum: np.ndarray
    curvatures: np.ndarray
    directions: np.ndarray
    dynamics: LinearDynamics

    @property
    def entropy_production(self):
        return rate_of(self.dynamics)

    @property
    def circulation(self):
        return area_rate(self.dynamics)


def area_rate(dynamics: LinearDynamics):
    """½ (Σ Aᵀ − A Σ), the area matrix per transition."""
    forth = dynamics.covariance @ dynamics.A.T
    return (forth - forth.T) / 2


def rate_of(dynamics: LinearDynamics):
    """Entropy production of given dynamics, in nats a transition."""
    any_draws = np.zeros((1, 2, len(dynamics.mean)))
    return float(entropy_production(any_draws, dynamics=dynamics).rate)


def _mean_shift(potential, w, covariance):
    """−½ H⁻¹ ∇tr(H Σ): where the mean of a law of covariance Σ sits for its mean gradient to vanish."""

    def excess(w):
        return jnp.trace(hessian(potential, w) @ covariance) / 2

    return -np.linalg.solve(np.asarray(hessian(potential, w)), np.asarray(jax.jit(jax.grad(excess))(jnp.asarray(w))))


def linear_theory(potential, w, scheme, step_size, temperature, steps):
    """The chain linearised about w and recorded every ``steps`` steps, one or an epoch: A = (1 − hH)^steps.

    The noise of an epoch without replacement is symmetric about the middle of the epoch, so half an epoch contracts it:
    Q = A^½ 2D A^½. That is of higher order than D itself, but 5 % of it in the stiffest direction here.
    """
    curvatures, basis = np.linalg.eigh(np.asarray(hessian(potential, w)))
    diffusion = np.asarray(diffusion_matrix(potential, w, scheme, step_size, temperature=temperature))
    contraction = (1 - step_size * curvatures)[:, None] ** np.arange(steps)
    noise = basis.T @ (2 * diffusion) @ basis
    if scheme.period(potential.plate) == 1:
        noise = noise * (contraction @ contraction.T)
    else:
        half = (1 - step_size * curvatures) ** (steps / 2)
        noise = noise * np.outer(half, half)
    propagator = (basis * (1 - step_size * curvatures) ** steps) @ basis.T
    return linear_dynamics(w, propagator, basis @ noise @ basis.T)


def predict(potential: RowPotential, minimum, scheme, step_size) -> Prediction:
    """Stationary state of plain SGD, recorded every step with replacement and every epoch without."""
    landscape = minimum
    steps = scheme.period(potential.plate)
    if isinstance(scheme, RandomReshuffle):
        landscape = np.asarray(
            landscape_minimum(
                potential, jnp.asarray(minimum), scheme, EulerMaruyama(), step_size, temperature=0.0, tolerance=1e-9
            )
        )
    dynamics = linear_theory(potential, jnp.asarray(landscape), scheme, step_size, 0.0, steps)
    mean = landscape + _mean_shift(potential, landscape, dynamics.covariance)
    curvatures, directions = np.linalg.eigh(np.asarray(hessian(potential, jnp.asarray(landscape))))
    return Prediction(minimum, landscape, curvatures, directions, dynamics._replace(mean=mean))


class Simulation:
    """Chains of a kernel, every draw of them, in chunks (chain, draw, dim) that fit the memory.

    A chunk begins with the last draw of the one before, so that no transition is left out. While a chunk is measured
    the next one is computed.
    """

    def __init__(self, title, kernel, data, start, key, draws, thinning):
        """``draws`` of all chains, and chunks of a multiple of ``thinning`` draws a chain."""
        chains = len(start)
        self.title = title
        self.chunks = max(1, round(draws / CHUNK_DRAWS))
        self.length = max(1, round(draws / (self.chunks * chains * thinning))) * thinning
        self.draws = self.chunks * self.length * chains
        self.draws_per_second = float("nan")  # of the first chunk, which nothing else runs beside
        self._state = kernel.init(jax.random.split(key, chains), 0, {"w": jnp.asarray(start)}, data)

        def draw(state, _):
            state = kernel.sample(state, data, {})
            return state, state.position

        self._advance = jax.jit(lambda state: lax.scan(draw, state, length=self.length)).lower(self._state).compile()

    def __iter__(self):
        last = np.asarray(self._state.position)[:, None]
        began = perf_counter()
        pending = jax.block_until_ready(self._advance(self._state))
        self.draws_per_second = self.draws / self.chunks / (perf_counter() - began)
        for chunk in tqdm(range(self.chunks), desc=self.title, unit="chunk", leave=False, disable=None):
            state, draws = pending
            draws = np.asarray(draws)
            if chunk + 1 < self.chunks:
                pending = self._advance(state)
            x = np.concatenate([last, draws.transpose(1, 0, 2)], axis=1)
            last = x[:, -1:]
            yield x


def in_basis(moments: LaggedMoments, basis) -> LaggedMoments:
    """The moments of the coordinates basisᵀ x."""
    length, first, second, *seconds = moments.sums
    turned = (np.einsum("ki,bkl,lj->bij", basis, s, basis) for s in seconds)
    return LaggedMoments(moments.origin @ basis, length, first @ basis, second @ basis, *turned)


def plane_of_currents(dynamics: LinearDynamics):
    """Two combinations of the coordinates, of unit variance and uncorrelated, that circulate most: shape (dim, 2)."""
    root = np.linalg.cholesky(np.linalg.inv(dynamics.covariance))
    rates, vectors = np.linalg.eigh(1j * root.T @ area_rate(dynamics) @ root)
    vector = vectors[:, np.argmax(rates)]
    return root @ (np.sqrt(2) * np.stack([vector.real, vector.imag], 1))

"""Gradient noise and curvature near the mode, and the preconditioner that they suggest.

With g_i the gradient in which row i stands for all N rows, C = Cov_i(g_i) and H = ∇²U. A well-specified model has
C/N + P = H, where P is the curvature of what no row enters, the priors: the starting point of a preconditioner,
whatever the number of dimensions. Hessian-vector products, as many as a pass or so pays for, correct it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jaxtyping import Float

from sgworld_numpyro.preconditioners import Dense, Diagonal, Preconditioner
from sgworld_numpyro.subsampling import Plate
from sgworld_numpyro.tuning.estimates import Estimates, product

SAMPLES_PER_DIMENSION = 20  # of gradients, so that their covariance is known to some 20 %
HESSIAN_PASSES = 1.25  # over the data, in Hessian-vector products, for a dense preconditioner
HESSIAN_GROUPS = 8  # whose scatter says how far their mean can be trusted
# Of the diagonal of the priors' Hessian: one is enough if the latent sites are independent a priori; in a hierarchy of
# many groups a few would leave one of them without any curvature, by chance.
PROBES = 64
TOGETHER = 8
SMALLEST = 1e-4  # ratio of eigenvalues; beyond it single precision knows too little
POWER_ITERATIONS = 8
POWER_PASSES = 0.25  # over the data, each
MAX_DENSE = 1000  # coordinates, of which matrices are made
MIN_GROUPS = 16  # that a pass is cut into, for the mean and scatter of products


class Rates(NamedTuple):
    """What decides the bias, in the coordinates q = L⁻¹θ of the preconditioner M = L Lᵀ.

    Attributes:
        fastest: λ = λ_max(Lᵀ H L).
        mean: tr(Lᵀ H L) / d.
        noise: ρ, the gradients' noise at draws of the posterior by its size in a well-specified model: λ_max(Lᵀ C L) /
            (N λ) if all of C is known, else uᵀLᵀCLu / (N λ) in the fastest direction u, or the ratio of traces if that
            is larger.
        anchored_noise: the same of gradients with control variates.
        hessian_noise: E|δH_b u|², for independent batches of the plate's size.
        slope: max_j |M E[δH_b M δg_b]|_j / √M_jj over the coordinates θ_j, likewise: it shifts the mean of reshuffled
            chains.
    """

    fastest: Any
    mean: Any
    noise: Any
    anchored_noise: Any
    hessian_noise: Any
    slope: Any


class Metric(NamedTuple):
    """A preconditioner, and what was found on the way.

    Attributes:
        preconditioner: M.
        flattest: the least curvature, by its standard error; ∞ if not looked for.
        scale: of each coordinate, given the others.
    """

    preconditioner: Preconditioner
    flattest: Float[Array, ""]
    scale: Float[Array, "dim"]


def gradient_covariance(
    estimates: Estimates,
    position: Float[Array, "dim"],
    mean: Float[Array, "dim"],
    dense: bool,
    groups: int = MIN_GROUPS,
) -> Float[Array, "dim dim"] | Float[Array, "dim"]:
    """C = Cov_i(g_i), or its diagonal, from one pass over the data.

    Args:
        estimates: the model on its data.
        position: where.
        mean: the gradient of all the data there.
        dense: whether all of C is wanted.
        groups: of rows that the pass is cut into at least.
    """
    dim, plate = position.size, estimates.plate
    size = estimates.group_size(max(groups, SAMPLES_PER_DIMENSION * (dim if dense else 1)))
    count = max(1, plate.size // size)

    def total(deviations):
        return deviations.T @ deviations if dense else jnp.sum(deviations**2, 0)

    squares = estimates.sum_over_groups(lambda energy: jax.grad(energy)(position) - mean, 0, count, size, dim, total)
    return squares / count * of_single_rows(plate.size, size)


def learn(
    kind: Preconditioner, estimates: Estimates, position: Float[Array, "dim"], covariance: Array, key: Array
) -> Metric:
    """The preconditioner of a kind, M ≈ H⁻¹ at a position, given C there or its diagonal."""
    rows, infinite = estimates.plate.size, jnp.asarray(jnp.inf, position.dtype)
    if isinstance(kind, Diagonal):
        covariance = jnp.diagonal(covariance) if covariance.ndim == 2 else covariance
        diagonal = 1 / bounded(covariance / rows + jnp.abs(diagonal_of_priors(estimates, position, key)))
        return Metric(Diagonal.tree_unflatten(None, (diagonal,)), infinite, jnp.sqrt(diagonal))
    prior = jax.vmap(lambda v: product(estimates.energy_without_rows, position, v))(jnp.eye(position.size))
    fisher = covariance / rows + (prior + prior.T) / 2
    # in units of the coordinates' own scales, so that units do not cost digits
    scale = jax.lax.rsqrt(bounded(jnp.diagonal(covariance) / rows + jnp.abs(jnp.diagonal(prior))))
    values, vectors = jnp.linalg.eigh(fisher * jnp.outer(scale, scale))
    root = scale[:, None] * vectors * lax.rsqrt(bounded(jnp.abs(values)))
    preconditioner, flattest = _corrected(root, estimates, position)
    return Metric(preconditioner, flattest, scale)


def diagonal_of_priors(estimates: Estimates, position: Float[Array, "dim"], key: Array) -> Float[Array, "dim"]:
    """Curvature of what no row enters, of each coordinate, from a few products (Hutchinson 1990)."""

    def total(number, so_far):
        z = random.rademacher(random.fold_in(key, number), (TOGETHER, position.size), position.dtype)
        return so_far + jax.vmap(lambda z: z * product(estimates.energy_without_rows, position, z))(z).sum(0)

    return lax.fori_loop(0, PROBES // TOGETHER, total, jnp.zeros_like(position)) / PROBES


def bounded(values):
    """Curvatures that are no smaller than single precision can tell from the largest."""
    return jnp.maximum(values, SMALLEST**2 * jnp.max(values) + jnp.finfo(values.dtype).tiny)


def _corrected(root, estimates, position):
    """The metric of a root L₀, with L₀ᵀ H L₀ as far as a few groups of rows show it, and its least curvature."""
    dim, plate = position.size, estimates.plate
    rows = min(plate.size, int(HESSIAN_PASSES * plate.size / dim))
    size = max(1, min(rows // HESSIAN_GROUPS, plate.size // HESSIAN_GROUPS))
    if len(estimates.target.plates) > 1:
        size = plate.batch_size
    groups = min(max(rows // size, 1), plate.size // size)
    few = plate.size < HESSIAN_GROUPS and len(estimates.target.plates) == 1  # all of them cost next to nothing
    if not few and (rows < HESSIAN_GROUPS or groups < HESSIAN_GROUPS):
        return Dense.from_root(root), jnp.asarray(jnp.inf, position.dtype)

    def hessian(energy):
        images = jax.vmap(lambda v: product(energy, position, v))(root.T)  # rows are (H L₀)ᵀ
        matrix = images @ root
        return (matrix + matrix.T) / 2

    if few:
        values, vectors = jnp.linalg.eigh(estimates.full(hessian))
        return _along(root, values, vectors), jnp.asarray(jnp.inf, position.dtype)
    first, second = estimates.sum_over_groups(
        lambda energy: (matrix := hessian(energy), jnp.sum(matrix**2)), 0, groups, size, dim**2
    )
    mean = first / groups
    # Ledoit & Wolf 2004: as much of the scatter as is chance is taken out, towards a multiple of one.
    chance = (second / groups - jnp.sum(mean**2)) / (groups - 1)
    centre = jnp.trace(mean) / dim
    scatter = jnp.sum((mean - centre * jnp.eye(dim)) ** 2)
    kept = 1 - jnp.clip(chance / jnp.maximum(scatter, jnp.finfo(mean.dtype).tiny), 0, 1)
    values, vectors = jnp.linalg.eigh(kept * mean + (1 - kept) * centre * jnp.eye(dim))
    error = jnp.sqrt(jnp.maximum(chance, 0) / dim) + jnp.finfo(mean.dtype).eps * jnp.abs(values).max() * dim
    return _along(root, values, vectors), values.min() / error


def _along(root, values, vectors):
    """The metric of a root, given the eigenvalues and eigenvectors of the Hessian in its coordinates."""
    return Dense.from_root(root @ (vectors * lax.rsqrt(jnp.maximum(jnp.abs(values), SMALLEST * jnp.abs(values).max()))))


def rates(
    estimates: Estimates,
    position: Float[Array, "dim"],
    mean: Float[Array, "dim"],
    preconditioner: Preconditioner,
    covariance: Array,
    key: Array,
    temperature: float,
) -> Rates:
    """The rates in the coordinates of a preconditioner, from products with rows that did not decide it.

    Args:
        estimates: the model on its data.
        position: where, near the mode.
        mean: the gradient of all the data there.
        preconditioner: M.
        covariance: C or its diagonal, as ``gradient_covariance`` gives it.
        key: of the first direction.
        temperature: of the draws around the position, at which Hessians that scatter make noise.
    """
    dim, plate = position.size, estimates.plate
    size = estimates.group_size(MIN_GROUPS)
    count = max(2, int(POWER_PASSES * plate.size / size))
    factor = of_single_rows(plate.size, size) * (plate.size - plate.batch_size) / max(plate.size - 1, 1)
    per_batch = factor / plate.batch_size

    dense = covariance.ndim == 2

    def moments(energy, v, own, crossed):
        gradient, hessian = jax.linearize(jax.grad(energy), position)
        image = hessian(jnp.where(crossed, preconditioner.apply(gradient - own), preconditioner.apply_root(v)))
        found = gradient, image, jnp.sum(preconditioner.apply_root_transpose(image) ** 2)
        if dense:
            return found
        slope = preconditioner.apply_root_transpose(gradient - mean)
        return *found, jnp.dot(v, slope) ** 2, jnp.dot(slope, slope)

    def iterate(carry, look):
        (v, own), (number, crossed) = carry, look
        sums = estimates.sum_over_groups(
            lambda energy: moments(energy, v, own, crossed), number * count, count, size, 2 * dim
        )
        gradient, image, squares, *noise = (total / count for total in sums)
        first = preconditioner.apply_root_transpose(image)
        spread = (squares - jnp.dot(first, first)) * count / (count - 1)
        own = jnp.where(number == 0, gradient, own)
        return (first / jnp.linalg.norm(first), own), (image, jnp.dot(v, first), spread * per_batch, *noise)

    # The last look is at the first groups again, at each one's Hessian times its gradient, less the mean of these very
    # groups: its chance difference from that of all would outweigh the correlation. One loop is one copy to compile.
    start = random.rademacher(key, (dim,), position.dtype) / jnp.sqrt(dim)
    looks = jnp.append(jnp.arange(POWER_ITERATIONS), 0), jnp.arange(POWER_ITERATIONS + 1) == POWER_ITERATIONS
    _, (images, products, spreads, *noise) = lax.scan(iterate, (start, jnp.zeros_like(mean)), looks)
    last = slice(POWER_ITERATIONS - int(1 / POWER_PASSES), POWER_ITERATIONS)  # these are a whole pass
    fastest, average = products[last].mean(), products[0]
    if dense:
        root = jax.vmap(preconditioner.apply_root)(jnp.eye(dim, dtype=position.dtype)).T
        ratio = jnp.linalg.eigvalsh(root.T @ covariance @ root)[-1] / plate.size / fastest
    else:
        along, total = noise[0][last].mean(), noise[1][:POWER_ITERATIONS].mean()
        ratio = jnp.maximum(along / fastest, total / (dim * average)) * of_single_rows(plate.size, size) / plate.size

    drift = images[-1]
    if dim <= MAX_DENSE:
        root = jax.vmap(preconditioner.apply_root)(jnp.eye(dim, dtype=position.dtype))  # columns of L, as rows
        slope = jnp.max(jnp.abs(preconditioner.apply(drift)) / jnp.linalg.norm(root, axis=0))
    else:
        slope = jnp.max(jnp.abs(preconditioner.apply_root_transpose(drift)))
    hessian_noise = spreads[last].mean()
    anchored = temperature * hessian_noise * of_rows(plate) / fastest**2
    return Rates(fastest, average, ratio + anchored, anchored, hessian_noise, slope * per_batch)


def of_rows(plate: Plate) -> float:
    """What turns the variance of minibatches' means, drawn without replacement, into that of rows, by their number."""
    if plate.size == plate.batch_size:
        return 0.0
    return plate.batch_size * (plate.size - 1) / (plate.size * (plate.size - plate.batch_size))


def of_single_rows(rows: int, size: int) -> float:
    """What turns the covariance of groups' means, drawn without replacement, into that of single rows."""
    return size * (rows - 1) / max(rows - size, 1)


def passes(dim: int, dense: bool, rates: bool = True) -> float:
    """Passes over the data, in gradients, that a look at the curvature takes, with or without the rates."""
    look = 2 + dense * 2 * HESSIAN_PASSES  # the gradient, its covariance
    return look + rates * (POWER_ITERATIONS + 1) * POWER_PASSES * 2

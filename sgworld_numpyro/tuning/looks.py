"""Looks at a model's data: small compiled pieces, driven from Python and used again.

Each is compiled once for a model and its data. One large program that did all of tuning would take as long to compile
as everything else that a user waits for.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jaxtyping import Float

from sgworld_numpyro.chain.binding import Binding
from sgworld_numpyro.chain.data import Data
from sgworld_numpyro.chain.engine import Engine, steps_per_pass
from sgworld_numpyro.chain.start import check_initial_state, initial_state, state_at
from sgworld_numpyro.chain.state import SGState
from sgworld_numpyro.gradients import Minibatch
from sgworld_numpyro.integrators import BAOAB
from sgworld_numpyro.linear_gaussian import knows_scheme
from sgworld_numpyro.model.arguments import Arguments
from sgworld_numpyro.model.blocks import block_length
from sgworld_numpyro.preconditioners import Dense, Preconditioner
from sgworld_numpyro.subsampling import Plate, RandomReshuffle, SubsamplingScheme
from sgworld_numpyro.tuning import warm_start
from sgworld_numpyro.tuning.estimates import Estimates, product
from sgworld_numpyro.tuning.warm_start import Descent

POINTS = 17  # whose energies one look takes: a place, and as many trials or draws around it
DRAWS = 8  # at which curvature and scatter are averaged
HESSIAN_PASSES = 1.25  # over the data, in Hessian-vector products, that a mean Hessian may take
HESSIAN_ROWS = 4_000_000  # or as many rows times columns, if that is more: a fraction of a second
GROUPS_PER_DIMENSION = 20  # of rows, whose gradients' covariance is then known to some 20 %
MIN_GROUPS = 1024
FEWEST_GROUPS = 32  # at a draw, where groups must be whole minibatches of several plates
GROUP = 256  # rows at most, of a Hessian's groups
ENERGY = 1 / 3  # of the cost of a gradient
CHAINS = 4  # of the pilot
POOL = 64  # draws that are kept
RECORDED = 32  # draws of each chain in a window


class Looks:
    """The data of one run, as tuning sees them; every number is for all the data, in nats.

    Args:
        binding: the model on its data.
        seed: of a random order of the rows.
    """

    def __init__(self, binding: Binding, seed: int):
        self._binding = binding
        self._target = binding.engine.target
        self.passes = 0.0  # over the data, in gradients, of everything but descents and windows
        rng = np.random.default_rng(seed)
        self._orders = {plate.name: rng.permutation(plate.size).astype(np.int32) for plate in self._target.plates}

    @property
    def plate(self) -> Plate:
        """The plate that takes most batches a pass."""
        return self._target.longest_plate

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return self._target.dim

    @property
    def dtype(self):
        """Of positions."""
        return self._target.dtype

    def root_of(self, preconditioner: Preconditioner) -> np.ndarray:
        """L of M = L Lᵀ."""
        columns = [preconditioner.apply_root(unit) for unit in np.eye(self.dim, dtype=self.dtype)]
        return np.stack(columns, axis=1).astype(float)

    def _look(self, name: str, function: Callable, *inputs: Any, once: bool = False) -> Any:
        def on_data(arguments, orders, *inputs):
            return function(Estimates(self._target, arguments, orders), *inputs)

        piece = self._binding.compiled(name, on_data, self._binding.arguments, once=once)
        return piece(self._orders, *inputs)

    def _cast(self, array: np.ndarray) -> np.ndarray:
        """To the model's precision; what is beyond it becomes infinite."""
        with np.errstate(over="ignore"):
            return np.asarray(array, self.dtype)

    def initial_positions(self, init_strategy: Callable, seed: int, given: Any) -> np.ndarray:
        """Where chains would start, shape (CHAINS, dim).

        Raises:
            ValueError: for data that are not finite, and if no valid initial values were found.
        """

        def begin(arguments, seed, given):
            keys = random.split(random.key(seed), CHAINS)
            state, valid = initial_state(self._binding.engine, init_strategy, 1.0, arguments, keys, given)
            return state.position, valid

        start = self._binding.compiled("pilot's start", begin, self._binding.arguments, once=True)
        positions, valid = start(np.int32(seed), given)
        positions = np.asarray(positions)
        check_initial_state(valid, positions[0], self._binding)
        return positions

    def descend(self, descents: Descent, first: int, last: int) -> Descent:
        """Several descents, from step ``first`` to before ``last``."""

        def all_of_them(estimates, descents, first, last):
            return jax.vmap(lambda one: warm_start.descend(estimates, one, first, last))(descents)

        return self._look("descend", all_of_them, descents, jnp.int32(first), jnp.int32(last))

    def heights(self, points: np.ndarray) -> np.ndarray:
        """Energies at points (n, dim) less that at the first of them, in double precision; NaN is made infinite."""
        first, others = points[:1], np.atleast_2d(points[1:])
        found = [np.zeros(1)]
        for start in range(0, len(others), POINTS - 1):
            some = np.concatenate([first, others[start : start + POINTS - 1]])
            padded = np.concatenate([some, np.repeat(first, POINTS - len(some), axis=0)])
            self.passes += len(some) * ENERGY
            inputs = self._cast(padded), np.int32(len(some))
            energies = self._look("heights", warm_start.above_the_first, *inputs)
            found.append(np.asarray(energies, float)[1 : len(some)])
        heights = np.concatenate(found)
        return np.where(np.isnan(heights), np.inf, heights)

    def gradient(self, position: np.ndarray) -> np.ndarray:
        """The gradient of all the data."""
        self.passes += 1
        found = self._look("gradient", lambda e, x: e.gradient(x), self._cast(position))
        return np.asarray(found, float)

    def gradients(self, positions: np.ndarray) -> np.ndarray:
        """Those at several positions (n, dim)."""

        def at_all(estimates, positions):
            return estimates.full(lambda energy: lax.map(jax.grad(energy), positions))

        self.passes += len(positions)
        return np.asarray(self._look("gradients", at_all, self._cast(positions)), float)

    def hessians(self, positions: np.ndarray, number: int = 0) -> np.ndarray:
        """Of ``DRAWS`` positions, from rows that each has to itself if there are more than it may take.

        Args:
            positions: shape (DRAWS, dim).
            number: of the look; another one begins with other rows.
        """
        size, count = _hessian_groups(self.dim, self._target)
        self.passes += DRAWS * min(size * count / self.plate.size, 1) * 2 * self.dim
        inputs = self._cast(positions), jnp.int32(number)
        found = np.asarray(self._look("hessians", _hessians, *inputs), float)
        return (found + found.swapaxes(1, 2)) / 2

    def scatter(self, positions: np.ndarray, anchor: np.ndarray, root: np.ndarray) -> tuple[np.ndarray, ...]:
        """How groups of rows scatter at ``DRAWS`` positions.

        Args:
            positions: draws.
            anchor: of control variates.
            root: L of the metric, with √T.

        Returns:
            Gradients of groups (DRAWS, partitions, groups, dim), the same at the anchor, random directions L z_b of one
            sd, their images H_b L z_b, and the mean of H_b M δg_b at each draw (DRAWS, dim), T included.
        """
        rows = self._rows_that_scatter()
        groups = rows[self.plate.name].shape[:3]
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (*groups, self.dim))
        directions = signs @ root.T
        inputs = [self._cast(array) for array in (positions, anchor, root, directions)]
        self.passes += 6
        found = self._look("scatter", _scatter, rows, *inputs, once=True)
        gradients, anchored, images, drifts = (np.asarray(array, float) for array in found)
        return gradients, anchored, directions, images, drifts

    def covariances(self, positions: np.ndarray, anchor: np.ndarray, root: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Covariances of rows' gradients, each of which stands for all N, by N, in a metric at ``DRAWS`` positions.

        Args:
            positions: draws.
            anchor: of control variates.
            root: L of the metric.

        Returns:
            Lᵀ C L / N of each (DRAWS, dim, dim), and the same of differences from the rows' gradients at the anchor.
        """
        rows = self._rows_that_scatter()
        self.passes += 2
        found = self._look("covariances", _covariances, rows, *map(self._cast, (positions, anchor, root)), once=True)
        factor = self.group_size * (self.plate.size - 1) / self.plate.size**2  # from groups to rows, as in ``rates``
        own, anchored = (np.asarray(array, float) * factor for array in found)
        return own, anchored

    def priors(self, points: np.ndarray) -> np.ndarray:
        """The part of the energies that no row enters."""

        def at_all(estimates, points):
            return lax.map(estimates.energy_without_rows, points)

        return np.asarray(self._look("priors", at_all, self._cast(points), once=True), float)

    @property
    def group_size(self) -> int:
        """Rows of a group whose gradients scatter."""
        return self._scatter_groups[0]

    @property
    def _scatter_groups(self):
        """Rows of a group, groups in a partition or a part of it, and how many of those there are at each draw."""
        wanted = max(MIN_GROUPS, GROUPS_PER_DIMENSION * self.dim)
        if len(self._target.plates) == 1:
            size = min(self.plate.batch_size, -(-self.plate.size // wanted))
            return size, max(2, min(wanted, self.plate.size // size) // DRAWS), 1
        size = self.plate.batch_size
        count = max(2, min(wanted // DRAWS, self.plate.size // size))
        affordable = HESSIAN_ROWS // (self.dim * DRAWS * count * size)
        return size, count, int(np.clip(FEWEST_GROUPS // count, 1, max(1, affordable)))

    def _rows_that_scatter(self):
        """Of each plate, rows of groups, shape (DRAWS, partitions, groups, rows).

        Groups of a partition have none in common; nor have those of different draws, if there are enough.
        """
        size, count, partitions = self._scatter_groups
        rng, found = np.random.default_rng(1), {}
        for plate in self._target.plates:
            each = plate.batch_size if len(self._target.plates) > 1 else size
            order, there_are = self._orders[plate.name], plate.size // each
            if partitions == 1 and there_are >= DRAWS * count:
                found[plate.name] = order[: DRAWS * count * each].reshape(DRAWS, 1, count, each)
                continue
            numbers = np.arange(count) % there_are
            orders = [rng.permutation(order)[: there_are * each] for _ in range(DRAWS * partitions)]
            groups = np.stack([order.reshape(-1, each)[numbers] for order in orders])
            found[plate.name] = groups.reshape(DRAWS, partitions, count, each)
        return found

    def window_engine(self, temperature: float) -> Engine:
        """What moves the pilot chains: BAOAB on reshuffled minibatches, a pass a sample."""
        engine = self._binding.engine
        scheme = engine.subsampling if reshuffles(engine.subsampling) else RandomReshuffle()
        steps = steps_per_pass(scheme, self._target)
        return replace(
            engine,
            subsampling=scheme,
            integrator=BAOAB(),
            gradient=Minibatch(),
            temperature=temperature,
            schedule=None,
            steps=steps,
            anchor=None,
        )

    def window(self, engine: Engine, state: SGState, root: np.ndarray, start: int, samples: int):
        """Pilot chains go on for ``RECORDED`` times so many samples.

        Args:
            engine: of ``window_engine``.
            state: of the chains, along the first axis.
            root: L of M = L Lᵀ.
            start: samples taken before.
            samples: between two recorded draws.

        Returns:
            The state, and the positions (RECORDED, chains, dim) recorded.
        """
        same = engine.subsampling == self._binding.engine.subsampling

        def run(arguments, state, root, start, samples):
            data = Data(arguments, self._binding.read(self._binding.arguments).reordered if same else {})
            moved = replace(engine, preconditioner=Dense.from_root(root))
            chains = len(state.i)

            def sample(number, state):
                return jax.vmap(lambda one: moved.advance(one, number, data, chains))(state)

            def record(carry, _):
                number, state = carry
                state = lax.fori_loop(number, number + samples, sample, state)
                return (number + samples, state), state.position

            (_, state), positions = lax.scan(record, (start, state), None, length=RECORDED)
            return state, positions

        piece = self._binding.compiled("window", run, self._binding.arguments)
        state, positions = piece(state, self._cast(root), jnp.int32(start), jnp.int32(samples))
        return state, np.asarray(positions, float)

    def chains_at(self, engine: Engine, positions: np.ndarray, key: Array, step_size: float, friction: float):
        """States of pilot chains at positions (chains, dim), at rest."""
        begin = partial(_chains_at, engine)
        return self._binding.compiled("chains", begin, self._binding.arguments, once=True)(
            self._cast(positions), key, jnp.asarray([step_size, friction], self.dtype)
        )


def reshuffles(scheme: SubsamplingScheme) -> bool:
    """Whether it is one of the package's schemes whose batches make up for another's noise."""
    return knows_scheme(scheme) and scheme.redraws != "step"


def _hessian_groups(dim, target):
    """Rows of a group, and groups, that each of several mean Hessians is made of."""
    plate = target.longest_plate
    rows = max(int(HESSIAN_PASSES * plate.size / dim), HESSIAN_ROWS // dim) // DRAWS
    size = plate.batch_size if len(target.plates) > 1 else max(1, min(plate.size, rows, GROUP))
    return size, min(max(1, rows // size), max(1, plate.size // size))


def _hessians(estimates, positions, number):
    dim, plate = positions.shape[1], estimates.plate
    size, count = _hessian_groups(dim, estimates.target)
    whole = len(estimates.target.plates) == 1 and count * size > plate.size // 2

    def hessian(energy, position):
        return jax.vmap(lambda v: product(energy, position, v))(jnp.eye(dim, dtype=position.dtype))

    def of(draw):
        position, n = draw
        if whole:
            return estimates.full(lambda energy: hessian(energy, position))
        first = (number * DRAWS + n) * count
        return estimates.sum_over_groups(lambda energy: hessian(energy, position), first, count, size, dim**2) / count

    return lax.map(of, (positions, jnp.arange(DRAWS, dtype=jnp.int32)))


def _scatter(estimates, rows, positions, anchor, root, directions):
    partitions, count, dim = directions.shape[1:]
    together = block_length(rows[estimates.plate.name].shape[3], 4 * dim, positions.dtype)

    def of(draw):
        position, directions, rows = draw
        directions, rows = jax.tree.map(lambda leaf: leaf.reshape(partitions * count, -1), (directions, rows))

        def first(look):
            rows, direction = look
            energy = partial(estimates.energy, rows=rows)
            gradient, image = jax.jvp(jax.grad(energy), (position,), (direction,))
            return gradient, jax.grad(energy)(anchor), image

        here, there, images = (
            leaf.reshape(partitions, count, dim) for leaf in lax.map(first, (rows, directions), batch_size=together)
        )
        turned = (here - here.mean(1, keepdims=True)) @ root @ root.T

        def second(look):
            rows, direction = look
            return product(partial(estimates.energy, rows=rows), position, direction)

        drifts = lax.map(second, (rows, turned.reshape(directions.shape)), batch_size=together)
        return here, there, images, drifts.mean(0) * (count / (count - 1))

    return lax.map(of, (positions, directions, rows))


def _covariances(estimates, rows, positions, anchor, root):
    partitions, count, size = rows[estimates.plate.name].shape[1:]
    together = block_length(size, 2 * len(anchor), positions.dtype)

    def of(draw):
        position, rows = draw

        def both(rows):
            gradient = jax.grad(partial(estimates.energy, rows=rows))
            here, there = gradient(position), gradient(anchor)
            return here @ root, (here - there) @ root

        found = lax.map(
            both, jax.tree.map(lambda leaf: leaf.reshape(partitions * count, -1), rows), batch_size=together
        )
        return tuple(covariance(groups.reshape(partitions, count, -1)) for groups in found)

    def covariance(groups):
        away = groups - groups.mean(1, keepdims=True)
        return jnp.einsum("pgi,pgj->ij", away, away) / (partitions * (count - 1))

    return lax.map(of, (positions, rows))


def _chains_at(engine, arguments: Arguments, positions: Float[Array, "chains dim"], key, numbers):
    step_size, friction = numbers
    shuffle_keys, noise_keys = (random.split(one, len(positions)) for one in random.split(key))
    state = jax.vmap(lambda x, *keys: state_at(engine, step_size, engine.target.unravel(x), *keys))(
        positions, shuffle_keys, noise_keys
    )
    integrator = state.integrator_state
    return state._replace(integrator_state=integrator._replace(friction=jnp.full_like(integrator.friction, friction)))

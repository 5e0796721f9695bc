"""Looks that make matrices: Hessians, and how rows' gradients and Hessians scatter."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sgworld_numpyro.model.blocks import block_length
from sgworld_numpyro.preconditioners import Preconditioner
from sgworld_numpyro.tuning.estimates import product
from sgworld_numpyro.tuning.looks import Looks

DRAWS = 8  # at which curvature and scatter are averaged
HESSIAN_PASSES = 1.25  # over the data, in Hessian-vector products, that a mean Hessian may take
HESSIAN_ROWS = 4_000_000  # or as many rows times columns, if that is more: a fraction of a second
GROUPS_PER_DIMENSION = 20  # of rows, whose gradients' covariance is then known to some 20 %
MIN_GROUPS = 1024
FEWEST_GROUPS = 32  # at a draw, where groups must be whole minibatches of several plates
GROUP = 256  # rows at most, of a Hessian's groups


class DenseLooks(Looks):
    """Those at a model of few enough dimensions."""

    def root_of(self, preconditioner: Preconditioner) -> np.ndarray:
        """L of M = L Lᵀ."""
        columns = [preconditioner.apply_root(unit) for unit in np.eye(self.dim, dtype=self.dtype)]
        return np.stack(columns, axis=1).astype(float)

    def hessians(self, positions: np.ndarray, number: int = 0) -> np.ndarray:
        """Of ``DRAWS`` positions, from rows that each has to itself if there are more than it may take.

        Args:
            positions: shape (DRAWS, dim).
            number: of the look; another one begins with other rows.
        """
        size, count = _hessian_groups(self.dim, self.target)
        self.passes += DRAWS * min(size * count / self.plate.size, 1) * 2 * self.dim
        inputs = self.cast(positions), jnp.int32(number)
        found = np.asarray(self.look("hessians", _hessians, *inputs), float)
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
        inputs = [self.cast(array) for array in (positions, anchor, root, directions)]
        self.passes += 6
        found = self.look("scatter", _scatter, rows, *inputs, once=True)
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
        found = self.look("covariances", _covariances, rows, *map(self.cast, (positions, anchor, root)), once=True)
        factor = self.group_size * (self.plate.size - 1) / self.plate.size**2  # from groups to rows, as in ``rates``
        own, anchored = (np.asarray(array, float) * factor for array in found)
        return own, anchored

    @property
    def group_size(self) -> int:
        """Rows of a group whose gradients scatter."""
        return self._scatter_groups[0]

    @property
    def _scatter_groups(self):
        """Rows of a group, groups in a partition or a part of it, and how many of those there are at each draw."""
        wanted = max(MIN_GROUPS, GROUPS_PER_DIMENSION * self.dim)
        if len(self.target.plates) == 1:
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
        for plate in self.target.plates:
            each = plate.batch_size if len(self.target.plates) > 1 else size
            order, there_are = self.orders[plate.name], plate.size // each
            if partitions == 1 and there_are >= DRAWS * count:
                found[plate.name] = order[: DRAWS * count * each].reshape(DRAWS, 1, count, each)
                continue
            numbers = np.arange(count) % there_are
            orders = [rng.permutation(order)[: there_are * each] for _ in range(DRAWS * partitions)]
            groups = np.stack([order.reshape(-1, each)[numbers] for order in orders])
            found[plate.name] = groups.reshape(DRAWS, partitions, count, each)
        return found


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

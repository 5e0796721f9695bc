"""What decides the bias of a run, measured at draws of the posterior."""

import numpy as np

from sgworld_numpyro.tuning.curvature import Rates
from sgworld_numpyro.tuning.dense_looks import DenseLooks


def rates_at(looks: DenseLooks, at, hessians, anchor, root, temperature: float, narrow: bool) -> Rates:
    """What decides the bias of chains in a metric, averaged over draws of the posterior.

    Args:
        looks: at the model's data.
        at: draws, shape (DRAWS, dim).
        hessians: there.
        anchor: of control variates.
        root: L of M = L Lᵀ.
        temperature: of the draws.
        narrow: whether the posterior is a Gaussian, whose curvature is the same everywhere: the mean over draws then
            has less error. Else the largest that was met counts: where a step is too long for it, draws are lost.
    """
    plate = looks.plate
    eigenvalues = np.linalg.eigvalsh(root.T @ hessians @ root)
    fastest = max(eigenvalues[:, -1].mean(), np.linalg.eigvalsh(root.T @ hessians.mean(0) @ root)[-1])
    gradients, anchored, directions, images, drifts = looks.scatter(at, anchor, np.sqrt(temperature) * root)
    size, rows = looks.group_size, plate.size
    per_batch = (rows - plate.batch_size) / max(rows - 1, 1) / plate.batch_size
    # From groups to single rows. Squares by how far groups are from their partition's mean, divided by one less than
    # there are, are those of rows that were drawn with replacement; those from the mean of all rows are fewer.
    from_own_mean, from_mean = size * (rows - 1) / rows, size * (rows - 1) / max(rows - size, 1)

    def largest(groups):
        """Largest eigenvalue of the covariance of groups in the metric."""
        vectors = groups.reshape(-1, groups.shape[-1]) @ root
        return np.linalg.eigvalsh(vectors.T @ vectors / len(vectors))[-1]

    def noise(gradients):
        """Of rows' gradients, by N λ."""
        count = gradients.shape[2]
        deviations = gradients - gradients.mean(2, keepdims=True)
        return largest(deviations) * count / (count - 1) * from_own_mean / (rows * fastest)

    hessian_noise = largest(images - directions @ hessians[:, None]) / temperature * from_mean * per_batch
    drift = drifts @ (root @ root.T)  # of each draw, M E[δH M δg]
    error = drift.std(0, ddof=1) / np.sqrt(len(drift))
    slope = np.maximum(np.abs(drift.mean(0)) - error, 0) / np.sqrt(np.sum(root**2, axis=1)) * from_own_mean * per_batch
    mean = np.trace(root.T @ hessians.mean(0) @ root) / len(root)
    noises = noise(gradients), noise(gradients - anchored)
    steepest = fastest if narrow else max(fastest, eigenvalues[:, -1].max())
    numbers = steepest, mean, *noises, hessian_noise * (steepest / fastest) ** 2, np.max(slope)
    return Rates(*(float(number) for number in numbers))

"""Driven systems whose entropy production is known exactly: what a measure should find.

Linear ones, ``driven_ou`` and ``beads``, and ``Diffusion``s whose stationary law is known although a force that is no
gradient drives them: ``vortices``, ``rings`` and ``turned_gradient``. Rates are in nats per
unit of time, of the diffusion; draws come from Euler's steps, and a rate per transition is the rate times the step as
that becomes small.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_BURN_IN = 20.0  # units of time, in which the systems here relax many times
_QUADRATURE = 801  # points along an axis
_REACH = 6.0  # of t in x = sinh t: to 200, in steps of 0.015 near the origin


class LinearChain(NamedTuple):
    """x' = A x + noise of covariance Q.

    Attributes:
        A: propagator, of shape (dim, dim).
        Q: covariance of the noise of a step, of shape (dim, dim).
        step: duration of a step.
        rate: entropy production per unit of time as the step goes to 0, in nats; NaN if not known.
    """

    A: Float[np.ndarray, "dim dim"]
    Q: Float[np.ndarray, "dim dim"]
    step: float
    rate: float

    @property
    def covariance(self) -> Float[np.ndarray, "dim dim"]:
        """The stationary covariance, as the solution of d² linear equations."""
        dim = len(self.A)
        found = np.linalg.solve(np.eye(dim**2) - np.kron(self.A, self.A), self.Q.ravel())
        return found.reshape(dim, dim)

    def sample(self, chains: int, draws: int, seed: int = 0) -> Float[np.ndarray, "chain draw dim"]:
        """Stationary draws, one a step."""
        rng = np.random.default_rng(seed)
        start, kick = np.linalg.cholesky(self.covariance), np.linalg.cholesky(self.Q)
        x = rng.standard_normal((chains, len(self.A))) @ start.T
        found = np.empty((draws, *x.shape))
        for t in range(draws):
            found[t] = x
            x = x @ self.A.T + rng.standard_normal(x.shape) @ kick.T
        return found.transpose(1, 0, 2)


def driven_ou(step: float, alpha: float = 0.7) -> LinearChain:
    """A particle in a harmonic trap that a torque drives round: 2α² nats and an area α per unit of time."""
    return _linear(np.array([[1.0, -alpha], [alpha, 1.0]]), np.eye(2), step, 2 * alpha**2)


def beads(number: int, step: float) -> LinearChain:
    """Beads on springs between walls, at temperatures from 25 to 250 (Li et al. 2019, Nat. Commun. 10, 1666)."""
    springs = 2 * np.eye(number) - np.eye(number, k=1) - np.eye(number, k=-1)
    temperatures = np.linspace(25, 250, number)
    return _linear(springs, np.diag(temperatures), step, _linear_rate(springs, temperatures))


def _linear(drift, diffusion, step, rate):
    return LinearChain(np.eye(len(drift)) - step * drift, 2 * step * diffusion, step, rate)


def _linear_rate(drift, diffusion):
    """E[vᵀ D⁻¹ v] of dx = −M x dt + √(2D) dW with diagonal D, where M Σ + Σ Mᵀ = 2D and v = (D Σ⁻¹ − M) x."""
    dim = len(drift)
    generator = np.kron(drift, np.eye(dim)) + np.kron(np.eye(dim), drift)
    covariance = np.linalg.solve(generator, 2 * np.diag(diffusion).ravel()).reshape(dim, dim)
    velocity = diffusion[:, None] * np.linalg.inv(covariance) - drift
    return float(np.einsum("ij,i,ik,jk->", velocity, 1 / diffusion, velocity, covariance))


class Diffusion(NamedTuple):
    """dx = f(x) dt + √2 dW.

    Attributes:
        drift: f, of positions of shape (n, dim).
        dim: the number of dimensions.
        rate: entropy production per unit of time, in nats.
    """

    drift: Callable[[Float[np.ndarray, "n dim"]], Float[np.ndarray, "n dim"]]
    dim: int
    rate: float

    def sample(
        self, chains: int, draws: int, step: float, *, substeps: int = 1, seed: int = 0
    ) -> Float[np.ndarray, "chain draw dim"]:
        """Draws at times ``step`` apart, by Euler's method in ``substeps`` of them, after 20 units of time."""
        rng = np.random.default_rng(seed)
        small = step / substeps
        x = rng.standard_normal((chains, self.dim))
        skipped = int(np.ceil(_BURN_IN / step))
        found = np.empty((draws, *x.shape))
        for t in range(skipped + draws):
            if t >= skipped:
                found[t - skipped] = x
            for kick in np.sqrt(2 * small) * rng.standard_normal((substeps, *x.shape)):
                x = x + small * self.drift(x) + kick
        return found.transpose(1, 0, 2)


def vortices(a: float) -> Diffusion:
    """Two vortices that turn against each other, dx = (−x + a (xy, 1 − x²)) dt + √2 dW: 3a² nats per unit of time.

    The stationary law is N(0, 1), whatever a, and the chain sweeps out no area on average: neither the moments nor the
    circulation of the chain tell it from one in equilibrium.
    """

    def drift(position):
        x, y = position.T
        return np.stack([-x + a * x * y, -y + a * (1 - x**2)], -1)

    return Diffusion(drift, 2, 3 * a**2)


def rings(a: float) -> Diffusion:
    """Turning one way inside and the other outside, dx = (−x + a (r² − 4)(y, −x)) dt + √2 dW: 16a² nats.

    As of the vortices the law is N(0, 1) and no area is swept out; nor do quadratic currents show it.
    """

    def drift(position):
        turned = np.stack([position[:, 1], -position[:, 0]], -1)
        return -position + a * ((position**2).sum(1, keepdims=True) - 4) * turned

    return Diffusion(drift, 2, 16 * a**2)


def turned_gradient(potential: Callable, gradient: Callable, a: float) -> Diffusion:
    """The law e^{−U}, driven: dx = −(1 − aJ)∇U dt + √2 dW, J the rotation by 90°; a² E|∇U|² nats per unit of time.

    Args:
        potential: U of positions of shape (n, 2), of shape (n,), as of a law that lies within 200 of the origin.
        gradient: ∇U, of shape (n, 2).
        a: how strongly it is driven.
    """
    t = np.linspace(-_REACH, _REACH, _QUADRATURE)
    points = np.stack(np.meshgrid(np.sinh(t), np.sinh(t), indexing="ij"), -1).reshape(-1, 2)
    energy = potential(points)
    weight = np.exp(energy.min() - energy) * np.outer(np.cosh(t), np.cosh(t)).ravel()
    mean_square = float(weight @ (gradient(points) ** 2).sum(1) / weight.sum())

    def drift(position):
        force = gradient(position)
        return -force + a * np.stack([-force[:, 1], force[:, 0]], -1)

    return Diffusion(drift, 2, a**2 * mean_square)


def quartic_trap(a: float) -> Diffusion:
    """``turned_gradient`` of U = r⁴/4."""
    return turned_gradient(lambda x: (x**2).sum(1) ** 2 / 4, lambda x: x * (x**2).sum(1, keepdims=True), a)


def two_wells(a: float, barrier: float = 1.0) -> Diffusion:
    """``turned_gradient`` of U = b (x² − 1)² + y²/2, with wells at x = ±1 behind a barrier of b nats."""

    def potential(position):
        x, y = position.T
        return barrier * (x**2 - 1) ** 2 + y**2 / 2

    def gradient(position):
        x, y = position.T
        return np.stack([4 * barrier * x * (x**2 - 1), y], -1)

    return turned_gradient(potential, gradient, a)


def heavy_tails(a: float, nu: float = 5.0) -> Diffusion:
    """``turned_gradient`` of a Student law of ν degrees of freedom, U = (1 + ν/2) ln(1 + r²/ν)."""

    def potential(position):
        return (1 + nu / 2) * np.log1p((position**2).sum(1) / nu)

    def gradient(position):
        return (nu + 2) * position / (nu + (position**2).sum(1, keepdims=True))

    return turned_gradient(potential, gradient, a)

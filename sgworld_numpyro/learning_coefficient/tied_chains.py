"""Chains that are tied to one point: how they start there, and what is measured of their draws."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jaxtyping import Float

from sgworld_numpyro.chain.binding import compiler_options
from sgworld_numpyro.chain.divergence import DivergenceWarning
from sgworld_numpyro.chain.state import SGState
from sgworld_numpyro.gradients import Minibatch
from sgworld_numpyro.integrators import KineticState, is_kinetic
from sgworld_numpyro.kernel import StochasticGradientKernel
from sgworld_numpyro.landscape.row_potentials import RowPotential, row_potential
from sgworld_numpyro.model import blocks
from sgworld_numpyro.model.arguments import Arguments
from sgworld_numpyro.model.target import inspect_model
from sgworld_numpyro.model.tie import tied
from sgworld_numpyro.preconditioners import Identity
from sgworld_numpyro.tuning.tuned_start import learns


class Draws(NamedTuple):
    """What is measured of each draw.

    Attributes:
        excess: nβ (L − L(w₀)).
        squares: |w − w₀|².
        virials: β (w − w₀)·∇U / d, whose mean is 1 in the tied law.
    """

    excess: Float[np.ndarray, "chain draw"]
    squares: Float[np.ndarray, "chain draw"]
    virials: Float[np.ndarray, "chain draw"]


class TiedChains:
    """Chains of the law e^{−nβ L(w) − γ|w − w₀|²/2} that start at w₀.

    Their potential U is nL, of the likelihood alone, with the tie as a prior, (γT/2) |w − w₀|²: at temperature T = 1/β
    the law is e^{−βU}.

    Args:
        kernel: whose model, scheme and integrator these are.
        at: w₀, unconstrained values by site.
        localisation: γ.
        temperature: T; None for ln n.
        args: the model's arguments.
        kwargs: likewise.

    Raises:
        ValueError: for a w₀ of other sites or shapes, a kernel that would have to learn from the posterior, or a model
            with several subsampled plates.
    """

    def __init__(
        self,
        kernel: StochasticGradientKernel,
        at: Mapping[str, Any],
        localisation: float,
        temperature: float | None,
        args: tuple,
        kwargs: dict[str, Any],
    ):
        given = kernel.given()
        self.preconditioner = given["preconditioner"] or Identity()
        gradient = given["gradient"] or Minibatch()
        if learns(self.preconditioner) or gradient.needs_anchor:
            raise ValueError(
                f"{kernel!r} would learn from the posterior, and chains here are tied to w₀: leave gradient and "
                "preconditioner out, or give the latter its numbers."
            )
        model = kernel.model.model
        target = inspect_model(model, Arguments.of(args, kwargs))
        _check_point(at, target.prototype)
        at = {site: jnp.asarray(at[site], leaf.dtype) for site, leaf in target.prototype.items()}
        rows = target.longest_plate.size
        if temperature is None and rows < 2:
            raise ValueError(f"of {rows} row ln n, the temperature, is 0; give another one.")
        self.temperature = float(np.log(rows) if temperature is None else temperature)
        self.localisation = localisation
        model = tied(model, at, 1 / np.sqrt(localisation * self.temperature))
        self.potential: RowPotential = row_potential(model, *args, **kwargs)
        self.point: Float[Array, "dim"] = target.ravel(at)
        self.given_step = given["step_size"]
        self.tolerance = given["bias_tolerance"]
        self.scheme, self.integrator = given["subsampling"], given["integrator"]
        self.friction_is_open = is_kinetic(self.integrator) and self.integrator.friction is None
        if self.friction_is_open:
            self.integrator = replace(self.integrator, friction=self.slowest_friction)
        self._at, self._data = at, (args, kwargs)
        self._kernel = type(kernel)(
            model,
            1.0 if self.given_step is None else self.given_step,  # its place is taken when the step is chosen
            subsampling=self.scheme,
            integrator=self.integrator,
            gradient=gradient,
            preconditioner=self.preconditioner,
            temperature=self.temperature,
            steps_per_sample=given["steps_per_sample"],
        )
        self._advance = jax.jit(self._draws, static_argnames="length", compiler_options=compiler_options(once=False))

    @property
    def slowest_friction(self) -> float:
        """That which damps motion along the tie alone critically: where the loss is flat, γT is the curvature."""
        return 2 * float(np.sqrt(self.localisation * self.temperature))

    def start(self, key: Array, num_chains: int) -> SGState:
        """Chains at w₀."""
        args, kwargs = self._data
        at = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_chains, *leaf.shape)), self._at)
        return self._kernel.init(random.split(key, num_chains), 0, at, args, kwargs)

    @property
    def steps_per_sample(self) -> int:
        """Of the kernel, and so minibatch gradients of a draw."""
        return self._kernel.settings(*self._data).steps_per_sample

    def with_step(self, state: SGState, step_size: float, friction: float) -> SGState:
        """The state for another step size, and another friction where that is left open."""
        integrator_state = state.integrator_state
        if self.friction_is_open:
            full = jnp.full_like(integrator_state.friction, friction)
            integrator_state = integrator_state._replace(friction=full)
        return state._replace(step_size=jnp.full_like(state.step_size, step_size), integrator_state=integrator_state)

    def friction_of(self, state: SGState) -> float | None:
        """γ of chains with velocities."""
        kinetic = isinstance(state.integrator_state, KineticState)
        return float(state.integrator_state.friction[0]) if kinetic else None

    def run(self, state: SGState, length: int) -> tuple[SGState, Draws]:
        """So many samples from a state, and what is measured of each: not finite where a chain has diverged."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DivergenceWarning)  # who runs it tells, or tries a shorter step
            state, measured = jax.block_until_ready(self._advance(self.potential, state, length=length))
            jax.effects_barrier()
        return state, Draws(*(np.asarray(values, float).T for values in jax.device_get(measured)))

    def _draws(self, potential, state, length):
        args, kwargs = self._data

        def draw(state, _):
            state = self._kernel.sample(state, args, kwargs)
            return state, jax.vmap(partial(_measure, potential, self.point, self.tie))(state.position)

        return lax.scan(draw, state, length=length)

    @property
    def tie(self) -> tuple[float, float]:
        """γ and T."""
        return self.localisation, self.temperature


def _measure(potential, point, tie, position):
    """Of one draw. A row's loss is compared with its loss at w₀: of a difference of sums little would be left."""
    localisation, temperature = tie
    away = position - point

    def rise(position):
        def block(rows):
            return len(rows) * (potential.estimate(position, rows) - potential.estimate(point, rows))

        return blocks.sum_over_blocks(block, potential.num_rows, blocks.BLOCK_ROWS) / potential.num_rows

    energy, along = jax.jvp(rise, (position,), (away,))
    square = away @ away
    return Draws(energy / temperature - localisation * square / 2, square, along / (temperature * len(away)))


def _check_point(at, prototype):
    shapes = {site: leaf.shape for site, leaf in prototype.items()}
    if not isinstance(at, Mapping) or {site: np.shape(value) for site, value in at.items()} != shapes:
        found = {site: np.shape(value) for site, value in at.items()} if isinstance(at, Mapping) else repr(at)
        raise ValueError(
            f"at has {found}; want unconstrained values of every latent site, {shapes}, such as those that "
            "numpyro.infer.util.unconstrain_fn makes of constrained ones."
        )
    if not all(np.isfinite(value).all() for value in at.values()):
        raise ValueError("at is not finite: the chains are tied to a minimum of the loss; give one.")

"""The public checks pass what is right, all that we ship among it, and name what is wrong with the rest."""

import itertools
from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgworld_numpyro import (
    BAOAB,
    UBU,
    BatchReshuffle,
    Cyclic,
    EulerMaruyama,
    FullBatch,
    IndependentBatches,
    LeimkuhlerMatthews,
    RandomReshuffle,
    RunReshuffle,
    ShuffleOnce,
    SymmetricReshuffle,
    WithReplacement,
)
from sgworld_numpyro.subsampling.protocol import Plate
from sgworld_numpyro.testing import check_integrator, check_scheme

STRADDLING = (Plate("rows", 10, 4),)


@pytest.mark.parametrize(
    ("scheme", "period", "random", "balanced", "each_step"),
    [
        (BatchReshuffle(), 5, True, True, True),
        (Cyclic(), 5, False, True, False),
        (FullBatch(), 1, False, True, True),
        (IndependentBatches(), 1, True, False, True),
        (RandomReshuffle(), 5, True, True, True),
        (RunReshuffle(), 5, True, True, True),
        (ShuffleOnce(), 5, True, True, True),
        (SymmetricReshuffle(), 10, True, True, True),
        (WithReplacement(), 1, True, False, True),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "period") else None,
)
def test_shipped_schemes_pass(scheme, period, random, balanced, each_step):
    assert check_scheme(scheme, STRADDLING) == ((period, random, balanced, each_step),)


def test_both_kinds_of_plate_are_checked_by_default():
    dividing, straddling = check_scheme(Cyclic())
    assert (dividing.period, straddling.period) == (3, 5)


@dataclass(frozen=True)
class Uniform:
    """Independent uniform rows: right, and spoilt by its subclasses."""

    def indices(self, key, start, steps, plate):
        def rows(step):
            return self.rows(jax.random.fold_in(key, step), step, plate)

        return jax.vmap(rows)(start + jnp.arange(steps))

    def rows(self, key, step, plate):
        return jax.random.randint(key, (plate.batch_size,), 0, plate.size)

    def period(self, plate):
        return 1


class OutOfBounds(Uniform):
    def rows(self, key, step, plate):
        return super().rows(key, step, plate) + 1


class Biased(Uniform):
    def rows(self, key, step, plate):
        return super().rows(key, step, plate) // 2 * 2


class Stateful(Uniform):
    calls: ClassVar = itertools.count()

    def rows(self, key, step, plate):
        return super().rows(jax.random.fold_in(key, next(self.calls)), step, plate)


class Leaking(Uniform):
    kept: ClassVar = []

    def indices(self, key, start, steps, plate):
        self.kept[:] = [jax.random.split(self.kept[0] if self.kept else key)[0]]
        return super().indices(self.kept[0], start, steps, plate)


class Blockwise(Uniform):
    """One key for a block, whatever its start."""

    def indices(self, key, start, steps, plate):
        return jax.random.randint(key, (steps, plate.batch_size), 0, plate.size)


class Keyless(Uniform):
    def rows(self, key, step, plate):
        return super().rows(jax.random.fold_in(jax.random.key(0), step), step, plate)


class Shapeless(Uniform):
    def rows(self, key, step, plate):
        return super().rows(key, step, plate)[:-1]


class Floating(Uniform):
    def rows(self, key, step, plate):
        return super().rows(key, step, plate).astype(float)


class NoPeriod(Uniform):
    def period(self, plate):
        return plate.size / plate.batch_size


@dataclass(frozen=True)
class ShortPeriod(RandomReshuffle):
    def period(self, plate):
        return 1


@dataclass(frozen=True)
class Drifting(Cyclic):
    """In the order of the data at first, and later the same rows for ever."""

    def indices(self, key, start, steps, plate):
        step = start + jnp.arange(steps)
        return jnp.where((step < self.period(plate))[:, None], super().indices(key, start, steps, plate), 0)


@dataclass(frozen=True)
class Mislaid(Cyclic):
    """Stored side by side in another order than it says."""

    def layout(self, plate):
        return jnp.arange(self.period(plate) * plate.batch_size)[::-1] % plate.size

    def batch_numbers(self, key, start, steps, plate):
        return (start + jnp.arange(steps)) % self.period(plate)


@dataclass
class Mutable:
    weights: list = field(default_factory=list)
    indices = Uniform.indices
    rows = Uniform.rows
    period = Uniform.period


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (OutOfBounds(), r"OutOfBounds.*step \d+ has row 10, which is out of bounds; rows are 0 to 9\."),
        (Biased(), r"Biased.*biased\. Row \d is used 0\.\d+ ± 0\.\d+ times a period of 1 step .* 0\.400 is every"),
        (Stateful(), r"Stateful.*alone and .* in a block .*pure function of key and step.*keep no state"),
        (Leaking(), r"Leaking.*keeps a value of one call for the next.*fold_in"),
        (Blockwise(), r"Blockwise.*alone and .* in a block"),
        (Keyless(), r"Keyless.*the same for every key"),
        (Shapeless(), r"Shapeless.*has shape \(\d+, 3\), wants \(\d+, 4\)"),
        (Floating(), r"Floating.*dtype float32, wants integers"),
        (NoPeriod(), r"NoPeriod.*period is 2\.5, wants a positive int"),
        (ShortPeriod(), r"ShortPeriod.*period is 1, but .* equally often only after every 5 steps; return 5"),
        (Drifting(), r"Drifting.*steps 5 to 9, a period, do not"),
        (Mislaid(), r"Mislaid.*takes from layout have other rows"),
        (Mutable(), r"Mutable is not hashable .*frozen=True"),
        (object(), r"object is no subsampling scheme: it wants the methods indices"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_broken_schemes_are_named(scheme, message):
    with pytest.raises(AssertionError, match=message):
        check_scheme(scheme, STRADDLING)


@pytest.mark.parametrize(
    ("integrator", "order"),
    [
        (EulerMaruyama(), 1.0),
        (LeimkuhlerMatthews("three_point"), np.inf),
        (BAOAB(friction=2.0), np.inf),
        (UBU(friction=2.0), 2.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_shipped_integrators_pass_at_their_order(integrator, order):
    found = check_integrator(integrator)
    assert found.gradients == 1
    assert found.linear
    assert found.order == pytest.approx(order, abs=0.05)


@dataclass(frozen=True)
class Langevin:
    """Euler-Maruyama once more: right, and spoilt by its subclasses."""

    noise: str = "gaussian"
    noise_vectors: ClassVar[int] = 1

    def init(self, position):
        return ()

    def force(self, gradient, position, step_size):
        return gradient(position)

    def kick(self, noise, step_size, temperature, preconditioner):
        return jnp.sqrt(2 * temperature * step_size) * preconditioner.apply_root(noise[0])

    def step(self, gradient, position, state, noise, step_size, temperature, preconditioner):
        energy, force = self.force(gradient, position, step_size)
        position = position - step_size * preconditioner.apply(force)
        if noise is not None:
            position = position + self.kick(noise, step_size, temperature, preconditioner)
        return position, state, energy


class Tamed(Langevin):
    """A force that is bounded at large distances, of first order: its step is not linear."""

    def force(self, gradient, position, step_size):
        energy, force = gradient(position)
        return energy, force / (1 + 0.1 * step_size * jnp.linalg.norm(force))


def test_a_step_that_is_not_linear_is_simulated():
    found = check_integrator(Tamed())
    assert not found.linear
    assert found.order == pytest.approx(1.0, abs=0.3)


class Cold(Langevin):
    def kick(self, noise, step_size, temperature, preconditioner):
        return jnp.sqrt(temperature * step_size) * preconditioner.apply_root(noise[0])


class Transposed(Langevin):
    def kick(self, noise, step_size, temperature, preconditioner):
        return jnp.sqrt(2 * temperature * step_size) * preconditioner.apply_root_transpose(noise[0])


class Uphill(Langevin):
    def force(self, gradient, position, step_size):
        energy, force = gradient(position)
        return energy, -force


class Growing(Langevin):
    def step(self, gradient, position, state, *rest):
        position, _, energy = super().step(gradient, position, state, *rest)
        return position, jnp.zeros(3), energy


class NoiseAtTemperatureZero(Langevin):
    def step(self, gradient, position, state, noise, *rest):
        return super().step(gradient, position, state, noise * 1.0, *rest)


class Remembering(Langevin):
    calls: ClassVar = itertools.count()

    def kick(self, noise, step_size, temperature, preconditioner):
        return next(self.calls) * super().kick(noise, step_size, temperature, preconditioner)


class NoEnergy(Langevin):
    def step(self, *arguments):
        position, state, energy = super().step(*arguments)
        return position, state, 0 * energy


class VectorEnergy(Langevin):
    def step(self, *arguments):
        position, state, energy = super().step(*arguments)
        return position, state, energy[None]


@pytest.mark.parametrize(
    ("integrator", "message"),
    [
        (Cold(), r"Cold: the stationary covariance does not tend .* 0\.5\d+ and 0\.5\d+ at step size 0\.05.*noise"),
        (Transposed(), r"Transposed: the stationary covariance does not tend .*apply_root for the noise"),
        (Uphill(), r"Uphill: at temperature 0 .* not in the mode .*sign of the force"),
        (Growing(), r"Growing: a step changes the state from \(\) to \(\(3,\), 'float32'\).*lax\.scan"),
        (NoiseAtTemperatureZero(), r"a step at temperature 0 fails .*noise is None"),
        (Remembering(), r"Remembering: the same steps, traced again under vmap, have other results"),
        (NoEnergy(), r"NoEnergy: step returns the energy 0 at the mode, where gradient says 3"),
        (VectorEnergy(), r"VectorEnergy: step returns an energy of shape \(1,\)"),
        (Langevin("cauchy"), r"Langevin: noise is 'cauchy'; choose one of gaussian, three_point"),
        (BAOAB(), r"BAOAB leaves its friction to tuning; check it with a number, BAOAB\(friction=2\.0\)"),
        (object(), r"object is no integrator: it wants noise, noise_vectors, init"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_broken_integrators_are_named(integrator, message):
    with pytest.raises(AssertionError, match=message):
        check_integrator(integrator)

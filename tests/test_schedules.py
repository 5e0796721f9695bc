"""Schedules: their values, what they refuse, and that any callable is one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgworld_numpyro.schedules import WellingTeh

positive = st.floats(1e-6, 1e6)
EXAMPLES = settings(max_examples=30, deadline=None, derandomize=True)


@EXAMPLES
@given(positive, positive, st.floats(0.5, 1, exclude_min=True), st.integers(0, 2**31 - 1))
def test_welling_teh_is_its_formula(a, b, gamma, step):
    assert WellingTeh(a, b, gamma)(step) == a * (b + step) ** -gamma


def test_defaults_are_those_of_the_paper():
    """b = 1 makes the first step a itself; γ = 0.55 is the paper's exponent."""
    schedule = WellingTeh(0.3)
    assert (schedule.b, schedule.gamma) == (1.0, 0.55)
    assert schedule(0) == 0.3


@EXAMPLES
@given(positive, positive, st.floats(0.5, 1, exclude_min=True))
def test_welling_teh_decreases_from_its_first_value(a, b, gamma):
    steps = np.geomspace(1, 2**31 - 1, 50)
    sizes = WellingTeh(a, b, gamma)(steps)
    assert np.all(sizes > 0)
    assert np.all(np.diff(sizes) < 0)
    assert WellingTeh(a, b, gamma)(0) == a * b**-gamma


def test_welling_teh_traced():
    schedule, steps = WellingTeh(0.1, 10.0, 0.6), jnp.arange(0, 2**31 - 1, 2**26, dtype=jnp.int32)
    expected = 0.1 * (10.0 + np.asarray(steps, float)) ** -0.6
    sizes = jax.jit(jax.vmap(schedule))(steps)
    # base, power and product are rounded once each, and the power's logarithm, γ log(base) large, once more
    roundings = 3 + 0.6 * np.log(2.0**31)
    np.testing.assert_allclose(sizes, expected, rtol=roundings * np.finfo(np.float32).eps)


@pytest.mark.parametrize("name", ["a", "b", "gamma"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_welling_teh_refuses(name, value):
    with pytest.raises(ValueError, match=rf"a > 0, b > 0 and 0\.5 < gamma <= 1.*{name}={value}"):
        WellingTeh(**{"a": 1.0, name: value})


@pytest.mark.parametrize("gamma", [0.5, 0.3, 1.0001])
def test_welling_teh_refuses_exponents_whose_bias_does_not_vanish(gamma):
    with pytest.raises(ValueError, match=f"gamma={gamma}"):
        WellingTeh(1.0, gamma=gamma)


def test_welling_teh_is_a_value():
    assert WellingTeh(1.0, 2.0) == WellingTeh(1.0, 2.0, 0.55)
    assert hash(WellingTeh(1.0)) == hash(WellingTeh(1.0))


def test_optax_schedule_is_a_schedule():
    """Called alike: a step count in, a size out, traced or not."""
    cosine = optax.cosine_decay_schedule(0.1, 100)
    for schedule in (WellingTeh(0.1), cosine):
        sizes = jax.jit(jax.vmap(schedule))(jnp.arange(5))
        assert sizes.shape == (5,)
        assert jnp.issubdtype(sizes.dtype, jnp.floating)
        assert float(sizes[0]) == np.float32(0.1)

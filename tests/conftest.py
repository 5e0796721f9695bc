"""Tests run side by side each keep to a core of their own, and let go of what they compiled."""

import os

import pytest

worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
if worker and hasattr(os, "sched_setaffinity"):
    # Before JAX starts its threads: two that share two cores wait for one another at every small operation.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker) % len(cores)]})


@pytest.fixture(autouse=True, scope="module")
def _forget_what_was_compiled():
    """Every compiled function maps some memory: of thousands, a process would use up the 65530 maps Linux allows."""
    yield
    import jax

    jax.clear_caches()

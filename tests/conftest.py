"""Tests run side by side each keep to a core of their own, share what they compile, and let go of it."""

import os
import shutil
import tempfile

import pytest

worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
if worker and hasattr(os, "sched_setaffinity"):
    # Before JAX starts its threads: two that share two cores wait for one another at every small operation.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker) % len(cores)]})


def pytest_configure(config):
    """Programs that are equal are compiled once a session: by all workers, subprocesses, and the files of tests.

    JAX reads the variables as it is imported. What has a callback into Python, as a chain that can diverge, is compiled
    anew all the same, and a test that counts compilations counts those that are read back.
    """
    if worker or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    programs = tempfile.mkdtemp(prefix="sgworld_numpyro_tests_")
    config.add_cleanup(lambda: shutil.rmtree(programs, ignore_errors=True))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = programs
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


@pytest.fixture(autouse=True, scope="module")
def _forget_what_was_compiled():
    """Every compiled function maps some memory: of thousands, a process would use up the 65530 maps Linux allows."""
    yield
    import jax

    jax.clear_caches()

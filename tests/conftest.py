"""Tests run side by side each keep to a core of their own, compile fast, and let go of what they compiled."""

import gc
import os
from importlib.metadata import version

import pytest

worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
if worker and hasattr(os, "sched_setaffinity"):
    # Before JAX starts its threads: two that share two cores wait for one another at every small operation.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker) % len(cores)]})

# Most of the tests' time is XLA's. Its older way to write loops compiles faster and runs as fast, as in the package's
# chain/binding.py; a version that does not know the flag would end the process.
if version("jaxlib").startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")


def pytest_collection_finish():
    """What was imported stays for good: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True, scope="module")
def _forget_what_was_compiled():
    """Every compiled function maps some memory: of thousands, a process would use up the 65530 maps Linux allows."""
    yield
    import jax

    jax.clear_caches()

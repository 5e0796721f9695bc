"""Tests run side by side each keep to a core of their own."""

import os

worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
if worker and hasattr(os, "sched_setaffinity"):
    # Before JAX starts its threads: two that share two cores wait for one another at every small operation.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker) % len(cores)]})

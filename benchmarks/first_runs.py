"""What does a first run cost, and how much of it is looking at the model?

Each run is the first of an ``MCMC``, in a process of its own, on a logistic regression of 20 predictors in minibatches
of 100 and with the progress bar: CPU seconds until two samples are there, and of these the check that minibatches
estimate the potential of all the data. With ``--cached`` they find what JAX compiles in its cache on disk, which a run
before them has filled. ``python benchmarks/first_runs.py --quick`` takes a minute.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np
from numpyro.infer import MCMC, NUTS

from benchmarks.output import add_output, write
from benchmarks.processes import fresh
from benchmarks.workloads import logistic_regression
from sgworld_numpyro import SGWORLD, kernel

KINDS = {
    "given step": lambda workload: SGWORLD(workload.model, workload.step_size),
    "default": lambda workload: SGWORLD(workload.model),
    "NUTS": lambda workload: NUTS(SGWORLD(workload.model).model),
}


def report(kind, rows):
    """Print, as JSON, what a first run costs; called in a process of its own."""
    checking = 0.0
    check = kernel.check_minibatches

    def timed(*arguments):
        nonlocal checking
        start = time.process_time()
        try:
            return check(*arguments)
        finally:
            checking += time.process_time() - start

    kernel.check_minibatches = timed
    workload = logistic_regression(rows, 20)
    jax.block_until_ready(workload.data)
    mcmc = MCMC(KINDS[kind](workload), num_warmup=0, num_samples=2)
    mcmc.progress_bar = True  # NumPyro turns it off where the environment says CI
    start = time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):
        mcmc.run(jax.random.key(0), *workload.data)
        jax.block_until_ready(mcmc.get_samples())
    print(json.dumps({"first_run": time.process_time() - start, "checking": checking}))


def measure(kind, rows, cache=None):
    """CPU seconds of a first run in a fresh process, with or without a directory of what JAX has compiled."""
    code = f"import benchmarks.first_runs as f; f.report({kind!r}, {rows})"
    if cache is None:
        return fresh(code)
    return fresh(code, JAX_COMPILATION_CACHE_DIR=cache, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_output(parser, "first_runs")
    parser.add_argument("--quick", action="store_true", help="the smallest data, once")
    parser.add_argument("--cached", action="store_true", help="with JAX's cache of what it compiles, filled before")
    parser.add_argument("--repeats", type=int, default=3, help="runs of which the median is taken")
    arguments = parser.parse_args(argv)
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.platform} {device.device_kind}; CPU seconds")
    print(f"{'rows':>12}  {'kernel':12}{'first run':>11}{'checking':>10}{'of the run':>12}")
    numbers = {"jax": jax.__version__, "device": f"{device.platform} {device.device_kind}"}
    for rows in (10**4,) if arguments.quick else (10**4, 10**5, 10**6, 10**7):
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as directory:
                cache = directory if arguments.cached else None
                if cache:
                    measure(kind, rows, cache)
                runs = [measure(kind, rows, cache) for _ in range(1 if arguments.quick else arguments.repeats)]
            cost = {name: float(np.median([run[name] for run in runs])) for name in runs[0]}
            share = cost["checking"] / cost["first_run"]
            numbers[f"{kind}, {rows}"] = cost
            print(f"{rows:12,d}  {kind:12}{cost['first_run']:11.2f}{cost['checking']:10.2f}{share:12.1%}")
    return write(numbers, arguments, "first_runs")


if __name__ == "__main__":
    main()

"""From how many rows on do minibatches beat NUTS on all the data, everything charged?

Logistic regression of 20 predictors in minibatches of 100, default arguments. Of ``SGWORLD(model)`` every CPU second of
a fresh process counts, from the first call on: compilation, tuning, warm-up, sampling, until 5000 effective draws are
there of the worst coordinate, which know all posterior sds to 1 %. Of NUTS the sampling alone counts, from a few draws
after its own warm-up, scaled to as many effective draws. ``python benchmarks/large_data.py --quick`` takes two minutes.
"""

import argparse
import contextlib
import io
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS

from benchmarks.output import add_output, write
from benchmarks.processes import fresh
from benchmarks.workloads import logistic_regression
from sgworld_numpyro import SGWORLD, tuning_report

WANTED = 5000  # effective draws
CHAINS = 4
NUTS_DRAWS = 30
PREDICTORS = 20


def _effective(mcmc):
    (draws,) = mcmc.get_samples(group_by_chain=True).values()
    return float(np.min(effective_sample_size(np.asarray(draws, float))))


def _run(mcmc, key, data, **options):
    mcmc.progress_bar = True  # NumPyro turns it off where the environment says CI
    with contextlib.redirect_stderr(io.StringIO()):
        mcmc.run(key, *data, **options)
        jax.block_until_ready(mcmc.get_samples())


def of_minibatches(rows):
    """CPU seconds to so many effective draws, and what they cost; called in a process of its own."""
    workload = logistic_regression(rows, PREDICTORS)
    jax.block_until_ready(workload.data)
    start = time.process_time()
    samples = WANTED // 2  # of each of four chains, a draw being worth half an effective one
    mcmc = MCMC(
        SGWORLD(workload.model),
        num_warmup=10,
        num_samples=samples,
        num_chains=CHAINS,
        chain_method="vectorized",
    )
    _run(mcmc, jax.random.key(0), workload.data)
    seconds, effective = time.process_time() - start, _effective(mcmc)
    start = time.process_time()
    mcmc.post_warmup_state = mcmc.last_state
    _run(mcmc, mcmc.last_state.rng_key, workload.data)
    again = time.process_time() - start
    lacking = max(WANTED - effective, 0) / effective * again
    report = tuning_report(mcmc)
    return {
        "seconds": seconds + lacking,
        "before sampling": seconds - again,
        "effective": effective,
        "passes": float(report.cost),
        "bias": float(report.predicted_bias),
    }


def of_nuts(rows):
    """CPU seconds of NUTS's sampling for so many effective draws."""
    workload = logistic_regression(rows, PREDICTORS)
    mcmc = MCMC(NUTS(SGWORLD(workload.model).model), num_warmup=200, num_samples=NUTS_DRAWS)
    _run(mcmc, jax.random.key(0), workload.data, extra_fields=("num_steps",))
    start = time.process_time()
    mcmc.post_warmup_state = mcmc.last_state
    _run(mcmc, jax.random.key(1), workload.data, extra_fields=("num_steps",))
    seconds = time.process_time() - start
    gradients = float(np.sum(mcmc.get_extra_fields()["num_steps"]))
    # so few draws say little of their own effective number: NUTS's are about independent on so simple a posterior
    return {"seconds": seconds * WANTED / NUTS_DRAWS, "gradients": gradients / NUTS_DRAWS}


def measure(kind, rows):
    """What ``kind`` takes, in a fresh process."""
    return fresh(f"import json, benchmarks.large_data as b; print(json.dumps(b.{kind}({rows})))")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_output(parser, "large_data")
    parser.add_argument("--quick", action="store_true", help="the smallest data")
    parser.add_argument("--rows", type=float, nargs="+", help="by default 1e5, 1e6 and 1e7")
    arguments = parser.parse_args(argv)
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.platform} {device.device_kind}; CPU seconds to {WANTED} effective draws")
    print(f"{'rows':>12}{'SGWORLD':>10}{'before sampling':>17}{'passes a draw':>15}{'NUTS':>10}{'ratio':>8}")
    numbers = {"jax": jax.__version__, "device": f"{device.platform} {device.device_kind}"}
    for rows in map(int, arguments.rows or ([10**5] if arguments.quick else [10**5, 10**6, 10**7])):
        ours, theirs = measure("of_minibatches", rows), measure("of_nuts", rows)
        ratio = theirs["seconds"] / ours["seconds"]
        numbers[f"{rows}"] = {"minibatches": ours, "nuts": theirs, "ratio": ratio}
        print(
            f"{rows:12,d}{ours['seconds']:10.1f}{ours['before sampling']:17.1f}{ours['passes']:15.4f}"
            f"{theirs['seconds']:10.1f}{ratio:8.1f}",
            flush=True,
        )
    return write(numbers, arguments, "large_data")


if __name__ == "__main__":
    main()

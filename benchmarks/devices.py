"""What several devices are worth: chains over them, rows over them, and when the rows pay.

Each number of devices is a process of its own, whose one CPU is forced to be so many. What is told is the median time
of a step in a compiled loop, without compilation; of rows over devices also what a step sends, which does not depend on
the machine, and the size of a model from which it pays for links that are given.

    python benchmarks/devices.py --quick
    python benchmarks/devices.py --latency-us 10 --gigabytes-per-s 100 --teraflops 20
"""

import argparse
import json
import sys
import time
from pathlib import Path

import jax
import numpy as np
from numpyro.infer import MCMC

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import fresh
from benchmarks.workloads import logistic_regression, mlp_classifier
from sgworld_numpyro import SGWORLD, chains_over_devices, rows_over_devices
from sgworld_numpyro.runs.block_sampler import BlockSampler

DEVICES = (1, 2, 4)
CHAINS = 16
FLOPS_A_WEIGHT = 6  # of a row: a product and a sum, forward once and backward twice
FLOAT = 4  # bytes


def seconds_a_step(kernel, data, chains, method, samples, times):
    """Median over calls of a loop that is compiled."""
    options = {"num_warmup": 0, "num_samples": samples, "num_chains": chains, "progress_bar": False}
    mcmc = MCMC(kernel, chain_method=method, **options)
    mcmc._set_collection_params(0, 0, 1, "warmup")
    mcmc.run(jax.random.key(0), *data)
    state = mcmc.last_state
    blocks = BlockSampler(mcmc, data, {}, (), state)
    found = []
    for _ in range(times + 1):  # the first compiles
        start = time.perf_counter()
        state, _ = blocks(state, samples)
        jax.block_until_ready(state)
        found.append(time.perf_counter() - start)
    return float(np.median(found[1:])) / (samples * kernel.settings().steps_per_sample)


def measure(devices, quick):
    """In a process that has so many devices: seconds a step of each way."""
    samples, times = (1, 1) if quick else (3, 5)
    small = logistic_regression(10_000 if quick else 100_000)
    new = lambda work, steps: SGWORLD(work.model, work.step_size, steps_per_sample=steps)  # noqa: E731
    method = chains_over_devices() if devices > 1 else "vectorized"
    found = {"chains": seconds_a_step(new(small, 200), small.data, CHAINS, method, samples, times) / CHAINS}
    network = mlp_classifier(2_000 if quick else 20_000)
    for name, work in (("rows", small), ("rows, network", network)):
        data = rows_over_devices(*work.data) if devices > 1 else work.data
        found[name] = seconds_a_step(new(work, 20 if quick else 100), data, 1, "vectorized", samples, times)
    return found


def bytes_sent(devices, batch, columns, dim):
    """By each device a step: sums over a ring, of the rows of the minibatch and of the gradient."""
    return 2 * (devices - 1) / devices * FLOAT * (batch * columns + dim)


def smallest_that_pays(devices, batch, columns, latency, bytes_a_second, flops):
    """Weights of a dense network from which a step of rows over devices is faster than on one device.

    Time of a step on n devices: 6 B d / (n F) + 2 L + bytes(n, d) / W, with F flops a second, L the latency of a sum
    over the devices, and W the bandwidth. It pays where that is below 6 B d / F. None where it never does.
    """
    gain = FLOPS_A_WEIGHT * batch / flops * (1 - 1 / devices) - bytes_sent(devices, 0, 0, 1) / bytes_a_second
    cost = 2 * latency + bytes_sent(devices, batch, columns, 0) / bytes_a_second
    return cost / gain if gain > 0 else None


def main(argv=None):
    """Measure, and print tables; returns the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small data")
    parser.add_argument("--json", type=Path, help="where the numbers go")
    parser.add_argument("--latency-us", type=float, default=10.0, help="of a sum over devices")
    parser.add_argument("--gigabytes-per-s", type=float, default=100.0, help="of a link")
    parser.add_argument("--teraflops", type=float, default=20.0, help="of a device, as a gradient reaches them")
    given = parser.parse_args(argv)
    numbers = {"seconds": {}, "bytes": {}, "pays": {}}
    print("devices   " + "   ".join(f"{name:>14}" for name in ("chains", "rows", "rows, network")) + "   µs a step")
    for devices in DEVICES:
        code = (
            f"import json\nfrom benchmarks.devices import measure\nprint(json.dumps(measure({devices}, {given.quick})))"
        )
        found = fresh(code, XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}")
        numbers["seconds"][devices] = found
        print(f"{devices:>7}   " + "   ".join(f"{1e6 * value:>14.3g}" for value in found.values()))
    print(f"\nweights from which rows over devices pay, 784 columns, at {given.latency_us:g} µs, ", end="")
    print(f"{given.gigabytes_per_s:g} GB/s and {given.teraflops:g} Tflop/s\nrows a step " + " " * 4, end="")
    print("   ".join(f"{devices:>3} devices" for devices in (2, 4, 8)))
    links = given.latency_us * 1e-6, given.gigabytes_per_s * 1e9, given.teraflops * 1e12
    for batch in (100, 1_000, 10_000):
        numbers["pays"][batch] = {n: smallest_that_pays(n, batch, 784, *links) for n in (2, 4, 8)}
        shown = ("never" if d is None else f"{d:.2g}" for d in numbers["pays"][batch].values())
        print(f"{batch:>11}     " + "   ".join(f"{text:>11}" for text in shown))
    numbers["bytes"] = {n: bytes_sent(n, 100, 784, 79_510) for n in (2, 4, 8)}
    if given.json:
        given.json.write_text(json.dumps(numbers))
    return numbers


if __name__ == "__main__":
    main()

"""What does sampling add to a step of SGD on a network of a million weights, in time and memory?

784-1258-10, N = 5 000, B = 100. A bare step of SGD takes the gradient of a batch that lies ready and subtracts it. A
sampler also draws and gathers rows, draws a normal for each weight, keeps velocities, a thermometer and averages. CPU
milliseconds of steps in alternation in one process, compilation left out; memory, by XLA's account, of the state and
of what a step needs besides, in units of a vector of all weights.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.output import add_output, write
from benchmarks.workloads import mlp_classifier
from sgworld_numpyro import BAOAB, SGD, SGWORLD, EulerMaruyama, RandomReshuffle

HIDDEN, ROWS = 1258, 5_000
STEPS = 25


def bare_sgd(workload):
    """Steps of SGD as one writes them, on batches that lie ready."""
    gradient, scale = jax.grad(workload.potential), len(workload.data[0]) / workload.batch_size
    order = np.random.default_rng(0).permutation(len(workload.data[0])).reshape(-1, workload.batch_size)[:STEPS]
    batches = tuple(array[order] for array in workload.data)

    def advance(position):
        def step(position, batch):
            return position - workload.step_size * gradient(position, batch, scale), None

        return lax.scan(step, position, batches)[0]

    return advance, jnp.zeros(workload.dim)


def kernel(kind, **options):
    """Steps of a kernel, of one chain."""

    def steps_of(workload):
        made = kind(workload.model, workload.step_size, steps_per_sample=STEPS, **options)
        state = made.init(jax.random.key(0), 0, None, workload.data, {})
        return lambda state: made.sample(state, workload.data, {}), state

    return steps_of


CONTENDERS = {
    "bare SGD": bare_sgd,
    "SGD": kernel(SGD, subsampling=RandomReshuffle()),
    "SGWORLD": kernel(SGWORLD),
    "SGWORLD, BAOAB": kernel(SGWORLD, integrator=BAOAB(friction=1.0)),
    "SGWORLD, three-point noise": kernel(SGWORLD, integrator=EulerMaruyama(noise="three_point")),
    "SGWORLD, BAOAB, average": kernel(
        SGWORLD, integrator=BAOAB(friction=1.0), keep=lambda sites: {}, average=lambda sites: sites
    ),
}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_output(parser, "million_weights")
    parser.add_argument("--quick", action="store_true", help="a network of 15 900 weights")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(argv)
    workload = mlp_classifier(ROWS, hidden=20 if arguments.quick else HIDDEN)
    compiled, states = {}, {}
    for name, make in CONTENDERS.items():
        advance, states[name] = make(workload)
        compiled[name] = jax.jit(advance).lower(states[name]).compile()
        jax.block_until_ready(compiled[name](states[name]))
    seconds = {name: [] for name in compiled}
    for _ in range(arguments.rounds):
        for name, run in compiled.items():
            start = time.process_time()
            jax.block_until_ready(run(states[name]))
            seconds[name].append((time.process_time() - start) / STEPS)
    bare = np.median(seconds["bare SGD"])
    print(f"d = {workload.dim}, N = {ROWS}, B = {workload.batch_size}")
    print(f"{'':28}{'CPU ms a step':>14}{'over bare SGD':>15}{'state, vectors':>16}{'at work, vectors':>18}")
    numbers = {"dim": workload.dim}
    for name, values in seconds.items():
        step, needs = float(np.median(values)), compiled[name].memory_analysis()
        vectors = [size / (4 * workload.dim) for size in (needs.output_size_in_bytes, needs.temp_size_in_bytes)]
        print(f"{name:28}{1e3 * step:14.1f}{step / bare:15.2f}{vectors[0]:16.1f}{vectors[1]:18.1f}")
        numbers[name] = {"ms": 1e3 * step, "over_bare": float(step / bare), "state": vectors[0], "at_work": vectors[1]}
    return write(numbers, arguments, "million_weights")


if __name__ == "__main__":
    main()

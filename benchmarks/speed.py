"""How fast is ``MCMC(SGWORLD(model))``, against loops written by hand, in one process and in alternation?

Prints, for four workloads, microseconds a chain-step (medians), the ratio to the hand-written loop that draws
ahead, and the speed-up over the plain loop; then the cost of drawing row numbers, of a pass over that of a gradient of
all rows, and what the first run and 180 MiB of data cost. ``python benchmarks/speed.py --quick`` takes some minutes,
the whole longer.
"""

import argparse
import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from numpyro.infer import MCMC

from benchmarks.loops import plain_scan, predrawn_scan
from benchmarks.output import add_output, write
from benchmarks.workloads import cnn_classifier, gaussian_mean, logistic_regression, mlp_classifier
from sgworld_numpyro import SGWORLD, BatchReshuffle, EulerMaruyama, RandomReshuffle, RunReshuffle
from sgworld_numpyro.subsampling import Plate

compiling = 0.0


def _count_compilation(event, seconds, **_):
    global compiling
    if event.startswith("/jax/core/compile"):
        compiling += seconds


jax.monitoring.register_event_duration_secs_listener(_count_compilation)


def mcmc_run(workload, samples, bar=True, chains=1, **options):
    """A function that runs ``MCMC`` once, on a terminal that nobody sees."""
    rows = workload.data[0].shape[0]
    steps = workload.passes_per_sample * (rows // workload.batch_size)
    kernel = SGWORLD(workload.model, workload.step_size, steps_per_sample=steps, **options)
    mcmc = MCMC(
        kernel, num_warmup=0, num_samples=samples, num_chains=chains, chain_method="vectorized", progress_bar=bar
    )
    mcmc.progress_bar = bar  # NumPyro turns it off where the environment says CI
    key = random.key(0)

    def run():
        with contextlib.redirect_stderr(io.StringIO()):
            mcmc.run(key, *workload.data)
        return mcmc.get_extra_fields()

    return run, samples * steps * chains


def time_in_turn(contenders, rounds):
    """Microseconds a chain-step, median over rounds, compilation left out; and seconds of each first call."""
    first, times = {}, {name: [] for name in contenders}
    for name, (run, _) in contenders.items():
        start = time.perf_counter()
        jax.block_until_ready(run())
        first[name] = time.perf_counter() - start
    for _ in range(rounds):
        for name, (run, steps) in contenders.items():
            before, start = compiling, time.perf_counter()
            jax.block_until_ready(run())
            seconds = time.perf_counter() - start - (compiling - before)
            times[name].append(seconds / steps * 1e6)
    return {name: float(np.median(values)) for name, values in times.items()}, first


def contenders_of(number, quick):
    """The workload of that number and what is to be timed on it: name -> (run, chain-steps a run)."""
    three_points = EulerMaruyama(noise="three_point")
    if number == 1:
        workload, samples = gaussian_mean(), 50 if quick else 300
        steps = 20 * 100
        return workload, {
            "plain scan": (plain_scan(workload, 10 * steps), 10 * steps),
            "pre-drawn scan": (predrawn_scan(workload, samples * steps, steps), samples * steps),
            "MCMC": mcmc_run(workload, samples),
            "MCMC, no bar": mcmc_run(workload, samples, bar=False),
            "MCMC, 4 chains": mcmc_run(workload, samples // 4, chains=4),
            "MCMC, 64 chains": mcmc_run(workload, max(samples // 16, 4), chains=64),
        }
    if number == 2:
        workload, samples = logistic_regression(), 4 if quick else 20
        steps = 1000
        slices = {"subsampling": BatchReshuffle()}
        return workload, {
            "plain scan": (plain_scan(workload, 2 * steps), 2 * steps),
            "pre-drawn scan": (predrawn_scan(workload, samples * steps, steps), samples * steps),
            "MCMC": mcmc_run(workload, samples),
            "MCMC, no bar": mcmc_run(workload, samples, bar=False),
            "MCMC, 4 chains": mcmc_run(workload, samples // 4, chains=4),
            "MCMC, 64 chains": mcmc_run(workload, 1, chains=64),
            "pre-drawn scan, slices": (
                predrawn_scan(workload, samples * steps, steps, contiguous=True),
                samples * steps,
            ),
            "MCMC, BatchReshuffle": mcmc_run(workload, samples, **slices),
            "MCMC, BatchReshuffle, 64 chains": mcmc_run(workload, 1, chains=64, **slices),
        }
    if number == 4:
        from flax import linen

        workload, steps = cnn_classifier(), 20
        library = cnn_classifier(convolution=partial(linen.Conv, kernel_size=(3, 3), strides=(2, 2)))
        return workload, {
            "plain scan": (plain_scan(workload, steps), steps),
            "pre-drawn scan": (predrawn_scan(workload, steps, steps), steps),
            "MCMC": mcmc_run(workload, 1),
            "MCMC, 4 chains": mcmc_run(workload, 1, chains=4),
            "MCMC, XLA's convolution": mcmc_run(library, 1),
            "MCMC, XLA's convolution, 4 chains": mcmc_run(library, 1, chains=4),
        }
    workload = mlp_classifier()
    steps, block = 600, 100
    return workload, {
        "plain scan": (plain_scan(workload, steps), steps),
        "pre-drawn scan": (predrawn_scan(workload, steps, block), steps),
        "MCMC": mcmc_run(workload, 1),
        "MCMC, no bar": mcmc_run(workload, 1, bar=False),
        "pre-drawn scan, three-point": (predrawn_scan(workload, steps, block, three_points=True), steps),
        "MCMC, three-point": mcmc_run(workload, 1, integrator=three_points),
    }


def reference(name):
    """The hand-written loop that does the same work."""
    if "BatchReshuffle" in name:
        return "pre-drawn scan, slices"
    return "pre-drawn scan, three-point" if "three-point" in name else "pre-drawn scan"


def speed(number, quick):
    """Time one workload and print its table."""
    workload, contenders = contenders_of(number, quick)
    times, first = time_in_turn(contenders, 3 if quick else 7)
    print(f"\n{workload.name}: N = {workload.data[0].shape[0]}, d = {workload.dim}, B = {workload.batch_size}")
    print(f"{'':36}{'µs/step':>10}{'speed / pre-drawn':>19}{'speed / plain':>15}{'first run, s':>14}")
    numbers = {}
    for name, value in times.items():
        to_bare, to_plain = times[reference(name)] / value, times["plain scan"] / value
        print(f"{name:36}{value:10.3f}{to_bare:19.2f}{to_plain:15.1f}{first[name]:14.1f}")
        numbers[name] = {
            "us_per_step": value,
            "speed_over_predrawn": to_bare,
            "speed_over_plain": to_plain,
            "first_run_s": first[name],
        }
    return numbers


def index_drawing(quick):
    """Time the drawing of row numbers for RandomReshuffle, and print it beside a permutation an epoch."""
    print("\nDrawing row numbers, µs a chain-step")
    print(f"{'N':>12}{'B':>6}{'1 chain':>10}{'64 chains':>11}{'random.permutation':>20}")
    numbers = {}
    for rows, batch_size in ((10**3, 10), (10**4, 100), (10**5, 100), (10**6, 100), (10**7, 100)):
        plate, scheme = Plate("rows", rows, batch_size), RandomReshuffle()
        steps = {1: min(rows // batch_size * 20, 2000), 64: 112}

        def draw(key, steps, plate=plate, scheme=scheme):
            return scheme.indices(key, jnp.int32(0), steps, plate)

        one = jax.jit(lambda key, draw=draw, n=steps[1]: draw(key, n))
        many = jax.jit(jax.vmap(lambda key, draw=draw, n=steps[64]: draw(key, n)))
        permute = jax.jit(lambda key, n=rows: random.permutation(key, n))
        key, keys = random.key(0), random.split(random.key(0), 64)
        contenders = {
            "one": (lambda one=one, key=key: one(key), steps[1]),
            "many": (lambda many=many, keys=keys: many(keys), 64 * steps[64]),
        }
        if rows <= (10**5 if quick else 10**6):
            contenders["permutation"] = (lambda permute=permute, key=key: permute(key), rows // batch_size)
        times, _ = time_in_turn(contenders, 5 if quick else 21)
        permutation = times.get("permutation")
        shown = f"{permutation:20.2f}" if permutation else f"{'-':>20}"
        print(f"{rows:12,d}{batch_size:6d}{times['one']:10.3f}{times['many']:11.3f}{shown}")
        numbers[str(rows)] = times
    return numbers


def passes(quick):
    """Time a pass of each scheme over one gradient of all rows, in blocks of a thousand, and print their ratios."""
    schemes = RandomReshuffle(), RunReshuffle(), BatchReshuffle()
    print("\nA pass over a gradient of all rows, logistic regression: processor time, and by the clock")
    print(f"{'N':>12}{'d':>6}{'B':>6}" + "".join(f"{scheme.name:>22}" for scheme in schemes))
    numbers = {}
    for rows in (10**5,) if quick else (10**5, 10**6):
        for dim, batch_size in ((20, 100), (20, 500), (54, 100), (54, 500)):
            workload = logistic_regression(rows, dim, batch_size)
            contenders = {scheme.name: _pass_of(workload, scheme) for scheme in schemes}
            contenders["gradient"] = _gradient_of_all(workload)
            for run in contenders.values():
                jax.block_until_ready(run())
            clocks = {name: [] for name in contenders}
            for _ in range(max(5, (5 if quick else 20) * 10**5 // rows)):
                for name, run in contenders.items():
                    start = np.array([time.process_time(), time.perf_counter()])
                    jax.block_until_ready(run())
                    clocks[name].append(np.array([time.process_time(), time.perf_counter()]) - start)
            seconds = {name: np.median(values, axis=0) for name, values in clocks.items()}
            ratios = {scheme.name: (seconds[scheme.name] / seconds["gradient"]).tolist() for scheme in schemes}
            shown = "".join(f"{processor:15.2f}{clock:7.2f}" for processor, clock in ratios.values())
            print(f"{rows:12,d}{dim:6d}{batch_size:6d}{shown}")
            numbers[f"N={rows} d={dim} B={batch_size}"] = ratios
    return numbers


def _pass_of(workload, scheme):
    """A function that advances one chain by a pass, compiled, past its first sample."""
    steps = workload.data[0].shape[0] // workload.batch_size
    kernel = SGWORLD(workload.model, 1e-7, subsampling=scheme, steps_per_sample=steps)
    state = kernel.init(random.key(0), 0, None, workload.data, {})
    advance = jax.jit(lambda state: kernel.sample(state, workload.data, {}))
    state = advance(state)
    return lambda: advance(state)


def _gradient_of_all(workload, block=1000):
    gradient = jax.grad(lambda position, batch: workload.potential(position, batch, 1.0))
    blocks = tuple(array.reshape(-1, block, *array.shape[1:]) for array in workload.data)

    @jax.jit
    def of_all(position):
        return jax.lax.scan(lambda total, batch: (total + gradient(position, batch), None), position, blocks)[0]

    return lambda: of_all(jnp.zeros(workload.dim))


def first_run(mebibytes):
    """In a fresh process: seconds of compilation and peak memory of a first run on that much data."""
    code = f"import benchmarks.speed as s; s.report_first_run({mebibytes})"
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def report_first_run(mebibytes):
    """Print, as JSON, what a first run on logistic regression costs; called in a process of its own."""
    rows = int(mebibytes * 2**20 / 4 / 55) // 100 * 100
    workload = logistic_regression(rows)
    jax.block_until_ready(workload.data)
    memory = _resident()
    run, _ = mcmc_run(workload._replace(passes_per_sample=1), 1)
    before, start = compiling, time.perf_counter()
    jax.block_until_ready(run())
    print(
        json.dumps(
            {
                "first_run_s": time.perf_counter() - start,
                "compile_s": compiling - before,
                "added_MiB": _resident() - memory,
                "peak_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
    )


def _resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_output(parser, "speed")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    parser.add_argument("--workload", type=int, choices=(1, 2, 3, 4), action="append", help="only this one")
    arguments = parser.parse_args(argv)
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.platform} {device.device_kind}, {os.cpu_count()} cores")
    numbers = {"jax": jax.__version__, "device": f"{device.platform} {device.device_kind}"}
    for number in arguments.workload or (1, 2, 3, 4):
        numbers[f"W{number}"] = speed(number, arguments.quick)
    if not arguments.workload:
        numbers["indices"] = index_drawing(arguments.quick)
        numbers["passes"] = passes(arguments.quick)
        print("\nFirst run of W2's model, one epoch: what the size of the data costs")
        print(f"{'data, MiB':>12}{'first run, s':>14}{'compiling, s':>14}{'added memory, MiB':>19}")
        for mebibytes in (1, 180):
            cost = first_run(mebibytes)
            print(f"{mebibytes:12d}{cost['first_run_s']:14.2f}{cost['compile_s']:14.2f}{cost['added_MiB']:19.0f}")
            numbers[f"first_run_{mebibytes}_MiB"] = cost
    return write(numbers, arguments, "speed")


if __name__ == "__main__":
    main()

"""What every worker does: read what is asked, time it, and print the answer as JSON on the last line.

A worker runs in the environment of its package, so that this file needs nothing but NumPy. It is a script that calls
``main`` with its methods: name -> ``method(task, data) -> run``, where ``run(seed)`` returns draws as NumPy arrays,
(chain, sample, ...), of the tree's leaves, and advances each chain by ``task.samples * task.thinning`` gradients.
"""

import argparse
import inspect
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np


def parse(methods):
    parser = argparse.ArgumentParser(description="one measurement of one package, in a process of its own")
    parser.add_argument("measure", choices=("speed", "error", "lines"))
    parser.add_argument("--method", choices=methods, required=True)
    parser.add_argument("--workload", choices=("W1", "W2", "W3"), default="W2", help="which density")
    parser.add_argument("--data", help="npz with the arrays x, y, start and those that a method wants besides")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--chains", type=int, default=1)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--thinning", type=int, default=1, help="gradients a sample")
    parser.add_argument("--step-size", type=float, default=1e-6)
    parser.add_argument("--integration-steps", type=int, default=10, help="of a Hamiltonian transition")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def clocks():
    return np.array([time.process_time(), time.perf_counter()])


def timed(run, seed):
    before = clocks()
    draws = run(seed)
    return clocks() - before, draws


def peak():
    """The most resident memory so far, MiB; what ``getrusage`` says would count the process that started this one."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def speed(task, run):
    """The first run, which compiles, and the median of the next ones: CPU seconds and by the clock."""
    loaded = peak()
    first, draws = timed(run, 0)
    if not all(np.isfinite(leaf).all() for leaf in draws):
        raise SystemExit(f"{task.method} has left the numbers: its draws are not finite")
    later = np.median([timed(run, seed)[0] for seed in range(1, task.repeats + 1)], axis=0)
    gradients = task.chains * task.samples * task.thinning
    return {
        "us": later[0] / gradients * 1e6,
        "us_by_the_clock": later[1] / gradients * 1e6,
        "compile_s": first[0] - later[0],
        "peak_MiB": peak(),
        "added_MiB": peak() - loaded,
    }


def error(task, run):
    """CPU seconds of the first call and of another, and the second moments of the draws of the second."""
    first, _ = timed(run, task.seed)
    again, draws = timed(run, task.seed + 1)
    (draws,) = draws
    return {"first_s": first[0], "again_s": again[0], **moments(draws)}


def moments(draws):
    """Of draws (chain, sample, d): sds, means, and the effective number of squares, its mean over coordinates."""
    draws = np.asarray(draws, float)
    if not np.isfinite(draws).all():
        return dict.fromkeys(("sd", "mean", "effective"), np.nan)
    squares = (draws - draws.mean((0, 1))) ** 2
    return {
        "sd": draws.std((0, 1)).tolist(),
        "mean": draws.mean((0, 1)).tolist(),
        "effective": float(np.mean([effective_number(squares[..., i]) for i in range(draws.shape[-1])])),
    }


def effective_number(values):
    """Of (chain, sample): Geyer's initial positive sequence, autocovariances about the mean of all chains."""
    chains, samples = values.shape
    offset = values - values.mean()
    spectrum = np.abs(np.fft.rfft(offset, 2 * samples)) ** 2
    covariance = np.fft.irfft(spectrum)[:, :samples].sum(0) / (chains * np.arange(samples, 0, -1))
    rho = covariance / covariance[0]
    pairs = rho[0 : samples // 2 * 2 : 2] + rho[1 : samples // 2 * 2 : 2]
    end = int(np.argmax(pairs < 0)) if (pairs < 0).any() else len(pairs)
    return chains * samples / max(2 * pairs[:end].sum() - 1, 1 / np.log10(chains * samples))


def lines(functions):
    """How many lines of code these are, without comments, docstrings and empty ones."""
    total = 0
    for function in functions:
        source = inspect.getsource(function)
        if function.__doc__:
            source = source.replace(function.__doc__, "").replace('""""""', "")
        total += sum(bool(line.strip()) and not line.strip().startswith("#") for line in source.splitlines())
    return total


def main(methods, user_code, packages):
    """Answer the command line.

    Args:
        methods: name -> ``method(task, data) -> run``.
        user_code: the same names -> the functions that a user writes for W2.
        packages: names of distributions whose versions are told.
    """
    task = parse(methods)
    answer = {"versions": {package: version(package) for package in packages}, "python": sys.version.split()[0]}
    if task.measure == "lines":
        answer["lines"] = lines(user_code[task.method])
    else:
        run = methods[task.method](task, dict(np.load(task.data)))
        answer |= speed(task, run) if task.measure == "speed" else error(task, run)
    print(json.dumps(answer))

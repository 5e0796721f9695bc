"""How does ``MCMC(SGWORLD(model))`` compare with other packages of stochastic-gradient MCMC, and with NUTS and HMCECS?

One command: the first call builds an environment for each package in ``.venv-peers/``, from PyPI. Each measurement is a
process of its own on one core; contenders take turns, so that ratios of one run mean something where other work shares
the machine, and seconds are CPU seconds. ``python benchmarks/peers.py --quick`` takes some minutes, without
environments that are not there yet.
"""

import argparse
import os
import platform
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.output import add_output, write
from benchmarks.peer_packages import oracle
from benchmarks.peer_packages.contenders import (
    DOCUMENTED,
    ERROR,
    OURS,
    REQUIREMENTS,
    SPEED,
    TUNED,
    ask,
    build,
    there,
)
from benchmarks.peer_packages.figure import draw
from benchmarks.posteriors import Logistic, by_importance
from benchmarks.workloads import gaussian_mean, logistic_regression, mlp_classifier

# chains -> (samples, gradients a sample) of one timed call
SIZES = {
    "W1": {1: (100, 2000), 64: (4, 2000)},
    "W2": {1: (10, 1000), 64: (1, 1000)},
    "W3": {1: (1, 300), 64: (1, 10)},
}
QUICK_SIZES = {"W1": {1: (10, 2000), 64: (1, 500)}, "W2": {1: (1, 1000), 64: (1, 100)}, "W3": {1: (1, 50)}}
WORKLOADS = {"W1": gaussian_mean, "W2": logistic_regression, "W3": mlp_classifier}
PARTS = (*WORKLOADS, "error", "documented")

WANTED = 5000  # effective draws, which know an sd to 1 %
PREDICTORS = 20
CHAINS = 64  # of the packages whose settings are computed: on one core they cost no more than one
MOST_GRADIENTS = 400_000  # that one of these runs may take; longer ones are computed from the time of these


def save_workload(name, directory):
    """Its data for the workers, and the workload."""
    workload = WORKLOADS[name]()
    arrays = dict(zip("xy", map(np.asarray, workload.data), strict=False))
    path = directory / f"{name}.npz"
    np.savez(path, **arrays, start=np.zeros((1, workload.dim if name != "W3" else 1), np.float32))
    return path, workload


def median(answers):
    """Of each number in the answers, the median."""
    numbers = [{name: value for name, value in answer.items() if isinstance(value, float)} for answer in answers]
    return {name: float(np.median([answer[name] for answer in numbers])) for name in numbers[0]}


def speed(name, chains, contenders, sizes, rounds, directory):
    """Time the contenders on a workload in turn, and print the table."""
    path, workload = save_workload(name, directory)
    samples, thinning = sizes[name][chains]
    contenders = [one for one in contenders if chains <= one.most_chains]
    answers = {contender.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            answer = ask(
                contender,
                "speed",
                workload=name,
                data=path,
                batch_size=workload.batch_size,
                chains=chains,
                samples=samples,
                thinning=max(int(thinning * contender.share) // 10 * 10, 10),
                step_size=0.1 * np.sqrt(workload.step_size) if contender.root else workload.step_size,
            )
            if answer:
                answers[contender.name].append(answer)
    print(f"\n{workload.name}, {chains} chain{'s' * (chains > 1)}")
    print(f"{'':28}{'CPU µs/gradient':>17}{'SGWORLD faster by':>19}{'compile, CPU s':>16}{'peak, MiB':>11}")
    numbers = {}
    for contender in contenders:
        found = answers[contender.name]
        if not found:
            continue
        numbers[contender.name] = median(found)
        if len(answers[OURS]) == len(found):  # ratios within a round
            ratios = [theirs["us"] / ours["us"] for theirs, ours in zip(found, answers[OURS], strict=True)]
            numbers[contender.name]["ratio"] = float(np.median(ratios))
        one = numbers[contender.name]
        print(
            f"{contender.name:28}{one['us']:17.3g}{one.get('ratio', np.nan):19.2f}"
            f"{one['compile_s']:16.1f}{one['peak_MiB']:11.0f}",
            flush=True,
        )
    return numbers


def regression(rows, directory):
    """A logistic regression as workers want it, its reference, and how to set packages without tuning."""
    data = [np.asarray(array) for array in logistic_regression(rows, PREDICTORS).data]
    posterior = Logistic("synthetic", *data, 100)
    rng = np.random.default_rng(0)
    mode, covariance = posterior.laplace()
    reference = by_importance(posterior, 2048, rng)
    start = rng.multivariate_normal(mode, covariance, CHAINS)
    path = directory / f"regression_{rows}.npz"
    np.savez(path, x=data[0], y=data[1], mode=mode.astype(np.float32), start=start.astype(np.float32))

    def settings(method):
        law = oracle.gradient_variances(posterior, mode, covariance, method.endswith("CV"), rng)
        return oracle.best(*law, hamiltonian=method.startswith("SGHMC"))

    return path, reference, settings


def options_of(contender, rows, settings):
    """What its worker is told, and by how much more work it takes than that; 1 where the run is long enough."""
    if contender.package != "sgworld":
        chosen = settings(contender.method)
        wanted = WANTED * chosen.cost
        steps = chosen.integration_steps
        thinning = max(int(chosen.cost / steps) // 4, 1) * steps
        run = min(wanted, MOST_GRADIENTS)
        if run < wanted:
            thinning = steps
        samples = max(int(run / CHAINS / thinning), 1)
        told = {"chains": CHAINS, "samples": samples, "thinning": thinning}
        told |= {"step_size": chosen.step_size, "integration_steps": steps}
        return told, wanted / (CHAINS * samples * thinning)
    if contender.method == "NUTS":
        return {"chains": 1, "samples": 2000 if rows <= 10**4 else 200}, 1
    if contender.method == "HMCECS":
        return {"chains": 1, "samples": 2000}, 1
    return {"chains": 4, "samples": WANTED // 2}, 1


def time_to_error(rows, contenders, directory):
    """CPU seconds to 5000 effective draws of the squares, from the first call on, and the error of sds there."""
    path, reference, settings = regression(rows, directory)
    print(f"\nLogistic regression, N = {rows:,}, d = {PREDICTORS}: CPU seconds until posterior sds are known to 1 %")
    print(
        f"{'':34}{'seconds':>10}{'before sampling':>17}{'SGWORLD faster by':>19}{'rms error of sds, %':>21}", flush=True
    )
    numbers = {}
    for contender in contenders:
        options, longer = options_of(contender, rows, settings)
        answer = ask(contender, "error", data=path, **options)
        if not answer:
            continue
        before = answer["first_s"] - answer["again_s"]
        complete = longer < 1.1
        more = WANTED / answer["effective"] if complete else longer
        error = float(np.sqrt(np.mean((np.array(answer["sd"]) / reference.sd - 1) ** 2)))
        sampled = float(np.sqrt(1 / (2 * answer["effective"])))
        numbers[contender.name] = one = {
            "seconds": before + answer["again_s"] * more,
            "before_s": before,
            "measured_s": answer["again_s"],
            "longer": more,
            "complete": complete,
            "error": error if complete else None,
            "sampling_error": sampled if complete else None,
            "options": options,
        }
        ratio = one["seconds"] / numbers[TUNED]["seconds"]
        shown = f"{100 * error:.2f} ({100 * sampled:.2f})" if complete else "computed"
        print(f"{contender.name:34}{one['seconds']:10.1f}{before:17.1f}{ratio:19.1f}{shown:>21}", flush=True)
    return numbers


def documented(packages, directory):
    """SGMCMCJax's first example, whose posterior is exact, at the numbers that documentations name; and its errors."""
    rows, dim, batch_size = 10_000, 100, 1_000
    (x,) = gaussian_mean(rows, dim).data
    exact = (rows + 0.01) ** -0.5
    path = directory / "documented.npz"
    np.savez(path, x=np.asarray(x), start=np.zeros((1, dim), np.float32))
    mean = np.asarray(x, float).sum(0) * exact**2
    print(f"\nMean of a Gaussian, N = {rows:,}, d = {dim}, B = {batch_size:,}, at documented settings")
    print(f"{'':28}{'mean sd, %':>12}{'rms error of sds, %':>21}{'of means, sds':>15}{'effective':>11}{'CPU s':>8}")
    numbers = {}
    for contender in there(DOCUMENTED, packages):
        options = DOCUMENTED[contender]
        answer = ask(contender, "error", workload="W1", data=path, batch_size=batch_size, **options)
        if not answer:
            continue
        relative = np.array(answer["sd"]) / exact - 1
        numbers[contender.name] = one = {
            "sd": float(relative.mean()),
            "rms_sd": float(np.sqrt(np.mean(relative**2))),
            "rms_mean": float(np.sqrt(np.mean(((np.array(answer["mean"]) - mean) / exact) ** 2))),
            "effective": answer["effective"],
            "cpu_s": answer["first_s"],
        }
        if not np.isfinite(one["sd"]):
            print(f"{contender.name:28}{'diverges':>12}", flush=True)
            continue
        print(
            f"{contender.name:28}{100 * one['sd']:+12.1f}{100 * one['rms_sd']:21.1f}{one['rms_mean']:15.3f}"
            f"{one['effective']:11.0f}{one['cpu_s']:8.1f}",
            flush=True,
        )
    return numbers


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_output(parser, "peers")
    parser.add_argument("--quick", action="store_true", help="short runs, once, of what is installed already")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="these parts")
    parser.add_argument("--packages", nargs="+", choices=REQUIREMENTS, default=list(REQUIREMENTS))
    parser.add_argument("--rows", type=float, nargs="+", help="of the regressions; by default 1e4 and 1e5")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each contender, of which medians are taken")
    return parser.parse_args(argv)


def main(argv=None):
    arguments = parse(argv)
    if not arguments.quick:
        build(arguments.packages)
    wanted = {"sgworld", *arguments.packages}
    speeds, errors = there(SPEED, wanted), there(ERROR, wanted)
    machine = f"{platform.processor() or platform.machine()}, one of {os.cpu_count()} cores, {platform.platform()}"
    numbers = {"machine": machine, "load": os.getloadavg(), "versions": {}, "lines": {}}
    print(machine, f"load {os.getloadavg()[0]:.1f}")
    for contender in {*speeds, *errors}:
        answer = ask(contender, "lines")
        if answer:
            numbers["versions"][contender.package] = answer["versions"]
            numbers["lines"][contender.name] = answer["lines"]
    for package, found in sorted(numbers["versions"].items()):
        print(f"{package}: " + ", ".join(f"{name} {version}" for name, version in found.items()))
    print("lines of user code:", ", ".join(f"{name} {count}" for name, count in sorted(numbers["lines"].items())))
    sizes, rounds = (QUICK_SIZES, 1) if arguments.quick else (SIZES, arguments.rounds)
    parts = arguments.only or (tuple(WORKLOADS) if arguments.quick else PARTS)
    with tempfile.TemporaryDirectory() as scratch:
        for name in (name for name in sizes if name in parts):
            for chains in sizes[name]:
                numbers[f"{name}, {chains}"] = speed(name, chains, speeds, sizes, rounds, Path(scratch))
        if "error" in parts:
            for rows in map(int, arguments.rows or (10**4, 10**5)):
                numbers[f"error, {rows}"] = time_to_error(rows, errors, Path(scratch))
        if "documented" in parts:
            numbers["documented"] = documented(wanted, Path(scratch))
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(arguments.out / "peers.png", numbers)
    return write(numbers, arguments, "peers")


if __name__ == "__main__":
    main()

"""The local learning coefficient of deep linear networks, by three samplers, against what it is.

A minimum of the loss that is flat to second order in many directions, as a network's, has a learning coefficient λ far
below half of its number of weights. For deep linear networks Aoyagi (2024) gives it exactly, for n to infinity and no
tie; at the example's n and tie it is computed by Gibbs sampling, which knows neither steps nor minibatches. Chains that
start at the minimum estimate it: SGLD, SGWORLD with its paper's integrator, and SGWORLD with BAOAB, each with as many
gradients, at step sizes that the package chooses. Then a regular network shows what the step size does to it: λ is the
mean of a loss, and a chain that is too hot by a tenth shows a tenth too much.
"""

import warnings
from pathlib import Path
from time import perf_counter

import jax
import numpy as np
from _common import parse, write_json
from _linear_networks import by_gibbs, linear_network

from sgworld_numpyro import BAOAB, SGLD, SGWORLD, EulerMaruyama
from sgworld_numpyro.learning_coefficient import (
    LearningCoefficientWarning,
    deep_linear_coefficient,
    local_learning_coefficient,
)

LOCALISATION = 10.0
NETWORKS = [
    ((3, 3), 3),
    ((3, 2, 3), 2),
    ((3, 3, 3), 1),
    ((2, 2, 2, 2), 1),
    ((3, 3, 3, 3), 0),
    ((4, 4, 4, 4), 1),
]
REGULAR = (3, 3), 3
SAMPLERS = {
    "SGLD": lambda model, **given: SGLD(model, **given),
    "SGWORLD": lambda model, **given: SGWORLD(model, integrator=EulerMaruyama(), **given),
    "SGWORLD+BAOAB": lambda model, friction=None, **given: SGWORLD(model, integrator=BAOAB(friction), **given),
}
TIMES_CHOSEN = (2.0, 4.0)  # step sizes that are tried on the regular network besides


def estimate(name, network, seed, length, **given):
    """λ̂ and all that speaks for it."""
    kernel = SAMPLERS[name](network.model, **given)
    began = perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LearningCoefficientWarning)  # they are in the table
        found = local_learning_coefficient(
            kernel,
            jax.random.key(seed),
            network.x,
            network.y,
            at=network.at,
            localisation=LOCALISATION,
            num_warmup=length,
            num_samples=length,
        )
    return {
        "value": found.value,
        "error": found.error,
        "temperature": list(found.temperature),
        "tie_slope": list(found.tie_slope),
        "step_size": found.step_size,
        "friction": found.friction,
        "gradients": found.gradients,
        "complaints": list(found.complaints),
        "seconds": perf_counter() - began,
    }


def label_of(widths, rank):
    return f"{'-'.join(map(str, widths))}, r = {rank}"


def shown(found):
    return f"{found['value']:8.3f}{found['error']:7.3f}{found['temperature'][0]:7.2f}"


def try_steps(chosen, rows, batch, seed, length):
    """λ̂ of the regular network at multiples of the step sizes that were chosen, by sampler."""
    network = linear_network(*REGULAR, rows, batch, seed)
    print(f"\n{'sampler':<15}{'step / chosen':>14}{'λ':>8}{'error':>7}{'temp.':>7}")
    scans = {}
    for name, found in chosen["samplers"].items():
        friction = {} if found["friction"] is None else {"friction": found["friction"]}
        scans[name] = [{"times": 1.0, **found}]
        for times in TIMES_CHOSEN:
            scan = estimate(name, network, seed, length, step_size=times * found["step_size"], **friction)
            scans[name].append({"times": times, **scan})
            print(
                f"{name:<15}{times:14g}{scan['value']:8.3f}{scan['error']:7.3f}{scan['temperature'][0]:7.2f}",
                flush=True,
            )
    return scans


def draw(path, numbers):
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), constrained_layout=True)
    networks = numbers["networks"]
    places = np.arange(len(networks))
    left.plot(
        places, [n["weights"] / 2 for n in networks.values()], "_", color="0.6", ms=14, label="half of the weights"
    )
    left.plot(places, [n["aoyagi"] for n in networks.values()], "k_", ms=14, mew=2, label="Aoyagi, n → ∞")
    left.plot(places, [n["exact"] for n in networks.values()], "k+", ms=9, label="this n and tie, Gibbs")
    samplers = next(iter(networks.values()))["samplers"]
    for number, name in enumerate(samplers):
        found = [n["samplers"][name] for n in networks.values()]
        shift = 0.16 * (number + 1)
        bars = [f["value"] for f in found], [f["error"] for f in found]
        left.errorbar(places + shift, *bars, fmt="o", ms=4, color=f"C{number}", label=name)
    for number, (name, scan) in enumerate(numbers["steps"].items()):
        bars = [s["value"] for s in scan], [s["error"] for s in scan]
        right.errorbar([s["times"] for s in scan], *bars, fmt="o-", ms=4, color=f"C{number}", label=name)
    left.set_xticks(places, networks, rotation=35, ha="right", fontsize=8)
    left.set_ylabel("learning coefficient λ")
    left.set_yscale("log")
    left.set_yticks([2, 3, 5, 10, 20], ["2", "3", "5", "10", "20"])
    left.minorticks_off()
    left.legend(fontsize=7)
    right.axhline(REGULAR[0][0] * REGULAR[0][1] / 2, color="k", lw=1, label="half of the weights")
    right.set_xticks([1.0, *TIMES_CHOSEN])
    right.set_xlabel("step size / that which is chosen")
    right.set_ylabel("λ of the regular network")
    right.legend(fontsize=7)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(argv=None):
    options = parse(__doc__.splitlines()[0], argv)
    rows, batch, length = (400, 100, 300) if options.quick else (1000, 100, 1000)
    chosen = [((3, 3, 3, 3), 0)] if options.quick else NETWORKS
    samplers = ["SGWORLD+BAOAB"] if options.quick else list(SAMPLERS)
    numbers = {"networks": {}, "steps": {}, "localisation": LOCALISATION, "rows": rows, "batch_size": batch}
    print(f"n = {rows}, B = {batch}, T = ln n, γ = {LOCALISATION:g}; 8 chains, {length} passes after {length}.\n")
    print(f"{'network':<14}{'d/2':>6}{'Aoyagi':>8}{'exact':>8}  {'sampler':<15}{'λ':>8}{'error':>7}{'temp.':>7}  told")
    for widths, rank in chosen:
        network = linear_network(widths, rank, rows, batch, options.seed)
        label = label_of(widths, rank)
        exact, error = by_gibbs(network, LOCALISATION, np.log(rows), sweeps=400, chains=200, seed=options.seed)
        entry = {
            "weights": sum(weight.size for weight in network.weights),
            "aoyagi": deep_linear_coefficient(widths, rank).value,
            "exact": exact,
            "exact_error": error,
            "samplers": {name: estimate(name, network, options.seed, length) for name in samplers},
        }
        numbers["networks"][label] = entry
        start = f"{label:<14}{entry['weights'] / 2:6.1f}{entry['aoyagi']:8.3g}{exact:8.3f}"
        for name, found in entry["samplers"].items():
            told = "; ".join(text.split(":")[0] for text in found["complaints"])
            print(f"{start:<36}  {name:<15}{shown(found)}  {told}", flush=True)
            start = ""
    if not options.quick:
        numbers["steps"] = try_steps(numbers["networks"][label_of(*REGULAR)], rows, batch, options.seed, length)
    figure = Path(options.out) / "local_learning_coefficient.png"
    draw(figure, numbers)
    print(f"\nFigure: {figure}")
    write_json(options.json, numbers)
    return numbers


if __name__ == "__main__":
    main()

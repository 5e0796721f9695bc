"""Entropy production of systems that are driven by a known amount, beside the public Stochastic Force Inference.

For every system: the exact rate in nats per unit of time, what each method measures, with its own error, the rms error
over independent runs, seconds, and the time that a run would have to take for 10 %. The peer is asked where it is
installed: ``pip install StochasticForceInference equinox`` into an environment of its own that has this package, too.
"""

import argparse
import json
import time
import warnings

import numpy as np
from scipy.stats import kstest

from sgworld_numpyro.nonequilibrium import LinearDescriptionWarning, entropy_production, systems

SUBSTEPS = 4
SYSTEMS = {
    "driven trap": (0.02, lambda: systems.driven_ou(0.02)),
    "two beads": (0.02, lambda: systems.beads(2, 0.02)),
    "five beads": (0.02, lambda: systems.beads(5, 0.02)),
    "vortices, a = 1/2": (0.02, lambda: systems.vortices(0.5)),
    "vortices, a = 1": (0.02, lambda: systems.vortices(1.0)),
    "rings": (0.02, lambda: systems.rings(0.3)),
    "quartic trap": (0.01, lambda: systems.quartic_trap(1.0)),
    "two wells": (0.01, lambda: systems.two_wells(1.0)),
    "heavy tails": (0.02, lambda: systems.heavy_tails(1.0)),
}


def linear(x, step):
    """This package's default."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LinearDescriptionWarning)
        found = entropy_production(x)
    return found.rate / step, found.rate_error / step


def currents(x, step):
    """This package's bound, monomials up to order 3."""
    found = entropy_production(x, "currents")
    return found.rate / step, found.rate_error / step


def peer(x, step):
    """Stochastic Force Inference, monomials up to order 3 and a constant diffusion matrix."""
    from SFI import OverdampedLangevinInference, TrajectoryCollection
    from SFI.bases import monomials_up_to

    scaled = x / x.std((0, 1))  # its monomials are of the coordinates as they are; the rate has no units of length
    first, *others = (TrajectoryCollection.from_arrays(X=chain, dt=step) for chain in scaled)
    trajectories = first.concat(others) if others else first
    inference = OverdampedLangevinInference(trajectories)
    inference.compute_diffusion_constant()
    inference.infer_force_linear(monomials_up_to(order=3, dim=x.shape[2], rank="vector"))
    found = inference.compute_entropy_production()
    return float(found["Sdot_debiased"]), float(found["Sdot_error"])


def methods():
    """Those that can be run here."""
    found = {"linear": linear, "currents": currents}
    try:
        import SFI  # noqa: F401
    except ImportError:
        print("Stochastic Force Inference is not installed: ours alone.")
        return found
    return found | {"SFI": peer}


def in_equilibrium(seeds):
    """p-values of runs that nothing drives, which must be uniform: how often below 0.05 and 0.2, and Kolmogorov's test.

    Vortices of a = 0, and Student's law, which is not Gaussian.
    """
    found = {}
    print(f"{'a = 0':<20}{'method':>10}{'p < 0.05':>10}{'p < 0.2':>9}{'uniform: p':>12}   of {seeds} runs")
    for name, system in {"vortices": systems.vortices(0.0), "heavy tails": systems.heavy_tails(0.0)}.items():
        runs = [system.sample(8, 500, 0.2, seed=seed) for seed in range(seeds)]
        for method in ("ar1", "currents"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", LinearDescriptionWarning)
                p_values = np.array(
                    [entropy_production(x, method, surrogates=199, seed=s).p_value for s, x in enumerate(runs)]
                )
            numbers = {
                "below_0.05": float(np.mean(p_values <= 0.05)),
                "below_0.2": float(np.mean(p_values <= 0.2)),
                "uniform": float(kstest(p_values, "uniform").pvalue),
            }
            found.setdefault(name, {})[method] = numbers
            below = f"{numbers['below_0.05']:10.3f}{numbers['below_0.2']:9.3f}"
            print(f"{name:<20}{method:>10}{below}{numbers['uniform']:12.3f}", flush=True)
    return found


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two short runs of each")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there")
    parser.add_argument("--null", type=int, metavar="RUNS", help="only this: p-values of so many runs in equilibrium")
    options = parser.parse_args(argv)
    if options.null:
        return in_equilibrium(options.null)
    runs, draws = (2, 2000) if options.quick else (4, 20_000)
    numbers = {}
    print(f"16 chains of {draws} draws, {runs} runs. Nats per unit of time; error: stated | rms over runs.\n")
    print(f"{'system':<20}{'exact':>8}{'method':>10}{'mean':>9}{'stated':>9}{'rms':>9}{'s':>7}{'time for 10 %':>15}")
    for name, (step, make) in SYSTEMS.items():
        system = make()
        for method, measure in methods().items():
            values, errors, seconds = [], [], []
            for seed in range(runs):
                sampled = {} if isinstance(system, systems.LinearChain) else {"step": step, "substeps": SUBSTEPS}
                x = system.sample(16, draws, seed=seed, **sampled)
                began = time.perf_counter()
                value, error = measure(x, step)
                seconds.append(time.perf_counter() - began)
                values.append(value)
                errors.append(error)
            off = np.sqrt(np.mean((np.array(values) - system.rate) ** 2))
            bias = abs(np.mean(values) - system.rate)
            # a bias does not go away with time
            scatter = np.std(values, ddof=1)
            needed = 16 * draws * step * (scatter / (0.1 * system.rate)) ** 2 if bias < 0.1 * system.rate else np.inf
            print(
                f"{name:<20}{system.rate:8.4g}{method:>10}{np.mean(values):9.4g}{np.mean(errors):9.2g}{off:9.2g}"
                f"{np.median(seconds):7.2f}{needed:15.3g}",
                flush=True,
            )
            numbers.setdefault(name, {"exact": system.rate})[method] = {
                "values": values,
                "errors": errors,
                "seconds": float(np.median(seconds)),
                "time_for_a_tenth": needed,
            }
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(numbers, file, indent=1)
    return numbers


if __name__ == "__main__":
    main()

"""SGD and SGLD where the linear description of their stationary state fails: entropy production, by currents.

First the paper's network, plain SGD at step sizes up to a hundred times the paper's, with and without replacement: the
rate that the linear description gives beside that by currents, and the detailed fluctuation theorem on held-out σ, as
far out as there are reversals. Then SGLD on independent component analysis, four weights at a learning rate of 0.05 of
the mean loss, against the batch size: does its entropy production level off, as arXiv 2510.24160 reports of single
runs? Errors are those between independent groups of chains.
"""

import warnings
from pathlib import Path
from time import perf_counter

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from _common import parse, write_json
from _nonlinear_regression import BATCH_SIZE, LEARNING_RATE, Simulation, global_minimum, linear_theory, model, rate_of

from sgworld_numpyro import (
    SGD,
    SGLD,
    SGWORLD,
    EulerMaruyama,
    IndependentBatches,
    Minibatch,
    RandomReshuffle,
    WithReplacement,
)
from sgworld_numpyro.datasets import gaussian_bump
from sgworld_numpyro.landscape import hessian, potential_minimum, row_potential
from sgworld_numpyro.nonequilibrium import (
    LinearDescriptionWarning,
    check_assumptions,
    entropy_production,
    fluctuation_theorems,
)

FACTORS = (10, 100, 200)  # of the paper's learning rate
ORDER = 2  # of the currents in the network's seven dimensions; 3 in the four of ICA
GROUPS = 4  # of chains, whose estimates are independent
ROWS, ICA_RATE, ICA_DIM = 1024, 0.05, 4
BATCH_SIZES = (1, 4, 16, 64)
ICA_THINNING = 8  # steps that are recorded as one transition, with replacement
BURN_IN = 4.0  # relaxation times of the slowest direction, from the predicted law


def over_groups(x, method, order=1):
    """Mean and standard error of the rate over independent groups of chains."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LinearDescriptionWarning)
        rates = [entropy_production(group, method, order=order, surrogates=1).rate for group in np.split(x, GROUPS)]
    return {"rate": float(np.mean(rates)), "error": float(np.std(rates, ddof=1) / np.sqrt(GROUPS))}


def theorem(sigma, lengths):
    """Slope of the detailed theorem by length of the stretch, and how far out in σ reversals were seen."""
    found = fluctuation_theorems(sigma, lengths)
    rows = []
    for number, length in enumerate(lengths):
        histogram = found.histograms[number]
        seen = np.isfinite(histogram.log_ratio)
        z = (histogram.log_ratio - histogram.centres)[seen] / histogram.log_ratio_error[seen]
        rows.append(
            {
                "length": length,
                "slope": float(found.slope[number]),
                "slope_error": float(found.slope_error[number]),
                "integral": float(found.integral[number]),
                "integral_error": float(found.integral_error[number]),
                "reach": float(histogram.edges[-1]),
                "chi2_per_bin": float(np.mean(z**2)),
                "centres": histogram.centres[seen].tolist(),
                "log_ratio": histogram.log_ratio[seen].tolist(),
                "log_ratio_error": histogram.log_ratio_error[seen].tolist(),
            }
        )
    return rows


def network_run(potential, minimum, data, scheme, factor, chains, draws, key, rng):
    """Plain SGD at a multiple of the paper's learning rate: what the linear description says, and currents."""
    rate = factor * LEARNING_RATE
    steps = len(data[0]) // BATCH_SIZE if scheme.period(potential.plate) > 1 else max(1, 100 // factor)
    theory = linear_theory(potential, jnp.asarray(minimum), scheme, rate, 0.0, steps)
    slowest = np.linalg.eigvalsh(np.asarray(hessian(potential, jnp.asarray(minimum))))[0]
    relaxing = int(np.ceil(BURN_IN / (rate * slowest * steps)))
    kernel = SGD(model, rate, subsampling=scheme, steps_per_sample=steps)
    start = rng.multivariate_normal(theory.mean, theory.covariance, chains)
    relax = SGD(model, rate, subsampling=scheme, steps_per_sample=steps * relaxing)
    keys = jax.random.split(key)
    for x in Simulation("relaxing", relax, data, start, keys[0], chains, thinning=1):
        start = x[:, -1]
    x = np.concatenate([x[:, 1:] for x in Simulation("SGD", kernel, data, start, keys[1], chains * draws, 1)], 1)
    kept = x[np.isfinite(x).all((1, 2))]
    if len(kept) < chains:
        return {"factor": factor, "steps": steps, "diverged": chains - len(kept)}
    currents = entropy_production(x, "currents", order=ORDER)
    return {
        "factor": factor,
        "steps": steps,
        "diverged": 0,
        "predicted": rate_of(theory),
        "linear": over_groups(x, "ar1"),
        "currents": over_groups(x, "currents", ORDER) | {"order": currents.order, "p_value": currents.p_value},
        "nonlinear": [text.split(".")[0] for text in check_assumptions(x).nonlinear],
        "theorem": theorem(currents.sigma, (1, 3, 10)),
    }


def sources(rng):
    """Two mixed Laplace variables, which the model takes for logistic ones."""
    mixed = rng.laplace(size=(ROWS, 2)) @ np.array([[1.0, 0.6], [0.2, 1.0]])
    return (mixed / mixed.std(0)).astype(np.float32)


def components(x, batch_size):
    """p(x | W) = |det W| Π p(w_j · x), with logistic p."""
    w = numpyro.sample("w", dist.Normal(0, 10).expand([2, 2]).to_event(2))
    with numpyro.plate("rows", ROWS, subsample_size=batch_size):
        s = numpyro.subsample(x, event_dim=1) @ w.T
        numpyro.factor("obs", jnp.linalg.slogdet(w)[1] - 2 * jnp.log(2 * jnp.cosh(s / 2)).sum(-1))


def ica_run(x, batch_size, scheme, mode, chains, draws, key):
    """Entropy production of SGLD on all four weights: of eight steps with replacement, of a pass without."""

    def of_rows(x):
        components(x, batch_size)

    replaced, step_size = isinstance(scheme, WithReplacement), ICA_RATE / ROWS
    steps = ICA_THINNING if replaced else ROWS // batch_size
    given = {} if replaced else {"integrator": EulerMaruyama(), "gradient": Minibatch()}
    keys = jax.random.split(key)
    start = np.repeat(mode.reshape(1, 2, 2), chains, 0)
    for run_key, passes, length in ((keys[0], 4 * ROWS // steps, 1), (keys[1], 1, draws)):
        kernel = (SGLD if replaced else SGWORLD)(of_rows, step_size, steps_per_sample=passes * steps, **given)
        found = chain_of(kernel, x, start, run_key, length)
        start = found[:, -1].reshape(start.shape)
    predicted = np.nan
    if replaced:
        potential = row_potential(of_rows, x)
        predicted = rate_of(linear_theory(potential, jnp.asarray(mode), scheme, step_size, 1.0, steps))
    return {
        "batch_size": batch_size,
        "steps": steps,
        "predicted": predicted,
        "linear": over_groups(found, "ar1"),
        "currents": over_groups(found, "currents", ORDER),
        "p_value": entropy_production(found, "currents", order=ORDER).p_value,
    }


def chain_of(kernel, x, start, key, draws):
    """Draws (chain, draw, weight) from a start."""
    state = kernel.init(jax.random.split(key, len(start)), 0, {"w": jnp.asarray(start)}, (x,))

    def draw(state, _):
        state = kernel.sample(state, (x,), {})
        return state, state.position

    _, found = jax.jit(lambda state: jax.lax.scan(draw, state, length=draws))(state)
    return np.asarray(found, float).transpose(1, 0, 2)


def mark(pair):
    return f"{pair['rate']:10.3g} ± {pair['error']:7.1g}"


def draw_figure(path, numbers):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), constrained_layout=True)
    for color, (name, runs) in zip(("C0", "C1"), numbers["network"].items(), strict=True):
        runs = [run for run in runs if not run["diverged"]]
        factors, steps = [r["factor"] for r in runs], np.array([r["steps"] for r in runs])
        axes[0].plot(factors, [r["predicted"] for r in runs] / steps, ":", color=color, label=f"{name}, predicted")
        for method, marker in (("linear", "s"), ("currents", "o")):
            bars = [r[method]["rate"] for r in runs] / steps, [r[method]["error"] for r in runs] / steps
            axes[0].errorbar(factors, *bars, fmt=marker, ms=4, color=color, label=f"{name}, {method}", mfc="none")
    axes[0].set(xscale="log", xlabel="learning rate / the paper's", ylabel="entropy production, nats a step")
    axes[0].set_yscale("symlog", linthresh=1e-4)
    axes[0].legend(fontsize=7)
    runs = [run for run in numbers["network"]["with replacement"] if not run["diverged"]]
    for number, run in enumerate(runs):
        row = run["theorem"][0]
        bars = row["centres"], row["log_ratio"], row["log_ratio_error"]
        axes[1].errorbar(*bars, fmt=".", ms=3, color=f"C{number}", label=f"{run['factor']} × the paper's rate")
    reach = max(run["theorem"][0]["reach"] for run in runs)
    axes[1].plot([0, reach], [0, reach], "k-", lw=1)
    axes[1].axvline(0.07, color="0.6", lw=1, ls="--")
    axes[1].set(xlabel="|σ| of a transition, held out", ylabel="ln P(σ)/P(−σ)", title="with replacement")
    axes[1].legend(fontsize=7)
    for color, (name, runs) in zip(("C0", "C1"), numbers["ica"].items(), strict=True):
        sizes, steps = [r["batch_size"] for r in runs], np.array([r["steps"] for r in runs])
        axes[2].plot(sizes, [r["predicted"] for r in runs] / steps, ":", color=color)
        for method, marker in (("linear", "s"), ("currents", "o")):
            bars = [r[method]["rate"] for r in runs] / steps, [r[method]["error"] for r in runs] / steps
            axes[2].errorbar(sizes, *bars, fmt=f"{marker}-", ms=4, color=color, label=f"{name}, {method}", mfc="none")
    axes[2].set(xlabel="batch size", ylabel="entropy production, nats a step", title="SGLD on ICA")
    axes[2].set_xscale("log", base=2)
    axes[2].set_yscale("symlog", linthresh=1e-4)
    axes[2].legend(fontsize=7)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def run_networks(options, chains, draws):
    with jax.enable_x64(True):
        data = gaussian_bump(seed=options.seed)
        potential = row_potential(model, *data)
        minimum = global_minimum(potential, options.seed)
        rng, key = np.random.default_rng(options.seed), jax.random.key(options.seed)
        found = {}
        print(f"{'SGD':<22}{'rate':>6}{'steps':>6}{'predicted':>11}{'linear':>20}{'currents':>20}  slope, |σ| up to")
        for name, scheme in (("with replacement", IndependentBatches()), ("without replacement", RandomReshuffle())):
            found[name] = []
            for number, factor in enumerate((100,) if options.quick else FACTORS):
                run_key = jax.random.fold_in(key, 2 * number + (name == "without replacement"))
                run = network_run(potential, minimum, data, scheme, factor, chains, draws, run_key, rng)
                found[name].append(run)
                if run["diverged"]:
                    print(f"{name:<22}{factor:6}× {run['diverged']} of {chains} chains diverged", flush=True)
                    continue
                row = run["theorem"][0]
                print(
                    f"{name:<22}{factor:5}×{run['steps']:6}{run['predicted']:11.3g}{mark(run['linear'])}"
                    f"{mark(run['currents'])}  {row['slope']:.3f} ± {row['slope_error']:.3f}, {row['reach']:.2g}",
                    flush=True,
                )
    return found


def run_components(options, chains, draws):
    x = sources(np.random.default_rng(options.seed))
    potential = row_potential(lambda x: components(x, 1), x)
    mode = np.asarray(potential_minimum(potential, jnp.eye(2).ravel()))
    found = {}
    print(f"\n{'SGLD on ICA':<22}{'B':>4}{'steps':>6}{'predicted':>11}{'linear':>20}{'currents':>20}{'p':>7}")
    for name, scheme in (("with replacement", WithReplacement()), ("without replacement", RandomReshuffle())):
        found[name] = []
        for number, size in enumerate((4,) if options.quick else BATCH_SIZES):
            run_key = jax.random.fold_in(jax.random.key(options.seed + 1), number)
            # passes of small batches are long, and forget where they began
            length = draws if name == "with replacement" else max(100, draws * size // BATCH_SIZES[-1])
            run = ica_run(x, size, scheme, mode, chains, length, run_key)
            found[name].append(run)
            print(
                f"{name:<22}{size:4}{run['steps']:6}{run['predicted']:11.3g}{mark(run['linear'])}"
                f"{mark(run['currents'])}{run['p_value']:7.3f}",
                flush=True,
            )
    return found


def main(argv=None):
    options = parse(__doc__.splitlines()[0], argv)
    began = perf_counter()
    chains, draws = (32, 500) if options.quick else (64, 1000)
    numbers = {"network": run_networks(options, chains, draws), "ica": run_components(options, chains, 2 * draws)}
    numbers["seconds"] = perf_counter() - began
    figure = Path(options.out) / "nonlinear_entropy.png"
    draw_figure(figure, numbers)
    print(
        f"\nFigure: {figure}. Rates are of a recorded transition of so many steps. {numbers['seconds']:.0f} s in all."
    )
    write_json(options.json, numbers)
    return numbers


if __name__ == "__main__":
    main()

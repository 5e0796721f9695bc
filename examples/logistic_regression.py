"""Bayesian logistic regression on the breast-cancer data: SGWORLD on minibatches against NUTS on all rows.

Nothing is set by hand: SGWORLD(model) finds the bulk of the posterior, a preconditioner, and the estimator of the
gradient, step and steps a sample by which an effective draw costs least, with a relative error of the posterior
variance below 2 %. SGWORLD(model, integrator=EulerMaruyama()) promises the same and, without velocities, takes several
times longer to forget where it was.

569 is a prime, so no batch size divides the data. It does not matter: batches of 32 run on from one shuffled pass
into the next, no row is dropped, and every pass still sees every row once.
"""

import time
from typing import NamedTuple

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from _common import parse, save_run, write_json
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer import MCMC, NUTS
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler

from sgworld_numpyro import SGWORLD, EulerMaruyama, tuning_report

BATCH_SIZE = 32
CHAINS = 16  # in one vectorized loop they cost little more than four
THERMOMETERS = ("configurational_temperature", "fluctuation_dissipation", "kinetic_temperature")
MEAN_TOLERANCE, SD_TOLERANCE = 0.05, 0.04  # in posterior sds, and relative
FILES = {"SGWORLD": "logistic_regression", "overdamped": "logistic_regression_overdamped"}


class Moments(NamedTuple):
    """Mean and sd of each coordinate, their Monte Carlo standard errors, and the effective sample size."""

    mean: np.ndarray
    sd: np.ndarray
    mean_error: np.ndarray
    sd_error: np.ndarray
    ess: np.ndarray


def model(x, y):
    intercept = numpyro.sample("intercept", dist.Normal(0, 1))
    weights = numpyro.sample("weights", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("rows", len(x), subsample_size=BATCH_SIZE):
        batch, label = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
        numpyro.sample("obs", dist.Bernoulli(logits=intercept + batch @ weights), obs=label)


def sample(kernel, num_warmup, num_samples, num_chains, seed, x, y, extra_fields):
    """A finished run, and the seconds it took, compilation and tuning included."""
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    start = time.perf_counter()
    mcmc.run(jax.random.key(seed), x, y, extra_fields=extra_fields)
    jax.block_until_ready(mcmc.get_samples())
    return mcmc, time.perf_counter() - start


def positions(mcmc):
    """Draws of the flat position, sites in alphabetical order: (chains, samples, 1 + features)."""
    sites = mcmc.get_samples(group_by_chain=True)
    return np.concatenate([np.asarray(sites["intercept"], float)[..., None], sites["weights"]], axis=-1)


def moments(draws):
    mean, sd = draws.mean((0, 1)), draws.std((0, 1))
    squared = ((draws - mean) / sd) ** 2
    ess = effective_sample_size(draws)
    sd_error = sd / 2 * squared.std((0, 1)) / np.sqrt(effective_sample_size(squared))
    return Moments(mean, sd, sd / np.sqrt(ess), sd_error, ess)


def compare(ours, reference):
    """SGWORLD against NUTS: differences in units of the posterior sd, with the errors of both."""
    return {
        "mean_difference": (ours.mean - reference.mean) / reference.sd,
        "mean_difference_error": np.hypot(ours.mean_error, reference.mean_error) / reference.sd,
        "sd_ratio": ours.sd / reference.sd,
        "sd_ratio_error": np.hypot(ours.sd_error, reference.sd_error) / reference.sd,
    }


def agree(comparison):
    """Whether every mean and sd is within the tolerances, up to two Monte Carlo errors."""
    mean_excess = abs(comparison["mean_difference"]) - 2 * comparison["mean_difference_error"]
    sd_excess = abs(comparison["sd_ratio"] - 1) - 2 * comparison["sd_ratio_error"]
    return bool((mean_excess <= MEAN_TOLERANCE).all() and (sd_excess <= SD_TOLERANCE).all())


def temperature(mcmc):
    """Configurational temperature, which is 1 for the exact posterior, and its error from the chains' differences."""
    means = np.asarray(mcmc.get_extra_fields(group_by_chain=True)["configurational_temperature"], float).mean(1)
    return [float(means.mean()), float(means.std(ddof=1) / np.sqrt(len(means)))]


def summarise(found, draws, gradients, seconds):
    """What can be said of a run by itself."""
    return {
        **{key: values.tolist() for key, values in found._asdict().items()},
        "gradients": gradients,
        "seconds": seconds,
        "r_hat": float(split_gelman_rubin(draws).max()),
        "smallest_ess": float(found.ess.min()),
        "ess_per_million_gradients": float(1e6 * found.ess.min() / gradients),
    }


def run_sgworld(kernel, num_samples, seed, x, y, reference):
    """A run, and its numbers: by itself, its temperature, and against the moments of NUTS."""
    mcmc, seconds = sample(kernel, num_samples // 20, num_samples, CHAINS, seed, x, y, THERMOMETERS)
    draws = positions(mcmc)
    found = moments(draws)
    comparison = compare(found, reference)
    settings = kernel.settings(state=mcmc.last_state)
    a_step = 2 if settings.gradient.needs_anchor else 1
    gradients = CHAINS * num_samples * settings.steps_per_sample * a_step
    return mcmc, {
        **summarise(found, draws, gradients, seconds),
        **{key: values.tolist() for key, values in comparison.items()},
        "temperature": temperature(mcmc),
        "agree": agree(comparison),
        "largest_mean_difference": float(abs(comparison["mean_difference"]).max()),
        "largest_sd_difference": float(abs(comparison["sd_ratio"] - 1).max()),
    }


def print_table(names, nuts, runs):
    print(f"\n{'':24}{'NUTS':^17}" + "".join(f"{f'{name} against NUTS':^38}" for name in runs))
    print(f"{'coordinate':<24}{'mean':>9}{'sd':>8}" + f"{'mean, in sds':>18}{'sd ratio':>17}   " * len(runs))
    for i, name in enumerate(names):
        row = f"{name:<24}{nuts['mean'][i]:9.3f}{nuts['sd'][i]:8.3f}"
        for run in runs.values():
            row += f"{run['mean_difference'][i]:+12.3f} ± {run['mean_difference_error'][i]:.3f}"
            row += f"{run['sd_ratio'][i]:10.3f} ± {run['sd_ratio_error'][i]:.3f}"
        print(row)


SUMMARY = {
    "minibatch gradients, warm-up apart": lambda run: f"{run['gradients']:,.0f}",
    "seconds, with compilation and tuning": lambda run: f"{run['seconds']:.0f}",
    "largest R-hat": lambda run: f"{run['r_hat']:.4f}",
    "smallest ESS": lambda run: f"{run['smallest_ess']:.0f}",
    "smallest ESS in a million gradients": lambda run: f"{run['ess_per_million_gradients']:.0f}",
}
AGAINST_NUTS = {
    "configurational temperature": lambda run: "{:.4f} ± {:.4f}".format(*run["temperature"]),
    "largest difference of means, in sds": lambda run: f"{run['largest_mean_difference']:.3f}",
    "largest difference of sds": lambda run: f"{run['largest_sd_difference']:.1%}",
    f"within {MEAN_TOLERANCE:g} sd, {SD_TOLERANCE:.0%} and 2 errors": lambda run: "yes" if run["agree"] else "NO",
}


def print_summary(nuts, runs):
    for rows, shown in ((SUMMARY, {**runs, "NUTS": nuts}), (AGAINST_NUTS, runs)):
        print(f"\n{'':38}" + "".join(f"{name:>18}" for name in shown))
        for label, cell in rows.items():
            print(f"{label:<38}" + "".join(f"{cell(run):>18}" for run in shown.values()))


def draw(path, names, nuts, runs):
    """Means and sds of all coordinates, then the differences on the scale of the tolerances."""
    import matplotlib.pyplot as plt

    order = np.argsort(nuts["mean"])
    rows = np.arange(len(names))
    styles = {"SGWORLD": {"color": "#0072B2", "marker": "s"}, "overdamped": {"color": "#D55E00", "marker": "D"}}
    shifts = {name: 0.17 * (len(runs) - 1 - 2 * i) for i, name in enumerate(runs)}
    figure, (values, means, sds) = plt.subplots(
        1, 3, figsize=(10.4, 7.6), sharey=True, width_ratios=(1.2, 1, 1), layout="constrained"
    )

    def bars(axes, run, key, error, shift, **style):
        middle, half = np.array(run[key])[order], np.array(run[error])[order]
        return axes.errorbar(middle, rows + shift, xerr=half, ls="none", ms=3.2, lw=1.2, **style)

    handles = [bars(values, nuts, "mean", "sd", 0, color="0.35", marker="o", label="NUTS, all rows")]
    values.axvline(0, color="0.8", lw=0.8, zorder=0)
    values.set(xlabel="posterior mean ± sd", yticks=rows, yticklabels=[names[i] for i in order])
    values.set_ylim(-0.8, len(names) - 0.2)
    for axes, key, centre, tolerance, label in (
        (means, "mean_difference", 0, MEAN_TOLERANCE, "mean − mean of NUTS, in sds"),
        (sds, "sd_ratio", 1, SD_TOLERANCE, "sd / sd of NUTS"),
    ):
        shade = axes.axvspan(centre - tolerance, centre + tolerance, color="0.93", lw=0, label="tolerance")
        axes.axvline(centre, color="0.35", lw=0.8)
        drawn = [
            bars(axes, run, key, f"{key}_error", shifts[name], label=f"{name}, ±1 Monte Carlo error", **styles[name])
            for name, run in runs.items()
        ]
        axes.set(xlabel=label, xticks=(centre - tolerance, centre, centre + tolerance))
        axes.tick_params(axis="x", labelsize=8)  # or the labels of narrow tolerances run into each other
    handles += [*drawn, shade]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    for axes in (values, means, sds):
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", color="0.95", lw=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path, dpi=200)
    plt.close(figure)


def main(argv=None):
    options = parse(__doc__.splitlines()[0], argv)
    data = load_breast_cancer()
    names = ["intercept", *map(str, data.feature_names)]
    x, y = StandardScaler().fit_transform(data.data).astype(np.float32), data.target
    kernels = {"SGWORLD": SGWORLD(model)}
    if not options.quick:  # compilation takes longer than sampling, and each kernel has its own
        kernels["overdamped"] = SGWORLD(model, integrator=EulerMaruyama())
    num_samples, num_reference = (3000, 250) if options.quick else (16_000, 2500)
    print(
        f"Logistic regression, {len(names)} coordinates: N = {len(x)} rows, B = {BATCH_SIZE} a batch.\n"
        f"NUTS with 4 chains of {num_reference} draws, then SGWORLD with {CHAINS} of {num_samples}."
    )

    full_data_model = kernels["SGWORLD"].model
    mcmc, seconds = sample(
        NUTS(full_data_model), num_reference, num_reference, 4, options.seed + 1, x, y, ("num_steps",)
    )
    exact_draws = positions(mcmc)
    reference = moments(exact_draws)
    # A leapfrog step takes all rows: it counts as the N/B minibatches that cost as much.
    nuts_gradients = float(mcmc.get_extra_fields()["num_steps"].sum()) * len(x) / BATCH_SIZE
    nuts = summarise(reference, exact_draws, nuts_gradients, seconds)
    saved = {
        "source": "NUTS",
        "mean": nuts["mean"],
        "covariance": np.cov(exact_draws.reshape(-1, len(names)).T).tolist(),
        "mean_error": nuts["mean_error"],
        "sd_error": nuts["sd_error"],
    }
    labels = {"coords": {"feature": names[1:]}, "dims": {"weights": ["feature"]}}

    runs = {}
    for name, kernel in kernels.items():
        mcmc, runs[name] = run_sgworld(kernel, num_samples, options.seed, x, y, reference)
        print(f"\nWhat {name} chose before its first sample\n{tuning_report(mcmc)}")
        save_run(options.out / f"{FILES[name]}.nc", mcmc, saved, **labels)

    print_table(names, nuts, runs)
    print_summary(nuts, runs)
    draw(options.out / "logistic_regression.png", names, nuts, runs)
    files = ("logistic_regression.png", *(f"{FILES[name]}.nc" for name in runs))
    print(f"\nFigure and runs: {', '.join(str(options.out / name) for name in files)}")
    numbers = {"coordinates": names, "nuts": nuts, "runs": runs}
    write_json(options.json, numbers)
    return numbers


if __name__ == "__main__":
    main()

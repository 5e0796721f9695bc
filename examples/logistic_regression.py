"""Bayesian logistic regression on the breast-cancer data: SGWORLD on minibatches against NUTS on all rows.

569 is a prime, so no batch size divides the data. It does not matter: batches of 32 run on from one shuffled pass
into the next, no row is dropped, and every pass still sees every row once.

The posterior is 9 times narrower in its stiffest direction than in its widest. Taking the covariance of the Laplace
approximation as preconditioner makes it round, so that one step size h serves all 31 coordinates and h is the
fraction by which a step relaxes each of them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from _common import parse, save_run, write_json
from jax.flatten_util import ravel_pytree
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS, init_to_value
from numpyro.infer.util import potential_energy
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler

from sgworld_numpyro import SGWORLD, LeimkuhlerMatthews
from sgworld_numpyro.preconditioners import Dense

BATCH_SIZE = 32
STEPS_PER_SAMPLE = 18  # the first whole number of batches that is a pass or more
# Time a pass over the data, R h. The minibatches' unequal Hessians shift means and change sds by at most some
# 0.3 R h posterior sds, and a chain forgets where it was in 2 / (R h) passes.
PASS_TIME = 0.1
MEAN_TOLERANCE, SD_TOLERANCE = 0.05, 0.05  # in posterior sds, and relative


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


def laplace(full_data_model, x, y):
    """Mode of the posterior by site, and inverse of the Hessian there in the flat position's coordinates."""
    position, unravel = ravel_pytree({"intercept": jnp.zeros(()), "weights": jnp.zeros(x.shape[1])})

    def potential(position):
        return potential_energy(full_data_model, (x, y), {}, unravel(position))

    def newton(_, position):
        return position - jnp.linalg.solve(jax.hessian(potential)(position), jax.grad(potential)(position))

    mode = jax.lax.fori_loop(0, 20, newton, position)
    covariance = np.linalg.inv(np.asarray(jax.jit(jax.hessian(potential))(mode), float))
    return unravel(mode), (covariance + covariance.T) / 2


def sample(kernel, num_warmup, num_samples, num_chains, seed, x, y, **options):
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(seed), x, y, **options)
    return mcmc


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


def print_table(names, ours, reference, comparison):
    print(f"\n{'':24}{'NUTS':^19}{'SGWORLD against NUTS':^38}{'ESS':^16}")
    print(f"{'coordinate':<24}{'mean':>9}{'sd':>8}   {'mean, in sds':>17}{'sd ratio':>19}{'SGWORLD':>10}{'NUTS':>8}")
    for i, name in enumerate(names):
        difference, difference_error, ratio, ratio_error = (values[i] for values in comparison.values())
        print(
            f"{name:<24}{reference.mean[i]:9.3f}{reference.sd[i]:8.3f}   "
            f"{difference:+9.3f} ± {difference_error:.3f}{ratio:11.3f} ± {ratio_error:.3f}"
            f"{ours.ess[i]:10.0f}{reference.ess[i]:8.0f}"
        )


def print_verdict(numbers):
    print(
        f"\n{'Agreement' if numbers['agree'] else 'NO agreement'} within {MEAN_TOLERANCE:g} sd for the means and "
        f"{100 * SD_TOLERANCE:g} % for the sds, up to two Monte Carlo errors, in {len(numbers['coordinates'])} "
        f"coordinates.\nLargest differences: means {numbers['largest_mean_difference']:.3f} sd, "
        f"sds {100 * numbers['largest_sd_difference']:.1f} %.\n"
        f"Passes over the data, warm-up apart: SGWORLD {numbers['sgworld_passes']:.3g}, "
        f"NUTS {numbers['nuts_passes']:.3g};\n"
        f"effective draws of the slowest coordinate in a thousand of them: "
        f"{numbers['sgworld_ess_per_1000_passes']:.0f} and {numbers['nuts_ess_per_1000_passes']:.0f}."
    )


def draw(path, names, ours, reference, comparison):
    """Means and sds of all coordinates, then the differences on the scale of the tolerances."""
    import matplotlib.pyplot as plt

    order = np.argsort(reference.mean)
    rows = np.arange(len(names))
    figure, (values, means, sds) = plt.subplots(
        1, 3, figsize=(10.4, 7), sharey=True, width_ratios=(1.7, 1, 1), layout="constrained"
    )
    for moments, label, shift, style in (
        (reference, "NUTS", 0.17, {"color": "0.35", "marker": "o"}),
        (ours, "SGWORLD", -0.17, {"color": "#0072B2", "marker": "s"}),
    ):
        mean, sd = moments.mean[order], moments.sd[order]
        values.errorbar(mean, rows + shift, xerr=sd, ls="none", ms=3.5, lw=1.3, label=label, **style)
    values.axvline(0, color="0.8", lw=0.8, zorder=0)
    values.set(xlabel="posterior mean ± sd", yticks=rows, yticklabels=[names[i] for i in order])
    values.set_ylim(-0.8, len(names) - 0.2)
    values.legend(frameon=False, loc="lower right")

    for axes, key, centre, tolerance, label in (
        (means, "mean_difference", 0, MEAN_TOLERANCE, "difference of the means, in sds"),
        (sds, "sd_ratio", 1, SD_TOLERANCE, "ratio of the sds"),
    ):
        axes.axvspan(centre - tolerance, centre + tolerance, color="#0072B2", alpha=0.1, lw=0)
        axes.axvline(centre, color="0.35", lw=0.8)
        errors = comparison[f"{key}_error"][order]
        axes.errorbar(comparison[key][order], rows, xerr=errors, fmt="s", ms=3.5, lw=1.1, color="#0072B2")
        axes.set(xlabel=label, xticks=(centre - tolerance, centre, centre + tolerance))
    means.set_title("SGWORLD against NUTS, ±1 Monte Carlo error; shaded: tolerance", fontsize=9, loc="left")
    for axes in (values, means, sds):
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path, dpi=200)
    plt.close(figure)


def main(argv=None):
    options = parse(__doc__.splitlines()[0], argv)
    data = load_breast_cancer()
    names = ["intercept", *map(str, data.feature_names)]
    x, y = StandardScaler().fit_transform(data.data).astype(np.float32), data.target
    num_rows = len(x)
    step_size = PASS_TIME * BATCH_SIZE / num_rows

    full_data_model = SGWORLD(model, step_size).model
    mode, covariance = laplace(full_data_model, x, y)
    start = init_to_value(values=mode)
    kernel = SGWORLD(
        model,
        step_size,
        integrator=LeimkuhlerMatthews(),
        preconditioner=Dense(covariance),
        steps_per_sample=STEPS_PER_SAMPLE,
        init_strategy=start,
    )
    num_samples, num_reference = (400, 250) if options.quick else (8000, 2500)
    print(
        f"Logistic regression, {len(names)} coordinates: N = {num_rows} rows, B = {BATCH_SIZE} a batch.\n"
        f"SGWORLD with 16 chains of {num_samples} draws, then NUTS with 4 of {num_reference}."
    )
    sgworld = sample(kernel, 100, num_samples, 16, options.seed, x, y)
    nuts_kernel = NUTS(full_data_model, init_strategy=start)
    fields = ("num_steps",)
    nuts = sample(nuts_kernel, num_reference, num_reference, 4, options.seed + 1, x, y, extra_fields=fields)

    exact_draws = positions(nuts)
    ours, reference = moments(positions(sgworld)), moments(exact_draws)
    comparison = compare(ours, reference)
    passes = 16 * num_samples * STEPS_PER_SAMPLE * BATCH_SIZE / num_rows
    nuts_passes = int(nuts.get_extra_fields()["num_steps"].sum())
    numbers = {
        "agree": agree(comparison),
        "largest_mean_difference": float(abs(comparison["mean_difference"]).max()),
        "largest_sd_difference": float(abs(comparison["sd_ratio"] - 1).max()),
        "sgworld_passes": passes,
        "nuts_passes": nuts_passes,
        "sgworld_ess_per_1000_passes": float(1000 * ours.ess.min() / passes),
        "nuts_ess_per_1000_passes": float(1000 * reference.ess.min() / nuts_passes),
        "coordinates": names,
        "sgworld": {key: values.tolist() for key, values in ours._asdict().items()},
        "nuts": {key: values.tolist() for key, values in reference._asdict().items()},
        **{key: values.tolist() for key, values in comparison.items()},
    }

    print_table(names, ours, reference, comparison)
    print_verdict(numbers)
    draw(options.out / "logistic_regression.png", names, ours, reference, comparison)
    saved = {
        "source": "NUTS",
        "mean": reference.mean.tolist(),
        "covariance": np.cov(exact_draws.reshape(-1, len(names)).T).tolist(),
        "mean_error": reference.mean_error.tolist(),
        "sd_error": reference.sd_error.tolist(),
    }
    labels = {"coords": {"feature": names[1:]}, "dims": {"weights": ["feature"]}}
    save_run(options.out / "logistic_regression.nc", sgworld, saved, **labels)
    print(f"Figure and run: {options.out / 'logistic_regression.png'}, {options.out / 'logistic_regression.nc'}")
    write_json(options.json, numbers)
    return numbers


if __name__ == "__main__":
    main()

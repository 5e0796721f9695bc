"""Plain SGD as a steady state out of equilibrium: a net of two tanh units fitted to 200 points, as in arXiv 2306.03521.

The paper's experiment: L = (N/2σ²) [mean (y − f)² + 0.001 |w|²] with σ = 0.1, batches of B = 10, learning rate 1e-7, in
float64. With replacement (its code takes the first B of a new permutation at every step: no row twice in a batch) the
weights are recorded at every step, without replacement at the end of every epoch. Mean,
covariance, circulation, entropy production and both fluctuation theorems are measured, and predicted from the gradients
and Hessians of the rows alone. The entropy production σ of a transition is that of the predicted dynamics: of dynamics
fitted to the same draws, mean and variance of σ would agree with the theorems whatever the chain does.

Relaxation decides how such a run must start. The slowest direction forgets in 1/(ηλ) steps, λ the smallest curvature of
L: 185 000 here. With replacement, hundreds of chains start from the predicted stationary law, of which a run from a
point would see nothing for as long. What they show of the slowest directions' spread is therefore a check and no proof;
what they show of the noise of a step is a proof. Their mean is not quite the minimum of L but where the gradient
vanishes on average over their spread: 0.4 sds away in the slowest direction. Without replacement, a few chains start at
the minimum of L and relax for ten such times before they are recorded: that they end at the minimum of the effective
landscape, many sds away, is measured.

Then SGLD and SGWORLD sample the Bayesian posterior of the same net at one step size. It has eight equal modes, the two
units exchanged or their signs changed; all chains start in one of them, and how many have left it is reported.
"""

import functools
import json
from pathlib import Path
from time import perf_counter

import jax
import numpy as np
import xarray as xr
from _common import parse, save_run, write_json
from _nonlinear_regression import (
    BATCH_SIZE,
    DIM,
    LEARNING_RATE,
    Prediction,
    Simulation,
    area_rate,
    global_minimum,
    linear_theory,
    model,
    nearest_mode_is_home,
    plane_of_currents,
    posterior_of_mode,
    predict,
    rate_of,
    read_data,
)
from _nonlinear_regression_report import measure, numbers_of, print_measures, print_posterior
from numpyro.infer import MCMC

from sgworld_numpyro import SGD, SGLD, SGWORLD, EulerMaruyama, IndependentBatches, RandomReshuffle
from sgworld_numpyro.datasets import gaussian_bump
from sgworld_numpyro.landscape import hessian, row_potential
from sgworld_numpyro.nonequilibrium.currents import circulation, probability_current
from sgworld_numpyro.nonequilibrium.entropy import entropy_production
from sgworld_numpyro.nonequilibrium.moments import LaggedMoments, lagged_moments

# The paper's "with replacement": a row comes again in the next batch, but never twice in one.
PAPERS_SCHEME = IndependentBatches()
MIN_STEPS = 2e6  # with fewer the slowest direction is not seen to come back
DEFAULT_STEPS = 1e8
WR_CHAINS, WOR_CHAINS, WOR_COPIES = 256, 16, 8
RELAXATIONS = 10  # from the minimum of L, in relaxation times of the slowest direction
THINNING = 50  # draws that are kept for the figures: that of the WR run would fill the memory
WINDOW = (64, 2000)  # chains and consecutive draws that are saved
# Step size of SGLD and SGWORLD. R h λ = 1.6: large enough that SGLD's currents are plain, small enough for SGWORLD.
BAYES_STEP_SIZE = 3e-6
SAVED = {
    "wr": "nonlinear_regression_sgd_wr.nc",
    "wor": "nonlinear_regression_sgd_wor.nc",
    "SGLD": "nonlinear_regression_sgld.nc",
    "SGWORLD": "nonlinear_regression.nc",
}


def options_of(argv):
    """The common options, and --data and --steps."""
    parsers = []

    def own(parser):
        parsers.append(parser)
        parser.add_argument(
            "--data", type=Path, metavar="DIR", help="take x_train.txt and y_train.txt from DIR, one number a line"
        )
        parser.add_argument(
            "--steps", type=float, metavar="N", help="chain-steps to record of SGD with replacement, and again without"
        )

    options = parse(__doc__.splitlines()[0], argv, own)
    if options.steps is None:
        options.steps = MIN_STEPS if options.quick else DEFAULT_STEPS
    if not options.steps >= MIN_STEPS:
        parsers[0].error(f"--steps {options.steps:g}: want {MIN_STEPS:.0e} or more, and 1e8 for errors of 1 %")
    try:
        options.data = read_data(options.data) if options.data else gaussian_bump(seed=options.seed)
    except ValueError as error:
        parsers[0].error(str(error))
    return options


def run_with_replacement(prediction: Prediction, data, steps, rng, key):
    """SGD recorded at every step, from the predicted stationary law."""
    dynamics = prediction.dynamics
    start = rng.multivariate_normal(dynamics.mean, dynamics.covariance, WR_CHAINS)
    kernel = SGD(model, LEARNING_RATE, subsampling=PAPERS_SCHEME, steps_per_sample=1)
    run = Simulation("with replacement", kernel, data, start, key, steps, thinning=THINNING)
    parts, sigma, thinned, window = [], [], [], None
    for x in run:
        parts.append(lagged_moments(x, blocks=len(x), origin=dynamics.mean))
        sigma.append(sigma_of(x, prediction))
        thinned.append(x[:, THINNING::THINNING].copy())  # a view would keep all of x
        window = x[: WINDOW[0], 1 : WINDOW[1] + 1].copy()
    measured = measure(functools.reduce(LaggedMoments.continued, parts), np.concatenate(sigma, 1), prediction)
    information = {"chain_steps": run.draws, "steps_per_second": run.draws_per_second}
    return measured, np.concatenate(thinned, 1), window, information


def run_without_replacement(prediction: Prediction, data, steps, key):
    """SGD recorded at the end of every epoch, after it has relaxed from the minimum of L."""
    batches = len(data[0]) // BATCH_SIZE
    relaxing_steps = RELAXATIONS / (LEARNING_RATE * prediction.curvatures[0])
    relaxing, recorded = jax.random.split(key)
    # a draw a hundred epochs: that is several times faster
    fast = SGD(model, LEARNING_RATE, subsampling=RandomReshuffle(), steps_per_sample=100 * batches)
    chains = int(np.clip(2 * steps / relaxing_steps, 4, WOR_CHAINS))
    # Many chains run faster, but relaxing takes each the same time: copies of a few go ways of their own within one.
    copies = int(np.clip(2 * steps / (chains * relaxing_steps), 1, WOR_COPIES))
    start = np.tile(prediction.loss_minimum, (chains, 1))
    for number, (copied, times) in enumerate([(1, RELAXATIONS), (copies, 1)]):
        start = np.repeat(start, copied, axis=0)
        draws = len(start) * relaxing_steps * times / RELAXATIONS / (100 * batches)
        for x in Simulation("relaxing", fast, data, start, jax.random.fold_in(relaxing, number), draws, thinning=1):
            start = x[:, -1]
    kernel = SGD(model, LEARNING_RATE, subsampling=RandomReshuffle())
    run = Simulation("without replacement", kernel, data, start, recorded, steps / batches, thinning=1)
    parts, sigma, draws = [], [], []
    for x in run:
        parts.append(lagged_moments(x, blocks=len(x), origin=prediction.dynamics.mean))
        sigma.append(sigma_of(x, prediction))
        draws.append(x[:, 1:])
    measured = measure(functools.reduce(LaggedMoments.continued, parts), np.concatenate(sigma, 1), prediction)
    information = {
        "chain_steps": run.draws * batches,
        "steps_per_second": run.draws_per_second * batches,
        "relaxation_steps": round(relaxing_steps * (1 + 1 / RELAXATIONS)),
    }
    return measured, np.concatenate(draws, 1), information


def sigma_of(x, prediction):
    """Entropy production of every transition, as the predicted dynamics have it, with Gaussian noise.

    The noise of one step, of ten rows, is not quite Gaussian: far out the detailed theorem fails for single steps, and
    holds for a hundred together.

    A fit to the same draws would make mean and variance of σ agree with the theorems whatever the chain does.
    """
    return entropy_production(x, dynamics=prediction.dynamics).sigma.astype(np.float32)


def save_draws(path, draws, scheme, prediction, num_rows, steps_per_sample):
    """As ``save_run``, of a run that was not made by ``MCMC``."""
    dynamics = prediction.dynamics
    reference = {"source": "predicted", "mean": dynamics.mean.tolist(), "covariance": dynamics.covariance.tolist()}
    settings = {
        "scheme": scheme,
        "integrator": EulerMaruyama.name,
        "step_size": LEARNING_RATE,
        "temperature": 0.0,
        "batch_size": BATCH_SIZE,
        "num_rows": num_rows,
        "steps_per_sample": steps_per_sample,
    }
    coordinates = {"chain": np.arange(draws.shape[0]), "draw": np.arange(draws.shape[1]), "w_dim_0": np.arange(DIM)}
    posterior = xr.Dataset({"w": (tuple(coordinates), draws)}, coordinates)
    landscape = {
        "loss_minimum": prediction.loss_minimum.tolist(),
        "landscape_minimum": prediction.landscape_minimum.tolist(),
        "covariance": dynamics.covariance.tolist(),
    }
    posterior.attrs.update(settings, reference=json.dumps(reference), landscape=json.dumps(landscape))
    posterior.to_netcdf(path, group="posterior", engine="h5netcdf")


def sample(kernel, data, start, key, num_warmup, num_samples):
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=len(start),
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(key, *data, init_params={"w": start})
    return mcmc


def run_posterior(potential, mode, data, num_chains, num_warmup, num_samples, rng, key, out):
    """SGLD and SGWORLD at one step size, from one mode, and the posterior around it by importance sampling."""
    covariance = np.linalg.inv(np.asarray(hessian(potential, mode)))
    start = rng.multivariate_normal(mode, covariance, num_chains)
    batches = len(data[0]) // BATCH_SIZE
    exact, weight_ess = posterior_of_mode(potential, mode, covariance, rng)
    reference = {
        "source": "importance sampling",
        "mean": exact.mean(0).tolist(),
        "covariance": np.cov(exact.T).tolist(),
        "ess": weight_ess,
    }
    linear = linear_theory(potential, mode, PAPERS_SCHEME, BAYES_STEP_SIZE, 1.0, batches)
    # without replacement the chain is in equilibrium to first order in the step size
    expected = {"SGLD": rate_of(linear), "SGWORLD": 0.0}
    plane = plane_of_currents(linear)
    numbers, draws = {}, {"exact": exact}
    kernels = {
        "SGLD": SGLD(model, BAYES_STEP_SIZE, subsampling=PAPERS_SCHEME),
        "SGWORLD": SGWORLD(model, BAYES_STEP_SIZE),
    }
    for (name, kernel), run_key in zip(kernels.items(), jax.random.split(key), strict=True):
        mcmc = sample(kernel, data, start, run_key, num_warmup, num_samples)
        save_run(out / SAVED[name], mcmc, reference)
        draws[name], left = in_home_mode(draws_of(mcmc), mode, covariance)
        entropy, areas = entropy_production(draws[name]), circulation((draws[name] - mode) @ plane)
        numbers[name] = {
            "entropy_production": entropy.rate,
            "entropy_production_error": entropy.rate_error,
            "entropy_production_linear": expected[name],
            "p_value": entropy.p_value,
            "area": float(areas.matrix[0, 1]),
            "area_error": float(areas.error[0, 1]),
            "area_linear": float((plane.T @ area_rate(linear) @ plane)[0, 1]) if expected[name] else 0.0,
            "chains": num_chains,
            "chains_that_left_the_mode": left,
            "epochs": draws[name][:, 1:, 0].size,
            "sd_ratio": (draws[name].std((0, 1)) / exact.std(0)).tolist(),
        }
    return numbers, draws, plane


def draws_of(mcmc):
    return np.asarray(mcmc.get_samples(group_by_chain=True)["w"])


def in_home_mode(draws, mode, covariance):
    """The chains that were never nearer to another mode than to the one where they started, and how many others."""
    stayed = nearest_mode_is_home(draws, mode, covariance).all(1)
    if stayed.sum() < 2:
        raise ValueError("nearly all chains left their mode: the modes are not apart at this step size; lower it.")
    return draws[stayed], int((~stayed).sum())


def draw_figures(directory, data, minimum, wr, wor, theorems, posterior, plane):
    """All of them; ``wr`` and ``wor`` are draws, fit and prediction."""
    import _nonlinear_regression_figures as figures

    def path(name):
        return directory / f"nonlinear_regression_{name}.png"

    figures.fit(path("fit"), data, minimum, posterior["SGWORLD"].reshape(-1, DIM)[::97], posterior["exact"][::30])
    figures.laws(path("laws"), (0, 1), *((draws.reshape(-1, DIM), fit, theory) for draws, fit, theory in (wr, wor)))
    figures.fluctuation_theorem(path("fluctuation_theorem"), theorems, "step")
    dynamics = wr[2].dynamics
    planes = {
        f"plain SGD, per {THINNING} steps": (wr[0] - dynamics.mean) @ plane_of_currents(dynamics),
        "SGLD, per epoch": (posterior["SGLD"] - posterior["SGLD"].mean((0, 1))) @ plane,
        "SGWORLD, per epoch": (posterior["SGWORLD"] - posterior["SGWORLD"].mean((0, 1))) @ plane,
    }
    panels = [(title, probability_current(x, bins=9), title.startswith("plain")) for title, x in planes.items()]
    figures.currents(path("currents"), panels)


def main(argv=None):
    with jax.enable_x64(True):  # at a learning rate of 1e-7 a step is lost in the rounding of 32 bits
        return run(options_of(argv))


def run(options):
    began = perf_counter()
    data = options.data
    rng, keys = np.random.default_rng(options.seed), jax.random.split(jax.random.key(options.seed), 5)
    potential = row_potential(model, *data)
    minimum = global_minimum(potential, options.seed)
    batches = len(data[0]) // BATCH_SIZE
    wr, wor = (predict(potential, minimum, s, LEARNING_RATE) for s in (PAPERS_SCHEME, RandomReshuffle()))
    print(
        f"Net of two tanh units, {DIM} weights: N = {len(data[0])} rows, B = {BATCH_SIZE} a batch, "
        f"η = {LEARNING_RATE:g}; minimum at w = {np.round(minimum, 4).tolist()}."
    )
    measured_wr, draws_wr, window_wr, information = run_with_replacement(wr, data, options.steps, rng, keys[0])
    numbers = {"wr": numbers_of(measured_wr, wr, information)}
    print_measures("SGD with replacement, every step", numbers["wr"], measured_wr, wr, "step")
    measured_wor, draws_wor, information = run_without_replacement(wor, data, options.steps, keys[1])
    numbers["wor"] = numbers_of(measured_wor, wor, information)
    print_measures("SGD without replacement, every epoch", numbers["wor"], measured_wor, wor, "epoch")

    save_draws(options.out / SAVED["wr"], window_wr, PAPERS_SCHEME.name, wr, len(data[0]), 1)
    window = draws_wor[: WINDOW[0], -WINDOW[1] :]
    save_draws(options.out / SAVED["wor"], window, RandomReshuffle.name, wor, len(data[0]), batches)

    chains, warmup, samples = (48, 100, 400) if options.quick else (128, 1000, 4000)
    numbers["posterior"], posterior, plane = run_posterior(
        potential, minimum, data, chains, warmup, samples, rng, keys[4], options.out
    )
    print_posterior(numbers["posterior"], BAYES_STEP_SIZE)
    runs = (draws_wr, measured_wr.fit, wr), (draws_wor, measured_wor.fit, wor)
    draw_figures(options.out, data, minimum, *runs, measured_wr.theorems, posterior, plane)
    numbers["seconds"] = perf_counter() - began
    speeds = [numbers[name]["steps_per_second"] / 1e6 for name in ("wr", "wor")]
    print(
        f"\nFigures and runs: {options.out}/nonlinear_regression*. {numbers['seconds']:.0f} s in all; million "
        f"chain-steps a second: {speeds[0]:.2f} with replacement, {speeds[1]:.2f} without."
    )
    write_json(options.json, numbers)
    return numbers


if __name__ == "__main__":
    main()

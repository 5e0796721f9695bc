"""How far from the posterior? SGLD and SGWORLD on the mean of a Gaussian, where the answer is known exactly.

The comparison of arXiv 2306.03521, at equal numbers of minibatch gradients for every method and step size. The bias
is measured from many chains and compared with the exact stationary law of the same chain. What governs it is R h λ,
the time that a pass over the data takes in units of the fastest relaxation: R batches a pass, step size h, and λ
the largest eigenvalue of the posterior precision.
"""

from typing import NamedTuple

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from _common import parse, save_run, write_json
from numpyro.infer import MCMC, init_to_value
from scipy.optimize import brentq
from tqdm import tqdm

from sgworld_numpyro import SGLD, SGWORLD, EulerMaruyama, LeimkuhlerMatthews, StochasticGradientKernel
from sgworld_numpyro.integrators import Integrator
from sgworld_numpyro.linear_gaussian import (
    gaussian_kl,
    gaussian_mean,
    relative_covariance_error,
    stationary_moments,
)

NUM_ROWS, BATCH_SIZE = 1000, 10
BATCHES = NUM_ROWS // BATCH_SIZE
NOISE_SCALE = np.array([1.0, 0.7])
PRIOR_SCALE = 10.0
TOLERANCE = 0.02  # relative covariance error at which the methods' step sizes are compared
SHOWN = 1.0  # R h λ of the runs that are saved and of the figure's right panel
SAVED = {"SGWORLD": "gaussian_mean.nc", "SGLD": "gaussian_mean_sgld.nc"}
RESAMPLES = 4000


class Method(NamedTuple):
    """A kernel and its integrator, and the names that ``linear_gaussian`` has for scheme and integrator."""

    kernel: type[StochasticGradientKernel]
    integrator: Integrator
    scheme_name: str
    integrator_name: str


METHODS = {
    "SGLD": Method(SGLD, EulerMaruyama(), "with_replacement", "euler_maruyama"),
    "SGWORLD": Method(SGWORLD, EulerMaruyama(), "random_reshuffle", "euler_maruyama"),
    "SGWORLD+LM": Method(SGWORLD, LeimkuhlerMatthews(), "random_reshuffle", "leimkuhler_matthews"),
}


class Estimate(NamedTuple):
    """A measured number with its Monte Carlo standard error, and what it is exactly."""

    measured: float
    error: float
    exact: float

    @property
    def z(self):
        return (self.measured - self.exact) / self.error

    @property
    def resolved(self):
        return self.measured > 2 * self.error

    @property
    def limit(self):
        return max(self.measured, 0) + 2 * self.error


class Bias(NamedTuple):
    """KL(chain ‖ posterior) in nats, and the square of the relative covariance error.

    The square, since sampling noise makes it too large by an amount that can be removed.
    """

    kl: Estimate
    squared_covariance_error: Estimate


def model(x):
    mean = numpyro.sample("mean", dist.Normal(0, PRIOR_SCALE).expand([2]).to_event(1))
    with numpyro.plate("rows", NUM_ROWS, subsample_size=BATCH_SIZE):
        batch = numpyro.subsample(x, event_dim=1)
        numpyro.sample("obs", dist.Normal(mean, NOISE_SCALE).to_event(1), obs=batch)


def sample(method, step_size, x, problem, num_chains, num_samples, key):
    """Chains from the posterior mean on, one draw a pass over the data."""
    start = init_to_value(values={"mean": problem.mean})
    kernel = method.kernel(model, step_size, integrator=method.integrator, init_strategy=start)
    mcmc = MCMC(
        kernel,
        num_warmup=num_samples // 20,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(key, x)
    return mcmc


def save(directory, mcmc, name, step_size, problem):
    """Two methods that differ in their subsampling alone, with the exact posterior."""
    if name not in SAVED:
        return
    settings = {
        "scheme": METHODS[name].scheme_name,
        "integrator": METHODS[name].integrator_name,
        "step_size": step_size,
        "batch_size": BATCH_SIZE,
        "num_rows": NUM_ROWS,
        "steps_per_sample": BATCHES,
    }
    reference = {"source": "exact", "mean": problem.mean.tolist(), "covariance": problem.covariance.tolist()}
    save_run(directory / SAVED[name], mcmc, settings, reference)


def fastest_rate(problem):
    """λ, the largest eigenvalue of the posterior precision."""
    return np.linalg.eigvalsh(problem.hessian).max()


def bias_of(mean, covariance, problem):
    kl = gaussian_kl(mean, covariance, problem.mean, problem.covariance)
    return kl, relative_covariance_error(covariance, problem.covariance) ** 2


def exact_bias(method, pass_time, problem):
    """At the end of a pass, where the chain is recorded."""
    step_size = pass_time / (BATCHES * fastest_rate(problem))
    moments = stationary_moments(problem, method.scheme_name, method.integrator_name, step_size, BATCH_SIZE)
    return bias_of(*moments.period_end, problem)


def measured_bias(draws, exact, problem, rng):
    """Bias of the draws (chains, samples, 2), with errors from a bootstrap over chains.

    Both numbers are quadratic near zero, so sampling noise alone makes them positive; the bootstrap removes that.
    Where the bias is not resolved from zero, the errors are on average too large.
    """
    offset = draws - problem.mean
    first = offset.mean(1)
    second = np.einsum("cti,ctj->cij", offset, offset) / offset.shape[1]

    def of_chains(weights):
        mean = weights @ first
        covariance = np.tensordot(weights, second, 1) - mean[..., :, None] * mean[..., None, :]
        return bias_of(problem.mean + mean, covariance, problem)

    equal = np.full(len(draws), 1 / len(draws))
    resampled = rng.multinomial(len(draws), equal, RESAMPLES) / len(draws)
    plain, again = of_chains(equal), of_chains(resampled)
    return Bias(
        *(
            Estimate(float(2 * p - a.mean()), float(a.std()), float(e))
            for p, a, e in zip(plain, again, exact, strict=True)
        )
    )


def pass_time_at_tolerance(method, problem):
    """R h λ at which the exact relative covariance error is ``TOLERANCE``."""

    def excess(log_pass_time):
        return np.sqrt(exact_bias(method, np.exp(log_pass_time), problem)[1]) - TOLERANCE

    return float(np.exp(brentq(excess, np.log(1e-4), np.log(10))))


def print_table(biases):
    print(
        "\nDraws at ends of passes. Errors: bootstrap over chains, which also removes the bias of finite samples.\n"
        "z = (measured - exact) / error, for the covariance that of its squared error; <: not resolved, 2 errors.\n"
    )
    print(f"{'':20}{'KL(chain || posterior), nats':^37}   {'relative covariance error, %':^33}")
    columns = f"{'measured':>19}{'exact':>10}{'z':>8}   {'measured':>15}{'exact':>10}{'z':>8}"
    print(f"{'R h λ':>6}  {'method':<12}{columns}")
    for pass_time, row in biases.items():
        print()
        for name, (kl, squared) in row.items():
            if squared.resolved:
                root = np.sqrt(squared.measured)
                measured = f"{100 * root:.2f} ± {100 * squared.error / (2 * root):.2f}"
            else:
                measured = f"< {100 * np.sqrt(squared.limit):.2f}"
            print(
                f"{pass_time:6g}  {name:<12}{kl.measured:9.1e} ± {kl.error:.1e}{kl.exact:10.1e}{kl.z:+8.1f}"
                f"   {measured:>15}{100 * np.sqrt(squared.exact):10.2g}{squared.z:+8.1f}"
            )


def print_summary(numbers):
    allowed, gain = numbers["pass_time_at_tolerance"], numbers["step_gain_over_sgld"]
    steps = ", ".join(f"{name} {value:.3g}" for name, value in allowed.items())
    print(
        f"\nMeasured and exact differ by at most {abs(numbers['largest_z']):.1f} standard errors "
        f"in {numbers['comparisons']} comparisons.\n"
        f"By the exact formulas the covariance is wrong by {100 * TOLERANCE:g} % at R h λ = {steps}:\n"
        f"at that bias SGWORLD takes steps {gain['SGWORLD']:.0f} times larger than SGLD, and "
        f"{gain['SGWORLD+LM']:.0f} times with Leimkuhler-Matthews."
    )


def draw(path, problem, biases, allowed, offsets):
    """Left: bias against step size. Right: the draws at one large step size."""
    import matplotlib.pyplot as plt
    from matplotlib.patches import Ellipse
    from matplotlib.transforms import Affine2D

    styles = {
        "SGLD": {"color": "#D55E00", "marker": "o"},
        "SGWORLD": {"color": "#0072B2", "marker": "s"},
        "SGWORLD+LM": {"color": "#009E73", "marker": "D"},
    }
    apart = dict(zip(styles, (1, 0.96, 1.04), strict=True))  # keeps limits at the same step size legible
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 4.8), layout="constrained")

    grid = np.geomspace(0.02, 3, 80)
    for name, style in styles.items():
        exact = [np.sqrt(exact_bias(METHODS[name], pass_time, problem)[1]) for pass_time in grid]
        left.plot(grid, exact, color=style["color"], lw=1.5)
        left.plot([], [], ms=5.5, label=name, **style)
        left.plot(allowed[name], TOLERANCE, "|", ms=10, mew=1.5, color="0.3")
        for pass_time, row in biases.items():
            squared = row[name].squared_covariance_error
            if squared.resolved:
                root = np.sqrt(squared.measured)
                left.errorbar(pass_time, root, squared.error / (2 * root), ms=5.5, capsize=2.5, **style)
            else:
                x, limit = pass_time * apart[name], np.sqrt(squared.limit)
                left.errorbar(x, limit, limit / 3, uplims=True, ms=4.5, mfc="w", lw=0.8, **style)
    left.axhline(TOLERANCE, color="0.3", lw=0.8, ls=":")
    left.set(xscale="log", yscale="log", xlim=(0.025, 2.5), ylim=(2e-5, 2))
    left.set(xlabel=r"step size, as time per pass over the data, $R\,h\,\lambda$")
    left.set(ylabel="relative error of the covariance")
    left.legend(frameon=False, loc="upper left")
    left.set_title("lines: exact; points: measured; hollow: upper limits (2 standard errors)", fontsize=9, loc="left")

    def contours(covariance, **options):
        axes = Affine2D(np.block([[np.linalg.cholesky(covariance), np.zeros((2, 1))], [0, 0, 1]]))
        for size in (1, 2):
            circle = Ellipse((0, 0), 2 * size, 2 * size, fc="none", **options)
            right.add_patch(circle).set_transform(axes + right.transData)

    widths = {"SGLD": 1.8, "SGWORLD": 3.6, "SGWORLD+LM": 1.8}
    for name, offset in offsets.items():
        color, flat = styles[name]["color"], offset.reshape(-1, 2)
        if name != "SGWORLD":  # its draws would hide those of the other two
            right.plot(*flat[:: len(flat) // 1000].T, ".", ms=3, alpha=0.5, color=color, mew=0, zorder=0)
        contours(np.cov(flat.T), ec=color, lw=widths[name])
        right.plot([], [], color=color, lw=widths[name], label=name)
    contours(problem.covariance, ec="k", lw=1.1, ls=(0, (4, 4)))
    right.plot([], [], color="k", lw=1.1, ls=(0, (4, 4)), label="posterior")
    reach = 3.3 * np.sqrt(problem.covariance[0, 0])
    right.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
    right.locator_params(nbins=5)
    right.set(xlabel="first coordinate, from its posterior mean", ylabel="second coordinate")
    right.legend(frameon=False, loc="upper left", ncols=2)
    right.set_title(rf"draws at $R\,h\,\lambda$ = {SHOWN:g}, with 1- and 2-σ contours", fontsize=9, loc="left")

    figure.savefig(path, dpi=200)
    plt.close(figure)


def numbers_of(biases, allowed, num_gradients):
    """Every number that is printed."""
    estimates = [estimate for row in biases.values() for bias in row.values() for estimate in bias]
    return {
        "gradients_per_run": num_gradients,
        "tolerance": TOLERANCE,
        "pass_time_at_tolerance": allowed,
        "step_gain_over_sgld": {name: value / allowed["SGLD"] for name, value in allowed.items()},
        "comparisons": len(estimates),
        "largest_z": max((estimate.z for estimate in estimates), key=abs),
        "bias": {
            f"{pass_time:g}": {
                name: {key: estimate._asdict() | {"z": estimate.z} for key, estimate in bias._asdict().items()}
                for name, bias in row.items()
            }
            for pass_time, row in biases.items()
        },
    }


def main(argv=None):
    options = parse(__doc__.splitlines()[0], argv)
    pass_times = [SHOWN] if options.quick else [0.1, 0.25, 0.6, SHOWN, 1.6]
    num_chains, num_samples = (32, 200) if options.quick else (32, 2500)
    rng = np.random.default_rng(options.seed)
    x = rng.normal([1.0, -1.0], NOISE_SCALE, (NUM_ROWS, 2))
    problem = gaussian_mean(x, np.diag(NOISE_SCALE**2), prior_covariance=PRIOR_SCALE**2 * np.eye(2))
    num_gradients = num_chains * (num_samples + num_samples // 20) * BATCHES
    print(
        f"Mean of a Gaussian: N = {NUM_ROWS} rows, B = {BATCH_SIZE} a batch, R = {BATCHES} batches a pass;\n"
        f"{num_chains} chains and {num_gradients:.1e} minibatch gradients for every method and step size."
    )

    biases, shown = {}, {}
    runs = [(pass_time, name) for pass_time in pass_times for name in METHODS]
    for number, (pass_time, name) in enumerate(tqdm(runs, unit="run", disable=None)):
        method, step_size = METHODS[name], pass_time / (BATCHES * fastest_rate(problem))
        key = jax.random.fold_in(jax.random.key(options.seed), number)
        mcmc = sample(method, step_size, x, problem, num_chains, num_samples, key)
        draws = np.asarray(mcmc.get_samples(group_by_chain=True)["mean"], float)
        exact = exact_bias(method, pass_time, problem)
        biases.setdefault(pass_time, {})[name] = measured_bias(draws, exact, problem, rng)
        if pass_time == SHOWN:
            shown[name] = draws - problem.mean
            save(options.out, mcmc, name, step_size, problem)

    allowed = {name: pass_time_at_tolerance(method, problem) for name, method in METHODS.items()}
    numbers = numbers_of(biases, allowed, num_gradients)
    print_table(biases)
    print_summary(numbers)
    draw(options.out / "gaussian_mean.png", problem, biases, allowed, shown)
    print(f"Figure and runs: {', '.join(str(options.out / name) for name in ('gaussian_mean.png', *SAVED.values()))}")
    write_json(options.json, numbers)
    return numbers


if __name__ == "__main__":
    main()

"""How far from the posterior? SGLD and SGWORLD on the mean of a Gaussian, where the answer is known exactly.

The comparison of arXiv 2306.03521, at equal numbers of minibatch gradients for every method and step size. The bias
is measured from many chains and compared with the exact stationary law of the same chain. What governs it is R h λ,
the time that a pass over the data takes in units of the fastest relaxation: R batches a pass, step size h, and λ
the largest eigenvalue of the posterior precision.

The rows' two coordinates are correlated, which the model does not know, so that the minibatch noise of SGLD and the
posterior's curvature do not commute: probability then circulates in SGLD's stationary state. Not in SGWORLD's.
"""

from typing import NamedTuple

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from _common import parse, save_run, write_json
from _gaussian_mean_figure import draw
from numpyro.infer import MCMC, init_to_value
from scipy.optimize import brentq
from tqdm import tqdm

from sgworld_numpyro import (
    SGLD,
    SGWORLD,
    EulerMaruyama,
    LeimkuhlerMatthews,
    RandomReshuffle,
    StochasticGradientKernel,
    WithReplacement,
)
from sgworld_numpyro.integrators import Integrator
from sgworld_numpyro.linear_gaussian import (
    gaussian_kl,
    gaussian_mean,
    relative_covariance_error,
    stationary_moments,
)
from sgworld_numpyro.nonequilibrium import entropy_production, linear_dynamics, velocity_field
from sgworld_numpyro.subsampling import SubsamplingScheme

NUM_ROWS, BATCH_SIZE = 1000, 10
BATCHES = NUM_ROWS // BATCH_SIZE
NOISE_SCALE = np.array([1.0, 0.6])
CORRELATION = 0.9  # of the two coordinates of a row
PRIOR_SCALE = 10.0
TOLERANCE = 0.02  # relative covariance error at which the methods' step sizes are compared
SHOWN = 1.0  # R h λ of the runs that are saved and of the figure's right panel
COMPARED = ("SGLD", "SGWORLD")  # differ in their subsampling alone
SAVED = {"SGWORLD": "gaussian_mean.nc", "SGLD": "gaussian_mean_sgld.nc"}
RESAMPLES = 4000


class Method(NamedTuple):
    """A kernel, the scheme that it has by default, and an integrator."""

    kernel: type[StochasticGradientKernel]
    scheme: SubsamplingScheme
    integrator: Integrator


METHODS = {
    "SGLD": Method(SGLD, WithReplacement(), EulerMaruyama()),
    "SGWORLD": Method(SGWORLD, RandomReshuffle(), EulerMaruyama()),
    "SGWORLD+LM": Method(SGWORLD, RandomReshuffle(), LeimkuhlerMatthews()),
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


def save(directory, mcmc, name, problem):
    """The runs to be compared, with the exact posterior and the exact law of their chains."""
    if name not in COMPARED:
        return
    reference = {"source": "exact", "mean": problem.mean.tolist(), "covariance": problem.covariance.tolist()}
    save_run(directory / SAVED[name], mcmc, reference, law=exact_law(METHODS[name], SHOWN, problem))


def fastest_rate(problem):
    """λ, the largest eigenvalue of the posterior precision."""
    return np.linalg.eigvalsh(problem.hessian).max()


def bias_of(mean, covariance, problem):
    kl = gaussian_kl(mean, covariance, problem.mean, problem.covariance)
    return kl, relative_covariance_error(covariance, problem.covariance) ** 2


def exact_law(method, pass_time, problem):
    """Mean and covariance at the end of a pass, where the chain is recorded."""
    step_size = pass_time / (BATCHES * fastest_rate(problem))
    return stationary_moments(problem, method.scheme, method.integrator, step_size, BATCH_SIZE).period_end


def exact_bias(method, pass_time, problem):
    return bias_of(*exact_law(method, pass_time, problem), problem)


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


class Current(NamedTuple):
    """Entropy production of the chain of draws, in nats a pass."""

    measured: float
    error: float
    exact: float
    p_value: float


def measured_current(offset, method, problem):
    """Whether probability circulates, from draws at ends of passes; and by the exact law of that chain.

    From pass to pass the chain is linear: its propagator is (1 − hH)^R, and the noises of passes are independent.
    """
    step_size = SHOWN / (BATCHES * fastest_rate(problem))
    mean, covariance = exact_law(method, SHOWN, problem)
    propagator = np.linalg.matrix_power(np.eye(2) - step_size * problem.hessian, BATCHES)
    law = linear_dynamics(mean, propagator, covariance - propagator @ covariance @ propagator.T)
    found = entropy_production(offset)
    exact = entropy_production(offset, dynamics=law).rate
    return Current(found.rate, found.rate_error, exact, found.p_value)


def print_currents(currents):
    print(
        f"\nIs the stationary state an equilibrium? R h λ = {SHOWN:g}; entropy production in nats a pass.\n"
        "p: how often a chain in detailed balance would show as much.\n"
    )
    print(f"{'method':<12}{'measured':>22}{'exact':>12}{'p':>8}")
    for name, found in currents.items():
        print(f"{name:<12}{found.measured:12.5f} ± {found.error:.5f}{found.exact:12.5f}{found.p_value:8.3f}")


def print_table(biases):
    print(
        "\nDraws at ends of passes. Errors: bootstrap over chains, which also removes the bias of finite samples.\n"
        "z = (measured - exact) / error, for the covariance that of its squared error. <: upper limit, 2 errors; so\n"
        "many gradients do not tell the bias from none.\n"
    )
    print(f"{'':20}{'KL(chain || posterior), nats':^37}   {'relative covariance error, %':^33}")
    columns = f"{'measured':>19}{'exact':>10}{'z':>8}   {'measured':>15}{'exact':>10}{'z':>8}"
    print(f"{'R h λ':>6}  {'method':<12}{columns}")
    for pass_time, row in biases.items():
        print()
        for name, (kl, squared) in row.items():
            seen = f"{kl.measured:.1e} ± {kl.error:.1e}" if kl.resolved else f"< {kl.limit:.1e}"
            if squared.resolved:
                root = np.sqrt(squared.measured)
                measured = f"{100 * root:.2f} ± {100 * squared.error / (2 * root):.2f}"
            else:
                measured = f"< {100 * np.sqrt(squared.limit):.2f}"
            print(
                f"{pass_time:6g}  {name:<12}{seen:>19}{kl.exact:10.1e}{kl.z:+8.1f}"
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


def numbers_of(biases, allowed, currents, num_gradients):
    """Every number that is printed."""
    estimates = [estimate for row in biases.values() for bias in row.values() for estimate in bias]
    return {
        "gradients_per_run": num_gradients,
        "tolerance": TOLERANCE,
        "pass_time_at_tolerance": allowed,
        "step_gain_over_sgld": {name: value / allowed["SGLD"] for name, value in allowed.items()},
        "entropy_production": {name: found._asdict() for name, found in currents.items()},
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
    spread = np.outer(NOISE_SCALE, NOISE_SCALE) * [[1, CORRELATION], [CORRELATION, 1]]
    x = rng.multivariate_normal([1.0, -1.0], spread, NUM_ROWS)
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
            save(options.out, mcmc, name, problem)

    allowed = {name: pass_time_at_tolerance(method, problem) for name, method in METHODS.items()}
    currents = {name: measured_current(shown[name], METHODS[name], problem) for name in COMPARED}
    numbers = numbers_of(biases, allowed, currents, num_gradients)
    print_table(biases)
    print_summary(numbers)
    print_currents(currents)
    grid = np.geomspace(0.02, 3, 80)
    curves = {
        name: [np.sqrt(exact_bias(method, pass_time, problem)[1]) for pass_time in grid]
        for name, method in METHODS.items()
    }
    draw(
        options.out / "gaussian_mean.png",
        (grid, curves, biases, allowed, TOLERANCE),
        (shown, problem.covariance),
        {name: (velocity_field(shown[name], bins=8), currents[name]) for name in COMPARED},
        SHOWN,
    )
    print(f"Figure and runs: {', '.join(str(options.out / name) for name in ('gaussian_mean.png', *SAVED.values()))}")
    write_json(options.json, numbers)
    return numbers


if __name__ == "__main__":
    main()

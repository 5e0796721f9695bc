"""Tuning: predicted laws, measured rates, what it refuses, and that it runs wherever a kernel runs."""

import re
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.hsgp.laplacian import eigenfunctions
from numpyro.contrib.hsgp.spectral_densities import diag_spectral_density_squared_exponential
from numpyro.infer import MCMC

from sgworld_numpyro import (
    BAOAB,
    SGLD,
    SGWORLD,
    UBU,
    BatchReshuffle,
    ControlVariate,
    Cyclic,
    DivergenceWarning,
    EulerMaruyama,
    FullBatch,
    IndependentBatches,
    LeimkuhlerMatthews,
    Minibatch,
    RandomReshuffle,
    StochasticGradientKernel,
    SymmetricReshuffle,
    TuningError,
    WellingTeh,
    WithReplacement,
    to_inference_data,
    tuning,
    tuning_report,
)
from sgworld_numpyro.linear_gaussian import control_variate, gaussian_mean, linear_regression, stationary_moments
from sgworld_numpyro.model.target import Target
from sgworld_numpyro.preconditioners import Dense, Diagonal, Identity
from sgworld_numpyro.tuning.batch_size import better_batch_size
from sgworld_numpyro.tuning.curvature import Rates
from sgworld_numpyro.tuning.flat import Rise
from sgworld_numpyro.tuning.plan import Plan
from sgworld_numpyro.tuning.refusal import problem_with
from sgworld_numpyro.tuning.report import Report
from sgworld_numpyro.tuning.step_size import Discretisation, _curve_of, bias_curve
from tests.models import CASES, X, Y, linear
from tests.problems import anisotropic_mean, measure, misspecified_regression
from tests.runs import field, make, run

TOLERANCE = 0.02


def discretisation(scheme, integrator, **options):
    defaults = {
        "num_rows": 1000,
        "batch_size": 10,
        "at_ends": True,
        "temperature": 1.0,
        "minibatch_noise": True,
        "tolerance": TOLERANCE,
    }
    return Discretisation(scheme=scheme, integrator=integrator, **(defaults | options))


def rates(fastest=1.0, noise=1.0, **others):
    defaults = {"mean": fastest, "anchored_noise": 0.0, "hessian_noise": 0.0, "slope": 0.0}
    found = {"fastest": fastest, "noise": noise} | defaults | others
    return Rates(**{name: jnp.float32(value) for name, value in found.items()})


# --- The predicted law ---

# x = Rhλ or y = Rh√λ, at γ = 2√λ: the leading powers that test_linear_gaussian finds by regression.
LEADING = {
    "sgld": (WithReplacement(), LeimkuhlerMatthews(), True, lambda x: x / 2),
    "sgworld": (RandomReshuffle(), LeimkuhlerMatthews(), True, lambda x: x**3 / 24),
    "sgworld, all steps": (RandomReshuffle(), LeimkuhlerMatthews(), False, lambda x: x**2 / 6),
    "symmetric": (SymmetricReshuffle(), EulerMaruyama(), True, lambda x: x**5 / 45),
    "kinetic iid": (WithReplacement(), BAOAB(), True, lambda y: y / 4),
    "kinetic": (RandomReshuffle(), BAOAB(), True, lambda y: y**3 / 48),
    "kinetic ubu": (RandomReshuffle(), UBU(), True, lambda y: y**3 / 48),
    "kinetic symmetric": (SymmetricReshuffle(), BAOAB(), True, lambda y: y**5 / 18),
}


@pytest.mark.parametrize("case", LEADING)
@pytest.mark.parametrize(("rows", "batch"), [(1000, 10), (10**7, 100), (999_983, 100)])
def test_bias_curves_begin_as_the_known_powers(case, rows, batch):
    scheme, integrator, at_ends, leading = LEADING[case]
    if case == "symmetric" and rows % batch:
        pytest.skip("the fifth power needs B | N")
    if case == "kinetic symmetric" and rows % batch:
        pytest.skip("the fifth power needs B | N")
    curve = bias_curve(scheme, integrator, rows, batch, at_ends)
    for time in (0.1, 0.15):
        # the next power of the time, and 1/R
        assert curve.at(time, 2.0) == pytest.approx(leading(time), rel=0.1), time


def excess(integrator, scheme, times, damping, rows=60, batch=5):
    """The exact relative excess of the variance over that of full batches, for passes of these lengths R ε."""
    found = []
    for time in times:
        rate = (time * rows / batch) ** 2 / rows**2 * batch**2  # so that h = B/N has R ε = time
        problem = gaussian_mean(np.zeros((rows, 1)), np.array([[rows / rate]]))
        values = np.random.default_rng(0).standard_normal(rows)
        shifts = (values - values.mean()) / values.std() * np.sqrt(rate / rows)
        problem = problem._replace(row_shifts=shifts[:, None])
        damped = replace(integrator, friction=damping * np.sqrt(rate))
        with_batches, without = (
            stationary_moments(problem, kind, damped, batch / rows, batch).period_end[1][0, 0]
            for kind in (scheme, FullBatch())
        )
        found.append(rate * (with_batches - without))
    return np.array(found)


@pytest.mark.parametrize("damping", [0.7, 1.1, 2.0, 6.0])
@pytest.mark.parametrize("integrator", [BAOAB(), UBU()], ids=str)
def test_bias_curves_are_the_exact_law_for_passes_of_any_length(integrator, damping):
    """From short passes, in which noise cancels, to those within which the chain forgets; to a few per cent."""
    times = np.array([0.05, 0.2, 0.7, 1.5, 4.0, 8.0])
    curve = bias_curve(RandomReshuffle(), integrator, 60, 5, True)
    np.testing.assert_allclose(
        curve.at(times, damping), excess(integrator, RandomReshuffle(), times, damping), rtol=0.1
    )


@pytest.mark.parametrize("damping", [0.7, 2.0])
def test_of_long_passes_the_law_is_that_of_independent_batches(damping):
    """(V/λ) h/(2γ) with V = R λ, at steps ε that are small, of ten thousand batches of which each is forgotten soon.

    BAOAB's step is a second-order autoregression of the position, whose variance is known.
    """
    curve, steps = bias_curve(RandomReshuffle(), BAOAB(), 10**6, 100, True), np.array([0.01, 0.1, 0.3, 0.7])
    exact = 10**4 * steps**2 / np.tanh(damping * steps / 2) / (4 - steps**2)
    np.testing.assert_allclose(curve.at(10**4 * steps, damping), exact, rtol=0.08)


@pytest.mark.parametrize("pass_time", [0.3, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("integrator", [BAOAB(1.0), BAOAB(2.0), LeimkuhlerMatthews()], ids=str)
@pytest.mark.parametrize("batch", [2, 20])
def test_the_predicted_bias_of_control_variates_is_the_exact_one(pass_time, integrator, batch):
    """Of rows of two Hessians, whose anchor is the mode: nothing else than their scatter biases them."""
    rows = 40
    problem = gaussian_mean(np.zeros((rows, 1)), np.array([[float(rows)]]))
    scatter = 0.3 / rows * np.resize([1.0, -1.0], rows)
    problem = control_variate(problem._replace(row_hessians=problem.row_hessians + scatter[:, None, None]))
    curvature = problem.hessian[0, 0]
    rate, friction = (np.sqrt(curvature), integrator.friction) if integrator.kinetic else (curvature, 1.0)
    step_size = pass_time * batch / rows / rate
    if step_size * rate > 0.4:
        pytest.skip("the step is too long for a law of leading order")
    if integrator.kinetic:
        integrator = replace(integrator, friction=friction * rate)
    moments = stationary_moments(problem, RandomReshuffle(), integrator, step_size, batch)
    exact, error = curvature * moments.period_end[1][0, 0] - 1, curvature * moments.covariance_error[0, 0, 0]
    of_rows = np.var(rows * problem.row_hessians[:, 0, 0])
    chosen = discretisation(RandomReshuffle(), integrator, num_rows=rows, batch_size=batch, minibatch_noise=False)
    given = rates(
        curvature,
        anchored_noise=of_rows / rows / curvature**2,
        hessian_noise=of_rows * (rows - batch) / (rows - 1) / batch,
    )
    wider, narrower, _ = chosen.parts(step_size, friction * rate, given)
    assert float(wider - narrower) == pytest.approx(exact, abs=5 * error + 0.1 * float(wider + narrower))
    bias, _ = chosen.bias(step_size, friction * rate, given)
    assert abs(exact) <= 1.1 * bias + 5 * error


def test_one_curve_serves_all_seeds_frictions_and_noises():
    curve = bias_curve(BatchReshuffle(1), BAOAB(2.0), 100, 10, True)
    computed = _curve_of.cache_info().misses
    assert bias_curve(BatchReshuffle(2), BAOAB(3.0, noise="three_point"), 100, 10, True) is curve
    assert _curve_of.cache_info().misses == computed


CHOSEN = {
    "sgld": (WithReplacement(), LeimkuhlerMatthews(), lambda rho: 2 * TOLERANCE / rho),
    "sgworld": (RandomReshuffle(), LeimkuhlerMatthews(), lambda rho: (24 * TOLERANCE / rho) ** (1 / 3)),
    "symmetric": (SymmetricReshuffle(), LeimkuhlerMatthews(), lambda rho: (45 * TOLERANCE / rho) ** (1 / 5)),
    "kinetic": (RandomReshuffle(), BAOAB(), lambda rho: (48 * TOLERANCE / rho) ** (1 / 3)),
}


@pytest.mark.parametrize("case", CHOSEN)
@pytest.mark.parametrize("noise", [1.0, 2.5])
@pytest.mark.parametrize("fastest", [1.0, 300.0])
def test_the_chosen_step_is_that_of_theory(case, noise, fastest):
    scheme, integrator, expected = CHOSEN[case]
    chosen = discretisation(scheme, integrator)
    root = np.sqrt(fastest) if chosen.kinetic else fastest
    step = chosen.choose(2 * np.sqrt(fastest), rates(fastest, noise))
    # the asymptotic formulas leave out higher powers of Rε, which make the bias smaller
    assert 0.97 * expected(noise) < 100 * step * root < 1.15 * min(expected(noise), 1.0)
    bias, _ = chosen.bias(step, 2 * np.sqrt(fastest), rates(fastest, noise))
    assert 100 * step * root > 0.97 or 0.95 * TOLERANCE < bias <= TOLERANCE


def test_what_lowers_the_step():
    free = discretisation(RandomReshuffle(), LeimkuhlerMatthews()).choose(2.0, rates())
    for less in (
        discretisation(RandomReshuffle(), EulerMaruyama()).choose(2.0, rates()),
        discretisation(RandomReshuffle(), LeimkuhlerMatthews(), at_ends=False).choose(2.0, rates()),
        discretisation(RandomReshuffle(), LeimkuhlerMatthews(), temperature=0.5).choose(2.0, rates()),
        discretisation(RandomReshuffle(), LeimkuhlerMatthews()).choose(2.0, rates(hessian_noise=10.0)),
        discretisation(RandomReshuffle(), LeimkuhlerMatthews()).choose(2.0, rates(slope=100.0)),
    ):
        assert less < 0.99 * free


def test_a_better_batch_size():
    """With control variates noise falls as 1/B: larger batches until the step is as long as it may be, none beyond."""

    def better(batch_size):
        law = discretisation(
            RandomReshuffle(), BAOAB(), num_rows=100_000, batch_size=batch_size, at_ends=False, minibatch_noise=False
        )
        found = rates(anchored_noise=0.025 / 100, hessian_noise=25 / batch_size)
        return better_batch_size(law, 1.0, found, 20)

    assert better(100).batch_size > 100
    assert better(100).gain > 1.3
    assert better(better(100).batch_size) is None
    assert better(20_000).batch_size < 20_000


def test_full_batches_are_limited_by_the_integrator_alone():
    assert discretisation(FullBatch(), EulerMaruyama()).choose(2.0, rates()) == pytest.approx(2 * TOLERANCE, rel=0.05)
    assert discretisation(FullBatch(), LeimkuhlerMatthews()).choose(2.0, rates()) == pytest.approx(0.5, rel=0.01)
    assert discretisation(FullBatch(), UBU()).choose(2.0, rates()) == pytest.approx(np.sqrt(6 * TOLERANCE), rel=0.02)
    assert discretisation(FullBatch(), BAOAB()).choose(2.0, rates()) == pytest.approx(0.7, rel=0.01)


@pytest.mark.parametrize(("integrator", "step_size"), [(LeimkuhlerMatthews(), 1e-4), (BAOAB(), 4e-3)], ids=str)
def test_the_predicted_shift_of_the_mean_is_the_exact_one(integrator, step_size):
    """Of six rows of unequal Hessians in all their orders, to leading order in the step."""
    x, y = np.array([[0.3], [0.8], [1.0], [1.7], [2.1], [0.5]]), np.array([0.5, 0.2, 1.9, 1.0, 4.5, -0.3])
    exact = linear_regression(x, y, 1.0, 3.0)
    curvature = exact.hessian[0, 0]
    law = BAOAB(friction=2 * np.sqrt(curvature)) if integrator == BAOAB() else integrator
    mean, _ = stationary_moments(exact, RandomReshuffle(), law, step_size, 2).period_end
    hessians = exact.prior_precision[0, 0] + 6 * exact.row_hessians[:, 0, 0]
    gradients = hessians * exact.mean - (exact.prior_shift + 6 * exact.row_shifts[:, 0])
    slope = abs(np.mean((hessians - curvature) * gradients)) * (6 - 2) / (2 * (6 - 1))
    chosen = discretisation(RandomReshuffle(), integrator, num_rows=6, batch_size=2)
    _, shift = chosen.bias(step_size, 2 * np.sqrt(curvature), rates(curvature, slope=slope))
    assert float(shift) == pytest.approx(abs(mean - exact.mean)[0] * np.sqrt(curvature), rel=0.05)


# --- What it measures ---


def report_of(problem, **options):
    kernel = options.pop("kernel", SGWORLD)(problem.model, **options)
    state = kernel.init(jax.random.key(0), 10, None, problem.data, {})
    return state.tuning, state


def exact_rates(problem, batch_size, root):
    """The numbers of ``Rates`` from the rows themselves, in the coordinates of M = root rootᵀ."""
    exact, rows = problem.exact, problem.exact.num_rows
    hessians = exact.prior_precision + rows * exact.row_hessians
    gradients = hessians @ exact.mean - (exact.prior_shift + rows * exact.row_shifts)
    hessian = root.T @ exact.hessian @ root
    values, vectors = np.linalg.eigh(hessian)
    left = (rows - batch_size) / (rows - 1) / batch_size
    scatter = root.T @ (hessians - exact.hessian) @ root
    noise = root.T @ np.cov(gradients.T, bias=True) @ root
    crossed = root @ np.einsum("nij,nj->i", scatter, gradients @ root) / rows * left
    return {
        "fastest_rate": values[-1],
        "mean_rate": values.mean(),
        "gradient_noise": np.linalg.eigvalsh(noise)[-1] / rows / values[-1],
        "hessian_noise": np.linalg.eigvalsh(np.mean(scatter @ scatter, 0))[[0, -1]] * left,
        "along_fastest": np.mean(np.sum((scatter @ vectors[:, -1]) ** 2, 1)) * left,
        "slope": np.max(np.abs(crossed) / np.sqrt(np.diag(root @ root.T))),
    }


@pytest.mark.parametrize(
    "kind", ["dense", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("identity", "diagonal"))]
)
def test_rates_are_those_of_the_rows(kind):
    problem = misspecified_regression(6, rows=3000, bend=1.0)
    preconditioner = {"identity": Identity(), "dense": Dense(), "diagonal": Diagonal()}[kind]
    found, _ = report_of(problem, preconditioner=preconditioner)
    learnt = found.preconditioner or preconditioner
    root = np.stack([np.asarray(learnt.apply_root(jnp.asarray(unit))) for unit in np.eye(2, dtype=np.float32)], 1)
    exact = exact_rates(problem, 6, root.astype(float))
    # from a pass over 3000 rows with heavy tails, at draws of the posterior: some 10 %
    for name, rough in [("fastest_rate", 0.1), ("gradient_noise", 0.2)]:
        assert float(getattr(found.report, name)) == pytest.approx(exact[name], rel=rough), name
    # less its own standard error
    assert 0.4 * exact["slope"] < float(found.report.slope) < 1.2 * exact["slope"]
    least, most = exact["hessian_noise"]  # over directions: where the rates are all the same, any is the fastest
    assert 0.7 * least < float(found.report.hessian_noise) < 1.3 * most
    if kind == "identity":
        assert float(found.report.hessian_noise) == pytest.approx(exact["along_fastest"], rel=0.3)
    if kind == "dense":
        matrix = root @ root.T @ problem.exact.hessian
        np.testing.assert_allclose(np.linalg.eigvals(matrix), 1, atol=0.15)
        assert float(found.report.mean_rate) == pytest.approx(1, abs=0.15)
    if kind == "diagonal":
        np.testing.assert_allclose(np.asarray(learnt.diagonal) * np.diag(problem.exact.hessian), 1, rtol=0.1)


def test_friction_is_what_costs_least():
    """Of damped oscillations: integrals of the autocorrelation of x and of its square, doubled, by the step allowed."""
    problem = misspecified_regression(6, rows=3000)
    found, state = report_of(problem, gradient=Minibatch())
    report = found.report
    assert state.integrator_state.friction == report.friction
    law = discretisation(RandomReshuffle(), BAOAB(), num_rows=3000, batch_size=6)

    def cost(friction):
        rate, step = float(report.mean_rate), float(law.choose(friction, report.rates))
        return max(2 * friction / rate, (rate + friction**2) / (friction * rate)) / step

    friction = float(report.friction)
    assert cost(friction) < 1.02 * min(cost(friction * factor) for factor in (0.5, 0.7, 1.4, 2.0))


@pytest.mark.parametrize("plates", [1, 2])
def test_half_of_few_rows_scatter_little(plates):
    """Sixty rows in batches of thirty: what is left of their scatter is half of what independent rows would have."""
    rows, batch_size, rng = 60, 30, np.random.default_rng(6)
    x = rng.uniform(0.5, 1.5, size=(plates, rows)).astype(np.float32)
    y = (x + rng.normal(size=x.shape)).astype(np.float32)

    def model(x, y):
        slopes = numpyro.sample("slopes", dist.Normal(0, 1).expand([plates]).to_event(1))
        for number in range(plates):
            with numpyro.plate(f"rows{number}", rows, subsample_size=batch_size) as taken:
                numpyro.sample(f"y{number}", dist.Normal(slopes[number] * x[number][taken], 1), obs=y[number][taken])

    state = SGWORLD(model).init(jax.random.key(0), 10, None, (jnp.asarray(x), jnp.asarray(y)), {})
    x, y = x.astype(float), y.astype(float)
    curvature = (x**2).sum(1) + 1
    residuals = y - x * ((x * y).sum(1) / curvature)[:, None]
    gradients, hessians = (x * residuals).var(1) * rows / curvature, (x**2).var(1) * rows**2 / curvature**2
    left = (rows - batch_size) / (rows - 1) / batch_size
    report = state.tuning.report
    # single rows at eight draws, or sixteen pairs of halves of the rows at each
    assert 0.75 * gradients.max() < report.gradient_noise < 1.35 * gradients.max()
    assert 0.75 * hessians.max() * left < report.hessian_noise < 1.35 * hessians.max() * left


def test_the_cost_in_passes_does_not_grow_with_the_data():
    """What is looked at of many rows are groups; a descent's steps, and Hessians of few rows, are a fixed number."""
    few, many = (report_of(misspecified_regression(100, rows=rows))[0].report for rows in (2_000, 200_000))
    assert np.isnan(many.pilot_r_hat)  # so narrow that no chain had to run
    assert max(few.tuning_passes, many.tuning_passes) < 150
    assert many.warm_start_passes < 60


# --- What it refuses ---


@pytest.mark.slow
def test_a_noise_so_large_that_the_step_would_be_useless():
    def model(y, batch):
        mean = numpyro.sample("mean", dist.Normal(0, 10))
        with numpyro.plate("rows", y.shape[0], subsample_size=batch):
            numpyro.sample("obs", dist.Normal(mean, 0.05), obs=numpyro.subsample(y, event_dim=0))

    y = np.random.default_rng(0).standard_normal(4000).astype(np.float32)  # the model says 0.05
    with pytest.raises(TuningError, match=r"bias_tolerance=0.02 at batch size 8: .*Only subsample_size=4000.*Contr"):
        SGLD(model).init(jax.random.key(0), 1, None, (y, 8), {})
    kernel = StochasticGradientKernel(
        model, subsampling=IndependentBatches(), integrator=LeimkuhlerMatthews(), gradient=Minibatch()
    )
    with pytest.raises(TuningError, match=r"subsample_size=\d+ would do") as refused:
        kernel.init(jax.random.key(0), 1, None, (y, 8), {})
    size = int(str(refused.value).split("subsample_size=")[1].split()[0])
    kernel.init(jax.random.key(0), 1, None, (y, size), {})  # it does
    SGLD(model, gradient=ControlVariate()).init(jax.random.key(0), 1, None, (y, 8), {})
    SGWORLD(model).init(jax.random.key(0), 1, None, (y, 8), {})


def rows_of(y):
    return numpyro.plate("rows", y.shape[0], subsample_size=4)


def saddle(y):
    """A potential whose Hessian is indefinite everywhere along a valley that never ends."""
    theta = numpyro.sample("theta", dist.ImproperUniform(dist.constraints.real_vector, (), (2,)))
    with rows_of(y):
        yb = numpyro.subsample(y, event_dim=0)
        numpyro.factor("likelihood", -((theta[0] - yb) ** 2) + 0.5 * theta[1] ** 2)


def test_a_potential_that_falls_for_ever():
    with pytest.raises(TuningError, match=r"goes on falling along theta\[1\] .*prior.*step_size="):
        SGWORLD(saddle).init(jax.random.key(0), 1, None, (Y,), {})


def test_chains_whose_keys_are_traced_are_refused_too():
    kernel = SGWORLD(saddle)
    keys = jax.random.split(jax.random.key(0), 2)
    with pytest.raises(TuningError, match="goes on falling"):
        jax.vmap(lambda key: kernel.init(key, 1, None, (Y,), {}).step_size)(keys)


def test_of_data_without_values_a_refusal_is_a_warning():
    """Under a trace of the data nothing can be raised, and the mode is all that is looked at."""
    kernel = SGWORLD(saddle)
    with pytest.warns(DivergenceWarning, match="indefinite"):
        jax.block_until_ready(jax.jit(lambda y: kernel.init(jax.random.key(0), 1, None, (y,), {}).step_size)(Y))


# --- Posteriors that are none, and those that only look it ---


def flat_prior(*shape):
    support = dist.constraints.independent(dist.constraints.real, len(shape))
    return dist.ImproperUniform(support, (), shape)


def normal_prior(scale, *shape):
    return dist.Normal(0.0, scale).expand(shape).to_event(len(shape))


def intercepts(prior, number):
    def model(y):
        mean = sum(numpyro.sample(name, prior) for name in "abc"[:number])
        with numpyro.plate("rows", y.shape[0], subsample_size=50):
            numpyro.sample("obs", dist.Normal(mean, 1), obs=numpyro.subsample(y, event_dim=0))

    return model


def classes(prior):
    def model(x, y):
        w = numpyro.sample("w", prior)
        with numpyro.plate("rows", y.shape[0], subsample_size=50):
            logits = numpyro.subsample(x, event_dim=1) @ w
            yb = numpyro.subsample(y, event_dim=0)
            kind = dist.Bernoulli(logits=logits) if w.ndim == 1 else dist.Categorical(logits=logits)
            numpyro.sample("obs", kind, obs=yb)

    return model


def rows_and_labels():
    """Predictors, labels that they decide, labels that they do not, and three classes; the first row is a constant."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1000, 3)).astype(np.float32)
    noisy = (rng.random(1000) < 1 / (1 + np.exp(-x @ [1.0, -1.0, 0.5]))).astype(np.float32)
    return x, (x[:, 0] - 0.5 * x[:, 1] > 0).astype(np.float32), noisy, rng.integers(0, 3, 1000)


ROWS, DECIDED, NOISY, THREE = rows_and_labels()
# one predictor says yes wherever it is 1, the other is an ordinary one
GROUP = (ROWS[:, 0] > 0).astype(np.float32)
YES_IN_GROUP = np.maximum(GROUP, NOISY)
NORMAL = (1 + ROWS[:, 0]).astype(np.float32)

IMPROPER = {
    "two intercepts": (intercepts(flat_prior(), 2), (NORMAL,), r"along -?0\.71 [ab] [-+] 0\.71 [ab] .*Give a and b a"),
    # two directions are flat, and any between them may be named
    "three intercepts": (
        intercepts(flat_prior(), 3),
        (NORMAL,),
        r"along .*\b[abc] [-+] .*Give [abc] and [abc]( and [abc])? a",
    ),
    "separable": (classes(flat_prior(3)), (ROWS, DECIDED), r"along .*w\[0\] [-+] .*w\[1\]"),
    "one that separates": (
        classes(flat_prior(2)),
        (np.stack([GROUP, ROWS[:, 1]], 1), YES_IN_GROUP),
        r"along w\[0\] .*Give w a",
    ),
    "softmax": (classes(flat_prior(3, 3)), (ROWS, THREE), r"along .*w\[\d, \d\].*w\[\d, \d\].* and \d more.*Give w a"),
    "inside a vector": (
        classes(flat_prior(4)),
        (np.concatenate([ROWS, ROWS[:, :1]], 1), NOISY),
        r"along -?0\.7\d* w\[[03]\] [-+] 0\.7\d* w\[[03]\]",
    ),
}


# each much like another
SLOW = {"three intercepts", "separable", "softmax", "inside a vector", "weak priors", "weaker priors", "Cauchy"}
SLOW |= {"separable, Student-t"}


def cases(all):
    return [pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case for case in all]


@pytest.mark.parametrize("case", cases(IMPROPER))
def test_a_posterior_without_normalisation(case):
    model, data, words = IMPROPER[case]
    kernel = SGWORLD(model)
    for seed in range(3):
        with pytest.raises(TuningError, match=f"no normalisation.*{words}"):
            kernel.init(random_keys(seed, 2) if case == "softmax" else jax.random.key(seed), 1, None, data, {})


PROPER = {
    "weak priors": (intercepts(dist.Normal(0, 1000), 2), (NORMAL,)),
    "weaker priors": (intercepts(dist.Normal(0, 1e4), 2), (NORMAL,)),
    "Cauchy": (intercepts(dist.Cauchy(0, 1), 2), (NORMAL,)),
    "separable, Student-t": (
        classes(dist.StudentT(3.0, 0.0, 2.5).expand([3]).to_event(1)),
        (ROWS, DECIDED),
    ),
    "flat priors, informative data": (classes(flat_prior(3)), (ROWS, NOISY)),
}


@pytest.mark.parametrize("case", cases(PROPER))
def test_a_weak_prior_is_a_prior(case):
    model, data = PROPER[case]
    kernel = SGWORLD(model)
    for seed in range(2):
        key = random_keys(seed, 2) if case == "weaker priors" else jax.random.key(seed)
        assert np.isfinite(kernel.init(key, 1, None, data, {}).position).all()


def random_keys(seed, chains):
    return jax.random.split(jax.random.key(seed), chains)


@pytest.mark.parametrize("prior", [flat_prior(1001), pytest.param(normal_prior(1.0, 1001), marks=pytest.mark.slow)])
def test_a_flat_coordinate_among_more_than_a_thousand(prior):
    """Of a weight that no row has to do with."""
    x = np.random.default_rng(0).standard_normal((3000, 1001)).astype(np.float32)
    x[:, 7] = 0
    y = x[:, :1].sum(1)

    def model(x, y):
        w = numpyro.sample("w", prior)
        with numpyro.plate("rows", y.shape[0], subsample_size=30):
            xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
            numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=yb)

    kernel = SGWORLD(model)
    if isinstance(prior, dist.ImproperUniform):
        with pytest.raises(TuningError, match=r"no normalisation.*along w\[7\] "):
            kernel.init(jax.random.key(0), 1, None, (x, y), {})
    else:
        state = kernel.init(jax.random.key(0), 1, None, (x, y), {})
        assert np.isfinite(state.step_size)
        assert state.integrator_state.friction == pytest.approx(np.sqrt(state.tuning.report.mean_rate), rel=1e-5)


# --- What the refusals advise ---


def said(rise=100.0, large=None, curvature=np.nan, plan_options=None, scheme=None, **numbers):
    """What is refused of a report with these numbers, all others being good ones."""
    good = dict.fromkeys(Report._fields, 1.0) | {
        "distance": 0.1,
        "flattest": np.inf,
        "step_size": 0.01,
        "window_passes": np.nan,
    }
    target = Target(linear, (), (), True, {"w": jax.ShapeDtypeStruct((2,), np.float32)}, None, (), True)
    given = {"learns_preconditioner": True, "step_size": None, "friction": None, "kinetic": False, "temperature": 1.0}
    discretised = (plan_options or {}).pop("discretisation", {})
    given["discretisation"] = discretisation(scheme or RandomReshuffle(), EulerMaruyama(), **discretised)
    given |= {"window_law": given["discretisation"], "estimators": (Minibatch(),), "steps": None}
    given |= {"default_steps": 100, "period": 100}
    plan = Plan(target=target, preconditioner=Dense(), **(given | (plan_options or {})))
    found = Rise(np.array([0.0, 1.0], np.float32), np.float32(rise))
    return problem_with(plan, Report(**(good | numbers)), found, large, curvature)


def test_nothing_is_said_of_a_good_report():
    assert said() is None
    assert said(rise=0.0, plan_options={"temperature": 0.0, "discretisation": {"tolerance": 0.5}}) is None


def test_a_curvature_is_called_indefinite_only_where_it_is():
    advice = (
        r"few rows .*LocScaleReparam\(centered=0\).* many rows .*centred, without.*\(step_size=\de-\d+ can be tried"
    )
    assert re.search("4.4 standard errors below 0.*" + advice, said(flattest=-4.4, curvature=1e4))
    skewed = said(flattest=0.1, mean_rate=-0.2, curvature=1e4)
    assert "standard errors" not in skewed
    assert re.search("mean curvature is -0.2.*" + advice, skewed)


def test_the_step_size_that_can_be_tried_is_within_the_tolerance():
    step = float(re.search(r"step_size=(\S+) can", said(flattest=-4.4, curvature=1e4))[1])
    bias, _ = discretisation(RandomReshuffle(), EulerMaruyama()).bias(step, 200.0, rates(1e4))
    assert TOLERANCE / 10 < float(bias) <= TOLERANCE


def test_no_remedy_is_what_is_given_already():
    noise = {"step_size": 1e-9, "gradient_noise": 1e6}
    assert "subsample_size" in said(**noise)
    with_replacement = {"discretisation": {"batch_size": 1000}}
    assert "FullBatch()" in said(**noise, scheme=WithReplacement(), plan_options=with_replacement)
    assert "subsample_size" not in said(
        **noise, scheme=WithReplacement(), plan_options={"discretisation": {"batch_size": 1000}}
    )
    assert "ControlVariate" not in said(**noise, plan_options={"discretisation": {"minibatch_noise": False}})
    assert "step_size" not in said(flattest=-4.4, curvature=1e4, plan_options={"step_size": 0.1})


def test_data_out_of_scale_are_named_where_the_mode_was_not_found():
    far = {"distance": 30.0, "large": {"response": 1e6}}
    assert "response = (response - response.mean(0))" in said(**far)
    assert said(**far, window_passes=100.0) is None  # pilot chains found the posterior all the same


@pytest.mark.slow
def test_a_response_out_of_scale_is_fitted_all_the_same():
    """Of a thousand times what the priors expect; given sigma the posterior of the weights is known."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 3)).astype(np.float32)
    response = (1e6 * (x.sum(1) + rng.standard_normal(500))).astype(np.float32)

    def model(x, response):
        w = numpyro.sample("w", dist.Normal(0, 10).expand([3]).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(10))
        with numpyro.plate("rows", x.shape[0], subsample_size=25):
            xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(response, event_dim=0)
            numpyro.sample("obs", dist.Normal(xb @ w, sigma), obs=yb)

    found = run(SGWORLD(model), x, response, num_samples=500, num_chains=4).get_samples()
    precision = x.astype(float).T @ x / float(found["sigma"].mean()) ** 2 + np.eye(3) / 100
    mean = np.linalg.solve(precision, x.T @ response.astype(float)) / float(found["sigma"].mean()) ** 2
    np.testing.assert_allclose(found["w"].mean(0), mean, atol=0.25 * 10)
    np.testing.assert_allclose(found["w"].std(0), np.sqrt(np.diag(np.linalg.inv(precision))), rtol=0.1)


# --- Starts ---


@pytest.mark.slow
def test_every_chain_of_a_gaussian_process_starts_at_a_finite_place():
    """Its spectral density underflows at long length scales, where its root has no finite derivative."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 2000).astype(np.float32)
    y = (np.sin(4 * x) + 0.3 * rng.standard_normal(2000)).astype(np.float32)

    def model(x, y):
        alpha, length, noise = (numpyro.sample(name, dist.HalfNormal(1)) for name in ("alpha", "length", "noise"))
        density = diag_spectral_density_squared_exponential(alpha=alpha, length=length, ell=1.5, m=20, dim=1)
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([20]).to_event(1))
        with numpyro.plate("rows", x.shape[0], subsample_size=50):
            xb, yb = numpyro.subsample(x, event_dim=0), numpyro.subsample(y, event_dim=0)
            mean = eigenfunctions(xb, 1.5, 20) @ (beta * jnp.sqrt(density))
            numpyro.sample("obs", dist.Normal(mean, noise), obs=yb)

    kernel, started = SGWORLD(model), 0
    for seed in range(2):
        try:
            state = kernel.init(random_keys(seed, 4), 1, None, (x, y), {})
        except TuningError:  # of its curvature, which is another matter
            continue
        assert np.isfinite(state.position).all()
        started += 1
    assert started


def test_descents_that_stray_start_again_from_the_best_one(monkeypatch):
    problem = misspecified_regression(6)
    original = tuning.looks.Looks.descend

    def descend(looks, descents, first, last):
        after = original(looks, descents, first, last)
        lost = descents.position[:, :1] < -0.5
        return jax.tree.map(lambda leaf: jnp.where(lost, -1e3 * jnp.ones_like(leaf), leaf), after)

    monkeypatch.setattr(tuning.looks.Looks, "descend", descend)
    kernel = SGWORLD(problem.model)
    state = kernel.init(random_keys(0, 4), 1, {"w": jnp.float32([[-1, 0], [1, 0]] * 2)}, problem.data, {})
    assert state.tuning.report.restarted == 2
    assert abs(state.position - problem.exact.mean).max() < 1
    assert "chains that failed to start" in str(state.tuning.report)


# --- One row, two rows ---


@pytest.mark.parametrize(
    ("kernel", "rows"),
    [
        (SGWORLD, 1),
        pytest.param(SGWORLD, 2, marks=pytest.mark.slow),
        pytest.param(SGLD, 1, marks=pytest.mark.slow),
        pytest.param(SGLD, 2, marks=pytest.mark.slow),
    ],
)
def test_a_plate_of_one_row_or_two(kernel, rows):
    """The exact posterior of a mean with prior N(0, 1) and noise of variance 1, B = 1."""
    y = np.float32([0.7, -1.5])[:rows]

    def model(y):
        mean = numpyro.sample("mean", dist.Normal(0, 1))
        with numpyro.plate("rows", y.shape[0], subsample_size=1):
            numpyro.sample("obs", dist.Normal(mean, 1), obs=numpyro.subsample(y, event_dim=0))

    mcmc = run(kernel(model), y, num_warmup=200, num_samples=4000, num_chains=4)
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["mean"])[..., None]
    found, variance = measure(draws, y.sum() / (rows + 1)), 1 / (rows + 1)
    assert abs(found.mean).max() < 5 * found.mean_error.max()
    assert abs(found.second - variance).max() < 5 * found.second_error.max() + TOLERANCE * variance


# --- Wherever a kernel runs ---


class Run(NamedTuple):
    mcmc: MCMC
    draws: np.ndarray


def run_on(kernel, problem, samples=20, chains=1, **options):
    sizes = {"num_warmup": 5, "num_samples": samples, "num_chains": chains}
    mcmc = run(kernel, *problem.data, extra_fields=("position", "step_size"), **sizes, **options)
    return Run(mcmc, field(mcmc))


def test_vectorized_chains_share_what_was_learnt_and_start_apart():
    problem = misspecified_regression(6)
    mcmc, draws = run_on(SGWORLD(problem.model), problem, chains=4)
    assert mcmc.last_state.tuning.preconditioner.matrix.shape == (2, 2)
    assert mcmc.last_state.step_size.shape == (4,)
    steps = mcmc.sampler.settings(state=mcmc.last_state).steps_per_sample
    assert mcmc.sampler.minibatch_rows(mcmc.last_state)["rows"].shape == (4, steps, 6)
    assert len(np.unique(mcmc.last_state.step_size)) == 1
    assert np.isfinite(draws).all()
    assert len(np.unique(draws[:, 0, 0])) == 4


@pytest.mark.filterwarnings("ignore:Some donated buffers")  # NumPyro under vmap, with any kernel
@pytest.mark.parametrize("method", ["sequential", jax.vmap])
def test_chains_of_every_method_share_one_tuning(method):
    problem = misspecified_regression(6)
    mcmc, draws = run_on(SGWORLD(problem.model), problem, chains=2, chain_method=method)
    vectorized, same_draws = run_on(SGWORLD(problem.model), problem, chains=2)
    np.testing.assert_array_equal(np.unique(mcmc.last_state.step_size), np.unique(vectorized.last_state.step_size))
    assert mcmc.last_state.tuning.steps == vectorized.last_state.tuning.steps
    np.testing.assert_allclose(draws[:, 0], same_draws[:, 0], rtol=1e-4, atol=1e-5)  # the first draws of each


def test_resuming_is_the_uninterrupted_run():
    problem = misspecified_regression(6)
    kernel = SGWORLD(problem.model, integrator=UBU())
    whole = run_on(kernel, problem, samples=30).draws
    first = run_on(kernel, problem, samples=10)
    second = make(first.mcmc.sampler, num_samples=20)
    second.post_warmup_state = first.mcmc.last_state
    second.run(first.mcmc.last_state.rng_key, *problem.data, extra_fields=("position",))
    np.testing.assert_array_equal(whole[0, 10:], second.get_extra_fields()["position"])


def test_it_is_compiled_once(monkeypatch):
    problem = misspecified_regression(6)
    kernel, traced = SGWORLD(problem.model), []
    original = tuning.warm_start.descend
    monkeypatch.setattr(tuning.warm_start, "descend", lambda *args: traced.append(1) or original(*args))
    for seed in (0, 1):
        kernel.init(jax.random.key(seed), 5, None, problem.data, {})
    assert len(traced) == 1


def test_initial_values_are_where_the_descent_starts():
    """Two modes: the chain goes to that on whose side it begins."""

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0, 5))
        with numpyro.plate("rows", y.shape[0], subsample_size=8):
            numpyro.sample("obs", dist.Normal(mu**2, 1), obs=numpyro.subsample(y, event_dim=0))

    y, kernel = (4 + np.random.default_rng(0).standard_normal(400)).astype(np.float32), SGWORLD(model)
    for side in (-1.0, 1.0):
        state = kernel.init(jax.random.key(0), 1, {"mu": jnp.float32(side)}, (y,), {})
        assert abs(float(state.z["mu"]) - 2 * side) < 0.5


EDGES = {
    "full batch": ({"subsampling": FullBatch()}, {}),
    "batches that straddle": ({"subsampling": SymmetricReshuffle(), "integrator": UBU()}, {"batch_size": 7}),
    "schedule, learnt metric": ({"step_size": WellingTeh(0.01), "preconditioner": Diagonal()}, {}),
}
MORE_EDGES = {
    "all rows a batch": ({"integrator": LeimkuhlerMatthews()}, {"batch_size": 60}),
    "cyclic": ({"subsampling": Cyclic(), "integrator": BAOAB(3.0)}, {}),
    "diagonal": ({"preconditioner": Diagonal(), "gradient": ControlVariate(), "steps_per_sample": 1}, {}),
    "given step, learnt friction": ({"step_size": 0.05, "integrator": UBU(), "gradient": Minibatch()}, {}),
    "two rows": ({}, {"batch_size": 1, "rows": 2}),
    "one row a batch": ({}, {"batch_size": 1}),
    "batch reshuffle": ({"subsampling": BatchReshuffle(), "gradient": ControlVariate()}, {"batch_size": 7}),
    "identity": ({"preconditioner": Identity(), "integrator": BAOAB()}, {}),
    "stochastic gradient descent": ({"step_size": 0.05, "integrator": BAOAB(), "temperature": 0.0}, {}),
}


@pytest.mark.parametrize("case", [*EDGES, *(pytest.param(case, marks=pytest.mark.slow) for case in MORE_EDGES)])
def test_edges(case):
    """Finite draws and a finite report, whatever is combined."""
    options, shape = (EDGES | MORE_EDGES)[case]
    problem = misspecified_regression(**({"batch_size": 6} | shape))
    mcmc, draws = run_on(SGWORLD(problem.model, **options), problem, chains=2)
    report = mcmc.last_state.tuning.report
    assert np.isfinite(draws).all()
    assert np.isfinite([report.step_size, report.fastest_rate, mcmc.last_state.step_size[0]]).all()
    assert np.isnan(report.predicted_bias) if options.get("temperature") == 0 else report.predicted_bias >= 0
    if "step_size" not in options:
        assert report.predicted_bias <= 1.001 * TOLERANCE
    tuning_report(mcmc)


@pytest.mark.parametrize(
    "case",
    ["two_plates", "groups"]
    + [pytest.param(case, marks=pytest.mark.slow) for case in ("users_and_items", "simplex", "linen_network")],
)
def test_models_of_many_kinds(case):
    """A report, or a refusal in words; never NaN or an error of another kind."""
    case = CASES[case]
    kernel = SGWORLD(case.model, gradient=ControlVariate())
    try:
        state = kernel.init(jax.random.key(1), 5, None, case.args, case.kwargs)
    except TuningError:
        return
    assert np.isfinite(state.position).all()
    assert np.isfinite(state.step_size)


@pytest.mark.slow
def test_a_scheme_of_ones_own_is_expected_to_cancel_nothing():
    class Mine(IndependentBatches):
        pass

    problem = misspecified_regression(6)
    (mine, _), (theirs, _) = (
        report_of(problem, kernel=StochasticGradientKernel, subsampling=scheme)
        for scheme in (Mine(), SGLD(problem.model)._subsampling)
    )
    assert mine.report.step_size == theirs.report.step_size


@pytest.mark.parametrize(("batch_size", "named"), [(16, 20.0), (20, np.nan)])
def test_a_batch_size_that_divides_the_rows_is_named(batch_size, named):
    """Of 200 rows, where draws at ends of passes are less biased: not of kinetic chains."""
    problem = anisotropic_mean(batch_size)
    kernel = SGWORLD(problem.model, 1e-4, steps_per_sample=200 // batch_size)
    report = tuning_report(run_on(kernel, problem).mcmc)
    np.testing.assert_equal(report.dividing_batch_size, named)
    assert ("divides the rows" in str(report)) == np.isfinite(named)


def test_what_was_chosen_is_readable():
    problem = misspecified_regression(6)
    kernel = SGWORLD(problem.model, integrator=BAOAB(), bias_tolerance=0.01)
    mcmc, _ = run_on(kernel, problem)
    report = mcmc.last_state.tuning.report
    assert f"{float(report.step_size):.3g}" in str(tuning_report(mcmc))
    assert tuning_report(mcmc).step_size == report.step_size
    assert f"<td>{float(report.step_size):.3g}</td>" in tuning_report(mcmc)._repr_html_()
    assert f"h {float(report.step_size):.1e}, T " in kernel.get_diagnostics_str(mcmc.last_state)
    attrs = to_inference_data(mcmc)["posterior"].attrs
    assert attrs["step_size"] == pytest.approx(float(report.step_size))
    assert attrs["friction"] == pytest.approx(float(report.friction))
    assert attrs["predicted_bias"] == pytest.approx(float(report.predicted_bias))
    assert attrs["bias_tolerance"] == 0.01
    assert attrs["preconditioner"] == "dense"
    untuned = tuning_report(run_on(SGWORLD(problem.model, 1e-3), problem).mcmc)
    assert (untuned.tuned, untuned.step_size) == (False, np.float32(1e-3))
    assert re.match(r"Nothing was tuned.*\nstep size h +0.001$", str(untuned))
    with pytest.raises(ValueError, match="no state yet"):
        tuning_report(make(kernel, num_warmup=1, num_samples=1))


def test_data_that_are_not_finite_are_named_first():
    with pytest.raises(ValueError, match=r"y\[3\] is nan"):
        SGWORLD(linear).init(jax.random.key(0), 1, None, (X, jnp.asarray(Y).at[3].set(jnp.nan)), {})


@pytest.mark.slow
def test_the_tolerance_decides_the_step():
    problem = anisotropic_mean(10, 1000)
    given = {"gradient": Minibatch(), "integrator": BAOAB(2.0)}
    steps = [
        float(report_of(problem, bias_tolerance=tolerance, **given)[0].report.step_size) for tolerance in (0.0025, 0.02)
    ]
    assert steps[1] / steps[0] == pytest.approx(8 ** (1 / 3), rel=0.2)

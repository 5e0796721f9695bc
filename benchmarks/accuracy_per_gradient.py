"""How biased is each configuration at the same number of gradients and the same speed of mixing?

Equal mixing: in the slowest direction, of curvature λ, an overdamped chain relaxes at the rate hλ a step, a kinetic
one of friction 2√λ at h√λ. Both are set by one number, the mixing a pass: how often e-fold the chain forgets where
it was while it spends as many gradients as a pass has batches, R. A step with control variates costs two gradients,
so that such chains take steps twice as long and half as many.

Two quadratic posteriors are solved exactly; three logistic regressions are sampled and compared with references.
``python benchmarks/accuracy_per_gradient.py --quick`` takes half a minute, the whole a quarter of an hour.
"""

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC
from scipy.optimize import brentq
from tqdm import tqdm

from benchmarks import posteriors
from sgworld_numpyro import (
    BAOAB,
    UBU,
    ControlVariate,
    EulerMaruyama,
    IndependentBatches,
    LeimkuhlerMatthews,
    Minibatch,
    RandomReshuffle,
    StochasticGradientKernel,
    SymmetricReshuffle,
    WithReplacement,
)
from sgworld_numpyro.integrators import NamedIntegrator
from sgworld_numpyro.linear_gaussian import (
    control_variate,
    gaussian_kl,
    relative_covariance_error,
    stationary_moments,
)
from sgworld_numpyro.preconditioners import Dense
from sgworld_numpyro.subsampling import NamedScheme


class Configuration(NamedTuple):
    """What is compared, and how it is drawn."""

    scheme: NamedScheme
    integrator_type: type[NamedIntegrator]
    colour: str
    line: str = "-"
    anchored: bool = False

    @property
    def kinetic(self):
        return self.integrator_type.kinetic

    @property
    def gradients_per_step(self):
        return 2 if self.anchored else 1

    def integrator(self, rate):
        """Critically damped in the slowest direction, of curvature ``rate``, if it is kinetic."""
        return self.integrator_type(friction=2 * np.sqrt(rate)) if self.kinetic else self.integrator_type()

    def step_size(self, mixing, batches, rate):
        """h at that mixing a pass of R ``batches``; ``rate`` is the curvature λ of the slowest direction."""
        return mixing * self.gradients_per_step / (batches * (np.sqrt(rate) if self.kinetic else rate))


CONFIGURATIONS = {
    "SGLD": Configuration(WithReplacement(), EulerMaruyama, "black"),
    "SGWORLD": Configuration(RandomReshuffle(), EulerMaruyama, "#56B4E9"),
    "SGWORLD+LM": Configuration(RandomReshuffle(), LeimkuhlerMatthews, "#0072B2", "--"),
    "symmetric+LM": Configuration(SymmetricReshuffle(), LeimkuhlerMatthews, "#009E73"),
    "i.i.d. UBU": Configuration(IndependentBatches(), UBU, "0.55"),
    "reshuffled UBU": Configuration(RandomReshuffle(), UBU, "#E69F00"),
    "reshuffled BAOAB": Configuration(RandomReshuffle(), BAOAB, "#D55E00", "--"),
    "symmetric BAOAB": Configuration(SymmetricReshuffle(), BAOAB, "#CC79A7"),
    "BAOAB + control variates": Configuration(RandomReshuffle(), BAOAB, "#7B3294", ":", anchored=True),
}
QUICK = ("SGLD", "reshuffled BAOAB")  # sampled in --quick
BASELINE = "SGLD"
TABULATED = (0.1, 0.3, 1.0)  # mixings a pass
ROUNDING = 1e-15  # below this a divergence is what rounding leaves


class Estimate(NamedTuple):
    """A number that cannot be negative, and its standard error."""

    value: float
    error: float

    @property
    def resolved(self):
        return self.value > 2 * self.error

    @property
    def limit(self):
        return max(self.value, 0) + 2 * self.error

    @property
    def root(self):
        """Of a square; not resolved if the square is not."""
        if self.resolved:
            return Estimate(float(np.sqrt(self.value)), float(self.error / (2 * np.sqrt(self.value))))
        return Estimate(0.0, float(np.sqrt(self.limit) / 2))

    def text(self, style=".1e", scale=1.0):
        if self.resolved:
            error_style = style if style.endswith("f") else f".1{style[-1]}"
            return f"{scale * self.value:{style}} ± {scale * self.error:{error_style}}"
        return f"< {scale * self.limit:{style}}"


# Quadratic posteriors: exact


class ExactBias(NamedTuple):
    """At period ends: nats, a fraction, and posterior sds along the worst direction."""

    kl: Estimate
    covariance: Estimate
    shift: Estimate


def exact_bias(problem, configuration, mixing, repeats, num_orders):
    """Bias of the exact stationary law; its errors come from the sampled orders of unequal Hessians.

    Several samples of orders give the errors, by the jackknife, which also removes what they add on average.
    """
    batches = problem.num_rows // posteriors.BATCH_SIZE
    rate = np.linalg.eigvalsh(problem.hessian).min()
    step_size = configuration.step_size(mixing, batches, rate)
    estimated = control_variate(problem) if configuration.anchored else problem

    def solve(seed):
        return stationary_moments(
            estimated,
            configuration.scheme,
            configuration.integrator(rate),
            step_size,
            posteriors.BATCH_SIZE,
            num_orders=num_orders,
            seed=seed,
        )

    first = solve(0)
    exact = not first.covariance_error.any()
    found = [first.period_end, *(() if exact else (solve(seed).period_end for seed in range(1, repeats)))]
    means, covariances = (np.stack(values) for values in zip(*found, strict=True))
    root = np.linalg.cholesky(problem.covariance)

    def measures(mean, covariance):
        kl = gaussian_kl(mean, covariance, problem.mean, problem.covariance)
        shift = np.linalg.norm(np.linalg.solve(root, mean - problem.mean))
        return np.array([kl, relative_covariance_error(covariance, problem.covariance) ** 2, shift**2])

    plain = measures(means.mean(0), covariances.mean(0))
    error = np.zeros(3)
    if not exact:
        count = len(means)
        left_out = np.stack(
            [measures(np.delete(means, k, 0).mean(0), np.delete(covariances, k, 0).mean(0)) for k in range(count)]
        )
        plain = count * plain - (count - 1) * left_out.mean(0)
        error = np.sqrt((count - 1) * left_out.var(0))
    kl, covariance, shift = (Estimate(float(v), float(e)) for v, e in zip(plain, error, strict=True))
    return ExactBias(kl, covariance.root, shift.root)


def exact_curves(problem, mixings, repeats, num_orders, bar):
    """Name -> mixing -> bias; None where the step is not stable."""
    curves = {name: {} for name in CONFIGURATIONS}
    for name, configuration in CONFIGURATIONS.items():
        for mixing in mixings:
            try:
                curves[name][mixing] = exact_bias(problem, configuration, mixing, repeats, num_orders)
            except ValueError:  # no stationary law
                curves[name][mixing] = None
            bar.update()
    return curves


def print_exact(title, problem, curves, tabulated):
    eigenvalues = np.linalg.eigvalsh(problem.hessian)
    print(
        f"\n{title}: N = {problem.num_rows}, B = {posteriors.BATCH_SIZE}, d = 2; the fastest direction relaxes "
        f"{eigenvalues[-1] / eigenvalues[0]:.2g} times faster\n"
    )
    print(f"{'mixing':>6}  {'':26}{'KL, nats':>18}{'SGLD / this':>13}{'covariance, %':>20}{'shift, sds':>20}")
    for mixing in tabulated:
        print()
        for name, curve in curves.items():
            bias = curve[mixing]
            if bias is None:
                print(f"{mixing:6g}  {name:26}{'no stationary law':>18}")
                continue
            kl, ratio = kl_text(bias.kl), ratio_text(curves, name, mixing)
            covariance = amount_text(bias.covariance, 100)
            print(f"{mixing:6g}  {name:26}{kl:>18}{ratio:>13}{covariance:>20}{amount_text(bias.shift):>20}")


def kl_text(kl):
    if max(kl.value, kl.error) < ROUNDING:
        return "0"
    return f"{kl.value:.2e}" if not kl.error else kl.text()


def amount_text(estimate, scale=1.0):
    if max(estimate.value, estimate.error) < np.sqrt(ROUNDING):
        return "0"
    return f"{scale * estimate.value:.2g}" if not estimate.error else estimate.text(".2g", scale)


def kl_ratio(curves, name, mixing):
    """SGLD's divergence over this one's at equal mixing; at least that where this one's is not resolved."""
    ours, baseline = curves[name][mixing], curves[BASELINE][mixing]
    if ours is None or baseline is None or ours.kl.limit < ROUNDING:
        return None
    return baseline.kl.value / (ours.kl.value if ours.kl.resolved else ours.kl.limit)


def ratio_text(curves, name, mixing):
    ratio = kl_ratio(curves, name, mixing)
    if ratio is None:
        return "-"
    text = f"{ratio:.2g}" if ratio < 100 else f"{ratio:,.0f}" if ratio < 1e4 else f"{ratio:.1e}"
    return text if curves[name][mixing].kl.resolved else f"> {text}"


# Logistic regressions: sampled


class SampledBias(NamedTuple):
    """Against the reference, sampling noise removed.

    Attributes:
        sd: root mean square over coordinates of the relative error of the sd.
        mean: of the shift of the mean, in posterior sds.
        both: of the two together, the Wasserstein-2 distance of normal marginals in posterior sds.
        largest_shift: of the coordinate that half of the blocks choose, as measured by the other half.
        ess_per_1000_passes: median over coordinates; of R gradients each.
    """

    sd: Estimate
    mean: Estimate
    both: Estimate
    largest_shift: Estimate
    ess_per_1000_passes: float


def sample(posterior, configuration, mixing, num_chains, passes, key):
    """Draws at period ends, (chains, samples, d), of as many gradients as that many passes of all chains have."""
    mode, covariance = posterior.laplace()
    period = 2 if isinstance(configuration.scheme, SymmetricReshuffle) else 1  # in passes
    kernel = StochasticGradientKernel(
        posterior.model,
        configuration.step_size(mixing, posterior.batches, 1.0),
        subsampling=configuration.scheme,
        integrator=configuration.integrator(1.0),
        gradient=ControlVariate() if configuration.anchored else Minibatch(),
        preconditioner=Dense(covariance),
        steps_per_sample=period * posterior.batches,
    )
    costs = period * configuration.gradients_per_step  # passes a draw
    warmup = int(np.ceil(WARMUP / (mixing * costs)))
    start_key, key = jax.random.split(key)
    start = jax.random.multivariate_normal(start_key, jnp.asarray(mode), jnp.asarray(covariance), (num_chains,))
    mcmc = MCMC(
        kernel,
        num_warmup=warmup,
        num_samples=max(int(passes / num_chains / costs), 2),
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(key, posterior.x, posterior.y, init_params={"weights": start})
    return np.asarray(mcmc.get_samples(group_by_chain=True)["weights"])


WARMUP = 6  # relaxation times, from a draw of the Laplace approximation on
BLOCKS = 64  # of at least ten relaxation times each


def sampled_bias(draws, reference, configuration, passes):
    """The bias and its errors, to first order in the pulls of independent blocks."""
    ours = posteriors.moments(draws, BLOCKS, "")
    difference = np.stack([(ours.mean - reference.mean) / reference.sd, ours.sd / reference.sd - 1])
    noise = [_covariances(run.pulls / reference.sd) for run in (ours, reference)]

    def mean_square(kinds):
        """Over coordinates, of the differences of those kinds; noise taken out."""
        chosen = difference[kinds].ravel()
        parts = [covariance(kinds) for covariance in noise]
        total = sum(part for part, _ in parts)
        value = chosen @ chosen - np.trace(total)
        # of δᵀδ, δ = bias + noise: 4 biasᵀC bias + 2 tr C²; the first is too large by 4 tr C²
        squares = sum(square for _, square in parts) + 2 * np.sum(parts[0][0] * parts[1][0])
        spread = max(4 * chosen @ total @ chosen - 4 * squares, 0) + 2 * squares
        dim = difference.shape[1]
        return Estimate(float(value / dim), float(np.sqrt(spread) / dim)).root

    ess = np.median(effective_sample_size(draws.astype(float)))
    return SampledBias(
        sd=mean_square([1]),
        mean=mean_square([0]),
        both=mean_square([0, 1]),
        largest_shift=_largest_shift(ours, reference),
        ess_per_1000_passes=float(1000 * ess / passes),
    )


def _covariances(pulls):
    """A function from kinds of pulls to the covariance of their mean over blocks, and unbiased tr C² of it."""

    def of(kinds):
        chosen = pulls[:, kinds].reshape(len(pulls), -1)
        free = len(chosen) - 1
        covariance = np.cov(chosen.T) / len(chosen)
        square, trace = np.sum(covariance**2), np.trace(covariance)
        return covariance, max((square - trace**2 / free) * free**2 / ((free - 1) * (free + 2)), 0)

    return of


def _largest_shift(ours, reference):
    """Chosen on one half of the blocks, measured on the other, and the other way round."""
    halves = [
        (ours.mean + ours.pulls[k::2, 0].mean(0) - reference.mean - reference.pulls[k::2, 0].mean(0)) / reference.sd
        for k in (0, 1)
    ]
    variance = sum(run.pulls[:, 0].var(0) / (len(run.pulls) / 2) for run in (ours, reference)) / reference.sd**2
    values, variances = [], []
    for chooser, measurer in (halves, halves[::-1]):
        chosen = np.argmax(abs(chooser))
        values.append(np.sign(chooser[chosen]) * measurer[chosen])
        variances.append(variance[chosen])
    # if both halves choose the same coordinate for its noise, they err together: no gain from taking the mean
    return Estimate(float(np.mean(values)), float(np.mean(np.sqrt(variances))))


class Study(NamedTuple):
    """One logistic regression, its reference and its runs."""

    posterior: posteriors.Logistic
    reference: posteriors.Moments
    mixing: float
    passes: int
    biases: dict
    seconds: float


def study(posterior, names, mixings, num_chains, passes, effort, options, rng, bar):
    """Run every configuration on one posterior. ``effort`` is that of the reference."""
    start = time.perf_counter()
    if len(posterior.y) > 2000:
        reference = posteriors.by_importance(posterior, effort, rng)
    else:
        full_data_model = StochasticGradientKernel(posterior.model, 1.0, subsampling=RandomReshuffle()).model
        reference = posteriors.by_nuts(posterior, full_data_model, 8, effort, options.seed)
    bar.update()
    studies = []
    for mixing in mixings:
        biases = {}
        for number, name in enumerate(names):
            key = jax.random.fold_in(jax.random.key(options.seed), number)
            draws = sample(posterior, CONFIGURATIONS[name], mixing, num_chains, passes, key)
            biases[name] = sampled_bias(draws, reference, CONFIGURATIONS[name], passes)
            bar.update()
        studies.append(Study(posterior, reference, mixing, passes, biases, time.perf_counter() - start))
        start = time.perf_counter()
    return studies


def print_study(found):
    posterior, reference = found.posterior, found.reference
    errors = reference.pulls.std(0) / np.sqrt(len(reference.pulls)) / reference.sd
    print(
        f"\n{posterior.name}: N = {len(posterior.y)}, B = {posterior.batch_size}, d = {posterior.x.shape[1]}; "
        f"mixing {found.mixing:g} a pass, {found.passes} passes each; {found.seconds:.0f} s\n"
        f"Reference: {reference.source}; its errors {np.sqrt((errors[0] ** 2).mean()):.2g} sds for the means, "
        f"{100 * np.sqrt((errors[1] ** 2).mean()):.2g} % for the sds\n"
    )
    print(f"{'':26}{'sd, rms %':>16}{'mean, rms sds':>20}{'largest shift, sds':>20}{'ESS / 1000 passes':>19}")
    for name, bias in found.biases.items():
        print(
            f"{name:26}{bias.sd.text('.2f', 100):>16}{bias.mean.text('.4f'):>20}"
            f"{bias.largest_shift.text('.3f'):>20}{bias.ess_per_1000_passes:19.0f}"
        )


# Summary, figure, files


def best_of(curves, mixing, kinetic_faster=1):
    """Name, and SGLD's divergence over its own, of the configuration that is surely best.

    Where a divergence is not resolved from zero its upper limit counts. ``kinetic_faster`` multiplies the mixing of
    the kinetic ones.
    """
    ratios = {}
    for name, configuration in CONFIGURATIONS.items():
        bias = curves[name].get(mixing * (kinetic_faster if configuration.kinetic else 1))
        if bias is not None and bias.kl.limit > ROUNDING:
            ratios[name] = curves[BASELINE][mixing].kl.value / bias.kl.limit
    name = max(ratios, key=ratios.get)
    return name, float(ratios[name])


def summary(mean_problem, curves, tabulated):
    """The two ratios that the package promises, at every mixing of the tables."""
    eigenvalues = np.linalg.eigvalsh(mean_problem.hessian)
    regression = curves["regression"]
    found = {
        "wanted": {"best_on_regression": 1000, "sgworld_on_mean": 20},
        "best_on_regression": {},
        "sgworld_on_mean": {},
    }
    for mixing in tabulated:
        best, ratio = best_of(regression, mixing)
        other, other_ratio = best_of(regression, mixing, kinetic_faster=2)
        found["best_on_regression"][f"{mixing:g}"] = {
            "best": best,
            "ratio": ratio,
            "best_at_equal_correlation_time": other,
            "ratio_at_equal_correlation_time": other_ratio,
        }
        found["sgworld_on_mean"][f"{mixing:g}"] = {
            "fastest": float(mixing * eigenvalues[-1] / eigenvalues[0]),
            "ratio": float(kl_ratio(curves["mean"], "SGWORLD", mixing)),
        }

    def excess(log_mixing):
        mixing = float(np.exp(log_mixing))
        kl = [exact_bias(mean_problem, CONFIGURATIONS[name], mixing, 1, 1).kl.value for name in (BASELINE, "SGWORLD")]
        return np.log(kl[0] / kl[1] / found["wanted"]["sgworld_on_mean"])

    highest = np.exp(brentq(excess, np.log(0.1), np.log(2.0)))
    found["sgworld_on_mean_up_to"] = float(highest * eigenvalues[-1] / eigenvalues[0])
    return found


def print_summary(found):
    print("\nSGLD's divergence over that of the best configuration, misspecified regression, at least; wanted 1000:")
    for mixing, row in found["best_on_regression"].items():
        print(
            f"  mixing {mixing:>4}: {row['ratio']:9.3g}  ({row['best']}); {row['ratio_at_equal_correlation_time']:9.3g}"
            f"  ({row['best_at_equal_correlation_time']}) with kinetic steps twice as long*"
        )
    print("SGLD's over SGWORLD's, Gaussian mean; wanted 20 where the fastest direction has R h λ <= 0.3:")
    for mixing, row in found["sgworld_on_mean"].items():
        print(f"  mixing {mixing:>4}: {row['ratio']:9.3g}  (fastest R h λ = {row['fastest']:.2g})")
    print(f"  it is 20 at a fastest R h λ of {found['sgworld_on_mean_up_to']:.2g}.")
    print(
        "* At equal rates a kinetic chain of friction 2√λ has in its slowest direction twice the integrated\n"
        "  correlation time of an overdamped one: it forgets as fast in the end, but not at first."
    )


def draw(path, curves, studies):
    """Two panels of exact divergences, one of sampled biases."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 3, figsize=(14, 6.4), width_ratios=(1, 1, 1.1), layout="constrained")
    titles = {
        "mean": "Gaussian mean, exact\n(control variates: no bias)",
        "regression": "misspecified linear regression, exact\n(points: orders sampled; arrows: limits)",
    }
    for axes, (key, title) in zip(panels[:2], titles.items(), strict=True):
        for name, configuration in CONFIGURATIONS.items():
            kls = {m: bias.kl for m, bias in curves[key][name].items() if bias and bias.kl.limit > ROUNDING}
            style = {"color": configuration.colour, "lw": 1.6}
            # an empty line too, for the legend
            found = [(m, kl.value, kl.error) for m, kl in kls.items() if kl.resolved] or [(np.nan,) * 3]
            mixing, value, error = np.array(found).T
            axes.plot(mixing, value, configuration.line, label=name, **style)
            if error.any():
                axes.errorbar(mixing, value, error, fmt=".", **style)
            limits = [(m, kl.limit) for m, kl in kls.items() if not kl.resolved]
            if limits:
                mixing, limit = np.array(limits).T
                axes.errorbar(mixing, limit, 0.6 * limit, fmt="v", ms=3, mfc="white", uplims=True, **style | {"lw": 1})
        axes.set(xscale="log", yscale="log", xlim=(0.02, 2.4), ylim=(3e-15, 3), title=title)
        axes.set(xlabel="mixing a pass, R h λ or R h √λ", ylabel="KL(chain ‖ posterior), nats")
        axes.grid(color="0.92", lw=0.6)
    figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, ncols=5, loc="outside lower left")

    axes, markers = panels[2], ("o", "s", "^")
    names = list(studies[0].biases)
    for number, found in enumerate(studies):
        for row, name in enumerate(names):
            bias, colour = found.biases[name].both, CONFIGURATIONS[name].colour
            at = row + 0.24 * (number - (len(studies) - 1) / 2)
            style = {"fmt": markers[number], "ms": 5, "color": colour, "lw": 1.2}
            if bias.resolved:
                axes.errorbar(bias.value, at, xerr=bias.error, **style)
            else:
                axes.errorbar(bias.limit, at, xerr=0.15 * bias.limit, xuplims=True, mfc="white", **style)
        label = f"{found.posterior.name}, mixing {found.mixing:g}"
        axes.plot([], [], markers[number], color="0.3", ms=5, label=label)
    ticks = (0.01, 0.02, 0.05, 0.1, 0.2)
    axes.set(xscale="log", xlim=(0.008, 0.4), xlabel="rms bias of means and sds, in posterior sds")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_yticks(range(len(names)), names)
    axes.set_title("logistic regressions, sampled\n(open: upper limit)")
    axes.invert_yaxis()
    axes.grid(axis="x", color="0.92", lw=0.6)
    axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 0.12))
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    figure.text(0.995, 0.01, "i.i.d.: each minibatch drawn independently", fontsize=9, ha="right")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _plain(value):
    """As JSON has it: names for the fields of tuples, text for keys."""
    if hasattr(value, "_asdict"):
        return {key: _plain(part) for key, part in value._asdict().items()}
    if isinstance(value, dict):
        return {key if isinstance(key, str) else f"{key:g}": _plain(part) for key, part in value.items()}
    return value


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="where the figure goes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to FILE as well")
    parser.add_argument("--quick", action="store_true", help="half a minute: one small regression, two configurations")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def main(argv=None):
    options = parse(argv)
    rng = np.random.default_rng(options.seed)
    problems = {"mean": posteriors.correlated_mean(rng), "regression": posteriors.misspecified_regression(rng)}
    tabulated = TABULATED[:2] if options.quick else TABULATED
    mixings = tabulated if options.quick else sorted({0.03, *tabulated, *(2 * m for m in tabulated)})
    # without unequal Hessians nothing is sampled: a smooth curve costs little
    fine = tabulated if options.quick else sorted({*mixings, *map(float, np.geomspace(0.02, 2.4, 40))})
    grids = {"mean": fine, "regression": mixings}
    repeats, num_orders = (2, 40) if options.quick else (8, 400)
    # posterior, configurations, mixings, chains, passes of all together, effort of the reference
    plans = (
        [(partial(posteriors.synthetic, rows=5000, dim=5, batch_size=50), QUICK, (1.0,), 16, 1_600, 2048)]
        if options.quick
        else [
            (posteriors.breast_cancer, CONFIGURATIONS, (0.3,), 32, 64_000, 2000),
            (posteriors.digits, CONFIGURATIONS, (0.3,), 32, 64_000, 2000),
            (posteriors.synthetic, CONFIGURATIONS, (1.0,), 16, 1_280, 2048),
        ]
    )
    curves, studies = {}, []
    runs = sum(map(len, grids.values())) * len(CONFIGURATIONS)
    with tqdm(total=runs, desc="exact", disable=None) as bar:
        for key, problem in problems.items():
            curves[key] = exact_curves(problem, grids[key], repeats, num_orders, bar)
    print_exact("Gaussian mean", problems["mean"], curves["mean"], tabulated)
    print_exact("Misspecified linear regression", problems["regression"], curves["regression"], tabulated)
    found = summary(problems["mean"], curves, tabulated)
    print_summary(found)
    with tqdm(total=sum(1 + len(names) * len(at) for _, names, at, *_ in plans), desc="sampled", disable=None) as bar:
        for make, *plan in plans:
            for one in study(make(rng), *plan, options, rng, bar):
                studies.append(one)
                with bar.external_write_mode():
                    print_study(one)
    path = options.out / "accuracy_per_gradient.png"
    draw(path, curves, studies)
    print(f"\nFigure: {path}")
    numbers = {
        "exact": _plain(curves),
        "ratios": found,
        "sampled": [
            {
                "posterior": one.posterior.name,
                "reference": one.reference.source,
                "mixing": one.mixing,
                "passes": one.passes,
                "seconds": one.seconds,
                "bias": _plain(one.biases),
            }
            for one in studies
        ],
    }
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(numbers, indent=2) + "\n")
    return numbers


if __name__ == "__main__":
    main()

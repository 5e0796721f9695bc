"""How near does each method come to the posterior of a Bayesian network, and at what price?

For the networks of ``network_posteriors``, whose posteriors long HMC runs have found (``network_references.py``): MAP,
an ensemble of it, SGD's average iterate, SGLD, SGWORLD, with kinetic steps, with cyclical ones, with a metric learnt
from squared gradients, and with default arguments, all for the same number of passes over the data. Of classes the
table has agreement and total variation, the scores of Izmailov et al. (2021), of numbers the errors of the predictive
mean and sd. ``--default`` runs ``SGWORLD(model)`` instead, tuning included.
"""

import argparse
import math
import sys
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.infer import MCMC

from benchmarks.network_posteriors import NETWORKS, NetworkPosterior
from benchmarks.network_references import latent_sites, load, path_of, prior_variance
from benchmarks.output import add_output, write
from benchmarks.references import Stopwatch
from examples._scores import agreement, scores, total_variation
from sgworld_numpyro import BAOAB, SGLD, SGWORLD, TuningError, averages, predictor
from sgworld_numpyro.preconditioners import Diagonal

CHAINS = 4
TRAINING = 50  # passes
WARMUP = 0.3  # of what is left
CYCLES = 4  # of step sizes
MOMENTUM = 5.0  # friction of training, per unit of time
SPREAD = 0.3  # of the first weights, in sds of the prior
GRADIENTS = 100  # of each chain, for the metric


class Steps(NamedTuple):
    """Step sizes of a network, in coordinates in which the prior's sds are 1.

    Attributes:
        training: time step of SGD with momentum, at first.
        overdamped: h of SGLD and SGWORLD.
        kinetic: time step of BAOAB.
        learnt: the same with the metric that was learnt, in which the stiffest directions are less stiff.
        friction: of BAOAB, per unit of time.
    """

    training: float
    overdamped: float
    kinetic: float
    learnt: float
    friction: float


STEPS = {
    "curve": Steps(1e-3, 1e-7, 1e-4, 1e-3, 1.0),
    "diabetes": Steps(0.03, 3e-4, 0.005, 0.03, 1.0),
    "digits": Steps(0.015, 3e-6, 5e-4, 2e-3, 1.0),
}


class Run(NamedTuple):
    """Predictions of a method.

    Attributes:
        mean: over its draws, (chain, row) or (chain, row, class).
        sd: over all draws; None of a method without.
        r_hat: median over rows; NaN likewise.
        temperature: mean (θ − centre) ∂U/∂θ by site, of draws.
        passes: over the data that each chain took, training included.
        seconds: of CPU, compilation left out, of all chains together, training included.
    """

    mean: np.ndarray
    sd: np.ndarray | None
    r_hat: float
    temperature: dict
    passes: float
    seconds: float


class Study:
    """A network, its data, and chains that start at random weights and are trained for some passes."""

    def __init__(self, posterior: NetworkPosterior, passes: int, seed: int):
        self.posterior, self.passes, self.steps = posterior, passes, STEPS[posterior.name]
        self.data, (inputs, _) = posterior.data(), posterior.test()
        self.predict = predictor(posterior.model, inputs, sites="predicted")
        whole = SGWORLD(posterior.model, 1.0).model
        self.variance = prior_variance(latent_sites(whole, self.data))
        self.prior_metric = np.asarray(ravel_pytree(self.variance)[0])
        self.key, start = jax.random.split(jax.random.key(seed))
        names = sorted(self.variance)
        self.random_weights = {
            name: SPREAD * jnp.sqrt(self.variance[name]) * jax.random.normal(key, (CHAINS, *self.variance[name].shape))
            for name, key in zip(names, jax.random.split(start, len(names)), strict=True)
        }

    def run(self, kernel, passes, start, warmup=0):
        """The ``MCMC`` of a kernel, temperatures by site of what follows the warm-up, CPU seconds; a sample a pass."""
        clock = Stopwatch()
        sizes = {"num_warmup": warmup, "num_samples": passes - warmup, "num_chains": CHAINS}
        mcmc = MCMC(kernel, **sizes, chain_method="vectorized", progress_bar=False)
        key, before = self.key, None
        if warmup:
            mcmc.warmup(key, *self.data, init_params=start)
            before, key = mcmc.post_warmup_state.thermometer, mcmc.post_warmup_state.rng_key
        mcmc.run(key, *self.data, init_params=start)
        jax.block_until_ready(mcmc.last_state)
        return mcmc, self.by_site(virials(before, mcmc.last_state.thermometer)), clock.read()["seconds"]

    def by_site(self, flat):
        """Means of a flat vector by site."""
        sizes = [self.variance[name].size for name in sorted(self.variance)]
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        return {name: float(part.mean()) for name, part in zip(sorted(self.variance), parts, strict=True)}

    def predictions(self, weights):
        """At weights by site, chains first."""
        return np.asarray(jax.jit(jax.vmap(self.predict))(weights)["predicted"], float)

    def train(self, passes):
        """Weights after so many passes of SGD with momentum, at steps that go to zero, and CPU seconds."""
        steps, first = passes * self.batches, self.steps.training

        def schedule(step):
            return first * (0.505 + 0.495 * jnp.cos(jnp.pi * jnp.minimum(step / steps, 1)))

        kernel = self.kernel(schedule, friction=MOMENTUM, temperature=0, keep=lambda sites: {})
        mcmc, _, seconds = self.run(kernel, passes, self.random_weights)
        return mcmc.last_state.z, seconds

    @property
    def batches(self):
        return math.ceil(len(self.data[0]) / self.posterior.batch_size)

    @cached_property
    def trained(self):
        return self.train(TRAINING)

    def kernel(self, step_size, friction, metric=None, **options):
        """SGWORLD with BAOAB, in the prior's sds unless there is another metric."""
        metric = Diagonal(self.prior_metric if metric is None else metric)
        integrator = BAOAB(friction=friction)
        return SGWORLD(self.posterior.model, step_size, integrator=integrator, preconditioner=metric, **options)

    def sample(self, kernel):
        """From the trained weights, with a warm-up, for the passes that are left."""
        start, training = self.trained
        left = self.passes - TRAINING
        mcmc, temperature, seconds = self.run(kernel, left, start, int(WARMUP * left))
        found = averages(mcmc)["predicted"]
        r_hat = float(np.nanmedian(found.r_hat))
        return Run(found.by_chain, found.sd, r_hat, temperature, self.passes, seconds + training)


def virials(before, after):
    """(θ_j − centre) ∂_jU between two readings of the thermometers, averaged over chains."""
    total, count = after.virials * after.readings[:, None], after.readings[:, None]
    if before is not None:
        total, count = total - before.virials * before.readings[:, None], count - before.readings[:, None]
    return np.asarray(total / count).mean(0)


def at_maximum(study):
    weights, seconds = study.train(study.passes)
    return Run(study.predictions(weights), None, math.nan, {}, study.passes, seconds)


def iterate_average(study):
    """SGD with momentum and a constant step from the trained weights, its weights averaged (Izmailov et al. 2018)."""
    start, training = study.trained
    left = study.passes - TRAINING
    options = {"temperature": 0, "keep": lambda sites: {}, "average": lambda sites: sites}
    mcmc, _, seconds = study.run(
        study.kernel(study.steps.training / 2, 5.0, **options), left, start, int(WARMUP * left)
    )
    weights = {name: jnp.asarray(found.by_chain) for name, found in averages(mcmc).items()}
    return Run(study.predictions(weights), None, math.nan, {}, study.passes, seconds + training)


def overdamped(kind):
    def method(study):
        options = {"keep": lambda sites: {}, "average": study.predict, "preconditioner": Diagonal(study.prior_metric)}
        return study.sample(
            kind(study.posterior.model, study.steps.overdamped, steps_per_sample=study.batches, **options)
        )

    return method


def kinetic(study):
    options = {"keep": lambda sites: {}, "average": study.predict}
    return study.sample(study.kernel(study.steps.kinetic, study.steps.friction, **options))


def preconditioned(study):
    """M = 1 / (1/prior variance + N F), with N F the Fisher information that squared minibatch gradients tell.

    The 100 steps of each chain that the gradients are of are not counted.
    """
    start, _ = study.trained
    kernel = study.kernel(study.steps.kinetic / 10, study.steps.friction, steps_per_sample=1, keep=lambda sites: {})
    mcmc = MCMC(
        kernel, num_warmup=0, num_samples=GRADIENTS, num_chains=CHAINS, chain_method="vectorized", progress_bar=False
    )
    mcmc.run(study.key, *study.data, init_params=start, extra_fields=("integrator_state.force",))
    force = np.asarray(mcmc.get_extra_fields(group_by_chain=True)["integrator_state.force"])  # in the prior's sds
    information = np.square(force).mean((0, 1)) * study.posterior.batch_size / len(study.data[0])
    metric = study.prior_metric / (1 + information)
    options = {"keep": lambda sites: {}, "average": study.predict}
    return study.sample(study.kernel(study.steps.learnt, study.steps.friction, metric, **options))


def cyclical(study):
    """Steps that fall from three times the constant one to a tenth, with restarts (Zhang et al. 2020, ICLR).

    Draws of the second half of each cycle count, where steps are below the middle; temperatures are of all of it.
    """
    start, training = study.trained
    left = study.passes - TRAINING
    cycle = left // CYCLES
    first, last = 3 * study.steps.kinetic, 0.1 * study.steps.kinetic

    def schedule(step):
        phase = jnp.mod(step / study.batches, cycle) / cycle
        return last + (first - last) * 0.5 * (1 + jnp.cos(jnp.pi * phase))

    mcmc, temperature, seconds = study.run(
        study.kernel(schedule, study.steps.friction, keep=study.predict), left, start
    )
    counts = np.arange(left) % cycle >= cycle / 2
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["predicted"])[:, counts].astype(float)
    return Run(draws.mean(1), draws.std((0, 1)), math.nan, temperature, study.passes, seconds + training)


METHODS: dict[str, Callable[[Study], Run]] = {
    "MAP": at_maximum,
    "SGD, average iterate": iterate_average,
    "SGLD": overdamped(SGLD),
    "SGWORLD": overdamped(SGWORLD),
    "SGWORLD, BAOAB": kinetic,
    "the same, cyclical steps": cyclical,
    "the same, learnt metric": preconditioned,
}


def by_default(study):
    """``SGWORLD(model)`` with nothing chosen but what is averaged, and what it says of itself."""
    kernel = SGWORLD(study.posterior.model, keep=lambda sites: {}, average=study.predict)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        mcmc, temperature, seconds = study.run(kernel, 600, None, 200)
    found, state = averages(mcmc)["predicted"], mcmc.last_state
    passes = 600 * kernel.settings(state=state).steps_per_sample / study.batches
    run = Run(found.by_chain, found.sd, float(np.nanmedian(found.r_hat)), temperature, passes, seconds)
    return run, [str(warning.message) for warning in said]


def with_error(values):
    """Mean of one number a chain and its standard error; NaN of one chain."""
    values = np.asarray(values, float)
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {"mean": float(values.mean()), "error": float(error)}


def judged(run: Run, reference, outputs, classes):
    """Scores of a run's chains against the reference and the truth, by name."""
    target = reference.mean.mean(0)
    if classes:
        found = {
            "agreement": with_error([agreement(p, target) for p in run.mean]),
            "total variation": with_error([total_variation(p, target) for p in run.mean]),
        }
        of_chains = [scores(p, outputs) for p in run.mean]
        found |= {name: with_error([chain[name] for chain in of_chains]) for name in of_chains[0]}
    else:
        sd = reference.sd.mean(0)
        found = {
            "error of mean, sds": with_error([np.sqrt(np.mean(((p - target) / sd) ** 2)) for p in run.mean]),
            "rmse": with_error([np.sqrt(np.mean((p - outputs) ** 2)) for p in run.mean]),
        }
        if run.sd is not None:
            found["sd / reference"] = with_error([np.mean(run.sd / sd)])
    temperature = {f"T {site}": value for site, value in run.temperature.items()}
    return found | temperature | {"R-hat": run.r_hat, "passes": run.passes, "seconds": run.seconds}


def own_error(reference, outputs, classes):
    """Each chain of the reference against the others' mean."""
    chains = range(len(reference.mean))
    found = []
    for chain in chains:
        others = reference._replace(
            mean=np.delete(reference.mean, chain, axis=0), sd=np.delete(reference.sd, chain, axis=0)
        )
        one = Run(reference.mean[chain][None], reference.sd[chain], math.nan, {}, 0, 0)
        found.append(judged(one, others, outputs, classes))
    temperature = {f"T {site}": float(np.mean(value)) for site, value in reference.about["temperature"].items()}
    names = [name for name, value in found[0].items() if isinstance(value, dict)]
    rows = {name: with_error([one[name]["mean"] for one in found]) for name in names}
    about = reference.about
    return rows | temperature | {"R-hat": math.nan, "passes": about["gradients"], "seconds": about["seconds"]}


def print_table(rows):
    """Methods in rows, scores in columns."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    cells = [["", *names]]
    for method, row in rows.items():
        cells.append([method, *(shown(row.get(name)) for name in names)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print(
            line[0].ljust(widths[0])
            + "".join(cell.rjust(width + 2) for cell, width in zip(line[1:], widths[1:], strict=True))
        )


def shown(value):
    """A number, with its error if it has one."""
    if isinstance(value, dict):
        error = "" if math.isnan(value["error"]) else f" ± {value['error']:.4f}"
        return f"{value['mean']:.4f}{error}"
    return "" if value is None or math.isnan(value) else f"{value:.4g}"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_output(parser, "networks")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        choices=NETWORKS,
        help="these networks, by default all that have a reference",
    )
    parser.add_argument("--methods", nargs="+", metavar="NAME", choices=METHODS, help="these methods")
    parser.add_argument("--passes", type=int, default=300, help="over the data, training and warm-up included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--default", action="store_true", help="run SGWORLD(model) with nothing chosen instead")
    parser.add_argument("--quick", action="store_true", help="the smallest network, 80 passes")
    arguments = parser.parse_args(argv)
    passes = 80 if arguments.quick else arguments.passes
    numbers = {"jax": jax.__version__, "device": jax.devices()[0].platform, "passes": passes}
    known = [name for name in NETWORKS if path_of(name).exists()]
    for name in arguments.only or (["diabetes"] if arguments.quick else known):
        posterior, reference = NETWORKS[name], load(name)
        study, outputs = Study(posterior, passes, arguments.seed), posterior.test()[1]
        print(
            f"\n{posterior.model.__doc__} Of each chain's averaged prediction, ± standard error over {CHAINS} chains."
        )
        rows = {"HMC, one chain": own_error(reference, outputs, posterior.classes)}
        if arguments.default:
            try:
                run, said = by_default(study)
                rows["SGWORLD(model)"] = judged(run, reference, outputs, posterior.classes)
            except TuningError as error:
                said = [str(error)]
            print("said: " + (" ".join(said) or "nothing"))
        else:
            for method in arguments.methods or METHODS:
                run = METHODS[method](study)
                rows[method] = judged(run, reference, outputs, posterior.classes)
                print(
                    f"{method}: " + ", ".join(f"{score} {shown(value)}" for score, value in rows[method].items()),
                    flush=True,
                )
                if method == "MAP":
                    together = run._replace(mean=run.mean.mean(0, keepdims=True), passes=CHAINS * run.passes)
                    rows[f"{CHAINS} of them together"] = judged(together, reference, outputs, posterior.classes)
        print_table(rows)
        numbers[name] = rows
    return write(numbers, arguments, "networks")


if __name__ == "__main__":
    main()

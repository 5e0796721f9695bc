"""Is ``MCMC(SGWORLD(model))`` right with nothing chosen, or does it say that it is not?

Runs the posteriors of ``benchmarks/zoo`` with default arguments and compares means and sds with exact ones or those of
long runs of NUTS. A run is *right*; or wrong and *told*, by an error, a warning or the tuning report; or wrong and
*silent*. ``python benchmarks/defaults.py --quick`` runs a dozen posteriors once; ``--references`` makes the references.
"""

import argparse
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np
from numpyro.infer import MCMC

from benchmarks import references
from benchmarks.output import add_output, write
from benchmarks.references import Moments, Stopwatch, compared, flat, labels, on_a_terminal_that_nobody_sees
from benchmarks.zoo import POSTERIORS, Posterior
from sgworld_numpyro import SGWORLD, ControlVariate, TuningError, tuning_report

NUM_WARMUP, NUM_SAMPLES, NUM_CHAINS = 200, 1000, 4
R_HAT = 1.05
TOLERANCE = 0.1  # posterior sds of the mean, parts of the sd
ERRORS = 4  # Monte Carlo errors, of the largest of up to two hundred coordinates


class Difference(NamedTuple):
    """The worst coordinate of a moment: what exceeds its Monte Carlo errors by most.

    Attributes:
        value: the difference, in posterior sds.
        error: its Monte Carlo error, ours and the reference's.
        where: the coordinate.
    """

    value: float
    error: float
    where: str

    @classmethod
    def worst(cls, differences, errors, names):
        worst = int(np.argmax(np.abs(differences) - ERRORS * errors))
        return cls(float(differences[worst]), float(errors[worst]), names[worst])

    @property
    def tolerable(self):
        return abs(self.value) <= TOLERANCE + ERRORS * self.error


class Outcome(NamedTuple):
    """What one run found.

    Attributes:
        posterior: its name.
        seed: of the key.
        verdict: right, told or silent.
        said: what an error, a warning or the tuning report said of it; empty if nothing.
        r_hat: the largest of the coordinates'; NaN if there are no finite draws, as what follows.
        ess: the smallest effective number of draws.
        mean: the worst difference of a mean from the reference's.
        sd: of an sd, relative.
        temperature: the mean configurational temperature, which must be 1.
        seconds: of CPU, warm-up included and compilation not.
        compiling: seconds.
        passes: over the data, for each effective draw, those of tuning and warm-up not counted.
    """

    posterior: str
    seed: int
    verdict: str
    said: str
    r_hat: float
    ess: float
    mean: Difference
    sd: Difference
    temperature: float
    seconds: float
    compiling: float
    passes: float


def told(mcmc, caught_warnings) -> str:
    """What a run that finished said against itself, or an empty string: the one place that knows how a run can tell.

    Args:
        mcmc: the run.
        caught_warnings: as ``warnings.catch_warnings(record=True)`` lists them.
    """
    for warning in caught_warnings:
        if issubclass(warning.category, UserWarning):  # NumPyro's and JAX's notices of change are none
            return f"{warning.category.__name__}: {warning.message}"
    if np.any(mcmc.last_state.divergences):
        return "divergences"
    report = tuning_report(mcmc)
    if report.tuned:
        for name in ("predicted_bias", "predicted_shift"):
            if np.any(abs(getattr(report, name)) > TOLERANCE):
                return f"tuning report: {name} {np.max(getattr(report, name)):.2g}"
    return ""


def run_one(
    posterior: Posterior,
    seed: int = 0,
    *,
    num_warmup: int = NUM_WARMUP,
    num_samples: int = NUM_SAMPLES,
    num_chains: int = NUM_CHAINS,
) -> Outcome:
    """Run ``MCMC(SGWORLD(model))`` once and judge it."""
    reference, data = references.load(posterior), posterior.data()
    kernel = SGWORLD(posterior.model)
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
    )
    clock, error = Stopwatch(), None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            key = jax.random.key(seed)
            on_a_terminal_that_nobody_sees(mcmc, key, *data, extra_fields=("configurational_temperature",))
        except TuningError as refusal:
            error = refusal
    cost = clock.read()
    draws = None if error else flat(compared(posterior, mcmc.get_samples(group_by_chain=True), data))
    if draws is None or not np.isfinite(draws).all():
        said = f"TuningError: {error}" if error else told(mcmc, caught)
        nowhere = Difference(np.nan, np.nan, "")
        verdict = "told" if said else "silent"
        return Outcome(
            posterior.name, seed, verdict, said, np.nan, 0.0, nowhere, nowhere, np.nan, passes=np.inf, **cost
        )
    ours, theirs, names = Moments.of(draws), reference.moments, labels(reference.sites)
    mean = Difference.worst(
        (ours.mean - theirs.mean) / theirs.sd, np.hypot(ours.mean_error, theirs.mean_error) / theirs.sd, names
    )
    sd = Difference.worst(ours.sd / theirs.sd - 1, np.hypot(ours.sd_error, theirs.sd_error) / theirs.sd, names)
    said = told(mcmc, caught)
    right = ours.r_hat < R_HAT and mean.tolerable and sd.tolerable
    settings = kernel.settings(state=mcmc.last_state)
    gradients_a_step = 2 if isinstance(settings.gradient, ControlVariate) else 1
    passes = num_chains * num_samples * settings.steps_per_sample * gradients_a_step / settings.batches
    return Outcome(
        posterior=posterior.name,
        seed=seed,
        verdict="right" if right else "told" if said else "silent",
        said=said,
        r_hat=ours.r_hat,
        ess=ours.ess,
        mean=mean,
        sd=sd,
        temperature=float(mcmc.get_extra_fields()["configurational_temperature"].mean()),
        passes=passes / ours.ess,
        **cost,
    )


HEADER = (
    f"{'':24}{'R-hat':>8}{'mean, sds':>17}{'sd, %':>15}{'T':>7}"
    f"{'compile':>9}{'CPU s':>8}{'ESS/s':>9}{'NUTS':>8}{'passes':>9}{'NUTS':>8}  verdicts"
)


def _shown(value, width, digits):
    return f"{value:{width}.{digits}f}" if np.isfinite(value) else f"{'-':>{width}}"


def row(outcomes: list[Outcome]) -> str:
    """A line of the table: the worst of the seeds, and the medians of the costs."""
    reference = references.load(POSTERIORS[outcomes[0].posterior])
    finished = [outcome for outcome in outcomes if np.isfinite(outcome.r_hat)]
    verdicts = [outcome.verdict for outcome in outcomes]
    counts = [f"{verdicts.count(kind)} {kind}" for kind in ("right", "told", "silent") if kind in verdicts]
    shown = verdicts[0] if len(outcomes) == 1 else ", ".join(counts)
    theirs = reference.moments.ess / reference.seconds if reference.seconds else np.nan
    seconds = float(np.median([outcome.seconds for outcome in outcomes]))
    compiling = float(np.median([outcome.compiling for outcome in outcomes]))
    speed = passes = temperature = np.nan
    errors = f"{'-':>8}{'-':>17}{'-':>15}"
    if finished:
        mean, sd = (
            max((getattr(outcome, part) for outcome in finished), key=lambda d: abs(d.value) - ERRORS * d.error)
            for part in ("mean", "sd")
        )
        r_hat = max(outcome.r_hat for outcome in finished)
        temperature = max((outcome.temperature for outcome in finished), key=lambda t: abs(t - 1))
        speed = np.median([outcome.ess / outcome.seconds for outcome in finished])
        passes = np.median([outcome.passes for outcome in finished])
        errors = (
            f"{r_hat:8.3f}{f'{mean.value:+.3f} ± {mean.error:.3f}':>17}"
            f"{f'{100 * sd.value:+.1f} ± {100 * sd.error:.1f}':>15}"
        )
    gradients = _shown(reference.gradients, 8, 1) + ("*" if POSTERIORS[outcomes[0].posterior].reference_model else " ")
    return (
        f"{outcomes[0].posterior:24}{errors}{_shown(temperature, 7, 2)}{_shown(compiling, 9, 1)}{_shown(seconds, 8, 1)}"
        f"{_shown(speed, 9, 0)}{_shown(theirs, 8, 0)}{_shown(passes, 9, 1)}{gradients} {shown}"
    )


def totals(outcomes: list[Outcome]) -> dict[str, int]:
    """How many runs were of each verdict, and how many of the right ones said something against themselves."""
    found = {kind: sum(outcome.verdict == kind for outcome in outcomes) for kind in ("right", "told", "silent")}
    return found | {"false alarms": sum(outcome.verdict == "right" and outcome.said != "" for outcome in outcomes)}


def make_references(chosen: list[Posterior], seed: int) -> None:
    """Make and store the references, one after the other."""
    for posterior in chosen:
        found = references.exact(posterior) if posterior.exact else references.by_nuts(posterior, seed)
        references.store({posterior.name: found})
        r_hat, ess = found.moments.r_hat, found.moments.ess
        print(
            f"{posterior.name:24} R-hat {r_hat:.3f}, ESS {ess:7.0f}, {found.seconds:5.0f} CPU s, "
            f"{found.gradients:6.1f} gradients an effective draw; {found.source}",
            flush=True,
        )


def _finite(value):
    """For JSON, which knows no NaN."""
    if isinstance(value, tuple):
        return {name: _finite(entry) for name, entry in value._asdict().items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_output(parser, "defaults")
    parser.add_argument("--quick", action="store_true", help="a dozen posteriors of a few seconds, one seed")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=POSTERIORS, help="these posteriors")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, help="how many, by default three")
    parser.add_argument("--references", action="store_true", help="make the references anew instead")
    arguments = parser.parse_args(argv)
    chosen = [POSTERIORS[name] for name in arguments.only or POSTERIORS]
    if arguments.quick and not arguments.only:
        chosen = [posterior for posterior in chosen if posterior.quick]
    if arguments.references:
        make_references(chosen, arguments.seed)
        return None
    seeds = range(arguments.seed, arguments.seed + (arguments.seeds or (1 if arguments.quick else 3)))
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.platform} {device.device_kind}; the worst of {len(seeds)} seed(s)")
    print(HEADER)
    outcomes: list[Outcome] = []
    for posterior in chosen:
        here = [run_one(posterior, seed) for seed in seeds]
        print(row(here), flush=True)
        outcomes += here
    for outcome in outcomes:
        if outcome.said:
            print(f"{outcome.posterior}, seed {outcome.seed}: {outcome.said[:200]}")
    counted = totals(outcomes)
    print(", ".join(f"{number} {kind}" for kind, number in counted.items()))
    numbers = {
        "jax": jax.__version__,
        "device": f"{device.platform} {device.device_kind}",
        "totals": counted,
        "outcomes": [_finite(outcome) for outcome in outcomes],
    }
    return write(numbers, arguments, "defaults")


if __name__ == "__main__":
    main()

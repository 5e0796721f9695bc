"""Is it stationary? Do the chains agree, has the run stopped drifting, and is it long enough to tell?

Rank-normalised split R-hat and bulk ESS (Vehtari et al. 2021), and the mean of the last half against that of the first.
R-hat of a short stationary run is above 1 by chance, by an amount that its autocorrelation time predicts: only what
exceeds that counts against the run.
"""

import sys

import arviz as az
import numpy as np
import xarray as xr
from scipy.stats import chi2, norm, t

from sgworld_numpyro.diagnostics import command
from sgworld_numpyro.diagnostics.monte_carlo import MIN_MEMORIES, autocorrelation_time, relaxation_time
from sgworld_numpyro.diagnostics.saved_run import as_run, some_coordinates
from sgworld_numpyro.diagnostics.tables import BLUE, ORANGE, columns, worst_first
from sgworld_numpyro.diagnostics.verdicts import Verdict

R_HAT, MIN_ESS = 1.01, 400  # both from Vehtari et al.
MIN_CHAINS = 4  # from which on the chains themselves say how much halves differ by chance
UNMIXED = 1.1  # R-hat from which nobody would call chains mixed (Gelman & Rubin 1992)
BLIND = 1.05  # chains so short that they reach this R-hat by chance show nothing
CHANCE = 1e-3  # of a verdict "no" on a stationary run, by each of the two tests
MAX_CHAINS_DRAWN, MAX_POINTS = 8, 1000


def examine(data, *, seed=0, quick=False) -> Verdict:
    """Answer the question, of anything that ``saved_run.as_run`` takes."""
    run = as_run(data)
    names, x, notes = some_coordinates(run)
    chains, draws, dim = x.shape
    half = draws // 2
    tau, sd = autocorrelation_time(x), x.std((0, 1))
    differences = x[:, -half:].mean(1) - x[:, :half].mean(1)
    if chains >= MIN_CHAINS:
        drift_error, beyond = differences.std(0, ddof=1) / np.sqrt(chains), t.isf(CHANCE / (2 * dim), chains - 1)
    else:
        drift_error, beyond = sd * np.sqrt(4 * tau / (chains * draws)), norm.isf(CHANCE / (2 * dim))
    drift = differences.mean(0) / drift_error
    long = half >= MIN_MEMORIES * tau  # shorter chains show neither their memory nor what R-hat is by chance
    halves = np.concatenate([x[:, :half], x[:, -half:]])
    # ArviZ wants two chains for R-hat; of one chain, its halves are compared
    compared = halves if chains == 1 and half >= 4 else x
    r_hat = _of_arviz(az.rhat, compared) if len(compared) > 1 else np.full(dim, np.nan)
    ess = _of_arviz(az.ess, x, method="bulk")
    between = 2 * chains - 1
    allowed = np.sqrt(1 + chi2.isf(CHANCE / (2 * dim), between) / between * tau / half)
    apart = long & (r_hat > np.maximum(R_HAT, allowed))
    drifting = (long | (chains >= MIN_CHAINS)) & (abs(drift) > beyond)
    enough = ess.min() >= MIN_ESS and long.all() and allowed.max() <= BLIND
    faults = []
    if drifting.any():
        worst = int(np.argmax(abs(drift)))
        faults.append(f"the mean of {names[worst]} drifts, by {drift[worst]:+.1f} standard errors between halves")
    if apart.any():
        worst = int(np.nanargmax(r_hat))
        faults.append(f"chains disagree beyond chance, R-hat {r_hat[worst]:.3f} of {names[worst]}")
    slowest = int(np.argmin(ess))
    size = f"R-hat {np.nanmax(r_hat):.3f} at most, bulk ESS {ess[slowest]:.0f} at least ({names[slowest]})"
    if faults:
        holds, sentence = False, f"not stationary: {'; '.join(faults)}"
    elif enough:
        holds, sentence = True, f"stationary as far as can be seen: {size}, no drift"
    else:
        # means of half chains vary by R-hat² − 1 within variances, which is τ / half
        memory = max(float(tau.max()) / half, np.nanmax(r_hat) ** 2 - 1)
        longer = max(MIN_ESS / ess.min(), (allowed.max() ** 2 - 1) / (BLIND**2 - 1), MIN_MEMORIES * memory)
        wanted = f"want an ESS of {MIN_ESS} and longer chains: run about {max(2, int(np.ceil(longer)))} times longer"
        if (abs(drift) > beyond).any():
            seen = "it drifts or relaxes as slowly as the run is long"
        elif np.nanmax(r_hat) > UNMIXED:
            seen = "the chains are too short to have seen all of the law"
        else:
            seen = "nothing speaks against it, but the run is short"
        holds, sentence = None, f"cannot tell: {seen}: {size}; {wanted}"
    numbers = {
        "coordinates": names,
        "mean": x.mean((0, 1)),
        "sd": sd,
        "r_hat": r_hat,
        "r_hat_by_chance": allowed,
        "ess_bulk": ess,
        "drift_in_standard_errors": drift,
        "autocorrelation_time": tau,
        "relaxation_time": relaxation_time(tau),
        "long_enough": long,
        "notes": notes,
    }
    return Verdict(holds, sentence, numbers)


def _of_arviz(measure, x, **options):
    data = xr.Dataset({"x": (("chain", "draw", "coordinate"), x)})
    return np.asarray(measure(data, **options)["x"].values, float)


def table(verdict):
    """The numbers of a verdict, lined up."""
    n = verdict.numbers
    badness = np.nan_to_num(n["r_hat"] / n["r_hat_by_chance"]) + abs(n["drift_in_standard_errors"]) / 100
    order, rest = worst_first(badness, n["coordinates"])
    header = ("coordinate", "mean", "sd", "R-hat", "by chance", "bulk ESS", "drift, s.e.", "relaxation, draws")
    rows = [
        (
            n["coordinates"][i],
            f"{n['mean'][i]:.4g}",
            f"{n['sd'][i]:.3g}",
            f"{n['r_hat'][i]:.3f}",
            f"< {n['r_hat_by_chance'][i]:.3f}",
            f"{n['ess_bulk'][i]:.0f}",
            f"{n['drift_in_standard_errors'][i]:+.1f}",
            f"{'' if n['long_enough'][i] else '> '}{n['relaxation_time'][i]:.3g}",
        )
        for i in order
    ]
    return columns(rows, header) + rest


def draw(data, verdict, path):
    """Traces and running means of the four coordinates that look worst."""
    from matplotlib.figure import Figure

    run, n = as_run(data), verdict.numbers
    order, _ = worst_first(np.nan_to_num(n["r_hat"]) + abs(n["drift_in_standard_errors"]) / 100, n["coordinates"])
    order = order[:4]
    chains = run.x.values[:MAX_CHAINS_DRAWN]
    every = max(1, chains.shape[1] // MAX_POINTS)
    draws = np.arange(1, chains.shape[1] + 1)
    figure = Figure(figsize=(10.4, 1.2 + 1.9 * len(order)), layout="constrained")
    panels = figure.subplots(len(order), 1, sharex=True, squeeze=False)[:, 0]
    for axes, i in zip(panels, order, strict=True):
        name = n["coordinates"][i]
        values = chains[..., run.names.index(name)]
        axes.plot(draws[::every], values[:, ::every].T, lw=0.5, color=BLUE, alpha=0.35)
        running = np.cumsum(values, axis=1) / draws
        axes.plot(draws[::every], running[:, ::every].T, lw=1.1, color=ORANGE)
        axes.axhline(n["mean"][i], color="k", lw=0.9, ls=(0, (4, 4)))
        axes.axvline(len(draws) / 2, color="0.35", lw=0.8, ls=":")
        axes.set_ylabel(name)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(f"R-hat {n['r_hat'][i]:.3f}, bulk ESS {n['ess_bulk'][i]:.0f}", fontsize=9, loc="right")
    panels[0].set_title(
        f"blue: traces of {len(chains)} chains; orange: their running means; dashed: mean of all",
        fontsize=9,
        loc="left",
    )
    panels[-1].set(xlabel="draw", xlim=(0, len(draws)))
    figure.align_ylabels()
    figure.savefig(path, dpi=150)


def main(argv=None):
    """Ask this question on the command line; the exit status."""
    return command.main(sys.modules[__name__], argv)


if __name__ == "__main__":
    sys.exit(main())

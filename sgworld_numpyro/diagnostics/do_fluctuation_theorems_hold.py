"""Do the fluctuation theorems hold? ⟨e^{−σ}⟩ = 1 and ln P(σ)/P(−σ) = σ for the entropy production σ of the draws."""

import sys

import numpy as np

from sgworld_numpyro.diagnostics import command
from sgworld_numpyro.diagnostics.monte_carlo import ROUGH, blocks_of
from sgworld_numpyro.diagnostics.production import production_of
from sgworld_numpyro.diagnostics.saved_run import as_run, few_coordinates
from sgworld_numpyro.diagnostics.tables import BLUE, GREEN, ORANGE, columns
from sgworld_numpyro.diagnostics.verdicts import Verdict
from sgworld_numpyro.nonequilibrium import fluctuation_theorems, held_out_sigma, labelled

LENGTHS = (1, 2, 3, 10, 100)
SIGNIFICANT = 0.01  # p-value of the entropy production below which there is something to test
BEYOND_CHANCE = 3.5  # standard errors; of ten numbers one gets there in 200 runs
RELEVANT = 0.01
LARGEST_ERROR = 0.25  # of a slope that is called tested


def examine(data, *, seed=0, quick=False) -> Verdict:
    """Answer the question, of anything that ``saved_run.as_run`` takes."""
    run = as_run(data)
    draws, notes = few_coordinates(run)
    blocks, independent = blocks_of(labelled.positions(draws).values)
    notes += [] if independent else [ROUGH]
    production = production_of(labelled.positions(draws).values, blocks, seed)
    found = fluctuation_theorems(production.sigma, LENGTHS)
    problems = [*production.assumptions.problems, *production.notes]
    rate, p_value = production.rate, production.p_value
    departures = [
        (name, length, value, error)
        for name in ("integral", "slope")
        for length, value, error in zip(LENGTHS, getattr(found, name), getattr(found, f"{name}_error"), strict=True)
        if np.isfinite(value) and abs(value - 1) > max(RELEVANT, BEYOND_CHANCE * error)
    ]
    slopes = np.flatnonzero(found.slope_error < LARGEST_ERROR)
    integrals = np.flatnonzero(np.isfinite(found.integral))
    if p_value > SIGNIFICANT:
        holds = None
        sentence = (
            f"σ ≈ 0: nothing to test, as the chain is in equilibrium within its errors (entropy production {rate:.1e} "
            f"nats a draw, p = {p_value:.2g})"
            if production.told
            else f"nothing to test: the chain is not linear, and its draws are too few to see more (p = {p_value:.2g})"
        )
    elif departures:
        name, length, value, error = departures[0]
        wanted = {"integral": "⟨e^{−σ}⟩", "slope": "slope"}[name]
        holds, sentence = (
            False,
            f"{_DESCRIBED[production.method]} fails: {wanted} is {value:.3g} ± {error:.1g} at length {length}",
        )
        notes += problems
    elif not len(slopes) or not len(integrals):
        holds = None
        sentence = "too few stretches with σ < 0 to test both theorems: run longer, or record more often"
        notes += problems
    else:
        holds = True
        sentence = "hold: " + " and ".join(
            f"{name} {values[at[0]]:.4f} ± {errors[at[0]]:.4f} ({_lengths(at)})"
            for name, values, errors, at in (
                ("slope", found.slope, found.slope_error, slopes),
                ("⟨e^{−σ}⟩", found.integral, found.integral_error, integrals),
            )
        )
    numbers = {
        "entropy_production": rate,
        "entropy_production_error": production.error,
        "entropy_production_p_value": p_value,
        "entropy_production_method": production.method,
        "entropy_production_order": production.order,
        "by_length": {
            str(length): {
                key: float(getattr(found, key)[n])
                for key in ("integral", "integral_error", "weight_ess", "slope", "slope_error")
            }
            for n, length in enumerate(LENGTHS)
        },
        "notes": notes,
    }
    return Verdict(holds, sentence, numbers)


_DESCRIBED = {"ar1": "the linear description", "currents": "the description by currents"}


def _lengths(places):
    lengths = ", ".join(str(LENGTHS[n]) for n in places)
    return f"length {lengths}" if len(places) == 1 else f"first of lengths {lengths}"


def _with_error(value, error):
    return f"{value:.4f} ± {error:.4f}" if np.isfinite(value) else "–"


def table(verdict):
    """The numbers of a verdict, lined up."""
    n = verdict.numbers
    rows = [
        (
            length,
            _with_error(entry["integral"], entry["integral_error"]),
            f"{entry['weight_ess']:.0f}" if np.isfinite(entry["weight_ess"]) else "–",
            _with_error(entry["slope"], entry["slope_error"]),
        )
        for length, entry in n["by_length"].items()
    ]
    return (
        columns(rows, ("draws in a stretch", "⟨e^{−σ}⟩", "stretches that carry it", "slope"))
        + f"\n\nEntropy production: {n['entropy_production']:.3e} ± {n['entropy_production_error']:.1e} nats a draw, "
        f"p = {n['entropy_production_p_value']:.3g}\n–: too few stretches, or events too rare for this run decide"
    )


def draw(data, verdict, path):
    """Ln P(σ)/P(−σ) against σ, and how σ is distributed."""
    from matplotlib.figure import Figure

    draws, _ = few_coordinates(as_run(data))
    n = verdict.numbers
    sigma = held_out_sigma(
        labelled.positions(draws).values, n["entropy_production_method"], order=n["entropy_production_order"]
    )
    found = fluctuation_theorems(sigma, LENGTHS)
    figure = Figure(figsize=(10.4, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    reach = 0.0
    styles = {1: (BLUE, "o"), 3: (ORANGE, "s"), 10: (GREEN, "D")}
    for length, histogram in zip(LENGTHS, found.histograms, strict=True):
        if length not in styles:
            continue
        color, marker = styles[length]
        label = f"{length} draw{'s' * (length > 1)}"
        seen = np.isfinite(histogram.log_ratio) & (histogram.log_ratio_error < 1)
        if seen.any():
            x, y, error = histogram.centres[seen], histogram.log_ratio[seen], histogram.log_ratio_error[seen]
            left.errorbar(x, y, error, fmt=marker, ms=4, lw=1, color=color, label=label)
            reach = max(reach, x.max())
        total, widths = histogram.counts.sum(), np.diff(histogram.edges)
        if total:
            with np.errstate(divide="ignore"):
                right.stairs(histogram.counts / total / widths, histogram.edges, color=color, lw=1.3, label=label)
    if reach:
        left.plot([0, reach], [0, reach], "k", lw=1.1, ls=(0, (4, 4)), label="slope 1")
        left.legend(frameon=False, loc="upper left", title="stretches of", alignment="left")
    else:
        left.text(0.5, 0.5, "too few reversals", transform=left.transAxes, ha="center")
    left.set(xlabel="σ, nats", ylabel="ln P(σ) / P(−σ)")
    left.set_title("detailed theorem: points on the line", fontsize=9, loc="left")
    right.axvline(0, color="0.35", lw=0.8, ls=":")
    right.set(xlabel="σ, nats", ylabel="probability density, per nat", yscale="log")
    right.legend(frameon=False, loc="upper right")
    right.set_title("entropy production, in the range where reversals are seen", fontsize=9, loc="left")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main(argv=None):
    """Ask this question on the command line; the exit status."""
    return command.main(sys.modules[__name__], argv)


if __name__ == "__main__":
    sys.exit(main())

"""Which landscape does it sample? That of the posterior, or the effective one that subsampling makes of it.

``posterior.attrs["landscape"]``, optional, is a JSON object {"loss_minimum", "landscape_minimum", "covariance"} of the
flat position, sites in alphabetical order. Without it the draws are compared with the Gaussian of "reference".
"""

import sys

import numpy as np
from scipy.stats import norm

from sgworld_numpyro.diagnostics import command
from sgworld_numpyro.diagnostics.monte_carlo import ROUGH, autocorrelation_time, blocks_of, noise_of, spread
from sgworld_numpyro.diagnostics.saved_run import as_run, reference_of, stored
from sgworld_numpyro.diagnostics.tables import BLUE, GREEN, ORANGE, columns
from sgworld_numpyro.diagnostics.verdicts import CannotTell, Verdict
from sgworld_numpyro.nonequilibrium.moments import jackknife, lagged_moments

WANTED = None  # the posterior's is a sampler's, the effective one what theory promises of SGD
BEYOND_CHANCE = 3  # standard errors
NEAR = 0.2  # of the distance between the minima: corrections of second order may move the mean as far
TOLERANCE = 0.1  # relative, of the variance along an axis
MAX_AXES, BINS, MIN_COUNT = 3, 24, 10
WHAT_TO_STORE = (
    'the run stores neither posterior.attrs["landscape"], the JSON of {"loss_minimum", "landscape_minimum", '
    '"covariance"} of the flat position, nor "reference", that of {"source", "mean", "covariance"}'
)


def examine(data, *, seed=0, quick=False) -> Verdict:
    """Answer the question, of anything that ``saved_run.as_run`` takes."""
    run = as_run(data)
    landscape = stored(run, "landscape", ("loss_minimum", "landscape_minimum", "covariance"))
    expected = _expected(run)
    found = spread(run.x.values, expected)
    values, axes = _principal_axes(expected["covariance"])
    ratio, ratio_error = _variances(run.x.values, axes, values)
    # the widest axes of a sampled covariance are too wide and the stiffest too stiff, by about this much
    ratio_error = np.hypot(ratio_error, np.sqrt(noise_of(expected)))
    numbers = {
        "coordinates": run.names,
        "compared_with": expected["source"],
        "axis_sd": np.sqrt(values),
        "axis_variance_ratio": ratio,
        "axis_variance_ratio_error": ratio_error,
        "mean_difference": found.mean_difference,
        "mean_error": found.mean_error,
        "notes": [*run.notes, *([] if found.blocks.independent else [ROUGH])],
    }
    off = np.abs(ratio - 1) - BEYOND_CHANCE * ratio_error > TOLERANCE
    widths = (
        f"variances along {int(off.sum())} of {len(off)} axes differ from the quadratic's"
        if off.any()
        else f"-ln p follows the quadratic along the {'axis' if len(off) == 1 else f'{len(off)} axes'}"
    )
    if landscape is None:
        if not found.blocks.independent:
            return Verdict(None, f"cannot tell: the chains are too short for errors; {widths}", numbers)
        shift = np.abs(found.mean_difference) - BEYOND_CHANCE * found.mean_error
        shifted, worst = shift.max() > TOLERANCE, int(np.argmax(shift))
        precise = (BEYOND_CHANCE * ratio_error <= 3 * TOLERANCE).all()
        where = (
            f"the mean of {run.names[worst]} is {found.mean_difference[worst]:+.2f} ± {found.mean_error[worst]:.2f} "
            "posterior sds away"
        )
        if shifted or off.any():
            faults = [where] * bool(shifted) + [widths] * bool(off.any())
            return Verdict(False, f"not that of the reference ({expected['source']}): {'; '.join(faults)}", numbers)
        if not precise:
            largest = f"errors of up to {100 * ratio_error.max():.0f} % of the variance along an axis"
            return Verdict(None, f"cannot tell: nothing beyond the errors, but {largest} remain", numbers)
        sentence = f"that of the reference ({expected['source']}): {widths}, and the mean is at its centre"
        return Verdict(True, sentence, numbers)

    place = _between(run.x.values, landscape)
    numbers |= place
    at, error = place["position_between_minima"], place["position_between_minima_error"]
    said = (
        f"the mean is at {at:.3g} ± {error:.1g} of the way from the minimum of U (0) to that of the effective "
        f"landscape (1), {place['distance_to_loss_minimum']:.1f} and {place['distance_to_landscape_minimum']:.1f} "
        "standard errors from them"
    )
    if not found.blocks.independent:
        holds, sentence = None, f"cannot tell, as the chains are too short for errors: {said}"
    elif not error < 1 / (2 * BEYOND_CHANCE):
        holds, sentence = None, f"cannot tell the two minima apart: {said}"
    elif abs(at - 1) <= max(NEAR, BEYOND_CHANCE * error):
        holds, sentence = True, f"the effective one: {said}; {widths}"
    elif abs(at) <= max(NEAR, BEYOND_CHANCE * error):
        holds, sentence = False, f"that of U: {said}; {widths}"
    else:
        holds, sentence = None, f"neither: {said}; {widths}"
    return Verdict(holds, sentence, numbers)


def _expected(run):
    """Centre and covariance of the quadratic that −ln p is compared with."""
    landscape = stored(run, "landscape", ("loss_minimum", "landscape_minimum", "covariance"))
    if landscape is not None:
        source = "effective landscape"
        return {"source": source, "mean": landscape["landscape_minimum"], "covariance": landscape["covariance"]}
    reference = reference_of(run)
    if reference is None:
        raise CannotTell(f"{WHAT_TO_STORE}; put either there before to_netcdf")
    return {"source": "reference"} | reference


def _principal_axes(covariance):
    """Variances and directions, in rows, of the quadratic; the widest first, in units of the coordinates."""
    values, vectors = np.linalg.eigh(covariance)
    return values[::-1], vectors.T[::-1]


def _variances(x, axes, values):
    """Variance of the draws along each axis, relative to the quadratic's, with its error."""

    def ratios(runs):
        count = runs.length[:, None]
        return (runs.s00.diagonal(axis1=1, axis2=2) / count - (runs.first / count) ** 2) / values

    found = jackknife(ratios, lagged_moments(x @ axes.T, blocks_of(x).count))
    return found.value - found.bias, found.error


def _between(x, landscape):
    """Where the mean lies along the line between the minima, and how far from each in standard errors."""
    loss, effective = landscape["loss_minimum"], landscape["landscape_minimum"]
    line = np.linalg.solve(landscape["covariance"], effective - loss)
    length = float(line @ (effective - loss))
    if not length > 0:
        raise CannotTell("the two minima that the run stores are the same")
    along = ((x - loss) @ line / length)[..., None]

    def position(runs):
        return runs.origin + runs.first / runs.length[:, None]

    found = jackknife(position, lagged_moments(along, blocks_of(x).count))
    at, error = float(found.value[0]), float(found.error[0])
    return {
        "position_between_minima": at,
        "position_between_minima_error": error,
        "distance_between_minima_in_sds": float(np.sqrt(length)),
        "distance_to_loss_minimum": abs(at) / error,
        "distance_to_landscape_minimum": abs(at - 1) / error,
    }


def table(verdict):
    """The numbers of a verdict, lined up."""
    n = verdict.numbers
    shown = range(min(12, len(n["axis_sd"])))
    rows = [
        (
            f"{i + 1}",
            f"{n['axis_sd'][i]:.3g}",
            f"{n['axis_variance_ratio'][i]:.3f} ± {n['axis_variance_ratio_error'][i]:.3f}",
        )
        for i in shown
    ]
    lines = columns(rows, ("axis, widest first", f"sd ({n['compared_with']})", "variance of the draws, relative"))
    if "position_between_minima" in n:
        lines += (
            f"\n\nDistance between the minima: {n['distance_between_minima_in_sds']:.3g} sds of the landscape"
            f"\nPosition of the mean between the minima (0: of U, 1: effective): {n['position_between_minima']:.4f} ± "
            f"{n['position_between_minima_error']:.4f}"
        )
    return lines


def draw(data, verdict, path):
    """−ln p of the draws along the widest axes and the stiffest one, against the quadratic."""
    from matplotlib.figure import Figure

    run = as_run(data)
    expected = _expected(run)
    landscape = stored(run, "landscape", ("loss_minimum", "landscape_minimum", "covariance"))
    values, axes = _principal_axes(expected["covariance"])
    sd, dim = np.sqrt(values), len(values)
    chosen = list(range(dim)) if dim <= MAX_AXES else [*range(MAX_AXES - 1), dim - 1]
    along = (run.x.values - expected["mean"]) @ axes.T / sd
    tau, flat = autocorrelation_time(along), along.reshape(-1, dim)
    figure = Figure(figsize=(max(5.2, 3.5 * len(chosen)), 4.6), layout="constrained")
    panels = figure.subplots(1, len(chosen), sharey=True, squeeze=False)[0]
    for panel, k in zip(panels, chosen, strict=True):
        u = flat[:, k]
        reach = max(3.2, np.abs(np.quantile(u, (0.001, 0.999))).max())
        counts, edges = np.histogram(u, BINS, (-reach, reach))
        enough = counts >= MIN_COUNT
        centres, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
        height = -np.log(counts[enough] / len(u) / width) - np.log(2 * np.pi) / 2
        error = np.sqrt(np.maximum(tau[k], 1) / counts[enough])
        panel.errorbar(centres[enough], height, error, fmt="o", ms=4, lw=1, color=BLUE, label="draws")
        grid = np.linspace(-reach, reach, 200)
        curve = -norm.logpdf(grid) - np.log(2 * np.pi) / 2
        panel.plot(grid, curve, "k", lw=1.1, ls=(0, (4, 4)), label=f"quadratic ({expected['source']})")
        if landscape is not None:
            loss = (landscape["loss_minimum"] - expected["mean"]) @ axes[k] / sd[k]
            panel.axvline(loss, color=ORANGE, lw=3, alpha=0.6, label="minimum of U")  # seen under the other
            panel.axvline(0, color=GREEN, lw=1.2, label="effective minimum")
        panel.set(xlabel=f"axis {k + 1} of {dim}, in its sds ({sd[k]:.2g})", ylim=(-0.7, 6))
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("−ln p, from the quadratic's minimum, nats")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside upper center", ncols=4 if len(chosen) > 2 else 2)
    figure.savefig(path, dpi=150)


def main(argv=None):
    """Ask this question on the command line; the exit status."""
    return command.main(sys.modules[__name__], argv)


if __name__ == "__main__":
    sys.exit(main())

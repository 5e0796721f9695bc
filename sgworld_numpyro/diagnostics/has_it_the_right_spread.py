"""Has it the right spread? Draws against the reference that the run stores, or its temperature alone.

``posterior.attrs["reference"]`` is a JSON object {"source", "mean", "covariance"} of the flat position, sites in
alphabetical order. A reference that was itself sampled may add "mean_error" and "sd_error", or its "ess".

Temperatures come from ``mcmc.run(..., extra_fields=("configurational_temperature", "fluctuation_dissipation",
"kinetic_temperature"))``. The configurational one, E[(θ - θ̂)·∇U]/d, is T for draws of the posterior at temperature T.
On a Gaussian one its excess is that of the variance, averaged over all directions with equal weights.
"""

import sys

import numpy as np
from scipy.stats import norm

from sgworld_numpyro.diagnostics import command
from sgworld_numpyro.diagnostics.monte_carlo import ROUGH, spread
from sgworld_numpyro.diagnostics.saved_run import as_run, reference_of
from sgworld_numpyro.diagnostics.tables import BLUE, columns, with_error, worst_first
from sgworld_numpyro.diagnostics.temperatures import (
    CHANCE,
    CONFIGURATIONAL,
    TOLERANCE,
    by_temperature,
    draw_temperatures,
    temperature_table,
    temperatures_of,
)
from sgworld_numpyro.diagnostics.verdicts import CannotTell, Verdict

MAX_PANELS, MAX_POINTS = 9, 2000


def examine(data, *, seed=0, quick=False) -> Verdict:
    """Answer the question, of anything that ``saved_run.as_run`` takes."""
    run = as_run(data)
    notes = list(run.notes)
    reference, temperatures = reference_of(run), temperatures_of(run, notes)
    if reference is not None:
        return _against(reference, run, temperatures, notes)
    if CONFIGURATIONAL in temperatures:
        return by_temperature(run, temperatures, notes)
    raise CannotTell(
        'the run stores nothing to compare with; put {"source", "mean", "covariance"} of the flat position as JSON '
        'into posterior.attrs["reference"] before to_netcdf, or record its temperature with '
        f'extra_fields=("{CONFIGURATIONAL}",) of ten steps or more'
    )


def _against(reference, run, temperatures, notes) -> Verdict:
    names = run.names
    found = spread(run.x.values, reference)
    if not found.blocks.independent:
        notes.append(ROUGH)
    if "sd_error" not in reference and reference.get("source") != "exact":
        notes.append("The reference does not store errors of its own; they are taken to be 0.")
    size = abs(found.mean_difference)
    beyond = norm.isf(CHANCE / (2 * len(size)))
    shifted = size - beyond * found.mean_error > TOLERANCE
    centred = (size + 2 * found.mean_error <= TOLERANCE).all()
    error, uncertainty = found.squared_covariance_error.root()
    wrong = error is not None and error - 2 * uncertainty > TOLERANCE
    right = uncertainty <= TOLERANCE if error is None else error + 2 * uncertainty <= TOLERANCE
    measured = f"{with_error(100 * error, 100 * uncertainty)} %" if error else f"below {100 * uncertainty:.2g} %"
    faults = []
    if shifted.any():
        worst = int(np.argmax(size - beyond * found.mean_error))
        by = f"{found.mean_difference[worst]:+.2f} ± {found.mean_error[worst]:.2f} posterior sds"
        faults.append(f"shifted: the mean of {names[worst]} by {by}")
    if wrong:
        faults.append(f"{_shape(found.width)}: relative covariance error {measured}")
    if not found.blocks.independent:
        holds, sentence = (
            None,
            f"cannot tell: the chains are too short for errors; {'; '.join(faults) or 'no fault seen'}",
        )
    elif faults:
        holds, sentence = False, "; ".join(faults)
    elif right and centred:
        holds, sentence = True, f"right: means within {size.max():.2f} sd, relative covariance error {measured}"
    else:
        largest = (size + 2 * found.mean_error).max()
        holds, sentence = (
            None,
            f"cannot tell: within the errors nothing is wrong, but the mean may be off by {largest:.2g} sd and the "
            f"relative covariance error is {measured}; the tolerance is {TOLERANCE:g} for both",
        )
    if CONFIGURATIONAL in temperatures:
        own = temperatures[CONFIGURATIONAL]
        sentence += f"; configurational temperature {with_error(own['value'], own['error'])}, want {own['wanted']:g}"
    numbers = {
        "coordinates": names,
        "source": reference.get("source", "unknown"),
        "temperatures": temperatures,
        "tolerance": TOLERANCE,
        **{key: value._asdict() if hasattr(value, "_asdict") else value for key, value in found._asdict().items()},
        "relative_covariance_error": error,
        "relative_covariance_error_limit": uncertainty if error is None else error + 2 * uncertainty,
        "notes": notes,
    }
    return Verdict(holds, sentence, numbers)


def _shape(width):
    if abs(width.value) <= 2 * width.error:
        return "of the wrong shape, neither too wide nor too narrow on the whole"
    return f"too {'wide' if width.value > 0 else 'narrow'}, variances by {100 * width.value:+.2g} % on average"


def table(verdict):
    """The numbers of a verdict, lined up."""
    n = verdict.numbers
    parts = [_distances(n)] if "variance_ratio" in n else []
    if n["temperatures"]:
        parts.append(temperature_table(n["temperatures"]))
    return "\n\n".join(parts)


def _distances(n):
    badness = abs(n["mean_difference"]) + abs(n["variance_ratio"] - 1)
    order, rest = worst_first(badness, n["coordinates"])
    rows = [
        (
            n["coordinates"][i],
            f"{n['mean_difference'][i]:+.3f} ± {n['mean_error'][i]:.3f}",
            f"{n['variance_ratio'][i]:.3f} ± {n['variance_ratio_error'][i]:.3f}",
        )
        for i in order
    ]
    return (
        columns(rows, ("coordinate", f"mean - {n['source']}, sds", "variance ratio"))
        + rest
        + f"\n\nVariance excess, mean of all directions: {100 * n['width']['value']:+.2f} ± "
        f"{100 * n['width']['error']:.2f} %"
        + f"\nRelative covariance error, squared:      {n['squared_covariance_error']['value']:.2e} ± "
        f"{n['squared_covariance_error']['error']:.1e}"
        + f"\nKL(draws || reference), as Gaussians:    {n['kl']['value']:.2e} ± {n['kl']['error']:.1e} nats"
        + f"\nErrors and the noise's bias: jackknife over {n['blocks']['count']} blocks of time."
    )


def draw(data, verdict, path):
    """Two coordinates: draws with 1- and 2-σ contours. Otherwise: marginal densities of those that differ most.

    Without a reference: the temperatures.
    """
    from matplotlib.figure import Figure

    run, n = as_run(data), verdict.numbers
    reference = reference_of(run)
    if reference is None:
        return draw_temperatures(n, path)
    mean, covariance = reference["mean"], reference["covariance"]
    flat = run.x.values.reshape(-1, len(mean))
    label = f"reference ({n['source']})"
    if len(mean) == 2:
        figure = Figure(figsize=(6.2, 5.6), layout="constrained")
        axes = figure.subplots()
        sd = np.sqrt(np.diag(covariance))
        some = flat[:: max(1, len(flat) // MAX_POINTS)]
        axes.plot(*some.T, ".", ms=3, mew=0, alpha=0.35, color=BLUE, zorder=0)
        _contours(axes, flat.mean(0), np.cov(flat.T), color=BLUE, lw=2.2, label="draws")
        _contours(axes, mean, covariance, color="k", lw=1.2, ls=(0, (4, 4)), label=label)
        reach = 3.6 * np.maximum(sd, flat.std(0))
        axes.set(xlim=(mean[0] - reach[0], mean[0] + reach[0]), ylim=(mean[1] - reach[1], mean[1] + reach[1]))
        if 1 / 3 < sd[0] / sd[1] < 3:
            reach = reach.max()
            axes.set(xlim=(mean[0] - reach, mean[0] + reach), ylim=(mean[1] - reach, mean[1] + reach), aspect="equal")
        axes.locator_params(nbins=5)
        axes.set(xlabel=run.names[0], ylabel=run.names[1])
        axes.legend(frameon=False, loc="upper left", ncols=2)
        axes.set_title("draws, with 1- and 2-σ contours", fontsize=9, loc="left")
    else:
        order, _ = worst_first(abs(n["mean_difference"]) + abs(n["variance_ratio"] - 1), n["coordinates"])
        order = order[:MAX_PANELS]
        wide = min(3, len(order))
        high = -(-len(order) // wide)
        figure = Figure(figsize=(max(5.2, 3.4 * wide), 0.7 + 2.5 * high), layout="constrained")
        panels = figure.subplots(high, wide, squeeze=False).ravel()
        for axes, i in zip(panels, order, strict=False):
            sd = np.sqrt(covariance[i, i])
            grid = np.linspace(mean[i] - 4 * sd, mean[i] + 4 * sd, 200)
            values = np.clip(flat[:, i], grid[0], grid[-1])
            axes.hist(values, 40, density=True, color=BLUE, alpha=0.55, lw=0, label="draws")
            axes.plot(grid, norm.pdf(grid, mean[i], sd), "k", lw=1.2, ls=(0, (4, 4)), label=label)
            axes.set(yticks=[], xlabel=run.names[i], xlim=(grid[0], grid[-1]))
            axes.locator_params(axis="x", nbins=5)
            axes.spines[["top", "right", "left"]].set_visible(False)
        for axes in panels[len(order) :]:
            axes.set_visible(False)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, loc="outside upper right", ncols=2)
        if len(order) < len(mean):
            panels[0].set_title(f"{len(order)} of {len(mean)} coordinates, worst first", fontsize=9, loc="left")
    figure.savefig(path, dpi=150)


def _contours(axes, mean, covariance, label, **style):
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = np.linalg.cholesky(covariance) @ [np.cos(angle), np.sin(angle)]
    for size in (1, 2):
        axes.plot(*(mean[:, None] + size * circle), label=label if size == 1 else None, **style)


def main(argv=None):
    """Ask this question on the command line; the exit status."""
    return command.main(sys.modules[__name__], argv)


if __name__ == "__main__":
    sys.exit(main())

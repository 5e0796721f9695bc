"""What did it cost? Gradients, passes over the data, and effective draws for them."""

import sys

import arviz as az
import numpy as np
import xarray as xr

from sgworld_numpyro.diagnostics import command
from sgworld_numpyro.diagnostics.saved_run import as_run, some_coordinates
from sgworld_numpyro.diagnostics.tables import BLUE, columns, worst_first
from sgworld_numpyro.diagnostics.verdicts import Verdict

MAX_BARS = 31


def examine(data, *, seed=0, quick=False) -> Verdict:
    """Answer the question, of anything that ``saved_run.as_run`` takes."""
    run = as_run(data)
    names, x, notes = some_coordinates(run)
    draws = x.shape[0] * x.shape[1]
    data = xr.Dataset({"x": (("chain", "draw", "coordinate"), x)})
    ess = np.asarray(az.ess(data, method="bulk")["x"].values, float)
    gradients, passes, kind = _gradients(run, draws, notes)
    seconds = run.attrs.get("sampling_seconds")
    seconds = None if seconds is None else float(seconds)
    slowest = int(np.argmin(ess))
    least = float(ess[slowest])
    numbers = {
        "coordinates": names,
        "draws": draws,
        "gradients": gradients,
        "kind_of_gradient": kind,
        "passes": passes,
        "seconds": seconds,
        "ess_bulk": ess,
        "least_ess": least,
        "least_ess_per_1000_gradients": 1000 * least / gradients if gradients else None,
        "least_ess_per_pass": least / passes if passes else None,
        "least_ess_per_second": least / seconds if seconds else None,
        "notes": notes,
    }
    parts = [f"{least:.0f} effective draws of the slowest coordinate, {names[slowest]}"]
    if gradients:
        parts.append(f"{1000 * least / gradients:.3g} a thousand {kind} gradients")
    if passes:
        parts.append(f"{least / passes:.3g} a pass over the data")
    if seconds:
        parts.append(f"{least / seconds:.3g} a second")
    if not gradients:
        parts.append("of how many gradients the run does not say")
    return Verdict(None, ", ".join(parts), numbers)


def _gradients(run, draws, notes):
    """Gradients and passes over the data, None where the run does not tell, and what a gradient is."""
    attrs, steps_taken = run.attrs, next((run.stats[n] for n in ("n_steps", "num_steps") if n in run.stats), None)
    if steps_taken is not None:
        notes.append("Gradients are of all rows, one a leapfrog step; warm-up is not in the file and not counted.")
        gradients = int(steps_taken.sum())
        return gradients, float(gradients), "full"
    if "steps_per_sample" not in attrs:
        notes.append(
            "To count gradients, posterior.attrs wants steps_per_sample, batch_size and num_rows, as save_run stores; "
            'a run of NUTS, extra_fields=("num_steps",).'
        )
        return None, None, ""
    chains = run.x.sizes["chain"]
    places = run.x["draw"].values
    apart = int(np.gcd.reduce(np.diff(places).astype(int))) if len(places) > 1 else 1  # of thinned draws
    a_sample = int(attrs["steps_per_sample"])
    if attrs.get("gradient") == "control_variate":
        a_sample *= 2
        notes.append("A step takes two gradients, one of them at the anchor.")
    per_draw = a_sample * int(attrs.get("thinning", 1)) * max(apart, 1)
    warm_up = int(attrs.get("num_warmup", 0)) * a_sample * chains
    if warm_up:
        notes.append(f"Warm-up is counted: {warm_up} of the gradients.")
    else:
        notes.append("Warm-up is not counted, as posterior.attrs has no num_warmup.")
    gradients = draws * per_draw + warm_up
    if {"batch_size", "num_rows"} <= attrs.keys():
        return gradients, gradients * float(attrs["batch_size"]) / float(attrs["num_rows"]), "minibatch"
    return gradients, None, "minibatch"


def table(verdict):
    """The numbers of a verdict, lined up."""
    n = verdict.numbers
    order, rest = worst_first(-n["ess_bulk"], n["coordinates"])
    thousands = n["gradients"] and n["gradients"] / 1000
    per = [("per 1000 gradients", thousands), ("per pass", n["passes"]), ("per second", n["seconds"])]
    per = [(name, size) for name, size in per if size]
    header = ("coordinate", "bulk ESS", *(name for name, _ in per))
    rows = [
        (n["coordinates"][i], f"{n['ess_bulk'][i]:.0f}", *(f"{n['ess_bulk'][i] / size:.3g}" for _, size in per))
        for i in order
    ]
    total = [f"{n['draws']} draws"]
    total += [f"{n['gradients']} {n['kind_of_gradient']} gradients"] if n["gradients"] else []
    total += [f"{n['passes']:.4g} passes over the data"] if n["passes"] else []
    total += [f"{n['seconds']:.3g} seconds"] if n["seconds"] else []
    return f"{', '.join(total)}\n\n{columns(rows, header)}{rest}"


def draw(data, verdict, path):
    """Effective draws a coordinate, the fewest first."""
    from matplotlib.figure import Figure

    n = verdict.numbers
    order = np.argsort(n["ess_bulk"], kind="stable")[:MAX_BARS]
    size = n["gradients"] / 1000 if n["gradients"] else 1
    figure = Figure(figsize=(7.2, 1.6 + 0.24 * max(4, len(order))), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(order))[::-1]
    axes.barh(rows, n["ess_bulk"][order] / size, height=min(0.7, 0.15 * len(order) + 0.2), color=BLUE)
    axes.set(yticks=rows, yticklabels=[n["coordinates"][i] for i in order])
    axes.set_ylim(-0.8, len(order) - 0.2)
    unit = f"a thousand {n['kind_of_gradient']} gradients" if n["gradients"] else "in all"
    axes.set_xlabel(f"effective draws (bulk ESS) {unit}")
    if n["passes"]:
        factor = n["passes"] / size
        other = axes.secondary_xaxis("top", functions=(lambda v: v / factor, lambda v: v * factor))
        other.set_xlabel("effective draws a pass over the data")
    axes.tick_params(axis="y", length=0)
    axes.spines[["right", "left"]].set_visible(False)
    if len(order) < len(n["coordinates"]):
        axes.set_ylabel(f"the {len(order)} slowest of {len(n['coordinates'])} coordinates")
    figure.savefig(path, dpi=150)


def main(argv=None):
    """Ask this question on the command line; the exit status."""
    return command.main(sys.modules[__name__], argv)


if __name__ == "__main__":
    sys.exit(main())

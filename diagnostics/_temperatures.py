"""Temperatures of a run that its samples recorded, and what they say of its spread without a reference."""

import numpy as np
from scipy.stats import norm

from diagnostics._common import BLUE, MIN_DRAWS, CannotTell, Verdict, columns, with_error
from diagnostics._estimates import ROUGH, Estimate, mean_of
from sgworld_numpyro import integrators, subsampling
from sgworld_numpyro.integrators import EulerMaruyama
from sgworld_numpyro.subsampling import IndependentBatches, WithReplacement

# In posterior sds for the mean, relative for variances: what hardly anyone would notice.
TOLERANCE = 0.1
CHANCE = 0.01
CONFIGURATIONAL, DISSIPATION = "configurational_temperature", "fluctuation_dissipation"


def temperatures_of(run, notes) -> dict[str, dict]:
    """Those that the run recorded, by name: their mean, its error, and what it is to be."""
    target = float(run.attrs.get("temperature", 1.0))
    wanted = {CONFIGURATIONAL: target, DISSIPATION: 0.0, "kinetic_temperature": target}
    found = {}
    for name in (name for name in wanted if name in run.stats):
        values = run.stats[name].transpose("chain", "draw").values.astype(float)
        values = values[:, np.isfinite(values).all(0)]
        if values.shape[1] < MIN_DRAWS:
            notes.append(f"Not measured, as its values are NaN: {name}.")
            continue
        mean, independent = mean_of(values)
        found[name] = {"value": mean.value, "error": mean.error, "wanted": wanted[name], "independent": independent}
    if DISSIPATION in found:
        notes.append(_meaning_of_dissipation(run))
    if "kinetic_temperature" in found:
        notes.append(
            "The kinetic temperature is the velocity's, which minibatches heat more than they widen the posterior."
        )
    return found


def _meaning_of_dissipation(run):
    independent, euler_maruyama = _relation_of(run)
    if not independent:
        return "Fluctuation-dissipation: the excess that independent batches would cause at this step size."
    if euler_maruyama:
        return "Fluctuation-dissipation: the excess of the configurational temperature, from minibatch gradients alone."
    return (
        "Fluctuation-dissipation: an upper bound of the excess of the configurational temperature; it has "
        "Euler-Maruyama's own error in it, which this integrator avoids."
    )


def _relation_of(run):
    """Whether the run's minibatches are independent of each other, and whether its integrator is Euler-Maruyama."""
    scheme = subsampling.named(str(run.attrs.get("scheme")))
    independent = scheme in (WithReplacement, IndependentBatches)
    return independent, integrators.named(str(run.attrs.get("integrator"))) is EulerMaruyama


def by_temperature(run, temperatures, notes) -> Verdict:
    """What the temperatures say without a reference."""
    found, source = temperatures[CONFIGURATIONAL], "configurational temperature"
    target, independent = found["wanted"], found["independent"]
    numbers = {
        "coordinates": run.names,
        "temperature": target,
        "temperatures": temperatures,
        "tolerance": TOLERANCE,
        "notes": notes,
    }
    if not target > 0:
        raise CannotTell("at temperature 0 there is no posterior whose spread it should have")
    excess = Estimate((found["value"] - target) / target, found["error"] / target)
    if all(_relation_of(run)) and DISSIPATION in temperatures and temperatures[DISSIPATION]["error"] < found["error"]:
        other = temperatures[DISSIPATION]
        excess, independent = Estimate(other["value"] / target, other["error"] / target), other["independent"]
        source = "fluctuation-dissipation relation"
    numbers |= {"excess": excess._asdict(), "excess_from": source}
    notes.append(
        "A temperature weighs all directions alike: it does not see a mean that is off, nor directions whose errors "
        f"cancel, and shows one direction's by 1/{len(run.names)} only. For all of that, store a reference."
    )
    beyond = norm.isf(CHANCE / 2)
    size = with_error(100 * excess.value, 100 * excess.error)
    said = f"variances off by {size} % on average over directions ({source})"
    if not independent:
        notes.append(ROUGH)
        return Verdict(None, f"cannot tell: the chains are too short for errors; {said}", numbers)
    if abs(excess.value) - beyond * excess.error > TOLERANCE:
        return Verdict(False, f"too {'wide' if excess.value > 0 else 'narrow'}: {said}", numbers)
    if abs(excess.value) + 2 * excess.error <= TOLERANCE:
        return Verdict(True, f"right on average: {said}; no reference to tell one direction from another", numbers)
    return Verdict(None, f"cannot tell: {said}; the tolerance is {100 * TOLERANCE:g} %", numbers)


def temperature_table(temperatures) -> str:
    rows = [
        (name.replace("_", " "), with_error(of["value"], of["error"]), f"{of['wanted']:g}")
        for name, of in temperatures.items()
    ]
    return columns(rows, ("from minibatch gradients or velocities", "mean", "wanted"))


def draw_temperatures(n, path):
    """Relative excess of each temperature, with two errors, and the tolerance."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.6, 1.7 + 0.45 * len(n["temperatures"])), layout="constrained")
    axes = figure.subplots()
    target = n["temperature"]
    axes.axvspan(-100 * TOLERANCE, 100 * TOLERANCE, color="0.93", lw=0, label=f"within {100 * TOLERANCE:g} %")
    axes.axvline(0, color="k", lw=1, ls=(0, (4, 4)))
    rows = np.arange(len(n["temperatures"]))[::-1]
    for row, of in zip(rows, n["temperatures"].values(), strict=True):
        excess, error = 100 * (of["value"] - of["wanted"]) / target, 100 * of["error"] / target
        label = "this run, ± 2 errors" if row == rows[0] else None
        axes.errorbar(excess, row, xerr=2 * error, fmt="o", ms=6, capsize=3, color=BLUE, label=label)
    axes.set(
        yticks=rows, yticklabels=[name.replace("_", " ") for name in n["temperatures"]], ylim=(-0.6, rows[0] + 0.6)
    )
    axes.set_xlabel("excess over what is wanted, % of the temperature T")
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(frameon=False, loc="outside upper right", ncols=2)
    figure.savefig(path, dpi=150)

"""Does probability circulate? Areas that the chain sweeps out, its entropy production, and a map of the current."""

import sys
from typing import Any

import numpy as np

from sgworld_numpyro.diagnostics import command
from sgworld_numpyro.diagnostics.monte_carlo import ROUGH, blocks_of
from sgworld_numpyro.diagnostics.production import production_of
from sgworld_numpyro.diagnostics.saved_run import as_run, few_coordinates
from sgworld_numpyro.diagnostics.tables import BLUE, GREY, ORANGE, columns, with_error
from sgworld_numpyro.diagnostics.verdicts import Verdict
from sgworld_numpyro.nonequilibrium import labelled

WANTED = None  # a driven state is a fault of a sampler, and what is looked for in SGD
SIGNIFICANT = 0.01  # smaller p-value of the two tests, doubled; circulation's 199 surrogates reach 0.005
SHOWN_PLANES = 8
BINS = 9


def examine(data, *, seed=0, quick=False) -> Verdict:
    """Answer the question, of anything that ``saved_run.as_run`` takes."""
    run = as_run(data)
    draws, notes = few_coordinates(run)
    blocks, independent = blocks_of(labelled.positions(draws).values)
    notes += [] if independent else [ROUGH]
    circulation = labelled.circulation(draws, blocks=blocks, seed=seed, surrogates=199 if quick else 999)
    production = production_of(labelled.positions(draws).values, blocks, seed)
    assumptions = production.assumptions
    notes += [f"Of the linear description: {problem}" for problem in assumptions.problems] + production.notes
    names = [str(name) for name in draws.data_vars]
    areas, error, null = (circulation[key].values for key in ("matrix", "error", "null_error"))
    first, second = np.triu_indices(len(names), 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        prominence = np.nan_to_num(np.abs(areas) / null)[first, second]
    sd = np.array([float(draws[name].std()) for name in names])
    unit = np.outer(sd, sd)
    order = np.argsort(-prominence, kind="stable")
    planes: list[dict[str, Any]] = [
        {
            "plane": [names[first[i]], names[second[i]]],
            "area": float(areas[first[i], second[i]]),
            "area_in_sds": float((areas / unit)[first[i], second[i]]),
            "area_in_sds_error": float((error / unit)[first[i], second[i]]),
            "z": float(areas[first[i], second[i]] / null[first[i], second[i]]),
        }
        for i in order
    ]
    p_value, also = float(circulation["p_value"]), production.p_value
    produced = f"entropy production {with_error(production.rate, production.error)} nats a draw, p = {also:.2g}"
    if len(names) == 1:
        holds, sentence = False, f"no: one coordinate alone has no plane to circulate in; {produced}"
    elif 2 * min(p_value, also) <= SIGNIFICANT:
        plane, holds = planes[0], True
        area = with_error(abs(plane["area_in_sds"]), plane["area_in_sds_error"])
        most = f"most from {' to '.join(_direction(plane))}, {area} products of sds a draw"
        sentence = (
            f"yes: {most} (p = {p_value:.2g}); {produced}"
            if 2 * p_value <= SIGNIFICANT
            else f"yes, though on average in no plane (p = {p_value:.2g}): {produced}"
        )
    elif not production.told:
        holds = None
        sentence = (
            f"cannot tell: no circulation is seen (p = {p_value:.2g}), but the chain is not linear, and its draws are "
            "too few to see what flows without turning as a whole"
        )
    elif any("too short" in problem for problem in assumptions.problems):
        holds, sentence = None, f"cannot tell: no circulation is seen (p = {p_value:.2g}), but the chains are too short"
    else:
        holds, sentence = False, f"no: nothing beyond chance (p = {p_value:.2g}); {produced}"
    numbers = {
        "coordinates": names,
        "p_value": p_value,
        "planes": planes,
        "entropy_production": production.rate,
        "entropy_production_error": production.error,
        "entropy_production_null": production.null,
        "entropy_production_p_value": also,
        "entropy_production_method": production.method,
        "entropy_production_order": production.order,
        "relaxation_time": assumptions.relaxation_time,
        "blocks": blocks,
        "notes": notes,
    }
    return Verdict(holds, sentence, numbers)


_BY = {"ar1": "the linear description", "currents": "currents, as the chain is not linear"}


def _direction(plane):
    """From which of the plane's coordinates the chain turns towards which."""
    return plane["plane"] if plane["area"] > 0 else plane["plane"][::-1]


def table(verdict):
    """The numbers of a verdict, lined up."""
    n = verdict.numbers
    rows = [
        (
            " → ".join(_direction(plane)),
            f"{abs(plane['area']):.2e}",
            f"{abs(plane['area_in_sds']):.2e} ± {plane['area_in_sds_error']:.0e}",
            f"{abs(plane['z']):.1f}",
        )
        for plane in n["planes"][:SHOWN_PLANES]
    ]
    hidden = len(n["planes"]) - len(rows)
    return (
        columns(rows, ("it turns from → to", "area a draw", "in products of sds", "in sds of the null"))
        + (f"\nand {hidden} planes more, with less" if hidden > 0 else "")
        + f"\n\nCirculation in all planes:      p = {n['p_value']:.3g}"
        + f"\nEntropy production, nats/draw:  {n['entropy_production']:.3e} ± {n['entropy_production_error']:.1e}, "
        f"p = {n['entropy_production_p_value']:.3g}; {n['entropy_production_null']:.1e} if time had no direction"
        + f"\n  by {_BY[n['entropy_production_method']]}, order {n['entropy_production_order']}"
        + f"\nSlowest relaxation:             {n['relaxation_time']:.3g} draws"
    )


def draw(data, verdict, path):
    """The current over the density in the plane that circulates most; how much each plane stands out."""
    from matplotlib.figure import Figure

    draws, _ = few_coordinates(as_run(data))
    names = verdict.numbers["coordinates"]
    if len(names) == 1:
        _draw_one(draws[names[0]].values, names[0], path)
        return
    plane = tuple(verdict.numbers["planes"][0]["plane"])
    map_ = labelled.velocity_field(draws, dims=plane, bins=BINS)
    centre = [float(draws[name].mean()) for name in plane]
    sd = [float(draws[name].std()) for name in plane]
    x, y = ((map_[axis].values - c) / s for axis, c, s in zip("xy", centre, sd, strict=True))
    # in units of the sds a plane is round: the arrows' angles are those of the flow on the page
    current = (map_["current"].values.T / np.array(sd)).T
    p_value = float(map_["p_value"])
    figure = Figure(figsize=(6.4 if len(names) == 2 else 10.4, 5.2), layout="constrained")
    left, *others = figure.subplots(1, 1 if len(names) == 2 else 2, squeeze=False)[0]
    density = map_["density"].values.T * sd[0] * sd[1]
    # half of the colour map, so that arrows stand out on the darkest cell
    shades = left.pcolormesh(x, y, density, cmap="Blues", vmin=0, vmax=2 * density.max(), shading="nearest")
    bar = figure.colorbar(shades, ax=left, label="probability density, per product of sds", shrink=0.8)
    bar.ax.set_ylim(0, density.max())
    arrows = current / np.hypot(*current).max() * 1.6 * (x[1] - x[0])
    color = ORANGE if p_value <= SIGNIFICANT else "0.5"
    grid = np.meshgrid(x, y, indexing="ij")
    left.quiver(*grid, *arrows, angles="xy", scale_units="xy", scale=1, color=color, width=0.005, pivot="mid")
    left.set(aspect="equal", xlabel=f"{plane[0]}, from its mean in sds", ylabel=f"{plane[1]}, from its mean in sds")
    chance = f"p = {p_value:.2g} for all arrows together"
    left.set_title(f"probability current over the density; {chance}", fontsize=9, loc="left")
    for right in others:
        shown = verdict.numbers["planes"][:15][::-1]
        prominence = [abs(entry["z"]) for entry in shown]
        labels = [" → ".join(_direction(e)) for e in shown]
        right.barh(np.arange(len(shown)), prominence, color=BLUE, height=0.7)
        right.axvspan(0, 2, color=GREY, alpha=0.15, lw=0, zorder=0)
        right.set(yticks=np.arange(len(shown)), yticklabels=labels, xlabel="area a draw, in sds of the null")
        right.tick_params(axis="y", length=0, labelsize=8)
        right.spines[["top", "right", "left"]].set_visible(False)
        right.set_title("planes that stand out most; shaded: 2 sds", fontsize=9, loc="left")
    figure.savefig(path, dpi=150)


def _draw_one(values, name, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    axes = figure.subplots()
    axes.hist2d(values[:, :-1].ravel(), values[:, 1:].ravel(), 40, cmap="Greys")
    axes.axline((values.mean(), values.mean()), slope=1, color=ORANGE, lw=1)
    axes.set(aspect="equal", xlabel=f"{name}, now", ylabel=f"{name}, one draw later")
    axes.set_title("one coordinate: symmetric about the line in equilibrium", fontsize=9, loc="left")
    figure.savefig(path, dpi=150)


def main(argv=None):
    """Ask this question on the command line; the exit status."""
    return command.main(sys.modules[__name__], argv)


if __name__ == "__main__":
    sys.exit(main())

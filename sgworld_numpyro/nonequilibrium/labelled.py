"""The measures on ArviZ data: chains in, labelled xarray data sets out.

Each function here is its namesake of ``sgworld_numpyro.nonequilibrium``, on the ``posterior`` group of what
``arviz.from_numpyro`` or ``arviz.from_netcdf`` returns (ArviZ 0.23 and 1.x), from any sampler. Fields of the result
become variables with the coordinates' names. All take ``var_names``, the sites to measure, and ``projection``, see
``positions``; further options are those of the namesake.

Draws that mix phases of a period are refused where ``posterior.attrs`` say how the run was recorded, as they do after
``sgworld_numpyro.to_inference_data(mcmc)``: scheme, num_rows, batch_size and steps_per_sample. Nothing is checked where
they do not, where the scheme is not one of this package's, and where the model has several subsampled plates. There,
look at ``check_assumptions(data).memory``: draws that mix phases remember more than their last one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from sgworld_numpyro import nonequilibrium as measures
from sgworld_numpyro.nonequilibrium.autoregression import LinearDynamics
from sgworld_numpyro.nonequilibrium.entropy import Method
from sgworld_numpyro.nonequilibrium.projections import Projection
from sgworld_numpyro.nonequilibrium.recorded import Names, as_list, listed, period_ends, positions

__all__ = [
    "check_assumptions",
    "circulation",
    "entropy_production",
    "fit_linear_dynamics",
    "fluctuation_theorems",
    "period_ends",
    "positions",
    "principal_components",
    "probability_current",
    "uncertainty_relation",
    "velocity_field",
]

_SQUARE = ("coordinate", "coordinate_bis")


def fit_linear_dynamics(
    data: Any, *, var_names: Names | None = None, projection: Projection | None = None, **options
) -> xr.Dataset:
    """``fit_linear_dynamics``, with variables mean, A, Q, covariance and their errors."""
    x = positions(data, var_names=var_names, projection=projection)
    found = _measured(measures.fit_linear_dynamics, x.values, **options)
    dims = {name: _SQUARE if np.ndim(value) == 2 else _SQUARE[:1] for name, value in found._asdict().items()}
    return _labelled(found, x, dims | {"transitions": ()})


def circulation(
    data: Any, *, var_names: Names | None = None, projection: Projection | None = None, **options
) -> xr.Dataset:
    """``circulation``, with variables matrix, error, null_error and p_value."""
    x = positions(data, var_names=var_names, projection=projection)
    found = measures.circulation(x.values, **options)
    return _labelled(found, x, dict.fromkeys(("matrix", "error", "null_error"), _SQUARE) | {"p_value": ()})


def probability_current(
    data: Any,
    *,
    var_names: Names | None = None,
    projection: Projection | None = None,
    dims: Sequence[str] | None = None,
    **options,
) -> xr.Dataset:
    """``probability_current`` in the plane of two coordinates, ``dims``, by default that which circulates most."""
    x = positions(data, var_names=var_names, projection=projection)
    plane = _plane(x, dims)
    found = measures.probability_current(x.values, plane, **options)
    return _on_grid(found, x, plane, ("current", "error"))


def velocity_field(
    data: Any,
    *,
    var_names: Names | None = None,
    projection: Projection | None = None,
    dims: Sequence[str] | None = None,
    **options,
) -> xr.Dataset:
    """``velocity_field`` in such a plane, with variables velocity, error, density, current, order and p_value."""
    x = positions(data, var_names=var_names, projection=projection)
    plane = _plane(x, dims)
    found = _measured(measures.velocity_field, x.values, plane, **options)
    field = _on_grid(found, x, plane, ("velocity", "error", "current"))
    return field.assign(order=found.order, p_value=found.p_value)


def _on_grid(found, x, plane, vectors):
    """Vectors and the density on the grid of a plane."""
    axes = ("component", "x", "y")
    fields = {name: (axes, getattr(found, name)) for name in vectors} | {"density": (axes[1:], found.density)}
    return xr.Dataset(fields, {"component": [_coordinates(x)[n] for n in plane], "x": found.x, "y": found.y})


def _plane(x, dims) -> tuple[int, int]:
    """Numbers of two coordinates, by default of the plane that circulates most."""
    labels = _coordinates(x)
    if len(labels) < 2:
        raise ValueError(f"a current wants a plane, and these draws have one coordinate, {labels[0]}; name more sites.")
    if dims is None:
        found = measures.circulation(x.values)
        prominence = np.abs(found.matrix) / np.where(found.null_error > 0, found.null_error, np.inf)
        first, second = sorted(int(n) for n in np.unravel_index(prominence.argmax(), prominence.shape))
        return (first, second) if first < second else (0, 1)
    pair = as_list(dims)
    if len(set(pair)) != 2 or len(pair) != 2:
        raise ValueError(f"dims={dims!r}; want two different coordinates of {listed(labels)}.")
    missing = [label for label in pair if label not in labels]
    if missing:
        raise ValueError(f"no coordinate {missing[0]!r}; there are {listed(labels)}.")
    return labels.index(pair[0]), labels.index(pair[1])


def entropy_production(
    data: Any,
    *,
    var_names: Names | None = None,
    projection: Projection | None = None,
    method: Method = "ar1",
    kinetic: Names | Sequence[int] = (),
    **options,
) -> xr.Dataset:
    """``entropy_production``, with variables sigma, rate, rate_error, null_rate, p_value and order.

    ``kinetic`` takes names of coordinates, or of sites for all of their coordinates.
    """
    x = positions(data, var_names=var_names, projection=projection)
    found = _measured(measures.entropy_production, x.values, method, kinetic=_numbers(kinetic, x), **options)
    dims: dict[str, tuple[str, ...]] = dict.fromkeys(("rate", "rate_error", "null_rate", "p_value", "order"), ())
    return _labelled(found, x, {"sigma": ("chain", "transition")} | dims)


def fluctuation_theorems(
    data: Any,
    *,
    var_names: Names | None = None,
    projection: Projection | None = None,
    lengths: Sequence[int] = (1, 2, 3, 10, 100),
    method: Method = "ar1",
    kinetic: Names | Sequence[int] = (),
    dynamics: LinearDynamics | None = None,
    **options,
) -> xr.Dataset:
    """Both theorems for the entropy production of the draws, by length; of the histograms, the log-ratios.

    The entropy production is ``held_out_sigma``'s, of dynamics fitted to other draws than those that are measured, or
    that of ``dynamics`` where they are predicted. ``method``, ``kinetic`` and further options, ``order`` and ``basis``,
    as in ``entropy_production``.
    """
    x = positions(data, var_names=var_names, projection=projection)
    momenta = _numbers(kinetic, x)
    if dynamics is None:
        sigma = _measured(measures.held_out_sigma, x.values, method, kinetic=momenta, **options)
    else:
        sigma = _measured(measures.entropy_production, x.values, method, kinetic=momenta, dynamics=dynamics).sigma
    found = measures.fluctuation_theorems(sigma, lengths)
    numbers = {
        name: ("length", getattr(found, name)) for name in found._fields if name not in ("lengths", "histograms")
    }
    pairs = {
        name: (("length", "pair"), np.stack([getattr(h, field) for h in found.histograms]))
        for name, field in {
            "pair_sigma": "centres",
            "log_ratio": "log_ratio",
            "log_ratio_error": "log_ratio_error",
        }.items()
    }
    return xr.Dataset(numbers | pairs, {"length": found.lengths})


def uncertainty_relation(
    data: Any, *, var_names: Names | None = None, projection: Projection | None = None, **options
) -> xr.Dataset:
    """``uncertainty_relation``, with variables current, dispersion and rate_bound, and their errors."""
    x = positions(data, var_names=var_names, projection=projection)
    found = _measured(measures.uncertainty_relation, x.values, **options)
    return _labelled(found, x, dict.fromkeys(found._fields, ()))


def check_assumptions(
    data: Any, *, var_names: Names | None = None, projection: Projection | None = None, **options
) -> measures.Assumptions:
    """``check_assumptions`` of the draws."""
    x = positions(data, var_names=var_names, projection=projection)
    return _measured(measures.check_assumptions, x.values, **options)


def principal_components(data: Any, k: int, *, var_names: Names | None = None) -> Projection:
    """``principal_components`` of the draws: the ``projection`` for the other functions, of the same ``var_names``."""
    return measures.principal_components(positions(data, var_names=var_names).values, k)


def _measured(measure, *args, **options):
    """What the measure finds; where coordinates follow from others, with what to do about that here."""
    try:
        return measure(*args, **options)
    except ValueError as error:
        if "singular" not in str(error):
            raise
        raise ValueError(
            f"{error} Deterministic sites follow from the others: name the latent ones, var_names=[...], or record the "
            'unconstrained position, mcmc.run(..., extra_fields=("position",)).'
        ) from error


def _labelled(found, x, dims) -> xr.Dataset:
    labels = x["coordinate"].values
    coords = {"coordinate": labels, "coordinate_bis": labels, "chain": x["chain"].values}
    used = {dim for names in dims.values() for dim in names}
    variables = {name: (dims[name], getattr(found, name)) for name in found._fields}
    return xr.Dataset(variables, {name: values for name, values in coords.items() if name in used}, x.attrs)


def _coordinates(x) -> list[str]:
    return [str(label) for label in x["coordinate"].values]


def _numbers(names, x) -> tuple[int, ...]:
    """Numbers of coordinates that are named, by themselves or by their site, or numbered already."""
    labels, found = _coordinates(x), []
    for name in as_list(names):
        if not isinstance(name, str):
            found.append(int(name))
            continue
        at = [n for n, label in enumerate(labels) if label == name or label.startswith(f"{name}[")]
        if not at:
            raise ValueError(f"kinetic names {name!r}, which is no coordinate or site of {listed(labels)}.")
        found += at
    return tuple(found)

"""The measures on ArviZ data: chains in, labelled xarray data sets out.

Each function here is its namesake of ``sgworld_numpyro.nonequilibrium``, on the ``posterior`` group of what
``arviz.from_numpyro`` or ``arviz.from_netcdf`` returns (ArviZ 0.23 and 1.x), from any sampler. Fields of the result
become variables with the coordinates' names. Draws that mix phases of a period are refused, where the run says how it
was recorded (``posterior.attrs``: scheme, num_rows, batch_size, steps_per_sample).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from sgworld_numpyro import nonequilibrium as measures
from sgworld_numpyro import subsampling
from sgworld_numpyro.nonequilibrium.projections import Projection

__all__ = [
    "check_assumptions",
    "circulation",
    "entropy_production",
    "fit_linear_dynamics",
    "fluctuation_theorems",
    "period_ends",
    "positions",
    "probability_current",
]

_SCHEMES: dict[str, type[subsampling.SubsamplingScheme]] = {
    "with_replacement": subsampling.WithReplacement,
    "independent_batches": subsampling.IndependentBatches,
    "random_reshuffle": subsampling.RandomReshuffle,
    "batch_reshuffle": subsampling.BatchReshuffle,
    "shuffle_once": subsampling.ShuffleOnce,
    "symmetric_reshuffle": subsampling.SymmetricReshuffle,
    "cyclic": subsampling.Cyclic,
    "full_batch": subsampling.FullBatch,
}
_SQUARE = ("coordinate", "coordinate_bis")


def positions(data: Any, var_names: Sequence[str] | None = None, projection: Projection | None = None) -> xr.DataArray:
    """Draws as one array of dimensions (chain, draw, coordinate), each coordinate named after its site: ``"w[0, 1]"``.

    Args:
        data: ArviZ data, or a data set of dimensions chain and draw.
        var_names: the sites to take, by default all; of the unconstrained position where the run recorded one
            (``extra_fields=("position",)``).
        projection: what to apply to the coordinates.

    Raises:
        ValueError: if a site is not there, or the draws mix phases of the scheme's period.
    """
    posterior = _group(data, "posterior")
    check_phases(posterior)
    stats = _group(data, "sample_stats", posterior[[]])
    if var_names is None and "position" in stats:
        chosen = stats[["position"]]
    else:
        names = list(posterior.data_vars) if var_names is None else list(var_names)
        missing = [name for name in names if name not in posterior]
        if missing:
            raise ValueError(
                f"no site {missing[0]!r} in the posterior; it has {', '.join(map(str, posterior.data_vars))}."
            )
        chosen = posterior[names]
    values, labels = [], []
    for name, array in chosen.data_vars.items():
        array = array.transpose("chain", "draw", ...)
        values.append(array.values.reshape(*array.shape[:2], -1))
        shape = array.shape[2:]
        labels += [f"{name}[{', '.join(map(str, at))}]" if shape else str(name) for at in np.ndindex(*shape)]
    x = np.concatenate(values, axis=2)
    if projection is not None:
        x, labels = projection.apply(x), [f"projection {k + 1}" for k in range(len(projection.directions))]
    where = {"chain": chosen["chain"].values, "draw": chosen["draw"].values, "coordinate": labels}
    return xr.DataArray(x, where, ("chain", "draw", "coordinate"), name="position", attrs=posterior.attrs)


def period_of(posterior: xr.Dataset) -> int:
    """Draws after which the law of the scheme repeats, as far as ``attrs`` and the ``draw`` coordinate tell; else 1."""
    attrs = posterior.attrs
    scheme = _SCHEMES.get(str(attrs.get("scheme")))
    if scheme is None or not {"num_rows", "batch_size", "steps_per_sample"} <= attrs.keys():
        return 1
    plate = subsampling.Plate("rows", int(attrs["num_rows"]), int(attrs["batch_size"]))
    apart = np.unique(np.diff(posterior["draw"].values)) if posterior.sizes["draw"] > 1 else np.ones(1)
    steps = int(np.gcd.reduce(apart.astype(int))) * int(attrs["steps_per_sample"])
    period = scheme().period(plate)
    return period // int(np.gcd(period, steps))


def check_phases(posterior: xr.Dataset) -> None:
    """Raise ``ValueError`` if successive draws lie at different phases of the period of the run's scheme."""
    period = period_of(posterior)
    if period > 1:
        raise ValueError(
            f"these draws mix {period} phases of a period of {posterior.attrs['scheme']}: within a period the chain is "
            "no Markov chain, and each phase has a stationary law of its own. Keep one phase, "
            f"period_ends(data), or run with steps_per_sample a multiple of the period."
        )


def period_ends(data: Any) -> xr.Dataset:
    """The draws at ends of periods, of a run that recorded every ``steps_per_sample`` steps from the start of one."""
    posterior = _group(data, "posterior")
    period = period_of(posterior)
    return posterior.isel(draw=slice(period - 1, None, period))


def fit_linear_dynamics(data: Any, var_names=None, projection=None, **options) -> xr.Dataset:
    """``fit_linear_dynamics``, with variables mean, A, Q, covariance and their errors."""
    x = positions(data, var_names, projection)
    found = measures.fit_linear_dynamics(x.values, **options)
    dims = {name: _SQUARE if np.ndim(value) == 2 else _SQUARE[:1] for name, value in found._asdict().items()}
    return _labelled(found, x, dims | {"transitions": ()})


def circulation(data: Any, var_names=None, projection=None, **options) -> xr.Dataset:
    """``circulation``, with variables matrix, error, null_error and p_value."""
    x = positions(data, var_names, projection)
    found = measures.circulation(x.values, **options)
    return _labelled(found, x, dict.fromkeys(("matrix", "error", "null_error"), _SQUARE) | {"p_value": ()})


def probability_current(data: Any, dims: tuple[str, str] | None = None, var_names=None, projection=None, **options):
    """``probability_current`` in the plane of two named coordinates, by default that which circulates most."""
    x = positions(data, var_names, projection)
    labels = [str(label) for label in x["coordinate"].values]
    if dims is None:
        found = measures.circulation(x.values)
        prominence = np.abs(found.matrix) / np.where(found.null_error > 0, found.null_error, np.inf)
        first, second = sorted(int(n) for n in np.unravel_index(prominence.argmax(), prominence.shape))
        plane = (first, second) if first < second else (0, 1)
    else:
        missing = [label for label in dims if label not in labels]
        if missing:
            raise ValueError(f"no coordinate {missing[0]!r}; there are {', '.join(labels)}.")
        plane = (labels.index(dims[0]), labels.index(dims[1]))
    current = measures.probability_current(x.values, plane, **options)
    axes = ("component", "x", "y")
    return xr.Dataset(
        {"current": (axes, current.current), "error": (axes, current.error), "density": (axes[1:], current.density)},
        {"component": [labels[n] for n in plane], "x": current.x, "y": current.y},
    )


def entropy_production(data: Any, method="ar1", var_names=None, projection=None, **options) -> xr.Dataset:
    """``entropy_production``, with variables sigma, rate, rate_error, null_rate and p_value."""
    x = positions(data, var_names, projection)
    found = measures.entropy_production(x.values, method, **options)
    dims: dict[str, tuple[str, ...]] = dict.fromkeys(("rate", "rate_error", "null_rate", "p_value"), ())
    return _labelled(found, x, {"sigma": ("chain", "transition")} | dims)


def fluctuation_theorems(
    data: Any, lengths=(1, 2, 3, 10, 100), var_names=None, projection=None, **options
) -> xr.Dataset:
    """Both theorems for the entropy production of the draws, by length; of the histograms, the log-ratios."""
    x = positions(data, var_names, projection)
    sigma = measures.entropy_production(x.values, **options).sigma
    assert sigma is not None  # it is, for draws
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


def check_assumptions(data: Any, var_names=None, projection=None, **options) -> measures.Assumptions:
    """``check_assumptions`` of the draws."""
    return measures.check_assumptions(positions(data, var_names, projection).values, **options)


def _labelled(found, x, dims) -> xr.Dataset:
    labels = x["coordinate"].values
    coords = {"coordinate": labels, "coordinate_bis": labels, "chain": x["chain"].values}
    used = {dim for names in dims.values() for dim in names}
    variables = {name: (dims[name], getattr(found, name)) for name in found._fields}
    return xr.Dataset(variables, {name: values for name, values in coords.items() if name in used}, x.attrs)


def _group(data, name, default=None) -> xr.Dataset:
    """A group of ArviZ data of either generation; a data set is its own posterior."""
    if isinstance(data, xr.Dataset):
        group = data if name == "posterior" else default
    else:
        try:
            group = data[name]
        except KeyError:
            group = default
    if group is None:
        raise ValueError(f"no group {name!r} in the data; want what arviz.from_numpyro or arviz.from_netcdf returns.")
    return group if isinstance(group, xr.Dataset) else group.to_dataset()

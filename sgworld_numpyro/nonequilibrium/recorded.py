"""What a saved run says of its draws: their coordinates' names, and at which phases of a period they were recorded.

Draws that mix phases are refused where ``posterior.attrs`` say how the run was recorded; see ``labelled``.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from sgworld_numpyro import subsampling
from sgworld_numpyro.nonequilibrium.projections import Projection

Names = str | Sequence[str]

_OTHER_DRAWS = ("prior", "warmup")  # how the names of groups begin whose draws are not the posterior's
_LISTED = 20


def positions(data: Any, *, var_names: Names | None = None, projection: Projection | None = None) -> xr.DataArray:
    """Draws as one array of dimensions (chain, draw, coordinate), each coordinate named after its site.

    ``"w[0, 1]"``, or ``"w[north, age]"`` where the site's dimensions have coordinates of their own.

    Args:
        data: ArviZ data, its posterior, or a data set of dimensions chain and draw.
        var_names: the sites to take, by default all; of the unconstrained position where the run recorded one
            (``extra_fields=("position",)``).
        projection: what to apply to the coordinates.

    Raises:
        ValueError: if a site is not there, or the draws mix phases of the scheme's period.
    """
    posterior, stats = posterior_of(data), _group(data, "sample_stats")
    if var_names is None and stats is not None and "position" in stats:
        # Whoever dropped draws of one group may have left the other as it was.
        chosen, _ = xr.align(stats[["position"]], posterior, join="inner")
    else:
        names = list(posterior.data_vars) if var_names is None else as_list(var_names)
        missing = [name for name in names if name not in posterior]
        if missing:
            raise ValueError(f"no site {missing[0]!r} in the posterior; it has {listed(posterior.data_vars)}.")
        chosen = posterior[names]
    chosen = chosen.assign_attrs(posterior.attrs)
    check_phases(chosen)
    arrays = {str(name): array.transpose("chain", "draw", ...) for name, array in chosen.data_vars.items()}
    if not arrays or 0 in chosen["draw"].shape:
        raise ValueError("no draws to measure; the posterior is empty, or shares no draw with sample_stats.")
    x = np.concatenate([array.values.reshape(*array.shape[:2], -1) for array in arrays.values()], axis=2)
    labels = [label for name, array in arrays.items() for label in _labels_of(name, array)]
    if projection is not None:
        x, labels = projection.apply(x), [f"projection {k + 1}" for k in range(len(projection.directions))]
    where = {"chain": chosen["chain"].values, "draw": chosen["draw"].values, "coordinate": labels}
    return xr.DataArray(x, where, ("chain", "draw", "coordinate"), name="position", attrs=posterior.attrs)


def period_of(posterior: xr.Dataset) -> int:
    """How many phases of the scheme's period the draws mix, after which their law repeats: 1 if they are all alike.

    It is 1 as well where nothing can be said: see the module. Draws are told apart by their coordinate ``draw``, which
    thinning after the run leaves as it was.
    """
    period, steps = _clock(posterior)
    return period // int(np.gcd.reduce([period, *np.unique(np.diff(steps))]))


def check_phases(posterior: xr.Dataset) -> None:
    """Raise ``ValueError`` if successive draws lie at different phases of the period of the run's scheme."""
    phases = period_of(posterior)
    if phases > 1:
        raise ValueError(
            f"these draws mix {phases} phases of a period of {_text(posterior.attrs['scheme'])}: within a period the "
            "chain is no Markov chain, and each phase has a stationary law of its own. Keep one phase, "
            f"period_ends(data), or run with steps_per_sample a multiple of the period, {_clock(posterior)[0]} steps."
            f"{_one_pass(posterior.attrs)}"
        )


def _one_pass(attrs) -> str:
    """How the period becomes one pass, where batches run from one pass into the next."""
    rows, batch = _number(attrs, "num_rows"), _number(attrs, "batch_size")
    if rows is None or batch is None or rows % batch == 0:
        return ""
    sizes = " or ".join(map(str, subsampling.dividing_batch_sizes(subsampling.Plate("rows", rows, batch))))
    if sizes:
        return f" With a batch size that divides the {rows} rows, such as {sizes}, the period is one pass."
    return f" No batch size near {batch} divides the {rows} rows: leave {rows % batch} out, and the period is one pass."


def period_ends(data: Any) -> Any:
    """The data with the draws at ends of periods only, in every group that has the posterior's draws.

    A draw is at an end if the steps taken until then, (samples_before + (draw + 1) thinning) steps_per_sample, are a
    multiple of the period; samples_before is num_warmup where ``posterior.attrs`` have no other. Where they do not say
    how the run was recorded (see the module), all draws are kept.

    Args:
        data: as for ``positions``; what is returned is of the same kind.

    Raises:
        ValueError: if no draw is at an end of a period.
    """
    posterior = posterior_of(data)
    period, steps = _clock(posterior)
    ends = posterior["draw"].values[steps % period == 0]
    if len(ends) == 0:
        raise ValueError(
            f"none of {len(steps)} draws is at the end of a period of {period} steps; the first one is "
            f"{int(steps[0]) % period} steps after one. Run with steps_per_sample a divisor or a multiple of {period}, "
            "and take the ends from all draws that the run recorded."
        )

    def at_ends(group: xr.Dataset) -> xr.Dataset:
        return group.isel(draw=np.isin(group["draw"].values, ends)) if "draw" in group.dims else group

    if isinstance(data, xr.Dataset):
        return at_ends(data)
    if isinstance(data, xr.DataTree) and not data.children:
        return xr.DataTree(at_ends(data.to_dataset()), name=data.name)
    names = [name for name in data if not str(name).startswith(_OTHER_DRAWS)]
    if isinstance(data, xr.DataTree):
        whole = data.copy()
        for name in set(names) & set(whole.children):
            whole.children[name].dataset = at_ends(whole.children[name].to_dataset())
        return whole
    if hasattr(data, "map"):  # InferenceData of ArviZ 0.23
        return data.map(at_ends, groups=names)
    return {name: at_ends(_as_dataset(group)) if name in names else group for name, group in data.items()}


def _labels_of(name, array) -> list[str]:
    """Names of a site's coordinates, in the order of its values; by number where a dimension repeats a name."""
    axes = []
    for dim in array.dims[2:]:
        ticks = [str(tick) for tick in array[dim].values]
        axes.append(ticks if len(set(ticks)) == len(ticks) else [str(n) for n in range(len(ticks))])
    return [f"{name}[{', '.join(at)}]" for at in product(*axes)] if axes else [name]


def as_list(names) -> list:
    """Names as a list, of one name too."""
    return [names] if isinstance(names, str) else list(names)


def listed(names) -> str:
    """Names for a message, the first twenty."""
    names = [str(name) for name in names]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _clock(posterior) -> tuple[int, np.ndarray]:
    """The period of the run's scheme, 1 if unknown, and the steps taken until each draw."""
    attrs, draw = posterior.attrs, posterior["draw"].values.astype(int)
    scheme = subsampling.named(_text(attrs.get("scheme")))
    rows, batch, steps = (_number(attrs, key) for key in ("num_rows", "batch_size", "steps_per_sample"))
    if scheme is None or rows is None or batch is None or steps is None:
        return 1, draw
    before = next((n for key in ("samples_before", "num_warmup") if (n := _number(attrs, key)) is not None), 0)
    samples = before + (draw + 1) * (_number(attrs, "thinning") or 1)
    return scheme().period(subsampling.Plate("rows", rows, batch)), samples * steps


def _text(attribute) -> str:
    """A text that may have become an array of one element in a netCDF file."""
    value = np.asarray(attribute)
    return str(value.item()) if value.size == 1 else ""


def _number(attrs, key) -> int | None:
    """A whole number, likewise; None if there is none, or several as of several plates."""
    value = np.asarray(attrs.get(key, ()))
    return int(value.item()) if value.size == 1 else None


def posterior_of(data) -> xr.Dataset:
    """The posterior group of ArviZ data of either generation; a data set is its own."""
    posterior = _group(data, "posterior")
    if posterior is None or not {"chain", "draw"} <= set(posterior.dims):
        raise ValueError(
            "no group 'posterior' with dimensions chain and draw in the data; want what arviz.from_numpyro or "
            "arviz.from_netcdf returns. Arrays go to the functions of sgworld_numpyro.nonequilibrium."
        )
    return posterior


def _group(data, name) -> xr.Dataset | None:
    """A group of ArviZ data of either generation; a data set, or a node without groups, is its own posterior."""
    if isinstance(data, xr.Dataset) or (isinstance(data, xr.DataTree) and not data.children):
        return _as_dataset(data) if name == "posterior" else None
    return _as_dataset(data[name]) if isinstance(data, Mapping) and name in data else None


def _as_dataset(group) -> xr.Dataset:
    return group if isinstance(group, xr.Dataset) else group.to_dataset()

"""A run as the diagnostics see it, and how it is read from a file."""

import json
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import xarray as xr
from scipy.linalg import qr

from sgworld_numpyro.diagnostics.tables import shortened
from sgworld_numpyro.diagnostics.verdicts import CannotTell
from sgworld_numpyro.nonequilibrium import labelled, principal_components, recorded

MIN_DRAWS = 4  # the fewest of which ArviZ computes R-hat
MAX_COORDINATES = 20  # of the nonequilibrium measures, whose errors grow with the square of the dimension
DRAWS_PER_COMPONENT = 50
DEPENDENT = 1e-10  # of the variance is left: draws are stored in single precision
MAX_MEASURED = 500  # of measures of single coordinates, which take ArviZ milliseconds each


class SavedRun(NamedTuple):
    """A run as the diagnostics see it.

    Attributes:
        x: draws (chain, draw, coordinate) in float64, without coordinates that do not move; sites alphabetically.
        kept: number of each coordinate among all coordinates of the run.
        total: how many coordinates the run has.
        attrs: of the posterior: the settings where the run stores them.
        stats: the group ``sample_stats``, perhaps empty.
        notes: what was left out.
    """

    x: xr.DataArray
    kept: np.ndarray
    total: int
    attrs: dict
    stats: xr.Dataset
    notes: tuple[str, ...]

    @property
    def names(self):
        return [str(name) for name in self.x["coordinate"].values]

    @property
    def dataset(self):
        """The draws with the settings, from which ``labelled`` knows how they were recorded."""
        return self.x.to_dataset(name="x").assign_attrs(self.attrs)


def load(path):
    """The groups of a saved run, as data sets by name.

    Raises:
        ValueError: if the file is not there, no netCDF, or has no posterior.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f'no file {path}; save a run with sgworld_numpyro.to_inference_data(mcmc).to_netcdf("{path}"), and arrays '
            "of any other origin with what arviz.from_dict makes of them"
        )
    try:
        with h5py.File(path) as file:
            groups = list(file)
        if "posterior" not in groups:
            found = ", ".join(groups) or "none"
            raise ValueError(f"{path} has no group 'posterior' (its groups: {found}); want a run saved by ArviZ")
        names = [name for name in ("posterior", "sample_stats") if name in groups]
        return {name: xr.load_dataset(path, group=name, engine="h5netcdf") for name in names}
    except OSError as error:
        raise ValueError(f"{path} is not readable as netCDF ({str(error).splitlines()[0]})") from error


def as_run(data, var_names=None) -> SavedRun:
    """What ``load`` returns, ArviZ data of either generation, or a data set of draws, as a ``SavedRun``.

    Raises:
        ValueError: for a site that is not there, too few draws, draws that are not finite, or that do not move.
    """
    if isinstance(data, SavedRun):
        return data
    posterior = _group(data, "posterior")
    if posterior is None or not posterior.data_vars:
        raise ValueError("the data have no draws; want a group 'posterior', as arviz.from_numpyro makes it")
    if not {"chain", "draw"} <= set(posterior.dims):
        raise ValueError(f"the posterior has dimensions {tuple(posterior.dims)}; want chain and draw among them")
    stats = _group(data, "sample_stats")
    stats = posterior[[]] if stats is None else stats
    # without attrs, so that phases are not looked at: not every question minds that they are mixed
    bare = {"posterior": posterior[sorted(map(str, posterior.data_vars))].drop_attrs(), "sample_stats": stats}
    everything = labelled.positions(bare)
    chosen = everything if var_names is None else labelled.positions(bare, var_names=sorted(var_names))
    places = {name: n for n, name in enumerate(everything["coordinate"].values)}
    kept = np.array([places.get(name, -1) for name in chosen["coordinate"].values])
    x = chosen.astype(float)
    if x.sizes["draw"] < MIN_DRAWS:
        raise ValueError(f"{x.sizes['draw']} draws a chain; want {MIN_DRAWS} at least, and hundreds for a verdict")
    finite = np.isfinite(x.values)
    if not finite.all():
        chain, draw, which = (int(n) for n in np.argwhere(~finite)[0])
        raise ValueError(
            f"draws are not all finite: {x.values[chain, draw, which]} at {x['coordinate'].values[which]}, "
            f"chain {chain}, draw {draw}. A diverged chain has no stationary law; lower the step size"
        )
    moves = np.ptp(x.values, axis=(0, 1)) > 0
    attrs = dict(posterior.attrs)
    notes = [f"The run said of itself: {attrs['complaints']}"] if attrs.get("complaints") else []
    if not moves.any():
        raise ValueError("no coordinate moves: all draws are the same")
    if not moves.all():
        still = [str(name) for name in x["coordinate"].values[~moves]]
        notes.append(f"Left out, as it does not move: {shortened(still)}.")
    return SavedRun(x[..., moves].assign_attrs(attrs), kept[moves], len(places), attrs, stats, tuple(notes))


def _group(data, name):
    if isinstance(data, xr.Dataset):
        return data if name == "posterior" else None
    try:
        group = data[name]
    except KeyError:
        return None
    return group if isinstance(group, xr.Dataset) else group.to_dataset()


def some_coordinates(run: SavedRun) -> tuple[list[str], np.ndarray, list[str]]:
    """Names and draws of at most ``MAX_MEASURED`` coordinates, and the run's notes with what was done."""
    notes, names, x = list(run.notes), run.names, run.x.values
    if len(names) > MAX_MEASURED:
        chosen = np.linspace(0, len(names) - 1, MAX_MEASURED).astype(int)
        notes.append(f"{len(names)} coordinates: looked at {MAX_MEASURED} of them, evenly spaced.")
        names, x = [names[n] for n in chosen], x[..., chosen]
    return names, x, notes


def few_coordinates(run: SavedRun) -> tuple[xr.Dataset, list[str]]:
    """A data set that ``labelled`` takes, of at most ``MAX_COORDINATES`` coordinates, and what was done.

    Raises:
        CannotTell: if the draws mix phases of the scheme's period.
        ValueError: if some coordinates follow from others, as deterministic sites do.
    """
    dims, names, x, notes = ("chain", "draw"), run.names, run.x.values, list(run.notes)
    try:
        recorded.check_phases(run.dataset)
    except ValueError as error:
        raise CannotTell(error) from error
    if len(names) > MAX_COORDINATES:
        k = max(2, min(MAX_COORDINATES, x.shape[0] * x.shape[1] // DRAWS_PER_COMPONENT))
        axes = principal_components(x, k)
        x, names = axes.apply(x), [f"PC {n + 1}" for n in range(k)]
        notes.append(
            f"{len(run.names)} coordinates: measured in the first {k} principal components (PC), which hold "
            f"{100 * axes.explained.sum():.3g} % of the variance. What they show is a lower bound."
        )
    check_independent(x, names)
    coords = {dim: run.x[dim].values for dim in dims}
    return xr.Dataset({n: (dims, x[..., i]) for i, n in enumerate(names)}, coords, run.attrs), notes


def check_independent(x, names):
    """Raise ``ValueError`` if the covariance is singular, and name the coordinates that follow from others."""
    correlation = np.atleast_2d(np.corrcoef(x.reshape(-1, len(names)).T))
    _, triangle, order = qr(correlation, pivoting=True)
    dependent = [names[n] for n in order[np.abs(np.diag(triangle)) < DEPENDENT]]
    if dependent:
        raise ValueError(
            f"the covariance of the draws is singular: {shortened(dependent)} follows from the other coordinates, as a "
            "deterministic site does. Name the sites to look at, --var-names A,B"
        )


def stored_object(run: SavedRun, key: str, wanted: tuple[str, ...]):
    """The JSON object in ``posterior.attrs[key]``, or None.

    Raises:
        CannotTell: if it is no such object.
    """
    if key not in run.attrs:
        return None
    try:
        found = json.loads(str(run.attrs[key]))
    except json.JSONDecodeError as error:
        raise CannotTell(f'posterior.attrs["{key}"] is not JSON ({error})') from error
    missing = [name for name in wanted if not isinstance(found, dict) or name not in found]
    if missing:
        raise CannotTell(f'posterior.attrs["{key}"] has no {missing[0]!r}; want {", ".join(wanted)}')
    return found


def stored(run: SavedRun, key: str, wanted: tuple[str, ...]):
    """``stored_object``, with vectors and matrices as arrays of the run's coordinates.

    Raises:
        CannotTell: if it is no such object, or of another dimension than the run.
    """
    found = stored_object(run, key, wanted)
    if found is None:
        return None
    arrays = {name: np.asarray(value, float) for name, value in found.items() if isinstance(value, list)}
    dim, kept = len(arrays[wanted[0]]), len(run.kept)
    if dim == kept:
        return found | arrays
    if dim != run.total or (run.kept < 0).any():
        raise CannotTell(
            f'posterior.attrs["{key}"] has {dim} coordinates and the draws {kept} ({shortened(run.names)}): choose the '
            'sites of the position with --var-names, or record it with extra_fields=("position",)'
        )
    whole = {name: value for name, value in arrays.items() if set(value.shape) == {dim}}
    return found | {name: value[np.ix_(*[run.kept] * value.ndim)] for name, value in whole.items()}


def reference_of(run: SavedRun):
    """The stored mean and covariance to compare with, or None; with errors of its own where it has an "ess"."""
    found = stored(run, "reference", ("mean", "covariance"))
    if found is not None and "ess" in found:
        sd = np.sqrt(np.diag(found["covariance"]))
        errors = {"mean_error": sd / np.sqrt(found["ess"]), "sd_error": sd / np.sqrt(2 * found["ess"])}
        return errors | found
    return found

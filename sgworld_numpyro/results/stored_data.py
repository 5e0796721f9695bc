"""ArviZ data of a run's directory, whose draws are read where they are used."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from sgworld_numpyro.store.stored_run import StoredRun

# As ArviZ's ``from_numpyro`` calls the fields of a state.
STATS = {
    "potential_energy": "lp",
    "adapt_state.step_size": "step_size",
    "num_steps": "n_steps",
    "accept_prob": "acceptance_rate",
}


class StoredVariable(BackendArray):
    """One variable of a run, (chain, draw, ...), of which xarray reads what it is asked for.

    Args:
        stored: the run.
        name: of the variable.
        negative: whether its sign is changed, as that of a potential energy.
    """

    def __init__(self, stored: StoredRun, name: str, negative: bool = False):
        shape, self.dtype = stored.shapes[name]
        self.shape = (stored.about["num_chains"], stored.draws, *shape)
        self._stored, self._name, self._negative = stored, name, negative

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key):
        chains, draws, *rest = key
        if isinstance(draws, slice):
            found = self._stored.read(self._name, draws)[(chains, slice(None), *rest)]
        else:
            found = self._stored.read(self._name, slice(draws, draws + 1))[(chains, 0, *rest)]
        return -found if self._negative else found


def stored_groups(stored: StoredRun, coords: dict[str, Any], dims: dict[str, list[str]]) -> dict[str, xr.Dataset]:
    """Posterior and sample statistics of a run; a potential energy is ``lp`` with its sign changed, as ArviZ has it.

    Args:
        stored: the run.
        coords: values of dimensions by name.
        dims: names of dimensions by site, beside those of the plates.
    """
    named = {**stored.about["dims"], **dims}
    sites = {site: _variable(stored, name, site, named.get(site, [])) for site, name in stored.sites().items()}
    fields = {STATS.get(name, name): _variable(stored, name, STATS.get(name, name), []) for name in stored.fields()}
    posterior = _dataset(stored, sites, coords).assign_attrs(stored.attributes)
    return {"posterior": posterior, "sample_stats": _dataset(stored, fields, coords)}


def _variable(stored, name, shown, axes: Iterable[str]):
    values = StoredVariable(stored, name, negative=name == "potential_energy")
    count = len(values.shape) - 2
    names = [*axes][:count]
    names += [f"{shown}_dim_{n}" for n in range(len(names), count)]
    return xr.Variable(("chain", "draw", *names), indexing.LazilyIndexedArray(values))


def _dataset(stored, variables, coords):
    sizes = {"chain": stored.about["num_chains"], "draw": stored.draws}
    for variable in variables.values():
        sizes |= dict(zip(variable.dims, variable.shape, strict=True))
    used = {axis for variable in variables.values() for axis in variable.dims} | {"chain", "draw"}
    where = {axis: np.asarray(coords.get(axis, np.arange(sizes[axis]))) for axis in sizes if axis in used}
    return xr.Dataset(variables, where)

"""What of a model's arguments is data, and in which form the model gets it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from sgworld_numpyro.sources import Column


def is_traced(leaf: Any) -> bool:
    """Whether a leaf is an array whose values are not known yet."""
    return isinstance(leaf, jax.core.Tracer)


def is_numeric_array(leaf) -> bool:
    """Whether a leaf of the model's arguments is data that JAX can hold."""
    if isinstance(leaf, jax.Array):
        return not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc"


def as_numeric(value: Any) -> Any:
    """Data of pandas, polars, xarray, a tensor or a list as a NumPy array, if that is numeric; else the value."""
    if isinstance(value, np.ndarray | jax.Array | Column | int | float | complex | str | None):
        return value
    if not (hasattr(value, "__array__") or isinstance(value, list | tuple)):
        return value
    try:
        array = np.asarray(value)
        # a table whose columns are of several types
        if hasattr(value, "select_dtypes") and value.select_dtypes(["number", "bool"]).shape == value.shape:
            array = array if array.dtype != object else value.to_numpy(float, na_value=np.nan)
    except (TypeError, ValueError):  # rows of unequal lengths, a tensor on another device
        return value
    return array if array.ndim and array.dtype.kind in "biuf" else value


class HostArray(np.ndarray):
    """NumPy data for a model that looks at their values: rows that are not known yet can index them as well."""

    @classmethod
    def of(cls, leaf: Any) -> Any:
        """The leaf so, if it is numeric data whose values are known; else as it is."""
        if not is_numeric_array(leaf) or is_traced(leaf):
            return leaf
        return np.array(leaf).view(cls)  # a copy, which a model may change in place

    def __getitem__(self, index):
        if any(is_traced(part) for part in (index if isinstance(index, tuple) else (index,))):
            return jnp.asarray(np.asarray(self))[index]
        return super().__getitem__(index)

    @property
    def at(self):
        """JAX's functional updates."""
        return jnp.asarray(np.asarray(self)).at


def as_jax_array(leaf):
    """NumPy data as JAX arrays (they could not be indexed by traced rows), anything else as it is.

    Of data in a mesh with explicit axes, which ``jax.make_mesh`` makes, every operation would want to know how it is
    divided; a model does not say, and XLA finds a way.
    """
    if not is_numeric_array(leaf):
        return leaf
    array = jnp.asarray(leaf)
    if is_traced(array) or not isinstance(array.sharding, NamedSharding):
        return array
    mesh = array.sharding.mesh
    return jax.device_put(array, NamedSharding(Mesh(mesh.devices, mesh.axis_names), array.sharding.spec))

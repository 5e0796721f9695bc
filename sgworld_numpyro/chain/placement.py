"""Data whose rows lie on several devices: where they lie, and where all else has to be for a program to run there."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sgworld_numpyro.model.arguments import Slot


def is_spread(leaf: Any) -> bool:
    """Whether an array lies on several devices, each with a part of it."""
    return isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer) and not leaf.is_fully_replicated


def in_one_mesh(leaves: Iterable[Any]) -> Mesh | None:
    """The devices that data are spread over, None if they are not.

    The mesh leaves it to XLA how operations are divided: a model says nothing of it, as one would have to whose data
    are of a mesh with explicit axes, which ``jax.make_mesh`` makes.

    Raises:
        ValueError: if data are spread over devices in several ways.
    """
    meshes = {}
    for leaf in leaves:
        if not is_spread(leaf):
            continue
        if not isinstance(leaf.sharding, NamedSharding):
            raise ValueError(
                f"Data of shape {leaf.shape} lie on several devices by a {type(leaf.sharding).__name__}; want a "
                "NamedSharding, as rows_over_devices(...) gives it."
            )
        mesh = leaf.sharding.mesh
        meshes[tuple(mesh.devices.flat), mesh.axis_names, mesh.devices.shape] = mesh
    if len(meshes) > 1:
        raise ValueError(
            f"Data lie on {len(meshes)} different meshes of devices; put them all on one, as by "
            "x, y = rows_over_devices(x, y)."
        )
    return next((Mesh(mesh.devices, mesh.axis_names) for mesh in meshes.values()), None)


def placed(leaf: Any, mesh: Mesh) -> jax.Array:
    """An array on all devices of the mesh: where it lies if it is spread over them, else a copy on each."""
    return put(leaf, NamedSharding(mesh, leaf.sharding.spec if is_spread(leaf) else PartitionSpec()))


def split_batches(slots: Iterable[Slot], leaves: tuple[Any, ...], names: Mapping[int, str], mesh: Mesh | None):
    """How a minibatch of each slot whose rows are spread is divided: like the rows, each device with equally many.

    Args:
        slots: of the model.
        leaves: of its arguments.
        names: of these.
        mesh: that they lie on; None if they do not.

    Returns:
        ``NamedSharding`` of minibatches by slot.

    Raises:
        ValueError: for an array that is divided along another axis than that of its rows.
    """
    found: dict[Slot, NamedSharding] = {}
    for slot in slots:
        leaf = leaves[slot.leaf]
        if mesh is None or not is_spread(leaf):
            continue
        along = slot.axis % leaf.ndim
        spec = (*leaf.sharding.spec, *(None,) * (leaf.ndim - len(leaf.sharding.spec)))
        if spec[along] is None or any(of is not None for axis, of in enumerate(spec) if axis != along):
            name = names.get(slot.leaf, "an argument")
            raise ValueError(
                f"{name} of shape {leaf.shape} is divided over devices as {leaf.sharding.spec}, and the rows that "
                f"plate {slot.plate!r} takes lie along its axis {along}: "
                f"{name} = rows_over_devices({name}{f', axis={along}' if along else ''})."
            )
        found[slot] = NamedSharding(mesh, leaf.sharding.spec)
    return found


def put(leaf: Any, sharding: Any) -> jax.Array:
    """An array placed so; on devices of several processes, each of which has the same array to begin with."""
    if not isinstance(sharding, NamedSharding) or not sharding.mesh.is_multi_process:
        return jax.device_put(leaf, sharding)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:  # it is there already
        return jax.device_put(leaf, sharding)
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(put(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf))
    here = np.asarray(leaf)
    return jax.make_array_from_callback(here.shape, sharding, lambda part: here[part])

"""The rows of the data spread over devices: each holds a part of them, and no device all."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sgworld_numpyro.devices.mesh import chosen

AXIS = "rows"


def rows_over_devices(*arrays: Any, devices: int | Sequence[jax.Device] | None = None, axis: int = 0) -> Any:
    """Arrays with their rows divided over devices, to be passed to the model in place of them.

    ``mcmc.run(key, *rows_over_devices(x, y))``. Each minibatch is taken from the rows where they lie, each device
    evaluates an equal part of it, if they divide it, and gradients are summed. No device has all the rows. The chain is
    that of the same arrays on one device, up to the rounding of sums.

    Args:
        arrays: with equally many rows, NumPy's or JAX's. With several processes each passes its own rows of them, in
            the order of the processes, equally many.
        devices: how many, of ``jax.devices()``, or which; by default all, of all processes.
        axis: along which the rows lie.

    Returns:
        The arrays, or the one array, with a ``NamedSharding`` over an axis named ``"rows"``.

    Raises:
        ValueError: if the devices cannot have equally many rows, or there are not so many devices.
    """
    mesh = Mesh(np.array(chosen(devices, "rows_over_devices")), (AXIS,))
    sharding = NamedSharding(mesh, PartitionSpec(*(None,) * axis, AXIS))
    here = sum(device.process_index == jax.process_index() for device in mesh.devices.flat)
    for array in arrays:
        rows = np.shape(array)[axis]
        if not here or rows % here:
            left = f"leave {rows % here} out, x[:{rows - rows % here}], or take" if here else "take"
            raise ValueError(
                f"rows_over_devices: {rows} rows are not divided equally by {here} devices of this process: "
                f"{left} another number of devices, devices=..."
            )
    # of one process these are all the rows
    found = tuple(jax.make_array_from_process_local_data(sharding, np.asarray(array)) for array in arrays)
    return found[0] if len(found) == 1 else found

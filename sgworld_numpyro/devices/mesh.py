"""Which devices there are, and results that several processes have parts of."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def chosen(devices: int | Sequence[jax.Device] | None, caller: str) -> tuple[jax.Device, ...]:
    """So many devices, or those, or all.

    Args:
        devices: what was asked for.
        caller: the function that it was asked of, for the message.

    Raises:
        ValueError: if there are not so many.
        TypeError: for what is neither a number nor devices.
    """
    there = jax.devices()
    if devices is None:
        return tuple(there)
    if isinstance(devices, int) and not isinstance(devices, bool):
        if not 1 <= devices <= len(there):
            raise ValueError(
                f"{caller}: {devices} devices are asked for, and JAX sees {len(there)}, {there[0].device_kind}. Ask "
                f"for 1 to {len(there)}; of a CPU make several with XLA_FLAGS=--xla_force_host_platform_device_count="
                f"{max(devices, 1)} in the environment before JAX is imported."
            )
        return tuple(there[:devices])
    if not isinstance(devices, Sequence) or not devices or not all(isinstance(one, jax.Device) for one in devices):
        raise TypeError(f"{caller}: devices={devices!r:.80} must be a number, or a list of some of jax.devices().")
    return tuple(devices)


def everywhere(tree: Any, mesh: Mesh) -> Any:
    """Arrays that are spread over the devices of several processes, whole on a device of each process."""
    whole = jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))(tree)
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), whole)

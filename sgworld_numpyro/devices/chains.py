"""Chains spread over devices: each device runs its share of them side by side, and none waits for another."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpyro.infer import MCMC

from sgworld_numpyro.chain import caller
from sgworld_numpyro.chain.placement import is_spread, put
from sgworld_numpyro.chain.state import SGState
from sgworld_numpyro.devices.mesh import chosen, everywhere
from sgworld_numpyro.kernel import StochasticGradientKernel

AXIS = "chains"
APART = PartitionSpec(AXIS)
SHARED = PartitionSpec()


class ChainsOverDevices:
    """A ``chain_method`` of ``MCMC``: ``jax.shard_map`` over ``jax.vmap``. Made by ``chains_over_devices``.

    Attributes:
        devices: that the chains are spread over, of all processes, in the order of the chains.
    """

    def __init__(self, devices: Sequence[jax.Device]):
        self.devices = tuple(devices)

    def __repr__(self):
        return f"chains_over_devices({len(self.devices)})"

    def __call__(self, chain: Callable) -> Callable:
        """What NumPyro calls: a function of (keys, state, initial values), each of all chains or None."""
        if not isinstance(chain, partial):
            raise TypeError(f"{self!r} is for MCMC(..., chain_method=...), and {chain!r:.60} is nothing of it.")
        mcmc, given = chain.func.__self__, chain.keywords  # type: ignore[attr-defined]  # a method of MCMC
        kernel = mcmc.sampler if isinstance(mcmc.sampler, StochasticGradientKernel) else None
        self._check(mcmc)  # before anything is tuned

        def run(start):
            keys, state, values = start
            if kernel is not None and state is None:
                fields = given["collect_fields"], given["remove_sites"]
                with caller.announced(caller.Run(mcmc, keys, None, given["args"], given["kwargs"], *fields)):
                    state = kernel.init(keys, mcmc.num_warmup, values, given["args"], given["kwargs"])
                values = None
            return self.compiled(chain, mcmc)((keys, state, values))

        return run

    def compiled(self, chain: Callable, mcmc: MCMC) -> Callable:
        """A function of the starts of all chains, compiled once for all devices.

        Args:
            chain: of the start of one chain, (key, state, initial values), and of what the chains share; to its draws
                and its last state.
            mcmc: whose chains they are. Data that its kernel holds are passed to every device.

        Returns:
            A function of the starts of all chains, chains first, and of what they share, to draws and states.

        Raises:
            ValueError: if the devices cannot have equally many chains, or the data are spread over devices themselves.
        """
        self._check(mcmc)
        mesh = Mesh(np.array(self.devices), (AXIS,))
        # of its own thread: a kernel of this package is initialised by now
        binding = mcmc.sampler._bindings.current if isinstance(mcmc.sampler, StochasticGradientKernel) else None
        held = [] if binding is None else [put(array, NamedSharding(mesh, SHARED)) for array in binding.held()]

        def program(start, held, shared):
            axes, specs = _of_start(start, 0, None), _of_start(start, APART, SHARED)
            shares_tuning = _shares_tuning(start[1])

            def one(start):
                draws, last = chain(start, *shared)
                return draws, last._replace(tuning=None) if shares_tuning else last

            with nullcontext() if binding is None else binding.lent(held):
                # what is replicated is so by construction, which the check of it does not see through NumPyro's loops
                over = jax.shard_map(
                    jax.vmap(one, in_axes=(axes,)), mesh=mesh, in_specs=(specs,), out_specs=APART, check_vma=False
                )
                return over(start)

        compiled = jax.jit(program)

        def run(start, *shared):
            keys, state, values = start
            start = keys, _counted_once(state), values
            placed = jax.tree.map(lambda leaf, spec: put(leaf, NamedSharding(mesh, spec)), start, _leaves(start))
            draws, last = compiled(placed, held, shared)
            if mesh.is_multi_process:
                draws, last = everywhere((draws, last), mesh)
            return draws, last._replace(tuning=state.tuning) if _shares_tuning(state) else last

        return run

    def _check(self, mcmc):
        if mcmc.progress_bar:  # assigned: MCMC turns one that is asked for off
            raise ValueError("A bar cannot be shown of chains over devices: mcmc.progress_bar = False.")
        chains, devices = mcmc.num_chains, len(self.devices)
        if chains % devices:
            fewer = max(number for number in range(1, devices) if chains % number == 0)
            more = -(-chains // devices) * devices
            raise ValueError(
                f"num_chains={chains} are not divided equally by {devices} devices: MCMC(..., num_chains={more}), or "
                f"chain_method=chains_over_devices({fewer})."
            )
        for leaf in jax.tree.leaves((mcmc._args, mcmc._kwargs)):
            if is_spread(leaf):
                raise ValueError(
                    f"Data of shape {leaf.shape} are spread over devices, and so the chains cannot be: give them on "
                    "one device, or run chain_method='vectorized'."
                )


def chains_over_devices(devices: int | Sequence[jax.Device] | None = None) -> ChainsOverDevices:
    """The ``chain_method`` that spreads chains over devices, ``MCMC(..., num_chains=64, chain_method=...)``.

    Each device runs ``num_chains / devices`` chains, vectorized, and gets a copy of the data; they do not communicate.
    Draws are those of ``chain_method="vectorized"``, up to the rounding of sums that XLA takes in another order for
    another number of chains. A resumed run is the uninterrupted one to the bit. Tuning is done once, before. Every
    kernel of NumPyro whose chains ``jax.vmap`` runs can be spread so. Of several processes each gets all the draws.

    NumPyro shows no bar where ``chain_method`` is a function, and says so: pass ``progress_bar=False``.

    Args:
        devices: how many, of ``jax.devices()``, or which; by default all.

    Returns:
        What to give ``MCMC`` as its ``chain_method``.

    Raises:
        ValueError: if there are not so many devices. ``run`` raises it if ``num_chains`` is no multiple of them.
    """
    return ChainsOverDevices(chosen(devices, "chains_over_devices"))


def of_chain(state: Any, chain: int) -> Any:
    """The state of one chain, in that of all of them as ``ChainsOverDevices`` returns it."""
    shared = state.tuning if _shares_tuning(state) else None
    one = jax.tree.map(lambda leaf: leaf[chain], state._replace(tuning=None) if shared is not None else state)
    return one._replace(tuning=shared) if shared is not None else one


def _shares_tuning(state):
    """Whether all chains have the same, as one matrix and not one a chain."""
    return isinstance(state, SGState) and (state.tuning is None or state.tuning.numbers.ndim == 1)


def _counted_once(state):
    """With one counter for all chains: were it batched, each chain would decide by its own."""
    return state._replace(i=state.i[0]) if isinstance(state, SGState) else state


def _of_start(start, apart, shared):
    """Of what each chain has its own, and what they share."""
    state = start[1]
    if isinstance(state, SGState):
        state = SGState(*(apart for _ in state))._replace(i=shared)
        state = state._replace(tuning=shared) if _shares_tuning(start[1]) else state
    else:
        state = apart
    return apart, state, apart


def _leaves(start):
    """The same, leaf by leaf."""
    is_spec = lambda node: isinstance(node, PartitionSpec)  # noqa: E731
    return jax.tree.map(
        lambda spec, part: jax.tree.map(lambda _: spec, part), _of_start(start, APART, SHARED), start, is_leaf=is_spec
    )

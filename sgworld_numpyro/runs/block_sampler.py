"""The samples of an ``MCMC``, a block at a time, in one compiled loop for blocks of every length.

``MCMC.run`` compiles its loop for one number of samples, and without a progress bar anew at every call. Here the number
is an argument of the compiled loop, so that where a run is cut changes neither its program nor its draws.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpyro.infer import MCMC
from numpyro.infer.mcmc import _collect_and_postprocess

from sgworld_numpyro.chain import caller
from sgworld_numpyro.devices.chains import ChainsOverDevices, of_chain

BLOCK_BYTES = 2**24  # of draws; their place is cleared for each block
MAX_DRAWS = 2**20


class BlockSampler:
    """What takes the samples of a run.

    Args:
        mcmc: whose run it is.
        args: of the model.
        kwargs: of the model.
        extra_fields: as of ``MCMC.run``.
        state: of all chains, as ``mcmc.last_state`` has it.

    Attributes:
        shapes: of one draw of one chain, by field; the leaves are ``jax.ShapeDtypeStruct``.
        capacity: draws that a block can take.
        bytes_a_draw: of all chains.
    """

    def __init__(self, mcmc: MCMC, args: tuple, kwargs: dict[str, Any], extra_fields: Sequence[str], state: Any):
        self._mcmc, self._thinning = mcmc, int(mcmc.thinning)
        mcmc._args, mcmc._kwargs = args, kwargs
        fields, without = _fields(mcmc, extra_fields)
        self._run = caller.Run(mcmc, state.rng_key, state, args, kwargs, fields, without)
        self._mapped = mcmc.num_chains > 1 and mcmc.chain_method not in ("vectorized", "sequential")
        self._apart = mcmc.num_chains > 1 and mcmc.chain_method != "vectorized"
        with caller.announced(self._run):
            one = self._one(state)
            self._bind(one.rng_key)
            draw = jax.eval_shape(self._draw, self._value(one))
        together = mcmc.num_chains > 1 and not self._apart
        self.shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[together:], leaf.dtype), draw)
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.shapes))
        self.bytes_a_draw = max(1, mcmc.num_chains * size)
        self.capacity = max(1, min(BLOCK_BYTES // self.bytes_a_draw, MAX_DRAWS, mcmc.num_samples // self._thinning))
        self._loop = jax.jit(self._samples)
        self._over = isinstance(mcmc.chain_method, ChainsOverDevices)
        if self._mapped and self._over:
            self._all = mcmc.chain_method.compiled(self._chain_over, mcmc)
        elif self._mapped and mcmc.chain_method == "parallel":
            self._all = jax.pmap(self._chain, in_axes=(None, 0))
        elif self._mapped:
            self._all = jax.jit(lambda samples, start: mcmc.chain_method(partial(self._chain, samples))(start))

    def __call__(self, state: Any, samples: int) -> tuple[Any, dict[str, Any]]:
        """The state after some samples, and the draws among them: by field, chains first, on the host.

        Args:
            state: of all chains.
            samples: how many; a draw is kept after each ``thinning`` of them.
        """
        number = np.int32(samples)
        with caller.announced(self._run):
            if self._mapped and self._over:
                draws, state = self._all((state.rng_key, state, None), number)
            elif self._mapped:
                state, draws = self._all(number, (state.rng_key, state, None))
            elif self._apart:
                chains = range(self._mcmc.num_chains)
                parts = [self._loop(self._value(self._one(state, chain)), number) for chain in chains]
                state, draws = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
            else:
                state, draws = self._loop(self._value(state), number)
        kept = samples // self._thinning

        def chains_first(leaf):
            leaf = np.asarray(leaf)
            if not self._apart:  # draws first; those of one chain have no axis of chains
                leaf = leaf[None] if self._mcmc.num_chains == 1 else np.swapaxes(leaf, 0, 1)
            return np.array(leaf[:, :kept], order="C")  # without the room that is left

        return state, jax.tree.map(chains_first, draws)

    def program(self, state: Any) -> Any:
        """What a sample computes, of a chain or of chains that are vectorized: a jaxpr."""

        def sample(state):
            value = self._mcmc._get_cached_fns()[0](self._value(state))
            return value[0], self._draw(value)

        # of shapes, which know nothing of the devices that a state lies on
        one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self._one(state))
        with caller.announced(self._run):
            return jax.make_jaxpr(sample)(one)

    def _one(self, state, chain=0):
        """The state that one call of the loop goes on from."""
        return of_chain(state, chain) if self._apart else state

    def _bind(self, key):
        """What ``MCMC`` does to a kernel that goes on from a state: if it does not know how to yet, initialise it."""
        if getattr(self._mcmc.sampler, "_sample_fn", None) is None:
            self._mcmc.sampler.init(
                key, self._mcmc.num_warmup, None, model_args=self._run.args, model_kwargs=self._run.kwargs
            )

    def _chain(self, samples, start):
        """One chain, inside of the transformation that runs several."""
        key, state, _ = start
        self._bind(key)
        return self._loop(self._value(state), samples)

    def _chain_over(self, start, samples):
        """One chain, of those that are spread over devices."""
        key, state, _ = start
        self._bind(key)
        state, draws = self._samples(self._value(state), samples)
        return draws, state

    def _value(self, state):
        """What NumPyro's function of a sample takes and returns."""
        return (state, self._run.args, self._run.kwargs) if self._mcmc._jit_model_args else (state,)

    def _draw(self, value):
        _, postprocess = self._mcmc._get_cached_fns()
        fields = self._run.fields
        found = _collect_and_postprocess(postprocess, fields, self._run.without)(value)
        return dict(zip(fields, [found] if len(fields) == 1 else found, strict=True))

    def _samples(self, value, samples):
        sample, _ = self._mcmc._get_cached_fns()
        room = jax.tree.map(
            lambda leaf: jnp.zeros((self.capacity, *leaf.shape), leaf.dtype), jax.eval_shape(self._draw, value)
        )

        def one(number, carry):
            value, draws = carry
            value = sample(value)
            put = partial(jax.tree.map, lambda room, new: room.at[number // self._thinning].set(new))
            return value, put(draws, self._draw(value))

        (state, *_), draws = lax.fori_loop(0, samples, one, (value, room))
        return state, draws


def _fields(mcmc, extra_fields):
    """Which fields of the state ``MCMC`` collects, and which sites it leaves out: those written ``~z.site``."""
    prefix = f"~{mcmc._sample_field}."
    names = dict.fromkeys((mcmc._sample_field, *mcmc._default_fields, *extra_fields))
    without = tuple(name.removeprefix(prefix) for name in names if name.startswith(prefix))
    return tuple(name for name in names if not name.startswith(prefix)), without

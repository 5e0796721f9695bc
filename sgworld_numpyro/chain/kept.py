"""What a chain keeps of its draws: something else than the latent sites, and averages over all of them.

A network's draws are as large as its weights times their number; what is asked of them is often a few numbers each, or
one mean. Both are computed while sampling, so that neither the draws nor a second pass over them is needed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

Function = Callable[[dict[str, Array]], Mapping[str, Array]]


class Kept(NamedTuple):
    """What a chain keeps of its draws; dictionaries are empty where the kernel was given no function.

    - **warmup** - samples before the first that counts.
    - **values** - of ``keep``, at the last draw.
    - **draws** - how many the averages are of, those that thinning leaves out included.
    - **mean** - of each value of ``average``.
    - **lost** - what rounding added to the means too much, to be taken off at the next draw (Kahan 1965).
    - **squares** - sums of the squared distances from the mean.
    """

    warmup: Array
    values: dict[str, Array]
    draws: Array
    mean: dict[str, Array]
    lost: dict[str, Array]
    squares: dict[str, Array]


@dataclass(frozen=True)
class Keeping:
    """Which functions of the draws a chain keeps; both take constrained values by site.

    Attributes:
        keep: to what is kept at every draw in place of the latent sites; to nothing, where only averages are wanted.
        average: to what is averaged over the draws.
    """

    keep: Function | None
    average: Function | None

    def start(self, example: Any, warmup: int) -> Kept:
        """What is kept before the first draw.

        Args:
            example: constrained values by site, or their shapes.
            warmup: samples before the first that counts.

        Raises:
            TypeError: if a function returns something else than a dictionary of arrays.
            ValueError: if ``average`` returns an empty one; of ``keep`` that means that nothing is kept.
        """
        values, mean = _zeros("keep", self.keep, example), _zeros("average", self.average, example)
        mean = {name: value.astype(jnp.promote_types(value.dtype, jnp.float32)) for name, value in mean.items()}
        return Kept(jnp.int32(warmup), values, jnp.int32(0), mean, mean, mean)

    def after(self, draw: Callable[[], dict[str, Array]], counts: Array, kept: Any) -> Any:
        """What is kept after one more sample.

        Args:
            draw: makes the constrained values by site.
            counts: whether the warm-up is over; not batched over chains, so that nothing is averaged before.
            kept: so far, a ``Kept``, or None of a kernel without functions.

        Raises:
            ValueError: if ``kept`` is of a kernel with other functions.
        """
        if self.keep is None and self.average is None and kept is None:
            return None
        kept, sites = kept or Kept(jnp.int32(0), {}, jnp.int32(0), {}, {}, {}), draw()
        values = {} if self.keep is None else _arrays(self.keep(sites))
        _check_same("keep", values, kept.values)
        kept = kept._replace(values=values)
        if self.average is None:
            _check_same("average", {}, kept.mean)
            return kept
        average = self.average

        def with_draw(kept):
            averaged = _arrays(average(sites))
            _check_same("average", averaged, kept.mean)
            draws, mean, lost, squares = kept.draws + 1, {}, {}, {}
            for name, value in averaged.items():
                before = kept.mean[name]
                step = value - before
                small = step / draws - kept.lost[name]
                mean[name] = before + small
                lost[name] = (mean[name] - before) - small
                squares[name] = kept.squares[name] + step * (value - mean[name])
            return Kept(kept.warmup, kept.values, draws, mean, lost, squares)

        return lax.cond(counts, with_draw, lambda kept: kept, kept)


def _check_same(argument, values, before):
    if values.keys() != before.keys():
        raise ValueError(
            f"the state to go on from is of a kernel whose {argument} made {', '.join(sorted(before)) or 'nothing'}, "
            f"and this kernel's makes {', '.join(sorted(values)) or 'nothing'}: warm up and run with the same kernel."
        )


def _zeros(argument, function, example):
    if function is None:
        return {}
    shapes = jax.eval_shape(function, example)
    arrays = isinstance(shapes, Mapping) and all(isinstance(v, jax.ShapeDtypeStruct) for v in shapes.values())
    if not arrays:
        raise TypeError(f"{argument} returned a {type(shapes).__name__}; want a dictionary of arrays by name.")
    if not shapes and argument == "average":
        raise ValueError("average returned an empty dictionary; leave it out if nothing is wanted.")
    return {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}


def _arrays(values):
    return {name: jnp.asarray(value) for name, value in values.items()}

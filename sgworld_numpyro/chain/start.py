"""Where a chain starts, and whether what it is given there will do."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.flatten_util import ravel_pytree
from numpyro.infer.gibbs import GIBBS_SITES_KWARG
from numpyro.infer.util import find_valid_initial_params, potential_energy, unconstrain_fn
from numpyro.util import is_prng_key

from sgworld_numpyro.chain.binding import Binding
from sgworld_numpyro.chain.engine import Engine
from sgworld_numpyro.chain.placement import is_spread
from sgworld_numpyro.chain.state import SGState
from sgworld_numpyro.chain.thermometer import cold
from sgworld_numpyro.model.arguments import Arguments
from sgworld_numpyro.model.arrays import is_traced

CHECKED_BYTES = 2**24  # of an array that are looked at together: what is not finite is marked aside


def initial_state(engine: Engine, init_strategy: Callable, step_size, arguments: Arguments, rng_key, init_params):
    """The initial state for one key or several, and whether it is valid."""
    single = is_prng_key(rng_key)

    def split(key):
        return tuple(random.split(key, 3))

    noise_key, init_key, shuffle_key = split(rng_key) if single else jax.vmap(split)(rng_key)
    z, valid = initial_values(engine, init_strategy, arguments, init_key, init_params)

    state = partial(state_at, engine, step_size)
    return (state if single else jax.vmap(state))(z, shuffle_key, noise_key), valid


def state_at(engine: Engine, step_size, z: Mapping[str, Array], shuffle_key: Array, noise_key: Array) -> SGState:
    """The state of a chain that starts at unconstrained values by site."""
    dtype = engine.target.dtype
    position = engine.target.ravel(z)
    return SGState(
        i=jnp.int32(0),
        z=dict(z),
        potential_energy=jnp.zeros((), dtype),
        step_size=jnp.asarray(step_size, dtype),
        diverging=jnp.array(False),
        divergences=jnp.int32(0),
        integrator_state=engine.integrator.init(position),
        thermometer=cold(position),
        tuning=None,
        shuffle_key=shuffle_key,
        rng_key=noise_key,
    )


def initial_values(engine: Engine, init_strategy: Callable, arguments: Arguments, key: Array, given):
    """Unconstrained initial values by site, and whether potential and gradient are finite there.

    Args:
        engine: whose target is to be initialised.
        init_strategy: one of NumPyro's.
        arguments: the model's arguments.
        key: one key, or one a chain.
        given: values to use as they are, some or all sites; chains along the first axis if there are several
            keys. Unconstrained, but constrained if they come from an enclosing ``Gibbs``.
    """
    target = engine.target
    args, kwargs = arguments.unflatten()
    model = target.at(arguments, target.first_rows())
    if given and GIBBS_SITES_KWARG in kwargs:
        given = unconstrain_fn(model, args, kwargs, given)
    if given and set(given) == set(target.prototype):
        return _cast(given, target), _finite_at(model, args, kwargs, given, key)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), target.prototype)
    (values, _, _), valid = find_valid_initial_params(
        key,
        model,
        init_strategy=init_strategy,
        model_args=args,
        model_kwargs=kwargs,
        prototype_params=zeros,
    )
    return _cast({**values, **(given or {})}, target), valid


def _cast(values, target):
    return {name: jnp.asarray(values[name], leaf.dtype) for name, leaf in target.prototype.items()}


def _finite_at(model, args, kwargs, values, key):
    def finite(values):
        energy, gradient = jax.value_and_grad(partial(potential_energy, model, args, kwargs))(values)
        return jnp.isfinite(energy) & jnp.all(jnp.isfinite(ravel_pytree(gradient)[0]))

    return finite(values) if is_prng_key(key) else jax.vmap(finite)(values)


def check_key(rng_key: Any) -> None:
    """Raise ``TypeError`` for what is no key or keys of ``jax.random``."""
    shape, kind = getattr(rng_key, "shape", None), getattr(rng_key, "dtype", None)
    typed = shape is not None and len(shape) == 1 and jax.dtypes.issubdtype(kind, jax.dtypes.prng_key)
    raw = shape is not None and len(shape) == 2 and shape[1] == 2 and kind == np.uint32
    if not (is_prng_key(rng_key) or typed or raw):
        seed = rng_key if isinstance(rng_key, int) and not isinstance(rng_key, bool) else 0
        raise TypeError(f"rng_key={rng_key!r:.60} is no key: mcmc.run(jax.random.key({seed}), ...).")


def check_initial_values(values: Any, prototype: Mapping[str, Any], batch: tuple[int, ...]) -> None:
    """Raise ``ValueError`` if ``init_params`` has unknown sites or wrong shapes."""
    if values is not None and not isinstance(values, Mapping):
        raise ValueError(
            f"init_params must be a dict of unconstrained values by site name, got {type(values).__name__}."
        )
    for name, value in (values or {}).items():
        if name not in prototype:
            raise ValueError(f"init_params has {name!r}, which is no latent site; they are {sorted(prototype)}.")
        wanted = (*batch, *prototype[name].shape)
        if jnp.shape(value) != wanted:
            raise ValueError(
                f"init_params[{name!r}] has shape {jnp.shape(value)}, wanted {wanted} (unconstrained"
                f"{', chains first' if batch else ''})."
            )


def check_initial_state(valid: Array, position: Array, binding: Binding) -> None:
    """Raise ``ValueError`` for data that are not finite, and if no valid initial values were found."""
    _check_data(position, binding)
    if not np.all(np.asarray(valid)):
        raise ValueError(
            "No initial values were found where potential energy and gradient are finite on the first rows. "
            "Check the model's constraints and that the data lie within them, or give init_params or another "
            "init_strategy, for instance init_strategy=numpyro.infer.init_to_median."
        )


def _check_data(position, binding):
    """NaN is allowed where it does not reach the potential, in rows that a mask hides for instance."""
    target, arguments = binding.engine.target, binding.arguments
    for number, name in arguments.names(target.model).items():
        leaf = arguments.leaves[number]
        if is_traced(leaf) or (is_spread(leaf) and bool(jnp.isfinite(leaf).all())):
            continue
        if np.asarray(leaf).dtype.kind in "fc":
            _check_finite(name, np.asarray(leaf), 0, leaf.shape, position, binding)
    names = arguments.names(target.model, of_columns=True)
    for source in dict.fromkeys(arguments.leaves[number].source for number in names):
        columns = {number: arguments.leaves[number] for number in names}
        floats = {n: c for n, c in columns.items() if c.source is source and c.stored.kind == "f"}
        if not source.check or source.is_finite or not floats:
            continue
        for start, block in source.blocks():
            for number, column in floats.items():
                _check_finite(names[number], block[column.number], start, column.shape, position, binding)
        source.is_finite = True


def _check_finite(name, values, start, shape, position, binding):
    """Of an array, or of its rows from number ``start`` on."""
    pieces = np.array_split(np.atleast_1d(values), -(-values.nbytes // CHECKED_BYTES) or 1)
    if all(np.isfinite(piece).all() for piece in pieces):
        return
    bad = ~np.isfinite(values)
    places = np.argwhere(bad)
    places[:, 0] += start
    place = _reaching_place(places, shape, position, binding)
    if place is not None:
        here = (place[0] - start, *place[1:])
        raise ValueError(
            f"{name}{list(place)} is {values[here]}: {int(bad.sum())} of the {bad.size} values of "
            f"{name}{' in its block of rows' if len(values) < shape[0] else ''} are not finite. Remove these rows, or "
            "hide them from the likelihood with numpyro.handlers.mask and fill them with any number."
        )


def _reaching_place(places, shape, position, binding):
    """The first of these places of an array that makes the potential or its gradient not finite, if any does."""
    target = binding.engine.target

    def finite(arguments, position, rows):
        energy, gradient = jax.value_and_grad(target.energy(arguments, rows))(position)
        return jnp.isfinite(energy) & jnp.all(jnp.isfinite(gradient))

    is_finite = binding.compiled("finite", finite, binding.arguments)
    for plate in target.plates:
        for axis in (axis for axis, size in enumerate(shape) if size == plate.size):
            bad_rows, first = np.unique(places[:, axis], return_index=True)
            for start in range(0, len(bad_rows), plate.batch_size):
                some = bad_rows[start : start + plate.batch_size]
                rows = {**target.first_rows(), plate.name: jnp.resize(jnp.int32(some), plate.batch_size)}
                if is_finite(position, rows):
                    continue
                for row, where in zip(some, first[start:], strict=False):
                    rows[plate.name] = jnp.full(plate.batch_size, row, jnp.int32)
                    if not is_finite(position, rows):
                        return tuple(int(index) for index in places[where])
    return None

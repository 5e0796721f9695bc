"""Checks of what the user hands to a kernel, with errors that say how to mend it."""

import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.primitives import plate as numpyro_plate
from numpyro.util import is_prng_key

from sgworld_numpyro.chain.binding import Binding
from sgworld_numpyro.chain.engine import MAX_STEPS
from sgworld_numpyro.chain.held_data import is_traced
from sgworld_numpyro.integrators import INTEGRATORS
from sgworld_numpyro.linear_gaussian import knows_integrator
from sgworld_numpyro.model.requirements import ModelError
from sgworld_numpyro.model.target import Arguments, Target
from sgworld_numpyro.subsampling import Plate, SubsamplingScheme

# Steps of single precision that a column must span, or rounding is a part in so many of it.
RESOLVED = 1000


def checked_step_size(step_size: Any) -> Any:
    """A positive float, a schedule or a value under ``jit`` as it is, or None where it is to be tuned.

    Raises:
        ValueError: for anything else.
    """
    if callable(step_size):
        try:
            inspect.signature(step_size).bind(0)
        except TypeError:
            raise ValueError(
                f"The schedule {step_size!r} must take one argument, the number of inner steps taken."
            ) from None
        except ValueError:
            pass  # a callable without a signature; it will be tried
        return step_size
    if step_size is None:
        return None
    if is_traced(step_size) and step_size.shape == () and jnp.issubdtype(step_size.dtype, jnp.floating):
        return step_size
    value = _number(step_size)
    if value is None:
        raise ValueError(f"step_size={step_size!r} is neither a positive number nor a function of the step.")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"step_size={value} must be positive and finite.")
    return value


def _number(value: Any) -> float | None:
    """A real scalar of Python, NumPy or JAX as a float; None for anything else."""
    kind = getattr(value, "dtype", np.dtype(float))
    real = jnp.issubdtype(kind, jnp.integer) or jnp.issubdtype(kind, jnp.floating)
    if isinstance(value, str | bytes | bool) or is_traced(value) or not real or np.shape(value) != ():
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def checked_tolerance(tolerance: float) -> float:
    """A number between 0 and 1.

    Raises:
        ValueError: if it is not.
    """
    value = _number(tolerance)
    if value is None or not 0 < value < 1:
        raise ValueError(
            f"bias_tolerance={tolerance!r} must be between 0 and 1: it is the relative error that the posterior "
            "variance may have, 0.02 by default."
        )
    return value


def check_tunable(step_size: Any, integrator: Any, temperature: float) -> None:
    """Raise ``ValueError`` if a step size is missing where none can be chosen."""
    if step_size is not None:
        return
    if temperature == 0:
        raise ValueError(
            "step_size is missing. At temperature 0 there is no posterior to keep a bias from: give a positive number "
            "h, or a schedule such as welling_teh(a=1e-3)."
        )
    if not knows_integrator(integrator):
        raise ValueError(
            f"step_size is missing, and the bias of integrator={integrator!r} is not known: give a positive number h. "
            f"Those with a known bias are {', '.join(f'{known.__name__}()' for known in INTEGRATORS)}."
        )


def check_schedule(step_size: Callable, last_warmup_step: int) -> None:
    """Raise ``ValueError`` if a schedule is not positive and finite at the start or the end of warm-up."""
    name = getattr(step_size, "__qualname__", repr(step_size))
    try:
        jax.eval_shape(step_size, jax.ShapeDtypeStruct((), jnp.int32))
    except jax.errors.ConcretizationTypeError as error:
        raise ValueError(
            f"The schedule {name} must work on steps that have no value yet: use jnp.where instead of if."
        ) from error
    with jax.ensure_compile_time_eval():
        for step in (0, min(last_warmup_step, 2**31 - 1)):
            value = np.asarray(step_size(jnp.int32(step)))
            if value.shape != () or not (np.isfinite(value) and value > 0):
                raise ValueError(
                    f"The schedule {name} gives {value} at step {step}; it must give one positive, finite number "
                    "for every step."
                )


def checked_component(argument: str, component: Any, protocol: type) -> Any:
    """The component, if it follows its protocol.

    Raises:
        TypeError: if it does not.
    """
    if isinstance(component, type) or not isinstance(component, protocol):
        package, example = _AT_HAND[argument]
        made = f"{component.__name__}()" if isinstance(component, type) else f"for example {example}"
        raise TypeError(
            f"{argument}={component!r} does not follow the protocol {protocol.__name__}; pass an instance, {made}. "
            f"Those at hand are in sgworld_numpyro.{package}."
        )
    return component


_AT_HAND = {
    "subsampling": ("subsampling", "RandomReshuffle()"),
    "integrator": ("integrators", "LeimkuhlerMatthews()"),
    "gradient": ("gradients", "Minibatch()"),
    "preconditioner": ("preconditioners", "Dense(matrix)"),
}


def checked_callable(argument: str, function: Any) -> Callable:
    """The function.

    Raises:
        TypeError: if it cannot be called.
    """
    if not callable(function):
        raise TypeError(f"{argument}={function!r:.60} cannot be called; pass {_FUNCTIONS[argument]}.")
    return function


_FUNCTIONS = {
    "model": "a NumPyro model, a function",
    "init_strategy": "a function of numpyro.infer, init_to_median say",
    "keep": "a function of the constrained values by site, to a dictionary",
    "average": "a function of the constrained values by site, to a dictionary",
}


def checked_temperature(temperature: float) -> float:
    """A finite number that is not negative.

    Raises:
        ValueError: if it is not.
    """
    value = _number(temperature)
    if is_traced(temperature):
        raise ValueError(
            f"temperature={temperature!r} has no value under jit or vmap, and whether it is 0 decides what is "
            "compiled: make a kernel for each temperature, a Python number."
        )
    if value is None or not (math.isfinite(value) and value >= 0):
        raise ValueError(f"temperature={temperature!r} must be finite and not negative; 1 samples the posterior.")
    return value


def checked_steps(steps: int | None) -> int | None:
    """A positive integer, or None.

    Raises:
        ValueError: for anything else.
    """
    if steps is None:
        return None
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise ValueError(f"steps_per_sample={steps!r} must be a positive integer, or None for one period.")
    if steps > MAX_STEPS:
        raise ValueError(
            f"steps_per_sample={steps} is more than 32-bit counters are trusted with; the largest is {MAX_STEPS}. Take "
            "more samples instead, with thinning if they are too many to keep."
        )
    return int(steps)


def check_key(rng_key: Any) -> None:
    """Raise ``TypeError`` for what is no key or keys of ``jax.random``."""
    shape, kind = getattr(rng_key, "shape", None), getattr(rng_key, "dtype", None)
    typed = shape is not None and len(shape) == 1 and jax.dtypes.issubdtype(kind, jax.dtypes.prng_key)
    raw = shape is not None and len(shape) == 2 and shape[1] == 2 and kind == np.uint32
    if not (is_prng_key(rng_key) or typed or raw):
        seed = rng_key if isinstance(rng_key, int) and not isinstance(rng_key, bool) else 0
        raise TypeError(f"rng_key={rng_key!r:.60} is no key: mcmc.run(jax.random.key({seed}), ...).")


def check_dimension(target: Target) -> None:
    """Raise ``ModelError`` if the latent sites have no coordinate."""
    if target.dim == 0:
        shapes = ", ".join(f"{name!r} of shape {leaf.shape}" for name, leaf in target.prototype.items())
        raise ModelError(f"The latent sites have no value to sample: {shapes}. Check the sizes that shape them.")


@contextmanager
def plates_explained(model: Callable, arguments: Arguments) -> Iterator[None]:
    """Turn what NumPyro and JAX say of a plate without rows, or of sizes without a value, into ``ModelError``."""
    try:
        yield
    except (AssertionError, jax.errors.TracerBoolConversionError) as error:
        here = _plate_of(error)
        if here is None:
            raise
        name, size, batch = here["name"], here["size"], here["subsample_size"]
        unknown = [
            f"{argument}={value!r:.60}"
            for argument, value in (("size", size), ("subsample_size", batch))
            if isinstance(value, jax.Array)
        ]
        if unknown:
            raise ModelError(
                f"Plate {name!r} has {unknown[0]}, a value of JAX, which is not known while the model is compiled. "
                "Give a Python integer: int(...) of it outside the model, or x.shape[0] and len(x) inside."
            ) from error
        if size > 0:
            raise
        empty = [
            f"{named} of shape {arguments.leaves[number].shape}"
            for number, named in arguments.names(model).items()
            if 0 in arguments.leaves[number].shape
        ]
        data = f" The data have none: {', '.join(empty)}." if empty else ""
        raise ModelError(f"Plate {name!r} has size={size}, but needs at least one row.{data}") from error


def _plate_of(error):
    """The arguments of the plate in whose making an error was raised, if it was one's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code is not numpyro_plate.__init__.__code__:
        trace = trace.tb_next
    return None if trace is None else trace.tb_frame.f_locals


def check_scheme(scheme: SubsamplingScheme, plates: Sequence[Plate]) -> None:
    """Raise ``TypeError`` or ``ValueError`` if a scheme does not give what it must: shape, rows, period."""
    for plate in plates:
        period = scheme.period(plate)
        if isinstance(period, bool) or not isinstance(period, int | np.integer) or period < 1:
            raise ValueError(
                f"{scheme!r}.period gave {period!r} for plate {plate.name!r}; it must be a positive integer."
            )
        rows = jax.eval_shape(lambda p=plate: scheme.indices(jax.random.key(0), jnp.int32(0), 2, p))
        good = rows.ndim == 2 and rows.shape[0] == 2 and jnp.issubdtype(rows.dtype, jnp.integer)
        if not good:
            raise TypeError(
                f"{scheme!r}.indices gave {rows.dtype}{list(rows.shape)} for 2 steps of plate {plate.name!r}; "
                "it must give integers of shape (steps, batch)."
            )
        if not type(scheme).__module__.startswith("sgworld_numpyro."):  # ours are known to stay within bounds
            with jax.ensure_compile_time_eval():
                drawn = np.asarray(scheme.indices(jax.random.key(0), jnp.int32(0), 2, plate))
            if drawn.min() < 0 or drawn.max() >= plate.size:
                raise ValueError(
                    f"{scheme!r}.indices gave rows {drawn.min()} to {drawn.max()} for plate {plate.name!r}, which has "
                    f"rows 0 to {plate.size - 1}."
                )


def check_precision(arguments: Arguments, names: Mapping[int, str]) -> None:
    """Raise ``ModelError`` for whole numbers that 32 bits do not hold, and warn of numbers that they do not tell apart.

    Where 64 bits are switched on, or there are no more, there is nothing to say.
    """
    for number, name in names.items():
        leaf = arguments.leaves[number]
        if is_traced(leaf) or leaf.size == 0 or jax.dtypes.canonicalize_dtype(leaf.dtype) == leaf.dtype:
            continue
        if leaf.dtype.kind in "iu":
            bounds, low, high = np.iinfo(jax.dtypes.canonicalize_dtype(leaf.dtype)), leaf.min(), leaf.max()
            if low < bounds.min or high > bounds.max:
                raise ModelError(
                    f"{name} has values from {low} to {high}, which JAX would cut to {bounds.bits} bits. Pass "
                    f"{name}.astype(float), or its distance from an origin, or switch on jax_enable_x64."
                )
        elif leaf.dtype == np.float64:
            columns = leaf.reshape(leaf.shape[0], -1) if leaf.ndim else leaf.reshape(1, 1)
            spread, size = np.ptp(columns, axis=0), np.abs(columns).max(axis=0)
            if np.any((spread > 0) & (spread < RESOLVED * np.finfo(np.float32).eps * size)):
                warnings.warn(
                    f"{name} is given in double precision and will be used in single, which hardly tells its values "
                    f"apart: they differ by {spread.min():.3g} at a size of {size.max():.3g}. Take off their mean.",
                    stacklevel=3,
                )


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
    target = binding.engine.target
    for number, name in binding.arguments.names(target.model).items():
        leaf = binding.arguments.leaves[number]
        if is_traced(leaf) or np.asarray(leaf).dtype.kind not in "fc":
            continue
        bad = ~np.isfinite(np.asarray(leaf))
        if not bad.any():
            continue
        place = _reaching_place(np.argwhere(bad), leaf.shape, position, binding)
        if place is not None:
            raise ValueError(
                f"{name}{list(place)} is {np.asarray(leaf)[place]}: {int(bad.sum())} of the {bad.size} values of "
                f"{name} are not finite. Remove these rows, or hide them from the likelihood with "
                "numpyro.handlers.mask and fill them with any number."
            )


def _reaching_place(places, shape, position, binding):
    """The first of these places of an array that makes the potential or its gradient not finite, if any does."""
    target = binding.engine.target

    def finite(arguments, position, rows):
        energy, gradient = jax.value_and_grad(target.potential)(target.unravel(position), arguments, rows)
        return jnp.isfinite(energy) & jnp.all(jnp.isfinite(target.ravel(gradient)))

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

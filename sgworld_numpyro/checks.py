"""Checks of what the user hands to a kernel, with errors that say how to mend it."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sgworld_numpyro.binding import Binding
from sgworld_numpyro.held_data import is_traced
from sgworld_numpyro.linear_gaussian import INTEGRATORS
from sgworld_numpyro.subsampling import Plate, SubsamplingScheme
from sgworld_numpyro.tuning import name_of


def checked_step_size(step_size: Any) -> Any:
    """A positive float, a schedule as it is, or None where it is to be tuned.

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
    try:
        if isinstance(step_size, str | bool):
            raise TypeError
        value = float(step_size)
    except (TypeError, ValueError):
        raise ValueError(f"step_size={step_size!r} is neither a positive number nor a function of the step.") from None
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"step_size={value} must be positive and finite.")
    return value


def checked_tolerance(tolerance: float) -> float:
    """A number between 0 and 1.

    Raises:
        ValueError: if it is not.
    """
    number = isinstance(tolerance, int | float | np.number) and not isinstance(tolerance, bool)
    if not (number and 0 < tolerance < 1):
        raise ValueError(
            f"bias_tolerance={tolerance!r} must be between 0 and 1: it is the relative error that the posterior "
            "variance may have, 0.02 by default."
        )
    return float(tolerance)


def check_tunable(step_size: Any, integrator: Any, temperature: float) -> None:
    """Raise ``ValueError`` if a step size is missing where none can be chosen."""
    if step_size is not None:
        return
    if temperature == 0:
        raise ValueError(
            "step_size is missing. At temperature 0 there is no posterior to keep a bias from: give a positive number "
            "h, or a schedule such as welling_teh(a=1e-3)."
        )
    if name_of(integrator) not in INTEGRATORS:
        raise ValueError(
            f"step_size is missing, and the bias of integrator={integrator!r} is not known: give a positive number h. "
            f"Those with a known bias are {', '.join(INTEGRATORS)}."
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
    if not (isinstance(temperature, int | float) and math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature={temperature!r} must be finite and not negative; 1 samples the posterior.")
    return float(temperature)


def checked_steps(steps: int | None) -> int | None:
    """A positive integer, or None.

    Raises:
        ValueError: for anything else.
    """
    if steps is None:
        return None
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise ValueError(f"steps_per_sample={steps!r} must be a positive integer, or None for one period.")
    return int(steps)


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

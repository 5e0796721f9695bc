"""Checks of what the user hands to a kernel, with errors that say how to mend it."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_numpyro.chain.engine import LAST_STEP
from sgworld_numpyro.integrators import INTEGRATORS
from sgworld_numpyro.linear_gaussian import knows_integrator
from sgworld_numpyro.model.arrays import is_traced
from sgworld_numpyro.preconditioners import Dense, Diagonal
from sgworld_numpyro.subsampling import Plate, SubsamplingScheme
from sgworld_numpyro.tuning.curvature import MAX_DENSE


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
            "h, or a schedule such as WellingTeh(a=1e-3)."
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
    if steps > LAST_STEP:
        raise ValueError(
            f"steps_per_sample={steps} is more than 32-bit counters are trusted with; the largest is {LAST_STEP}. Take "
            "more samples instead, with thinning if they are too many to keep."
        )
    return int(steps)


def check_dimensions(preconditioner: Any, dim: int) -> None:
    """Raise ``ValueError`` if a preconditioner is of another number of dimensions, or too many to learn it in."""
    if isinstance(preconditioner, Dense) and preconditioner.to_be_learnt and dim > MAX_DENSE:
        raise ValueError(
            f"Dense() is learnt in up to {MAX_DENSE} dimensions, and the model has {dim}. Leave preconditioner out, "
            "which learns Diagonal(), or give the matrix, Dense(matrix)."
        )
    if isinstance(preconditioner, Dense | Diagonal) and not preconditioner.to_be_learnt:
        given = preconditioner.matrix if isinstance(preconditioner, Dense) else preconditioner.diagonal
        if len(given) != dim:
            raise ValueError(
                f"{preconditioner!r} does not fit a model of {dim} unconstrained coordinates, the elements of its "
                "latent sites in alphabetical order."
            )


def check_rows_of(scheme: SubsamplingScheme, plates: Sequence[Plate]) -> None:
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

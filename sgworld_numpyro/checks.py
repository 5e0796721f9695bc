"""Checks of what the user hands to a kernel, with errors that say how to mend it."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_numpyro.binding import Binding
from sgworld_numpyro.handlers import is_numeric_array
from sgworld_numpyro.held_data import is_traced


def checked_step_size(step_size: Any) -> Any:
    """A positive float, or the schedule as it is.

    Raises:
        ValueError: for anything else.
    """
    if callable(step_size):
        return step_size
    if step_size is None:
        raise ValueError(
            "step_size is missing. Give a positive number h, or a schedule such as welling_teh(a=1e-3); a good "
            "first guess is 1 / (number of rows x curvature of one row's negative log likelihood)."
        )
    try:
        value = float(step_size)
    except (TypeError, ValueError):
        raise ValueError(
            f"step_size={step_size!r} is neither a positive number nor a function of the step."
        ) from None
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"step_size={value} must be positive and finite.")
    return value


def check_schedule(step_size: float | Callable, last_warmup_step: int) -> None:
    """Raise ``ValueError`` if a schedule is not positive and finite at the start or the end of warm-up."""
    if not callable(step_size):
        return
    with jax.ensure_compile_time_eval():
        for step in (0, min(last_warmup_step, 2**31 - 1)):
            value = np.asarray(step_size(jnp.int32(step)))
            if value.shape != () or not (np.isfinite(value) and value > 0):
                raise ValueError(
                    f"The schedule {step_size!r} gives {value} at step {step}; it must give one positive, finite "
                    "number for every step."
                )


def checked_component(argument: str, component: Any, protocol: type) -> Any:
    """The component, if it follows its protocol.

    Raises:
        TypeError: if it does not.
    """
    if isinstance(component, type) or not isinstance(component, protocol):
        made = f"an instance, {component.__name__}()" if isinstance(component, type) else protocol.__name__
        raise TypeError(
            f"{argument}={component!r} is not a {protocol.__name__}; pass {made}. "
            f"Those at hand are in sgworld_numpyro.{_PACKAGES[argument]}."
        )
    return component


_PACKAGES = {
    "subsampling": "subsampling",
    "integrator": "integrators",
    "gradient": "gradients",
    "preconditioner": "preconditioners",
}


def checked_temperature(temperature: float) -> float:
    """A finite number that is not negative.

    Raises:
        ValueError: if it is not.
    """
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature={temperature} must be finite and not negative; 1 samples the posterior.")
    return float(temperature)


def checked_steps(steps: int | None) -> int | None:
    """A positive integer, or None.

    Raises:
        ValueError: for anything else.
    """
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise ValueError(f"steps_per_sample={steps!r} must be a positive integer, or None for one period.")
    return steps


def check_scheme(scheme, plates) -> None:
    """Raise ``TypeError`` if a scheme does not give row numbers of the right shape."""
    for plate in plates:
        rows = jax.eval_shape(lambda p=plate: scheme.indices(jax.random.key(0), jnp.int32(0), 2, p))
        good = rows.ndim == 2 and rows.shape[0] == 2 and jnp.issubdtype(rows.dtype, jnp.integer)
        if not good:
            raise TypeError(
                f"{scheme!r}.indices gave {rows.dtype}{list(rows.shape)} for 2 steps of plate {plate.name!r}; "
                "it must give integers of shape (steps, batch)."
            )


def check_initial_values(values, prototype, batch: tuple[int, ...]) -> None:
    """Raise ``ValueError`` if ``init_params`` has unknown sites or wrong shapes."""
    for name, value in (values or {}).items():
        if name not in prototype:
            raise ValueError(f"init_params has {name!r}, which is no latent site; they are {sorted(prototype)}.")
        wanted = (*batch, *prototype[name].shape)
        if jnp.shape(value) != wanted:
            raise ValueError(
                f"init_params[{name!r}] has shape {jnp.shape(value)}, wanted {wanted} (unconstrained"
                f"{', chains first' if batch else ''})."
            )


def check_initial_state(valid, model: Callable, binding: Binding) -> None:
    """Raise ``ValueError`` for data that are not finite, and if no valid initial values were found."""
    _check_data(model, binding)
    if not np.all(np.asarray(valid)):
        raise ValueError(
            "No initial values were found where potential energy and gradient are finite on the first rows. "
            "Check the model's constraints, or give init_params or another init_strategy, for instance "
            "init_strategy=numpyro.infer.init_to_median."
        )


def _check_data(model, binding):
    """NaN is allowed where it does not reach the potential, in rows that a mask hides for instance."""
    target = binding.engine.target
    for number, name in _names(model, binding.arguments).items():
        leaf = binding.arguments.leaves[number]
        if is_traced(leaf) or np.asarray(leaf).dtype.kind not in "fc":
            continue
        bad = ~np.isfinite(np.asarray(leaf))
        if not bad.any():
            continue
        place = tuple(int(axis[0]) for axis in np.nonzero(bad))
        if _reaches_potential(target, binding, place, leaf.shape):
            raise ValueError(
                f"{name}{list(place)} is {np.asarray(leaf)[place]}: {int(bad.sum())} of the {bad.size} values of "
                f"{name} are not finite. Remove these rows, or hide them from the likelihood with "
                "numpyro.handlers.mask and fill them with any number."
            )


def _reaches_potential(target, binding, place, shape):
    rows = target.first_rows()
    for plate in target.plates:
        for axis, size in enumerate(shape):
            if size == plate.size:
                rows[plate.name] = rows[plate.name].at[0].set(place[axis])
    zeros = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in target.prototype.items()}

    def finite(arguments, rows):
        energy, gradient = jax.value_and_grad(target.potential)(zeros, arguments, rows)
        return jnp.isfinite(energy) & jnp.all(jnp.isfinite(target.ravel(gradient)))

    return not binding.compiled("finite", finite, binding.arguments)(rows)


def _names(model, arguments) -> dict[int, str]:
    """Names of the array arguments as the model's author knows them."""
    args, kwargs = arguments.unflatten()
    try:
        bound = inspect.signature(model).bind(*args, **kwargs)
        tree: Any = bound.arguments
    except (TypeError, ValueError):
        tree = {**{f"args[{n}]": value for n, value in enumerate(args)}, **kwargs}
    paths = jax.tree_util.tree_leaves_with_path(dict(tree))
    numbers = {id(leaf): number for number, leaf in enumerate(arguments.leaves) if is_numeric_array(leaf)}
    return {
        numbers[id(leaf)]: path[0].key + jax.tree_util.keystr(path[1:])
        for path, leaf in paths
        if id(leaf) in numbers
    }

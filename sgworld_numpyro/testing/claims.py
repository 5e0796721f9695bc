"""How a check fails, and what schemes and integrators have in common."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from sgworld_numpyro.chain.binding import QUICKLY


def compiled(function: Callable) -> Callable:
    """``jax.jit`` of what runs so few times that to optimise it takes longer than it saves."""
    return jax.jit(function, compiler_options=QUICKLY)


def demand(holds: Any, message: str) -> None:
    """Raise ``AssertionError`` with a message, also under ``python -O``."""
    if not holds:
        raise AssertionError(message)


def check_value(name: str, what: Any) -> None:
    """A scheme or an integrator is a value: it is hashable and cannot be changed.

    Raises:
        AssertionError: if it is not.
    """
    mend = "write it as @dataclass(frozen=True) with fields that are hashable, such as tuples for lists."
    try:
        hash(what)
    except TypeError as error:
        raise AssertionError(
            f"{name} is not hashable ({error}), and compiled programs are found by it: {mend}"
        ) from None
    frozen = not dataclasses.is_dataclass(what) or what.__dataclass_params__.frozen  # type: ignore[union-attr]
    demand(frozen, f"{name} is a dataclass that can be changed, and compiled programs would not see it: {mend}")

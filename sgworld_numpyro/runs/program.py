"""A checksum of what JAX is to compute, the same in every process that would compute the same.

How JAX prints a program depends on what a process has traced before: a function that was met already is printed once
and then by name. So it is walked here, operation by operation.
"""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal


def checksum_of(program: ClosedJaxpr) -> str:
    """Of its operations, their order, parameters, literals and constants; not of the names of anything."""
    found = hashlib.sha256()
    for line in _lines(program.jaxpr):
        found.update(line.encode())
    for constant in program.consts:
        found.update(_shown(constant).encode())
    return found.hexdigest()


def _lines(jaxpr: Jaxpr) -> Iterator[str]:
    numbers: dict[Any, int] = {}

    def number(variable):
        if isinstance(variable, Literal):
            return _shown(np.asarray(variable.val))
        return f"v{numbers.setdefault(variable, len(numbers))}"

    yield " ".join(map(number, [*jaxpr.constvars, *jaxpr.invars]))
    for equation in jaxpr.eqns:
        kinds = " ".join(f"{getattr(v.aval, 'dtype', '')}{getattr(v.aval, 'shape', '')}" for v in equation.outvars)
        yield f"{equation.primitive} {' '.join(map(number, equation.invars))} {kinds}"
        for name, value in sorted(equation.params.items()):
            yield f"{name}:"
            yield from _parameter(value)
        for variable in equation.outvars:
            number(variable)
    yield " ".join(map(number, jaxpr.outvars))


def _parameter(value):
    if isinstance(value, ClosedJaxpr):
        yield from _lines(value.jaxpr)
        yield from map(_shown, value.consts)
    elif isinstance(value, Jaxpr):
        yield from _lines(value)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _parameter(one)
    else:
        yield _shown(value)


def _shown(value):
    """An array by shape, dtype and values; anything else as it shows itself, without the place where it lies."""
    if isinstance(value, jax.Array | np.ndarray) and not jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        values = np.asarray(value)
        return f"{values.dtype}{values.shape} {hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()}"
    return re.sub(r" at 0x[0-9a-f]+|0x[0-9a-f]{6,}", "", str(value))

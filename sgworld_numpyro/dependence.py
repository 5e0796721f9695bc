"""Which inputs of a function can influence which of its outputs."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Literal


def influences(function: Callable, inputs: Any, labels: Any, *others: Any) -> Any:
    """Labels of the inputs that reach each output, by following the function's operations.

    An operation is taken to pass all its inputs to all its outputs, so a label may be there that has no
    influence, never the other way round.

    Args:
        function: called as ``function(inputs, *others)``, on shapes alone.
        inputs: a pytree of arrays or of ``ShapeDtypeStruct``.
        labels: the same pytree with a frozenset in place of each array.
        others: further arguments, unlabelled.

    Returns:
        The pytree of the outputs, with a frozenset in place of each array.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(inputs, *others)
    known = dict(zip(closed.jaxpr.invars, jax.tree.leaves(labels), strict=False))

    def of(variable):
        return frozenset() if isinstance(variable, Literal) else known.get(variable, frozenset())

    for equation in closed.jaxpr.eqns:
        union = frozenset().union(*map(of, equation.invars))
        known.update((variable, union) for variable in equation.outvars)
    return jax.tree.unflatten(jax.tree.structure(shapes), [of(variable) for variable in closed.jaxpr.outvars])

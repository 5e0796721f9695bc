"""What reaches the outputs of a function, and which indices reach past the end of an array."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

Labels = frozenset
MAX_INDICES = 10**6  # of an array whose values are followed: more would be data and no index of a minibatch


class Overrun(NamedTuple):
    """An array that is indexed past its end.

    Attributes:
        labels: of the array.
        shape: its shape.
        axis: which of its axes is too short.
        place: the index that it does not have.
        of: labels of the index.
    """

    labels: Labels
    shape: tuple[int, ...]
    axis: int
    place: int
    of: Labels


class Flow(NamedTuple):
    """What was found out about a function.

    Attributes:
        outputs: the pytree of its outputs, with a frozenset of labels in place of each array.
        overruns: arrays that are indexed past their end, by an index that is made of valued inputs alone.
        widest: elements of the largest array on the way.
        epsilon: of the coarsest floating-point numbers on the way.
    """

    outputs: Any
    overruns: tuple[Overrun, ...]
    widest: int
    epsilon: float


class _Known(NamedTuple):
    """What is known of a variable: what reaches it, and its value if it is made of valued inputs and constants."""

    labels: Labels = frozenset()
    value: np.ndarray | None = None


def flow(function: Callable, inputs: Any, labels: Any, *others: Any, values: Any = None) -> Flow:
    """Follow the operations of a function, without running it.

    Calls, loops and branches are followed inside. Any other operation is taken to pass all its inputs to all its
    outputs, so a label may be there that has no influence, never the other way round.

    Args:
        function: called as ``function(inputs, *others)``, on shapes alone.
        inputs: a pytree of arrays or of ``ShapeDtypeStruct``.
        labels: the same pytree with a frozenset in place of each array.
        others: further arguments, unlabelled.
        values: the pytree of the inputs with a NumPy array, or None, in place of each: an example of the values that
            matter as indices, for which ``overruns`` is found.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(inputs, *others)
    marks = jax.tree.leaves(labels)
    examples = [None] * len(marks) if values is None else jax.tree.leaves(values, is_leaf=lambda leaf: leaf is None)
    known = [_Known(label, value) for label, value in zip(marks, examples, strict=True)]
    known += [_Known()] * (len(closed.jaxpr.invars) - len(known))
    walk = _Walk()
    found = walk.closed(closed, known)
    outputs = jax.tree.unflatten(jax.tree.structure(shapes), [one.labels for one in found])
    return Flow(outputs, tuple(dict.fromkeys(walk.overruns)), walk.widest, walk.epsilon)


class _Walk:
    def __init__(self):
        self.overruns: list[Overrun] = []
        self.widest = 0
        self.epsilon = 0.0

    def closed(self, closed: ClosedJaxpr, known: Sequence[_Known]) -> list[_Known]:
        return self.jaxpr(closed.jaxpr, known)

    def jaxpr(self, jaxpr: Jaxpr, known: Sequence[_Known]) -> list[_Known]:
        """What is known of the outputs, from what is known of the inputs; of constants nothing reaches anything."""
        here: dict[Any, _Known] = dict(zip(jaxpr.invars, known, strict=True))

        def of(variable):
            if isinstance(variable, Literal):
                return _Known(value=np.asarray(variable.val))
            return here.get(variable, _Known())

        for equation in jaxpr.eqns:
            inputs = list(map(of, equation.invars))
            for variable in equation.outvars:
                self.widest = max(self.widest, getattr(variable.aval, "size", 0))
                dtype = getattr(variable.aval, "dtype", None)
                if dtype is not None and jnp.issubdtype(dtype, jnp.floating):
                    self.epsilon = max(self.epsilon, float(jnp.finfo(dtype).eps))
            here.update(zip(equation.outvars, self._outputs(equation, inputs), strict=True))
        return list(map(of, jaxpr.outvars))

    def _outputs(self, equation, inputs):
        name, parameters = equation.primitive.name, equation.params
        if name == "scan":
            return self._scan(equation, inputs)
        if name == "while":
            return self._while(parameters, inputs)
        if name == "cond":
            return self._cond(parameters, inputs)
        inner = list(_jaxprs_of(parameters))
        if len(inner) == 1 and len(inner[0].invars) == len(inputs) and len(inner[0].outvars) == len(equation.outvars):
            return self.jaxpr(inner[0], inputs)  # jit, remat, and functions with derivatives of their own
        if name == "gather":
            self._look_past_the_end(equation, *inputs)
            return [self._gathered(equation, *inputs)]
        labels = _union(inputs)
        values = [one.value for one in inputs]
        known = all(value is not None and value.dtype.kind in "iub" for value in values)
        if known and name in _NUMPY and equation.outvars[0].aval.size <= MAX_INDICES:
            return [_Known(labels, np.asarray(_NUMPY[name](parameters, *values)))]
        return [_Known(labels)] * len(equation.outvars)

    def _scan(self, equation, inputs):
        parameters = equation.params
        # Versions of JAX call the counts by different names: what goes in or out slice by slice has an axis more.
        inner = parameters["jaxpr"].jaxpr
        slices = _count_longer(equation.invars, inner.invars)
        carries = len(equation.outvars) - _count_longer(equation.outvars, inner.outvars)
        first = len(inputs) - carries - slices
        constants = inputs[:first]
        carry = [_Known(one.labels) for one in inputs[first : first + carries]]  # at other turns values are others
        each = [_one_of(one) for one in inputs[first + carries :]]

        def body(carry):
            return self.closed(parameters["jaxpr"], [*constants, *carry, *each])

        carry = _settled(lambda carry: body(carry)[:carries], carry)
        return [*carry, *body(carry)[carries:]]

    def _while(self, parameters, inputs):
        inputs = [_Known(one.labels) for one in inputs]
        first = parameters["cond_nconsts"]
        second = first + parameters["body_nconsts"]
        tested, constants, carry = inputs[:first], inputs[first:second], inputs[second:]

        def body(carry):
            turns = _union(self.closed(parameters["cond_jaxpr"], [*tested, *carry]))
            after = self.closed(parameters["body_jaxpr"], [*constants, *carry])
            return [_Known(one.labels | turns) for one in after]

        return _settled(body, carry)

    def _cond(self, parameters, inputs):
        which, *operands = inputs
        branches = [self.closed(branch, operands) for branch in parameters["branches"]]
        return [_Known(which.labels | _union(outputs)) for outputs in zip(*branches, strict=True)]

    def _gathered(self, equation, array, index):
        """Of an array whose entries are all alike, the same again."""
        labels, shape = array.labels | index.labels, equation.outvars[0].aval.shape
        if array.value is None or array.value.size == 0 or array.value.min() != array.value.max():
            return _Known(labels)
        return _Known(labels, np.broadcast_to(array.value.flat[0], shape))

    def _look_past_the_end(self, equation, array, index):
        if index.value is None:
            return
        shape, sizes = equation.invars[0].aval.shape, equation.params["slice_sizes"]
        for number, axis in enumerate(equation.params["dimension_numbers"].start_index_map):
            furthest = int(index.value[..., number].max(initial=0))
            if furthest > shape[axis] - sizes[axis]:
                self.overruns.append(Overrun(array.labels, shape, axis, furthest, index.labels))


def _count_longer(variables, inner) -> int:
    """How many variables have an axis more than those inside a loop that they stand for."""
    pairs = zip(variables, inner, strict=True)
    return sum(len(outside.aval.shape) > len(inside.aval.shape) for outside, inside in pairs)


def _one_of(known: _Known) -> _Known:
    """What is known of a slice along the first axis, of whichever."""
    values = known.value
    if values is None or len(values) == 0 or (values != values[:1]).any():
        return _Known(known.labels)
    return _Known(known.labels, values[0])


def _jaxprs_of(parameters: Mapping[str, Any]) -> Iterator[Jaxpr]:
    for value in parameters.values():
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value


def _union(known) -> Labels:
    return frozenset().union(*(one.labels for one in known))


def _settled(body: Callable, carry: list[_Known]) -> list[_Known]:
    """What reaches a loop's carry after any number of turns."""
    while True:
        after = [_Known(old.labels | new.labels) for old, new in zip(carry, body(carry), strict=True)]
        if after == carry:
            return carry
        carry = after


def _broadcast(parameters, x):
    shape = [1] * len(parameters["shape"])
    for axis, size in zip(parameters["broadcast_dimensions"], x.shape, strict=True):
        shape[axis] = size
    return np.broadcast_to(x.reshape(shape), parameters["shape"])


# What is done to row numbers on their way to an index; of anything else the value is not known.
_NUMPY: dict[str, Callable] = {
    "add": lambda p, x, y: x + y,
    "sub": lambda p, x, y: x - y,
    "mul": lambda p, x, y: x * y,
    "neg": lambda p, x: -x,
    "sign": lambda p, x: np.sign(x),
    "div": lambda p, x, y: np.fix(x / y).astype(x.dtype) if x.dtype.kind in "iu" else x / y,
    "rem": lambda p, x, y: np.fmod(x, y),
    "max": lambda p, x, y: np.maximum(x, y),
    "min": lambda p, x, y: np.minimum(x, y),
    "clamp": lambda p, low, x, high: np.clip(x, low, high),
    "and": lambda p, x, y: x & y,
    "or": lambda p, x, y: x | y,
    "not": lambda p, x: ~x,
    "lt": lambda p, x, y: x < y,
    "le": lambda p, x, y: x <= y,
    "gt": lambda p, x, y: x > y,
    "ge": lambda p, x, y: x >= y,
    "eq": lambda p, x, y: x == y,
    "ne": lambda p, x, y: x != y,
    "select_n": lambda p, which, *cases: np.choose(which.astype(int), cases),
    "convert_element_type": lambda p, x: x.astype(p["new_dtype"]),
    "broadcast_in_dim": _broadcast,
    "reshape": lambda p, x: x.reshape(p["new_sizes"]),
    "squeeze": lambda p, x: np.squeeze(x, tuple(p["dimensions"])),
    "concatenate": lambda p, *parts: np.concatenate(parts, p["dimension"]),
}

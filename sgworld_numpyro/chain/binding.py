"""A kernel bound to the arguments of one run: what is found out about them once, and the data it holds."""

import threading
import zlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, cached_property, partial, wraps
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.infer.mcmc import MCMC

from sgworld_numpyro.chain import caller
from sgworld_numpyro.chain.data import Data, HeldData, holdable, in_a_trace, warn_if_baked
from sgworld_numpyro.chain.engine import Engine, pieces_a_batch
from sgworld_numpyro.chain.lines import in_lines
from sgworld_numpyro.chain.placement import in_one_mesh, placed, split_batches
from sgworld_numpyro.model.arguments import Arguments
from sgworld_numpyro.model.arrays import HostArray, as_jax_array, as_numeric, is_numeric_array, is_traced
from sgworld_numpyro.sources import Column
from sgworld_numpyro.subsampling import ContiguousScheme

# XLA's older way to write loops for CPUs takes half the time to compile, and what it makes is as fast.
QUICKLY = {"xla_cpu_use_fusion_emitters": False}
# What runs once takes longer to compile than to run: a third of that is saved so.
ONCE = {"xla_backend_optimization_level": 0}
P = ParamSpec("P")
T = TypeVar("T")

# NumPyro's stack of handlers is one for all threads: two that ran models at once would meddle with each other's.
_TRACING = threading.RLock()
# By which checksums of its arrays what an MCMC keeps compiled was made.
_COMPILED_ON: WeakKeyDictionary[MCMC, dict[int, int]] = WeakKeyDictionary()


def one_thread_at_a_time(function: Callable[P, T]) -> Callable[P, T]:
    """A function that runs models, or changes what threads share, made to wait for others such."""

    @wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> T:
        with _TRACING:
            return function(*args, **kwargs)

    return alone


@cache
def compiler_options(once: bool) -> dict[str, Any]:
    """Those that save time, as far as the installed XLA knows them: newer ones have no older way to write loops.

    Args:
        once: whether what is compiled will be called a time or two.
    """
    options = ONCE if once else {}
    try:
        jax.jit(lambda: 0, compiler_options=QUICKLY)()
    except jax.errors.JaxRuntimeError:
        return options
    return options | QUICKLY


class Binding:
    """An engine and the arguments that it runs on.

    Args:
        engine: what advances the chain.
        arguments: the model's arguments.
        hold: whether large arrays can be held; not in a trace, such as that of ``pmap``.
        sums: checksums of the arguments, if they are compared later.
    """

    def __init__(self, engine: Engine, arguments: Arguments, hold: bool, sums: dict[int, int] | None = None):
        self._mesh = in_one_mesh(arguments.leaves)
        if self._mesh is not None:
            engine = self._divided(engine, arguments, hold)
        self.engine = engine
        self.sums = sums
        self.arguments = arguments
        self.hold = hold
        self.checked = False  # whether minibatches were found to estimate the whole
        self.runs_on_minibatches_only = False
        self.is_lent = False  # whether its data are now those of a program over several devices
        self.learnt: dict[Hashable, Any] = {}  # before the first sample, by what it was learnt from
        self._data = HeldData()
        self._signature = signature(arguments)
        self._cached: dict[Any, Callable] = {}
        if not engine.target.abstract:
            warn_if_baked(arguments.leaves, "The model looks at its data's values: compute them outside")
        elif not hold:
            warn_if_baked(arguments.leaves, "Run the chains with chain_method='vectorized'")
        if hold:
            self._hold()

    def _divided(self, engine, arguments, hold):
        """The engine whose devices share out minibatches of rows that lie on several."""
        if not engine.target.abstract:
            raise ValueError(
                "The model looks at its data's values, which lie on several devices: compute them outside."
            )
        if not hold and in_a_trace():
            raise ValueError(
                "The rows of the data lie on several devices, which chains of this chain_method cannot share: run one "
                "chain, or chain_method='vectorized'."
            )
        target = engine.target
        split = split_batches(target.slots, arguments.leaves, arguments.names(target.model), self._mesh)
        return replace(engine, target=replace(target, split=split))

    def _hold(self):
        target, scheme = self.engine.target, self.engine.subsampling
        for slot in target.slots:
            if not isinstance(scheme, ContiguousScheme):
                break
            leaf = self.arguments.leaves[slot.leaf]
            if isinstance(leaf, Column):
                continue
            plate = target.plate(slot.plate)
            # A pool of batches that repeats the data many times is gathered instead, as are rows on several devices.
            repeats = jax.eval_shape(lambda p=plate: scheme.layout(p)).size > 2 * plate.size
            if not (is_traced(leaf) or repeats or self._mesh is not None):
                order = np.asarray(scheme.layout(plate))
                width = plate.batch_size // pieces_a_batch(scheme, plate)
                self._data.hold((id(leaf), slot), in_lines(np.asarray(leaf), order, slot.axis, width))
        for leaf in self.arguments.leaves:
            if self._mesh is not None and is_numeric_array(leaf):
                self._data.hold(id(leaf), placed(leaf, self._mesh))
            elif target.abstract and holdable(leaf):
                self._data.hold(id(leaf), leaf)

    def fits(self, arguments: Arguments) -> bool:
        """Whether arguments are the same but for the values of their arrays."""
        return signature(arguments) == self._signature

    def is_of(self, arguments: Arguments) -> bool:
        """Whether arguments are the very same objects."""
        mine, theirs = self.arguments.leaves, arguments.leaves
        return self.fits(arguments) and all(a is b for a, b in zip(mine, theirs, strict=True))

    @cached_property
    def constrained(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of one draw's constrained values and deterministic sites."""
        target = self.engine.target
        one = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in target.prototype.items()}
        return jax.eval_shape(lambda z: target.constrain(z, self.read(self.arguments).arguments), one)

    def read(self, arguments: Arguments) -> Data:
        """These arguments with held arrays in place. To be called inside the compiled function that uses them."""
        arrays = {}
        for number in arguments.arrays:
            leaf = arguments.leaves[number]
            held = self._data.read(id(leaf))
            # A model that looks at its data's values must get them so: JAX's are not known in a trace.
            as_known = as_jax_array if self.engine.target.abstract else HostArray.of
            arrays[number] = as_known(leaf) if held is None else held
        reordered = {
            slot: array
            for slot in self.engine.target.slots
            if (array := self._data.read((id(arguments.leaves[slot.leaf]), slot))) is not None
        }
        return Data(arguments.with_arrays(arrays), reordered)

    def held(self) -> list[Any]:
        """Every array that is held, for a program that passes them to its devices."""
        given = {id(leaf): leaf for leaf in self.arguments.leaves}
        return [given[name] if name in given else self._data.read(name) for name in self._data.names]

    @contextmanager
    def lent(self, arrays: Sequence[Array]) -> Iterator[None]:
        """Run on these in place of ``held``: inside of a trace what is held cannot be read."""
        self.is_lent = True
        try:
            with self._data.lent(arrays):
                yield
        finally:
            self.is_lent = False

    @property
    def device(self) -> Any:
        """What comes back from functions compiled on the arguments is tied to; None if it is not."""
        return self._data.device

    def compiled(
        self, name: str, function: Callable, arguments: Arguments, once: bool = False, nested: bool = False
    ) -> Callable:
        """``function(arguments, *inputs)`` on these arguments, compiled once if they are those of the binding.

        Args:
            name: of what is compiled, to find it again.
            function: what to compile.
            arguments: the model's arguments.
            once: whether it will be called a time or two.
            nested: whether it may be called inside of another compilation, which has options of its own.
        """

        def on_arguments(arrays, *inputs):
            return function(self.read(arguments).arguments.with_arrays(arrays), *inputs)

        if self.is_lent or not self.is_of(arguments):  # what is lent must not outlive the trace that it is of
            return partial(on_arguments, {})
        if name not in self._cached:
            # in a trace there are none
            options = compiler_options(once) if self.hold and not nested else None
            self._cached[name] = jax.jit(on_arguments, compiler_options=options)
        return partial(self._cached[name], self._passed)

    @cached_property
    def _passed(self):
        """Arrays that are passed to what is compiled on them: as constants they would be compiled each time."""
        if not self.engine.target.abstract:
            return {}
        leaves = {number: self.arguments.leaves[number] for number in self.arguments.arrays}
        with jax.ensure_compile_time_eval():  # in a trace, what is kept must have values all the same
            return {number: jnp.asarray(leaf) for number, leaf in leaves.items() if id(leaf) not in self._data}


class Bindings:
    """The bindings of one kernel: that of each thread's run, and that of the last run of all."""

    def __init__(self):
        self._last: Binding | None = None
        self._of_thread = threading.local()

    @property
    def current(self) -> Binding | None:
        """Of this thread's run, or of the last run if this thread has had none."""
        return getattr(self._of_thread, "binding", None) or self._last

    def to(self, arguments: Arguments, engine_of: Callable[[Arguments], Engine]) -> Binding:
        """The binding to these arguments, kept until there are others, or other values in them.

        Args:
            arguments: the model's.
            engine_of: what advances a chain on some arguments.
        """
        binding, sums, run = self.current, checksums(arguments), caller.run_under_way()
        hold = not in_a_trace() or (binding is not None and binding.is_lent)
        if run is not None:
            forget_if_changed(run.mcmc, sums)
        if binding is None or binding.hold != hold or binding.sums != sums or not binding.is_of(arguments):
            binding = Binding(engine_of(arguments), arguments, hold, sums)
        self._of_thread.binding = self._last = binding
        return binding

    def like(self, arguments: Arguments, engine_of: Callable[[Arguments], Engine]) -> Binding:
        """The current binding if it fits these arguments, else one that is not kept; arguments as of ``to``."""
        if self.current is not None and self.current.fits(arguments):
            return self.current
        return Binding(engine_of(arguments), arguments, hold=False)


def signature(arguments: Arguments) -> tuple:
    """What two sets of arguments must share to be traced alike."""

    def of(leaf):
        if is_numeric_array(leaf):
            return leaf.shape, str(leaf.dtype)
        # what is compared element by element, such as a table of pandas, is the same only if it is the very same
        return leaf if isinstance(leaf, Hashable) and not hasattr(leaf, "__array__") else id(leaf)

    # Doubles are kept or cut to floats by a switch that may be turned between two runs.
    return arguments.treedef, jnp.result_type(float), tuple(of(leaf) for leaf in arguments.leaves)


def checksums(arguments: Arguments) -> dict[int, int]:
    """Of what can be changed in place, which no cache would notice, by ``id``: all data but JAX's. 0.5 ms per MiB."""
    data = ((id(leaf), as_numeric(leaf)) for leaf in arguments.leaves if not isinstance(leaf, jax.Array))
    return {name: _checksum(array) for name, array in data if is_numeric_array(array)}


def _checksum(array):
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def forget_if_changed(mcmc: MCMC, sums: dict[int, int]) -> None:
    """Have ``MCMC``, which knows arrays by their ``id``, compile again for those that were changed in place."""
    made_on = _COMPILED_ON.setdefault(mcmc, {})
    if any(made_on.get(name, value) != value for name, value in sums.items()):
        mcmc._cache.clear()
        made_on.clear()
    made_on.update(sums)

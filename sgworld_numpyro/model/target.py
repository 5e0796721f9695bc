"""From a NumPyro model and its arguments to a potential energy on any minibatch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.sharding import NamedSharding, PartitionSpec
from numpyro.distributions import biject_to
from numpyro.handlers import seed, substitute, trace
from numpyro.infer.initialization import init_to_uniform
from numpyro.infer.util import compute_log_probs, constrain_fn, potential_energy, transform_fn

from sgworld_numpyro.gradients.protocol import Potential
from sgworld_numpyro.model.arguments import Arguments, Slot
from sgworld_numpyro.model.arrays import HostArray, is_traced
from sgworld_numpyro.model.dependence import flow
from sgworld_numpyro.model.explanation import check_arguments, explain
from sgworld_numpyro.model.handlers import at_rows, full_data, record_plates, without_plates
from sgworld_numpyro.model.requirements import (
    ModelError,
    Seen,
    check_dependence,
    check_indices,
    check_plates,
    check_sites,
    takes_some,
)
from sgworld_numpyro.sources import Column, SourceError, read_rows
from sgworld_numpyro.subsampling.protocol import Plate

ALL = Plate("all the data", 1, 1)  # what is run on all its rows always is one row, always the same


@dataclass(frozen=True)
class Target:
    """What is static about a model and the shapes of its arguments. Holds no array.

    Attributes:
        model: the model as the user wrote it.
        plates: its subsampled plates, by name.
        slots: arrays whose rows can be taken for the model.
        uses_rows: whether the likelihood needs row numbers besides the slots' rows.
        prototype: shape and dtype of each latent site's unconstrained value.
        transforms: from unconstrained to constrained values; None if only a run of the model can tell.
        deterministic: deterministic sites that do not depend on the minibatch.
        abstract: whether the model can be traced without its data's values.
        whole: whether it is run on all its rows always; ``plates`` then has one stand-in.
        widest: elements of the largest array that a minibatch's log density takes; 0 if not looked for.
        epsilon: of the coarsest floating-point numbers that it takes.
        blind: observed sites in a plate whose rows do not reach them.
        split: how devices share out a minibatch of slots whose rows lie on several.
    """

    model: Callable
    plates: tuple[Plate, ...]
    slots: tuple[Slot, ...]
    uses_rows: bool
    prototype: dict[str, jax.ShapeDtypeStruct]
    transforms: dict[str, Any] | None
    deterministic: tuple[str, ...]
    abstract: bool
    whole: bool = False
    widest: int = 0
    epsilon: float = 0.0
    blind: tuple[str, ...] = ()
    split: Mapping[Slot, NamedSharding] = field(default_factory=dict)

    @property
    def dtype(self):
        """The dtype of the flat position."""
        return jnp.result_type(*(leaf.dtype for leaf in self.prototype.values()))

    @property
    def dim(self) -> int:
        """The number of unconstrained coordinates."""
        return sum(int(np.prod(leaf.shape)) for leaf in self.prototype.values())

    def plate(self, name: str) -> Plate:
        """The subsampled plate of that name."""
        return next(plate for plate in self.plates if plate.name == name)

    @property
    def longest_plate(self) -> Plate:
        """The plate that takes most batches a pass: a pass over the data is one over its rows."""
        return max(self.plates, key=lambda plate: plate.batches)

    def coordinates(self) -> list[tuple[str, str]]:
        """Site and index of each coordinate of the flat position, such as ("w", "[3]") or, of a scalar, ("mu", "")."""
        return [
            (site, f"[{', '.join(map(str, index))}]" if index else "")
            for site in sorted(self.prototype)
            for index in np.ndindex(self.prototype[site].shape)
        ]

    def unravel(self, position: Array) -> dict[str, Array]:
        """Flat position to unconstrained values by site."""
        zeros = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in self.prototype.items()}
        return ravel_pytree(zeros)[1](position)

    def ravel(self, z: Mapping[str, Array]) -> Array:
        """Unconstrained values by site to the flat position, sites in alphabetical order."""
        return ravel_pytree(dict(z))[0]

    def first_rows(self) -> dict[str, Array]:
        """Rows 0 .. B-1 of every plate."""
        return {plate.name: jnp.arange(plate.batch_size, dtype=jnp.int32) for plate in self.plates}

    def take(self, slot: Slot, array: Array | Column, rows: Array) -> Array:
        """The rows of a slot's array. Rows are in bounds by construction."""
        if isinstance(array, Column):
            return read_rows([array], rows)[0]
        taken = jnp.take(array, rows, axis=slot.axis, mode="clip")
        if slot not in self.split or taken.shape[slot.axis] % self.split[slot].num_devices:
            return taken
        # Each device takes what it has, the sum is of these rows alone, and then each keeps its share. Said in one
        # step, the row numbers would be divided too, only to be gathered again.
        whole = jax.lax.with_sharding_constraint(taken, NamedSharding(self.split[slot].mesh, PartitionSpec()))
        return jax.lax.with_sharding_constraint(whole, self.split[slot])

    def take_all(
        self, arguments: Arguments, rows: Mapping[str, Array], taken: Mapping[Slot, Array] | None = None
    ) -> dict[Slot, Array]:
        """The rows of every slot's array, by slot; ``taken`` has those that are there already."""
        found = dict(taken or {})
        for slot in self.slots:
            if slot not in found:
                found[slot] = self.take(slot, arguments.leaves[slot.leaf], rows[slot.plate])
        return found

    def at(self, arguments: Arguments, rows, batches: Mapping[Slot, Array] | None = None) -> Callable:
        """The model at given rows, with the slots' rows already taken where ``batches`` has them."""
        if self.whole:
            return full_data(self.model)
        by_id = {id(arguments.leaves[slot.leaf]): (slot.plate, batch) for slot, batch in (batches or {}).items()}
        return at_rows(self.model, rows, by_id)

    def potential(self, z, arguments: Arguments, rows, batches: Mapping[Slot, Array] | None = None) -> Array:
        """Minibatch estimate of the potential energy -log p(z, data), in nats.

        Args:
            z: unconstrained values by site.
            arguments: the model's arguments.
            rows: row numbers by plate name.
            batches: the slots' rows, where already taken.
        """
        if not self.abstract:  # it wants values, where a function that is traced apart has none
            return self._potential(arguments, z, rows, batches)
        arrays = {number: arguments.leaves[number] for number in arguments.arrays}
        return self._traced_on(arguments)(arrays, z, rows, dict(batches or {}))

    def _potential(self, arguments, z, rows, batches):
        args, kwargs = arguments.unflatten()
        return potential_energy(self.at(arguments, rows, batches), args, kwargs, z)

    def _traced_on(self, arguments):
        """The potential of arrays, traced once for their shapes: NumPyro's handlers take a tenth of a second."""
        others = tuple(leaf for number, leaf in enumerate(arguments.leaves) if number not in arguments.arrays)
        key = arguments.treedef, tuple(map(id, others))
        if key not in self._traced:
            bare = arguments.with_arrays(dict.fromkeys(arguments.arrays))  # they may be those of a trace, which ends

            def of_arrays(arrays, *rest):
                return self._potential(bare.with_arrays(arrays), *rest)

            self._traced[key] = jax.jit(of_arrays, inline=True)
        return self._traced[key]

    @cached_property
    def _traced(self) -> dict[Any, Callable]:
        return {}

    def energy(self, arguments: Arguments, rows, taken: Mapping[Slot, Array] | None = None) -> Potential:
        """The potential energy as a minibatch estimates it: a function of the flat position, in its dtype.

        Args:
            arguments: the model's arguments.
            rows: row numbers by plate name.
            taken: the slots' rows, where already taken. The others are taken here, once.
        """
        batches = self.take_all(arguments, rows, taken)

        def energy(position):
            return self.potential(self.unravel(position), arguments, rows, batches).astype(position.dtype)

        return energy

    def potential_without_rows(self, z, arguments: Arguments) -> Array:
        """The part of the potential energy, in nats, that does not come from the subsampled plates."""
        if self.whole:
            return self.potential(z, arguments, self.first_rows())
        args, kwargs = arguments.unflatten()
        silent = without_plates(self.at(arguments, self.first_rows()), {plate.name for plate in self.plates})
        return potential_energy(silent, args, kwargs, z)

    def constrain(self, z, arguments: Arguments, deterministic: bool = True) -> dict[str, Array]:
        """Constrained values of the latent sites, with the deterministic sites that do not depend on rows."""
        if self.transforms is not None and not (deterministic and self.deterministic):
            return transform_fn(self.transforms, z)
        args, kwargs = arguments.unflatten()
        model = self.at(arguments, self.first_rows())
        values = constrain_fn(model, args, kwargs, z, return_deterministic=deterministic)
        return {name: value for name, value in values.items() if name in z or name in self.deterministic}


def inspect_model(model: Callable, arguments: Arguments, whole: bool = False) -> Target:
    """Find plates, latent sites and data of a model, by tracing it on shapes alone where it allows that.

    Args:
        model: a NumPyro model.
        arguments: its arguments.
        whole: whether it is to be run on all its rows always, as one that may have no subsampled plate.

    Raises:
        ModelError: if the model cannot be sampled from minibatches, see ``requirements``, or if an argument is nothing
            that a model can compute with.
    """
    check_arguments(arguments.named(model))
    try:
        try:
            shapes = {number: _shape_of(arguments.leaves[number]) for number in arguments.arrays}
            return _inspect(model, arguments, shapes, abstract=True, whole=whole)
        except _LOOKS_AT_VALUES:
            # The model looks at its data's values, to count classes for instance: give them to it as they are.
            arrays = {number: HostArray.of(arguments.leaves[number]) for number in arguments.arrays}
            return _inspect(model, arguments, arrays, abstract=False, whole=whole)
    except ModelError:
        raise
    except SourceError as error:
        named = arguments.names(model, of_columns=True)
        sources = ", ".join(f"{name} is {arguments.leaves[number]!r}" for number, name in named.items())
        raise ModelError(f"{error} ({sources}.)") from error
    except Exception as error:
        message = explain(error, model, arguments)
        if message is None:
            raise
        raise ModelError(message) from error


def inspect_inputs(model: Callable, arguments: Arguments) -> Target:
    """Plates of a model that observes nothing, such as one that predicts, and data that they take rows of.

    Args:
        model: a NumPyro model.
        arguments: its arguments, of which none are observations.

    Raises:
        ModelError: if it has no subsampled plate.
    """
    found: dict[str, Any] = {}

    def look(arrays):
        here = arguments.with_arrays(arrays)
        args, kwargs = here.unflatten()
        recorder = record_plates(at_rows(model, {}))
        trace(seed(recorder, jax.random.key(0))).get_trace(*args, **kwargs)
        if not recorder.plates:
            raise ModelError("The model has no subsampled plate, whose rows could be taken in blocks.")
        found["plates"] = tuple(Plate(name, *recorder.plates[name]) for name in sorted(recorder.plates))
        found["slots"] = _slots(recorder.subsampled, here)

    jax.eval_shape(look, {number: _shape_of(arguments.leaves[number]) for number in arguments.arrays})
    return Target(model, uses_rows=True, prototype={}, transforms=None, deterministic=(), abstract=True, **found)


_LOOKS_AT_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def _shape_of(leaf):
    return jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype))


def _inspect(model, arguments, arrays, abstract, whole):
    found: dict[str, Any] = {}

    def look(arrays):
        here = arguments.with_arrays(arrays)
        args, kwargs = here.unflatten()
        recorder = record_plates(full_data(model) if whole else at_rows(model, {}))
        seeded = substitute(seed(recorder, jax.random.key(0)), substitute_fn=init_to_uniform)
        sites = trace(seeded).get_trace(*args, **kwargs)
        plates = {name: (size, size if whole else batch) for name, (size, batch) in recorder.plates.items()}
        check_plates(plates, recorder.hidden, recorder.sizes, whole)
        weights = {name: size / batch for name, (size, batch) in recorder.plates.items()}
        check_sites(sites, plates, weights, whole)
        found["plates"] = (ALL,) if whole else tuple(Plate(name, *plates[name]) for name in sorted(plates))
        found["slots"] = () if whole else _slots(recorder.subsampled, here)
        latents = {name: site for name, site in sites.items() if site["type"] == "sample" and not site["is_observed"]}
        found["transforms"] = _transforms(latents)
        found["deterministic"] = tuple(
            name
            for name, site in sites.items()
            if site["type"] == "deterministic"
            and (whole or not any(takes_some(frame, plates) for frame in site["cond_indep_stack"]))
        )
        transforms = {name: biject_to(site["fn"].support) for name, site in latents.items()}
        values = {name: site["value"] for name, site in latents.items()}
        return transform_fn(transforms, values, invert=True)

    # Under eval_shape nothing is computed, whatever the size of the data.
    prototype = jax.eval_shape(look, arrays) if abstract else jax.eval_shape(partial(look, arrays))
    target = Target(model=model, prototype=prototype, uses_rows=not whole, abstract=abstract, whole=whole, **found)
    if target.dim == 0:
        shapes = ", ".join(f"{name!r} of shape {leaf.shape}" for name, leaf in prototype.items())
        raise ModelError(f"The latent sites have no value to sample: {shapes}. Check the sizes that shape them.")
    return target if whole else replace(target, **_dependence(target, arguments, arrays))


def _slots(subsampled, arguments):
    """Arguments that are subsampled along one axis, by one plate, wherever they are subsampled."""
    uses: dict[int, set[tuple[int, str]]] = {}
    numbers = {id(arguments.leaves[number]): number for number in (*arguments.arrays, *arguments.columns)}
    for identity, axis, plate in subsampled:
        if identity in numbers:
            uses.setdefault(numbers[identity], set()).add((axis, plate))
    return tuple(Slot(number, *use.pop()) for number, use in sorted(uses.items()) if len(use) == 1)


def _transforms(latents):
    supports = {name: site["fn"].support for name, site in latents.items()}
    if any(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(supports)):
        return None  # bounds that are arrays may depend on other sites
    return {name: biject_to(support) for name, support in supports.items()}


def _dependence(target, arguments, arrays):
    """What follows from which rows reach which sites; see ``Target``."""
    plates = {plate.name: (plate.size, plate.batch_size) for plate in target.plates}
    stands_in: dict[str, frozenset[str]] = {}
    observed: dict[str, bool] = {}

    def outputs(inputs, z, *data):
        rows, batches, arrays = inputs
        here = arguments.with_arrays(arrays if target.abstract else data[0])
        args, kwargs = here.unflatten()
        model = target.at(here, rows, batches)
        values = constrain_fn(model, args, kwargs, z, return_deterministic=True)
        densities, sites = compute_log_probs(model, args, kwargs, {name: values[name] for name in z})
        for name in densities:
            frames = sites[name]["cond_indep_stack"]
            stands_in[name] = frozenset(frame.name for frame in frames if takes_some(frame, plates))
            observed[name] = sites[name]["is_observed"]
            if jnp.iscomplexobj(densities[name]):
                raise TypeError(f"site {name!r} has a complex log density; it must be real.")
        return densities, {name: values[name] for name in target.deterministic}

    rows = {plate.name: jax.ShapeDtypeStruct((plate.batch_size,), np.dtype(np.int32)) for plate in target.plates}
    shapes = {number: _shape_of(array) for number, array in arrays.items()}
    batches = {slot: _shape_of_batch(target, slot, arguments, shapes, rows[slot.plate]) for slot in target.slots}
    leaves = shapes if target.abstract else {}
    labels = (
        {name: frozenset([("rows", name)]) for name in rows},
        {slot: frozenset([("batch", slot.plate), ("leaf", slot.leaf)]) for slot in batches},
        {number: frozenset([("leaf", number)]) for number in leaves},
    )
    # Where an index reaches furthest: the last row, and the largest of an argument that holds whole numbers.
    last = {plate.name: np.full(plate.batch_size, plate.size - 1, np.int32) for plate in target.plates}
    largest = {number: _largest(arguments.leaves[number]) for number in shapes}
    largest |= dict.fromkeys(arguments.columns)  # which nobody has read
    values = (
        last,
        {slot: _filled(largest[slot.leaf], shape) for slot, shape in batches.items()},
        {number: _filled(largest[number], shape) for number, shape in leaves.items()},
    )
    function = outputs if target.abstract else lambda inputs, z: outputs(inputs, z, arrays)
    found = flow(function, (rows, batches, leaves), labels, target.prototype, values=values)
    densities, deterministic = found.outputs
    check_indices(found.overruns, plates, arguments.names(target.model))
    reached = {
        name: Seen(stands_in[name], frozenset(of for kind, of in labels if kind != "leaf"), observed[name])
        for name, labels in densities.items()
    }
    # in the order of the model, so that what is named is where the rows come in and not what follows from it
    check_dependence(plates, {name: reached[name] for name in stands_in})
    return {
        "uses_rows": any(kind == "rows" for labels in densities.values() for kind, _ in labels),
        "deterministic": tuple(
            name for name in target.deterministic if all(kind == "leaf" for kind, _ in deterministic[name])
        ),
        "widest": found.widest,
        "epsilon": found.epsilon,
        "blind": tuple(name for name, seen in reached.items() if seen.is_observed and not seen.plates <= seen.rows_of),
    }


def _shape_of_batch(target, slot, arguments, shapes, rows):
    array = shapes.get(slot.leaf)
    if array is not None:
        return jax.eval_shape(partial(target.take, slot), array, rows)
    return jax.eval_shape(partial(target.take, slot, arguments.leaves[slot.leaf]), rows)


def _largest(leaf):
    """The largest entry of whole numbers that are known."""
    known = not is_traced(leaf) and leaf.dtype.kind in "iu" and leaf.size
    return np.asarray(leaf.max()) if known else None  # where it lies, which may be on several devices


def _filled(value, shape):
    return None if value is None else np.broadcast_to(value.astype(shape.dtype), shape.shape)

"""From a NumPyro model and its arguments to a potential energy on any minibatch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from numpyro.distributions import biject_to
from numpyro.handlers import seed, substitute, trace
from numpyro.infer.initialization import init_to_uniform
from numpyro.infer.util import constrain_fn, potential_energy, transform_fn

from sgworld_numpyro.dependence import influences
from sgworld_numpyro.handlers import at_rows, is_numeric_array, record_plates, without_plates
from sgworld_numpyro.subsampling.protocol import Plate
from sgworld_numpyro.validation import check_dependence, check_plates, check_sites


class Slot(NamedTuple):
    """An array that the model passes straight to ``numpyro.subsample``: leaf number, row axis, plate."""

    leaf: int
    axis: int
    plate: str


class Arguments(NamedTuple):
    """A model's arguments, with the arrays taken out so that they can be put back as traced values."""

    leaves: tuple[Any, ...]
    treedef: Any

    @classmethod
    def of(cls, model_args, model_kwargs) -> "Arguments":
        leaves, treedef = jax.tree.flatten((tuple(model_args), dict(model_kwargs or {})))
        return cls(tuple(leaves), treedef)

    @property
    def arrays(self) -> list[int]:
        """Numbers of the leaves that are arrays."""
        return [number for number, leaf in enumerate(self.leaves) if is_numeric_array(leaf)]

    def with_arrays(self, arrays: Mapping[int, Any]) -> "Arguments":
        """The same arguments with some leaves replaced."""
        leaves = (arrays.get(number, leaf) for number, leaf in enumerate(self.leaves))
        return Arguments(tuple(leaves), self.treedef)

    def unflatten(self) -> tuple[tuple, dict]:
        """(args, kwargs)."""
        return jax.tree.unflatten(self.treedef, self.leaves)


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
    """

    model: Callable
    plates: tuple[Plate, ...]
    slots: tuple[Slot, ...]
    uses_rows: bool
    prototype: dict[str, jax.ShapeDtypeStruct]
    transforms: dict[str, Any] | None
    deterministic: tuple[str, ...]
    abstract: bool

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

    def take(self, slot: Slot, array: Array, rows: Array) -> Array:
        """The rows of a slot's array. Rows are in bounds by construction."""
        return jnp.take(array, rows, axis=slot.axis, mode="clip")

    def at(self, arguments: Arguments, rows, batches: Mapping[Slot, Array] | None = None) -> Callable:
        """The model at given rows, with the slots' rows already taken where ``batches`` has them."""
        by_id = {id(arguments.leaves[slot.leaf]): batch for slot, batch in (batches or {}).items()}
        return at_rows(self.model, rows, by_id)

    def potential(self, z, arguments: Arguments, rows, batches: Mapping[Slot, Array] | None = None) -> Array:
        """Minibatch estimate of the potential energy -log p(z, data), in nats.

        Args:
            z: unconstrained values by site.
            arguments: the model's arguments.
            rows: row numbers by plate name.
            batches: the slots' rows, where already taken.
        """
        args, kwargs = arguments.unflatten()
        return potential_energy(self.at(arguments, rows, batches), args, kwargs, z)

    def potential_without_rows(self, z, arguments: Arguments) -> Array:
        """The part of the potential energy, in nats, that does not come from the subsampled plates."""
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


def inspect_model(model: Callable, arguments: Arguments) -> Target:
    """Find plates, latent sites and data of a model, by tracing it on shapes alone where it allows that.

    Raises:
        ModelError: if the model cannot be sampled from minibatches; see ``validation``.
    """
    try:
        shapes = {number: _shape_of(arguments.leaves[number]) for number in arguments.arrays}
        return _inspect(model, arguments, shapes, abstract=True)
    except (jax.errors.ConcretizationTypeError, jax.errors.NonConcreteBooleanIndexError):
        # The model looks at its data's values, to count classes for instance: give them to it as they are.
        arrays = {number: arguments.leaves[number] for number in arguments.arrays}
        return _inspect(model, arguments, arrays, abstract=False)


def _shape_of(leaf):
    return jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype))


def _inspect(model, arguments, arrays, abstract):
    found: dict[str, Any] = {}

    def look(arrays):
        here = arguments.with_arrays(arrays)
        args, kwargs = here.unflatten()
        recorder = record_plates(at_rows(model, {}))
        seeded = substitute(seed(recorder, jax.random.key(0)), substitute_fn=init_to_uniform)
        sites = trace(seeded).get_trace(*args, **kwargs)
        check_plates(recorder.plates, recorder.hidden)
        check_sites(sites, recorder.plates)
        found["plates"] = tuple(Plate(name, size, batch) for name, (size, batch) in sorted(recorder.plates.items()))
        found["slots"] = _slots(recorder.subsampled, here)
        latents = {name: site for name, site in sites.items() if site["type"] == "sample" and not site["is_observed"]}
        found["transforms"] = _transforms(latents)
        found["deterministic"] = tuple(
            name
            for name, site in sites.items()
            if site["type"] == "deterministic"
            and not any(frame.name in recorder.plates for frame in site["cond_indep_stack"])
        )
        transforms = {name: biject_to(site["fn"].support) for name, site in latents.items()}
        values = {name: site["value"] for name, site in latents.items()}
        return transform_fn(transforms, values, invert=True)

    # Under eval_shape nothing is computed, whatever the size of the data.
    prototype = jax.eval_shape(look, arrays) if abstract else jax.eval_shape(partial(look, arrays))
    target = Target(model=model, prototype=prototype, uses_rows=True, abstract=abstract, **found)
    uses_rows, deterministic = _dependence(target, arguments, arrays)
    return Target(**{**vars(target), "uses_rows": uses_rows, "deterministic": deterministic})


def _slots(subsampled, arguments):
    """Arguments that are subsampled along one axis, by one plate, wherever they are subsampled."""
    uses: dict[int, set[tuple[int, str]]] = {}
    numbers = {id(arguments.leaves[number]): number for number in arguments.arrays}
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
    """Whether the likelihood uses row numbers besides the slots, and which deterministic sites use no rows."""

    def outputs(inputs, z, arrays):
        rows, batches = inputs
        here = arguments.with_arrays(arrays)
        energy = target.potential(z, here, rows, batches)
        args, kwargs = here.unflatten()
        model = target.at(here, rows, batches)
        values = constrain_fn(model, args, kwargs, z, return_deterministic=True)
        return energy, {name: values[name] for name in target.deterministic}

    rows = target.first_rows()
    shapes = {number: _shape_of(array) for number, array in arrays.items()}
    batches = {
        slot: jax.eval_shape(partial(target.take, slot), shapes[slot.leaf], rows[slot.plate]) for slot in target.slots
    }
    labels = (
        {name: frozenset([("rows", name)]) for name in rows},
        {slot: frozenset([("batch", slot.plate)]) for slot in batches},
    )
    function = outputs if target.abstract else partial(outputs, arrays=arrays)
    others = (target.prototype, arrays) if target.abstract else (target.prototype,)
    energy, deterministic = influences(function, (rows, batches), labels, *others)
    plates = [plate.name for plate in target.plates]
    check_dependence(plates, [any(name == plate for _, name in energy) for plate in plates])
    uses_rows = any(kind == "rows" for kind, _ in energy)
    return uses_rows, tuple(name for name in target.deterministic if not deterministic[name])

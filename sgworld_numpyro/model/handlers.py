"""Effect handlers that decide which rows a model's subsampled plates take."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.infer.gibbs import Gibbs
from numpyro.primitives import _PYRO_STACK, Messenger, plate

from sgworld_numpyro.model.arrays import as_jax_array, as_numeric
from sgworld_numpyro.model.stack import locals_of
from sgworld_numpyro.sources import Column, SourceError, columns_of, read_rows


class _chooses_rows(Messenger):
    """What all handlers do that decide which rows plates take.

    Frames are called as the plate was where it was declared: a plate that is made outside of ``handlers.scope`` and
    entered inside would get the scope's prefix there. What NumPyro is given as data may be anything that
    ``numpy.asarray`` makes numeric.
    """

    def __init__(self, fn: Callable | None = None):
        self._declared: dict[int, tuple[Any, str]] = {}  # by the identity of the rows, which are kept alive here
        super().__init__(fn)

    def process_message(self, msg):
        if msg["type"] == "subsample" or (msg["type"] == "sample" and msg["is_observed"]):
            msg["value"] = as_numeric(msg["value"])
        elif msg["type"] == "prng_key" and msg["value"] is None:
            # Modules draw initial parameters at every call; priors replace them.
            msg["value"] = jax.random.key(0)
        if msg.get("cond_indep_stack"):
            entered = {handler.dim: handler for handler in _PYRO_STACK if isinstance(handler, plate)}
            msg["cond_indep_stack"] = [self._as_declared(frame, entered) for frame in msg["cond_indep_stack"]]

    def postprocess_message(self, msg):
        if msg["type"] == "plate":
            self._declared[id(msg["value"])] = (msg["value"], msg["name"])

    def _take(self, msg):
        """Of a column of a source, the rows of the plate that takes some; of it whole there is nothing to be had."""
        column, event_dim = msg["value"], msg["kwargs"]["event_dim"]
        if not isinstance(column, Column):
            return
        plates = [handler for handler in _PYRO_STACK if isinstance(handler, plate)]
        (entered,) = [one for one in plates if event_dim is not None and one.dim - event_dim == -column.ndim] or [None]
        if entered is None:
            column.refuse()
        if entered.size != len(column):
            raise SourceError(
                f"plate {entered.name!r} has {entered.size} rows, and {column!r} are {len(column)}: give the plate "
                "their number, x.shape[0] or len(x)."
            )
        (msg["value"],) = read_rows([column], entered._indices)
        msg["kwargs"]["event_dim"] = None  # the enclosing plates must not take rows of it again

    def _as_declared(self, frame, entered):
        return (
            frame._replace(name=self._name(entered[frame.dim]._indices, frame.name)) if frame.dim in entered else frame
        )

    def _name(self, indices, name):
        return self._declared.get(id(indices), (None, name))[1]


class at_rows(_chooses_rows):
    """Run a model on given rows of its subsampled plates.

    Args:
        fn: the model.
        rows: for each plate name, the row numbers, of shape (batch,).
        batches: for an array passed straight to ``numpyro.subsample`` (by ``id``), the plate that takes rows of it, and
            these rows.
    """

    def __init__(self, fn: Callable, rows: Mapping[str, Any], batches: Mapping[int, tuple[str, Any]] | None = None):
        self.rows = rows
        self.batches = {} if batches is None else batches
        super().__init__(fn)

    def process_message(self, msg):
        super().process_message(msg)
        # A plate without subsample_size has all its rows, whatever another use of its name takes.
        if msg["type"] == "plate" and msg["name"] in self.rows and msg["args"][1] is not None:
            rows = self.rows[msg["name"]]
            msg["value"] = rows
            # Declares what was taken, so that NumPyro does not compare it with the model's subsample_size.
            msg["args"] = (msg["args"][0], rows.shape[0])

    def postprocess_message(self, msg):
        super().postprocess_message(msg)
        if msg["type"] == "subsample" and id(msg["value"]) in self.batches:
            name, batch = self.batches[id(msg["value"])]
            plates = (handler for handler in _PYRO_STACK if isinstance(handler, plate))
            if any(self._name(entered._indices, entered.name) == name for entered in plates):
                msg["value"] = batch
                msg["kwargs"]["event_dim"] = None  # the enclosing plates must not take rows of it again
        if msg["type"] == "subsample":
            self._take(msg)


class record_plates(_chooses_rows):
    """Record the subsampled plates, those inside control flow, and which arrays go through ``subsample``."""

    def __init__(self, fn: Callable):
        self.plates: dict[str, tuple[int, int]] = {}
        self.hidden: dict[str, tuple[int, int]] = {}
        self.sizes: dict[str, list[int]] = {}  # that a name was declared with
        self.subsampled: list[tuple[int, int, str]] = []
        self._inside_control_flow = False
        super().__init__(fn)

    def process_message(self, msg):
        super().process_message(msg)
        if msg["type"] == "plate":
            self.sizes.setdefault(msg["name"], []).append(msg["args"][0])
        if msg["type"] == "plate" and msg["args"][1] is not None:
            found = self.hidden if self._inside_control_flow else self.plates
            found[msg["name"]] = msg["args"]
            if msg["value"] is None:  # any rows will do here, and none is valid if there are too few
                msg["value"] = jnp.zeros(int(msg["args"][1]), jnp.int32)
                msg["args"] = (msg["args"][0], int(msg["args"][1]))
        elif msg["type"] == "control_flow":
            functions = (partial(self._watched, f) if callable(f) else f for f in msg["args"])
            msg["args"] = tuple(functions)

    def _watched(self, function, *args):
        self._inside_control_flow = True
        try:
            with self:
                return function(*args)
        finally:
            self._inside_control_flow = False

    def postprocess_message(self, msg):
        super().postprocess_message(msg)
        if msg["type"] == "subsample" and not self._inside_control_flow:
            array, event_dim = msg["value"], msg["kwargs"]["event_dim"]
            shape = array.shape if isinstance(array, Column) else jnp.shape(array)
            for entered in (handler for handler in _PYRO_STACK if isinstance(handler, plate)):
                axis, name = entered.dim - event_dim, self._name(entered._indices, entered.name)
                if name in self.plates and len(shape) >= -axis and shape[axis] == entered.size:
                    self.subsampled.append((id(array), axis, name))


class without_plates(Messenger):
    """Run a model with what is observed in some plates left out of its log density.

    Args:
        fn: the model.
        names: of the plates.
    """

    def __init__(self, fn: Callable, names: Collection[str]):
        self.names = names
        super().__init__(fn)

    def process_message(self, msg):
        inside = any(frame.name in self.names for frame in msg.get("cond_indep_stack", ()))
        if msg["type"] == "sample" and msg["is_observed"] and inside:
            msg["fn"] = msg["fn"].mask(False)


class full_data(_chooses_rows):
    """Run a model with every plate at all its rows, whatever its ``subsample_size``."""

    def process_message(self, msg):
        super().process_message(msg)
        if msg["type"] == "plate":
            size, subsample_size = msg["args"]
            msg["args"] = (size, None if subsample_size is None else size)
            msg["value"] = jnp.arange(size)

    def postprocess_message(self, msg):
        super().postprocess_message(msg)
        if msg["type"] == "subsample":
            self._take(msg)


class FullDataModel:
    """The model as seen on all its data: what ArviZ, ``Predictive`` and ``log_likelihood`` must be given.

    The model itself would show them ``subsample_size`` random rows. Compares equal to the view of the same
    model, and pickles if the model does.
    """

    def __init__(self, model: Callable):
        self.model = model

    def __call__(self, *args, **kwargs):
        args, kwargs = jax.tree.map(as_jax_array, jax.tree.map(columns_of, (args, kwargs)))
        with full_data():
            return self.model(*args, **kwargs)

    def __eq__(self, other):
        return isinstance(other, FullDataModel) and self.model == other.model

    def __ne__(self, other):
        if other is self.model and locals_of(Gibbs.__init__) is not None:
            raise ValueError(
                "All model-based blocks of Gibbs must share the same model, and the others must see all the data: give "
                'them kernel.model, as in Gibbs([(kernel, ["w"]), (DiscreteGibbs(kernel.model), ["k"])]).'
            )
        return not self == other

    def __hash__(self):
        return hash((FullDataModel, self.model))

    def __repr__(self):
        return f"FullDataModel({self.model!r})"


def dotted(name: str) -> str:
    """The name of a site or plate with dots for slashes."""
    return name.replace("/", ".")


class with_dots(Messenger):
    """Run a model with dots for the slashes in the names of its sites and plates."""

    def process_message(self, msg):
        if msg.get("name"):
            msg["name"] = dotted(msg["name"])
        if msg.get("cond_indep_stack"):
            msg["cond_indep_stack"] = [frame._replace(name=dotted(frame.name)) for frame in msg["cond_indep_stack"]]

"""What the error of a model that was traced comes from."""

import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCOO
from numpyro.primitives import plate

from sgworld_numpyro.model.arguments import Arguments
from sgworld_numpyro.model.arrays import as_numeric
from sgworld_numpyro.model.requirements import ModelError
from sgworld_numpyro.model.stack import locals_where_raised
from sgworld_numpyro.sources import Column, why_no_source

PACKAGE = Path(__file__).parents[1]


def explain(error: Exception, model: Callable, arguments: Arguments) -> str | None:
    """What an error of a model that was traced comes from, if it speaks of it; None if not.

    It may be a plate without rows or of a size that is not known, an argument that is nothing to compute with, NumPy
    data that rows index, or an ``if`` on the minibatch. Arguments that the error does not speak of are noted in it,
    should they have to do with it.

    Args:
        error: that the model raised.
        model: the model.
        arguments: its arguments.
    """
    if isinstance(error, AssertionError | jax.errors.TracerBoolConversionError):
        declared = locals_where_raised(error, plate.__init__)
        if declared is not None:
            return _of_plate(declared, model, arguments)
    found = [
        (leaf, f"{name}{jax.tree_util.keystr(path)} is {what}")
        for name, argument in arguments.named(model).items()
        for path, leaf in jax.tree_util.tree_leaves_with_path(argument, is_leaf=_is_one)
        if (what := _unusable(leaf)) is not None
    ]
    culprits = [what for leaf, what in found if _speaks_of(error, leaf)]
    if culprits:
        first_line = str(error).partition("\n")[0]
        return f"{'; '.join(culprits)}. The model failed with it ({type(error).__name__}: {first_line:.150})."
    if isinstance(error, jax.errors.TracerArrayConversionError | jax.errors.TracerIntegerConversionError):
        return (
            f"The model hands rows of the minibatch to NumPy{_line_of(error)}, which needs to know their values, and "
            "these change at every step. Data that are indexed by the rows of a plate must be JAX arrays: "
            "jnp.asarray(x)[rows], or numpyro.subsample(x, event_dim=...), or an argument of the model as it was "
            "passed; and functions of the minibatch must be jax.numpy's."
        )
    if isinstance(error, jax.errors.TracerBoolConversionError):
        return (
            f"The model decides by values that are not known while it is compiled{_line_of(error)}: rows of the "
            "minibatch or latent sites. Write jnp.where(condition, a, b) for `if`, and jax.lax.cond where it is dear."
        )
    for _, what in found:
        error.add_note(f"Perhaps it has to do with this: {what}.")
    return None


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Raise ``ModelError`` for masked arrays: most of what computes with them takes what they mask for data."""
    for name, argument in arguments.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(argument):
            if isinstance(leaf, np.ma.MaskedArray):
                raise ModelError(
                    f"{name}{jax.tree_util.keystr(path)} is a masked array: pass its data, and hide what it masks with "
                    "numpyro.handlers.mask(mask=~x.mask) around the likelihood."
                )


def _speaks_of(error, value):
    """Whether an error can be an argument's: it is of NumPy among JAX, or names its type."""
    if isinstance(error, jax.errors.TracerArrayConversionError | jax.errors.TracerIntegerConversionError):
        return not isinstance(value, np.ndarray | jax.Array | list)
    text = str(error)
    if isinstance(error, TypeError) and "incompatible shapes" not in text:
        return type(value).__name__ in text or "complex" in text or "sparse" in text or "JAX" in text
    if isinstance(error, ValueError):
        return "valid dtype" in text
    return isinstance(error, AttributeError) and f"'{type(value).__name__}' object" in text


def _of_plate(declared, model, arguments):
    """What is wrong with a plate, given the variables of its making; None if that is nothing that is known here."""
    name, size, batch = declared["name"], declared["size"], declared["subsample_size"]
    unknown = [
        f"{argument}={value!r:.60}"
        for argument, value in (("size", size), ("subsample_size", batch))
        if isinstance(value, jax.Array)
    ]
    if unknown:
        return (
            f"Plate {name!r} has {unknown[0]}, a value of JAX, which is not known while the model is compiled. "
            "Give a Python integer: int(...) of it outside the model, or x.shape[0] and len(x) inside."
        )
    if size > 0:
        return None
    empty = [
        f"{named} of shape {arguments.leaves[number].shape}"
        for number, named in arguments.names(model).items()
        if 0 in arguments.leaves[number].shape
    ]
    data = f" The data have none: {', '.join(empty)}." if empty else ""
    return f"Plate {name!r} has size={size}, but needs at least one row.{data}"


def _line_of(error):
    """Where the model's author wrote what raised an error: the innermost line that is no package's."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename and PACKAGE not in Path(frame.filename).parents
    ]
    if not frames:
        return ""
    found = frames[-1]
    code = f" (`{found.line}`)" if found.line else ""
    return f", in {os.path.basename(found.filename)}, line {found.lineno}{code}"


def _is_one(value):
    return isinstance(value, BCOO) or (isinstance(value, list) and as_numeric(value) is not value)


def _unusable(value):
    """What an argument is that a model cannot compute with, and what to write instead; None if it can."""
    kind = f"{type(value).__module__.split('.')[0]}.{type(value).__name__}"
    if isinstance(value, BCOO) or (type(value).__module__.startswith("scipy.sparse")):
        dense = "todense" if isinstance(value, BCOO) else "toarray"
        return f"a sparse array ({kind}), whose rows cannot be taken: pass a dense one, .{dense}()"
    if isinstance(value, list):
        return "a list of numbers: pass jnp.asarray(...) of it"
    if (said := why_no_source(value)) is not None:
        return f"a {kind}, which is no array and no source of rows: {said}"
    if isinstance(value, Column):
        return value.advice
    if not hasattr(value, "__array__") or isinstance(value, jax.Array):
        return _of_complex(value)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return f"a {kind} that numpy.asarray does not take: pass a NumPy array"
    if not array.dtype.isnative:
        return (
            f"a {kind} of foreign byte order ({array.dtype.str}): pass .astype({array.dtype.newbyteorder('=').str!r})"
        )
    if array.dtype.kind in "USOMm":
        mend = {"O": ".astype(float)", "M": ".astype('datetime64[s]').astype(float)"}.get(array.dtype.kind)
        mend = ".astype('timedelta64[s]').astype(float)" if array.dtype.kind == "m" else mend
        mend = mend or "numpy.unique(..., return_inverse=True)[1] of it, its labels as integers"
        if array.dtype.kind == "O" and any(isinstance(one, str) for one in array.ravel()[:100]):
            mend = "numpy.unique(..., return_inverse=True)[1] of it, its labels as integers"
        return f"a {kind} of dtype {array.dtype}, which is not numeric: pass {mend}"
    if not isinstance(value, np.ndarray):
        return f"a {kind}: pass numpy.asarray(...) of it"
    return _of_complex(value)


def _of_complex(value):
    if getattr(value, "dtype", None) is not None and jnp.issubdtype(value.dtype, jnp.complexfloating):
        return f"complex ({value.dtype}), and a log density is real: pass .real and .imag, or jnp.abs(...)"
    return None

"""What the error of a model that was traced comes from: an argument that it cannot compute with, or NumPy among JAX."""

import os
import traceback
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCOO

from sgworld_numpyro.handlers import as_numeric


def explain(error: Exception, arguments: Mapping[str, Any]) -> str | None:
    """What an error of a model that was traced comes from, if it is known: an argument, or NumPy data indexed by rows.

    Args:
        error: that the model raised.
        arguments: its arguments by name.
    """
    culprits = [
        f"{name}{jax.tree_util.keystr(path)} is {what}"
        for name, argument in arguments.items()
        for path, leaf in jax.tree_util.tree_leaves_with_path(argument, is_leaf=_is_one)
        if (what := _unusable(leaf)) is not None
    ]
    if not culprits and isinstance(error, _OF_TRACERS):
        line = _line_of(error)
        return (
            f"The model hands rows of the minibatch to NumPy{line}, which needs to know their values, and these change "
            "at every step. Data that are indexed by the rows of a plate must be JAX arrays: jnp.asarray(x)[rows], or "
            "numpyro.subsample(x, event_dim=...), or pass x to the model as an argument; and functions of the "
            "minibatch must be jax.numpy's."
        )
    if not culprits:
        return None
    return (
        f"{'; '.join(culprits)}. The model failed with it ({type(error).__name__}: {str(error).splitlines()[0]:.150})."
    )


_OF_TRACERS = (jax.errors.TracerArrayConversionError, jax.errors.TracerIntegerConversionError)


def _line_of(error):
    """Where the model's author wrote what raised an error: the innermost line that is no package's."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename and os.path.dirname(frame.filename) != os.path.dirname(__file__)
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
    if not hasattr(value, "__array__") or isinstance(value, jax.Array):
        return _of_complex(value)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return f"a {kind} that numpy.asarray does not take: pass a NumPy array"
    if array.dtype.kind in "USOMmV":
        mend = {"O": ".astype(float)", "M": ".astype('datetime64[s]').astype(float)"}.get(array.dtype.kind)
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

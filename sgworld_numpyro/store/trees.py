"""The state of a run as arrays and JSON, and back, without pickle.

What can be written: arrays, keys of ``jax.random``, numbers, texts, None, dictionaries, lists, tuples, named
tuples, dataclasses, and classes with ``tree_flatten`` and ``tree_unflatten``. A class is found again by its name among
the modules that are imported by then, and nothing but such a class is made from what a file says.
"""

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_numpyro.store.files import DamagedRunError

Packed = dict[str, Any]


def pack(tree: Any) -> tuple[Packed, dict[str, np.ndarray]]:
    """What JSON can hold of a tree, and its arrays by the names that it gives them.

    Raises:
        TypeError: for what cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    return _pack(tree, "state", arrays), arrays


def unpack(packed: Packed, arrays: Mapping[str, np.ndarray]) -> Any:
    """The tree that ``pack`` was given, its arrays those of JAX.

    Raises:
        DamagedRunError: if a class is not there, or has other fields.
    """
    ((kind, found),) = ((kind, found) for kind, found in packed.items() if kind != "key")
    if kind == "array":
        array = jnp.asarray(arrays[found])
        return jax.random.wrap_key_data(array, impl=packed["key"]) if "key" in packed else array
    if kind == "value":
        return found
    if kind == "dict":
        return {unpack(key, arrays): unpack(one, arrays) for key, one in found}
    if kind in ("list", "tuple"):
        return (list if kind == "list" else tuple)(unpack(one, arrays) for one in found)
    name, fields = found
    cls = _class_of(name)
    if kind == "node":
        children, aux = (unpack(one, arrays) for one in fields)
        return cls.tree_unflatten(aux, children)
    if set(fields) != set(_field_names(cls)):
        raise DamagedRunError(
            f"the run was saved with a {name} of {', '.join(fields)}, and it has {', '.join(_field_names(cls))} here: "
            "it is of another version. Go on with the versions that its run.json names, or begin anew elsewhere."
        )
    return cls(**{field: unpack(one, arrays) for field, one in fields.items()})


def _pack(node, name, arrays):
    if isinstance(node, jax.Array) and jax.dtypes.issubdtype(node.dtype, jax.dtypes.prng_key):
        arrays[name] = np.asarray(jax.random.key_data(node))
        return {"array": name, "key": str(jax.random.key_impl(node))}
    if isinstance(node, jax.Array | np.ndarray | np.generic):
        arrays[name] = np.asarray(node)
        if arrays[name].dtype.kind not in "biufc":
            raise TypeError(f"{name} is of {node.dtype}, which an npz file does not hold.")
        return {"array": name}
    if node is None or isinstance(node, bool | int | float | str):
        return {"value": node}
    cls = type(node)
    if cls is dict:
        pairs = ((_pack(key, f"a key of {name}", arrays), key, value) for key, value in node.items())
        return {"dict": [[key, _pack(value, f"{name}[{shown!r}]", arrays)] for key, shown, value in pairs]}
    if hasattr(cls, "tree_flatten") and hasattr(cls, "tree_unflatten"):
        children, aux = node.tree_flatten()
        both = [_pack(children, name, arrays), _pack(aux, f"{name}.aux", arrays)]
        return {"node": [_name_of(cls), both]}
    if _field_names(cls) is not None:
        fields = {field: _pack(getattr(node, field), f"{name}.{field}", arrays) for field in _field_names(cls)}
        return {"class": [_name_of(cls), fields]}
    if isinstance(node, list | tuple):
        return {"list" if cls is list else "tuple": [_pack(one, f"{name}[{n}]", arrays) for n, one in enumerate(node)]}
    raise TypeError(
        f"{name} is a {cls.__name__}, which cannot be saved: make it an array, a named tuple or a dataclass."
    )


def _field_names(cls):
    """Of a named tuple or a dataclass; None of others."""
    if issubclass(cls, tuple):
        return getattr(cls, "_fields", None)
    return tuple(field.name for field in dataclasses.fields(cls)) if dataclasses.is_dataclass(cls) else None


def _name_of(cls):
    return f"{cls.__module__}:{cls.__qualname__}"


def _class_of(name):
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    is_node = isinstance(found, type) and hasattr(found, "tree_unflatten")
    if not (isinstance(found, type) and (is_node or _field_names(found) is not None)):
        raise DamagedRunError(
            f"the run was saved with a {path} of the module {module}, which is not there: import or define it first, "
            "as the program did that began the run."
        )
    return found

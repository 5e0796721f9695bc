"""By what a run is known again: its settings, data and key, and the program that takes its samples."""

import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpyro.infer import MCMC

from sgworld_numpyro.chain import caller
from sgworld_numpyro.devices.chains import ChainsOverDevices
from sgworld_numpyro.kernel import StochasticGradientKernel
from sgworld_numpyro.model.arguments import Arguments
from sgworld_numpyro.model.arrays import as_numeric, is_numeric_array
from sgworld_numpyro.results.versions import package_versions
from sgworld_numpyro.sources import Column

PIECE_BYTES = 2**26  # that are looked at together: what a file is mapped to need not fit in memory
DIGITS = 16  # of a checksum that are kept
WHAT_TO_DO = "Call it as it was begun, or give another path to begin anew."


def identity_of(
    mcmc: MCMC, rng_key: Any, args: tuple, kwargs: dict[str, Any], extra_fields: Sequence[str], init_params: Any
) -> dict[str, str]:
    """What must be the same for a run to go on, in words and checksums."""
    kernel, arguments, thinning = mcmc.sampler, Arguments.of(args, kwargs), int(mcmc.thinning)
    ours = isinstance(kernel, StochasticGradientKernel)
    names = arguments.names(kernel._model) | arguments.names(kernel._model, of_columns=True) if ours else {}
    method = "" if mcmc.num_chains == 1 else _method(mcmc.chain_method)
    given: dict[str, Any] = {
        "num_warmup": mcmc.num_warmup,
        "thinning": thinning,
        "num_samples % thinning": mcmc.num_samples % thinning,
        "num_chains": mcmc.num_chains,
        "chain_method": method,
        "extra_fields": ", ".join(extra_fields),
        "the kernel": type(kernel).__qualname__,
        **{f"the kernel's {name}": shown for name, shown in (kernel.given() if ours else {}).items()},
        **{f"data {names.get(n, n)}": _digest(leaf) for n, leaf in enumerate(arguments.leaves)},
        "rng_key": _digest(rng_key),
        "init_params": " ".join(map(_digest, jax.tree.leaves(init_params))),
    }
    return {name: _without_addresses(str(value)) for name, value in given.items()}


def environment(mcmc: MCMC) -> dict[str, Any]:
    """In what a run is made: in the same, the same program gives the same draws."""
    return {
        **package_versions(),
        "device": jax.devices()[0].device_kind,
        "devices": caller.devices_of(mcmc) or 1,
        "floats": str(jax.dtypes.canonicalize_dtype(float)),
    }


def check_same(before: Mapping[str, str], now: Mapping[str, str], path: Any) -> None:
    """Raise ``ValueError`` if the run in a directory is another than the one that is to go on there.

    Args:
        before: its ``identity_of``.
        now: that of the call.
        path: the directory.
    """
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if changed:
        told = "; ".join(f"{n} was {before.get(n, 'not given')} and is {now.get(n, 'not given')}" for n in changed)
        raise ValueError(f"{path} holds another run: {told}. {WHAT_TO_DO}")


def check_program(mcmc: MCMC, about: Mapping[str, Any], program: str, path: Any) -> None:
    """Raise ``ValueError`` if something else is computed than when a run was begun; warn where nobody can know.

    Args:
        mcmc: that is to go on with it.
        about: ``environment`` and ``program`` of the run as it was begun.
        program: of the call.
        path: the directory.
    """
    before, now = about["environment"], environment(mcmc)
    changed = [f"{name} {before.get(name)} and now {now[name]}" for name in now if before.get(name) != now[name]]
    if changed:
        warnings.warn(
            f"The run in {path} was begun with {', '.join(changed)}. It goes on; its draws need not be to the bit what "
            "they would have been, and whether the model is the same could not be seen.",
            stacklevel=3,
        )
    elif about["program"] != program:
        raise ValueError(
            f"{path} holds another run: the model, or a function that the kernel was given, computes something else "
            f"than when it was begun. {WHAT_TO_DO}"
        )


def _method(method):
    if isinstance(method, str):
        return method
    return "chains_over_devices" if isinstance(method, ChainsOverDevices) else "a function"


def _digest(leaf):
    """Of an array its dtype, shape and checksum; of anything else how it shows itself."""
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, Column):
        return _digest_of_rows(leaf)
    array = as_numeric(leaf)
    if not is_numeric_array(array):
        return f"{type(leaf).__name__} {leaf!r:.200}"
    found, rows = hashlib.sha256(), np.atleast_1d(array if isinstance(array, np.ndarray) else np.asarray(array))
    at_once = max(1, PIECE_BYTES // max(rows[:1].nbytes, 1))
    for start in range(0, len(rows), at_once):
        found.update(np.ascontiguousarray(rows[start : start + at_once]).reshape(-1).view(np.uint8).data)
    return f"{array.dtype}{list(array.shape)} {found.hexdigest()[:DIGITS]}"


def _digest_of_rows(column):
    """Of a source: of all its rows, as of an array with the same; of the ends of one that is not to be read whole."""
    found, source = hashlib.sha256(), column.source
    looked_at = (rows for _, rows in source.blocks()) if source.check else [source.read(np.array([0, len(column) - 1]))]
    for rows in looked_at:
        found.update(np.ascontiguousarray(rows[column.number]).reshape(-1).view(np.uint8).data)
    return f"{column.stored}{list(column.shape)} {found.hexdigest()[:DIGITS]}"


def _without_addresses(text):
    return re.sub(r" at 0x[0-9a-f]+|0x[0-9a-f]{6,}", "", text)

"""What a posterior of the zoo is, and how its model enters the table of all of them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpyro

POSTERIORS: dict[str, "Posterior"] = {}


class Posterior(NamedTuple):
    """A model, its data, what of it is compared, and how its reference is sampled.

    Attributes:
        name: of the model.
        model: as a user writes it, with its subsampled plate.
        data: makes the model's arguments; the same at every call.
        quantities: from draws by site, each (chains, draws, ...), and the data to those that are compared. None for
            the latent and the deterministic sites of the model.
        reference_model: the same posterior and sites, with other coordinates or on better terms with NUTS. None for
            the model itself.
        nuts: options of ``NUTS`` for the reference.
        exact: from the data to mean and sd by site, where they are known.
        quick: whether a run takes a few seconds.
    """

    name: str
    model: Callable
    data: Callable[[], tuple]
    quantities: Callable | None = None
    reference_model: Callable | None = None
    nuts: Mapping[str, Any] = {}
    exact: Callable | None = None
    quick: bool = False


def posterior(data, **options):
    """A decorator that enters a model into ``POSTERIORS``; options as in ``Posterior``."""

    def enter(model):
        POSTERIORS[model.__name__] = Posterior(model.__name__, model, data, **options)
        return model

    return enter


def rows(y, batch_size):
    """The plate of the rows of y."""
    return numpyro.plate("rows", len(y), subsample_size=batch_size)


def taken(*arrays):
    """The rows of each array that the plate has taken."""
    return tuple(numpyro.subsample(array, event_dim=array.ndim - 1) for array in arrays)


def standardised(features):
    """Columns of mean 0 and variance 1; those that do not vary are dropped."""
    features = np.asarray(features, float)
    features = features[:, features.std(0) > 0]
    return ((features - features.mean(0)) / features.std(0)).astype(np.float32)


def with_ones(features):
    """Features behind a column of ones."""
    return np.column_stack([np.ones(len(features)), features]).astype(np.float32)


def arrays(*values):
    """What models are given: 32-bit arrays of NumPy."""
    return tuple(
        np.asarray(value, np.float32 if np.issubdtype(np.asarray(value).dtype, np.floating) else np.int32)
        for value in values
    )

"""Predictions of a model on other data, and their averages over the draws of a run that keeps none."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax import Array, random
from jaxtyping import Float
from numpyro.handlers import seed, substitute, trace
from numpyro.infer import MCMC

from sgworld_numpyro.chain.kept import Kept
from sgworld_numpyro.model.dependence import flow
from sgworld_numpyro.model.handlers import FullDataModel


class Average(NamedTuple):
    """The mean of a function over the draws of all chains.

    Attributes:
        mean: over chains and draws.
        sd: of a draw; NaN of one draw a chain.
        error: standard error of ``mean``, from the differences between chains; NaN of one chain.
        r_hat: √(variance of draws estimated with the chains' means / mean variance within chains), which Gelman and
            Rubin (1992) call the potential scale reduction; NaN of one chain, of one draw a chain, or of a value that
            does not move, and infinite of one that each chain keeps at its own.
        by_chain: the means, chains first.
    """

    mean: Float[np.ndarray, "..."]
    sd: Float[np.ndarray, "..."]
    error: Float[np.ndarray, "..."]
    r_hat: Float[np.ndarray, "..."]
    by_chain: Float[np.ndarray, "chain ..."]


def predictor(model: Callable, *args, sites: str | Sequence[str], **kwargs) -> Callable[[dict[str, Array]], dict]:
    """From constrained values by site to what a model makes of them: a kernel's ``keep`` or ``average``.

    Args:
        model: a NumPyro model.
        args: its arguments, such as inputs to predict at. All rows are taken, whatever the plates' ``subsample_size``.
        sites: what to return, such as a deterministic site of class probabilities.
        kwargs: its keyword arguments.

    Raises:
        ValueError: when called, if the model has no such site, or would draw at random what its value depends on.
    """
    wanted = [sites] if isinstance(sites, str) else list(sites)
    whole = FullDataModel(model)

    def predict(values):
        def latent(site):  # deterministic sites are to be computed anew
            return values.get(site["name"]) if site["type"] == "sample" else None

        def at(key):
            made = trace(substitute(seed(whole, key), substitute_fn=latent)).get_trace(*args, **kwargs)
            drawn = [s for s in made.values() if s["type"] == "sample" and not s["is_observed"]]
            unknown.update(s["name"] for s in drawn if s["name"] not in values)
            for name in wanted:
                if name not in made:
                    raise ValueError(f"the model has no site {name!r}; it has {', '.join(map(str, made))}.")
            return {name: made[name]["value"] for name in wanted}

        unknown: set[str] = set()
        key = random.key(0)
        for name, labels in flow(at, key, frozenset(["key"])).outputs.items():
            if labels:
                raise ValueError(
                    f"site {name!r} would be drawn at random, always alike, or depends on what is: the run has no "
                    f"values of {', '.join(sorted(unknown)) or 'some'}. Name a site that follows from its latent sites."
                )
        return at(key)

    return predict


def averages(mcmc: MCMC) -> dict[str, Average]:
    """What the kernel's ``average`` returned, averaged over the draws of a finished run.

    Raises:
        ValueError: if the kernel has no ``average``, or no draw was taken after the warm-up.
    """
    kept = getattr(mcmc.last_state, "kept", ())
    if not isinstance(kept, Kept) or not kept.mean:
        raise ValueError("this run averaged nothing: run a kernel with average=..., as in SGWORLD(model, average=f).")
    kept = jax.device_get(kept)
    counts = np.atleast_1d(kept.draws)
    count = int(counts[0])
    if count == 0:
        raise ValueError("no draw was taken after the warm-up, so there is nothing to average.")
    several = kept.draws.ndim > 0

    def of(mean, squares):
        means, squares = (np.asarray(a, float) if several else np.asarray(a, float)[None] for a in (mean, squares))
        chains = len(means)
        within = squares.mean(0) / (count - 1) if count > 1 else np.full(means.shape[1:], np.nan)
        between = means.var(0, ddof=1) if chains > 1 else np.full(means.shape[1:], np.nan)
        spread = np.nan_to_num(between) + within * (count - 1) / count  # NaN of one draw a chain
        with np.errstate(divide="ignore", invalid="ignore"):
            r_hat = np.where(chains > 1, np.sqrt(spread / within), np.nan)
        return Average(means.mean(0), np.sqrt(spread), np.sqrt(between / chains), r_hat, means)

    return {name: of(kept.mean[name], kept.squares[name]) for name in kept.mean}

"""Draws as the measures take them: an array (chain, draw, dim), checked, and cut into halves that check each other."""

import warnings

import numpy as np
from jaxtyping import Float

Draws = Float[np.ndarray, "chain draw dim"]

# Whether time is not the second axis but the first is judged by neighbours, of independent chains uncorrelated.
_FEW_CHAINS = 8
_LOOKED_AT = 500
_CLEARLY = 0.2


def halves(x: Draws) -> tuple[Draws, Draws]:
    """Every other chain, or of a single chain the first and the second half, which share a draw."""
    if len(x) > 1:
        return x[::2], x[1::2]
    middle = x.shape[1] // 2
    return x[:, : middle + 1], x[:, middle:]


def joined(first: np.ndarray, second: np.ndarray, *, chains: int) -> Float[np.ndarray, "chain transition"]:
    """Values of the transitions of both ``halves``, in the order of the draws."""
    if chains == 1:
        return np.concatenate([first, second], axis=1)
    whole = np.empty((chains, first.shape[1]))
    whole[::2], whole[1::2] = first, second
    return whole


def as_draws(x) -> Draws:
    """Draws as float64 of shape (chain, draw, dim).

    Raises:
        ValueError: see ``lagged_moments``.

    Warns:
        UserWarning: if chains and draws seem to be interchanged.
    """
    x = np.asarray(x, float)
    if x.ndim == 2:
        x = x[None]
    if x.ndim != 3 or 0 in x.shape:
        raise ValueError(f"draws have shape {x.shape}; want (chain, draw, dim), or (draw, dim) for one chain.")
    if x.shape[1] < 2:
        raise ValueError(f"{x.shape[1]} draw a chain makes no transition; want two or more (axis 1 counts the draws).")
    _suspect_order(x)
    finite = np.isfinite(x)
    if not finite.all():
        chain, draw, dim = (int(n) for n in np.argwhere(~finite)[0])
        raise ValueError(
            f"draws are not all finite: {x[chain, draw, dim]} in chain {chain}, draw {draw}, dimension {dim}. "
            "A diverged chain has no stationary law; lower the step size."
        )
    return x


def _suspect_order(x):
    """Warn of draws that look as if steps came first and chains second."""
    chains, draws, _ = x.shape
    if chains < _FEW_CHAINS:
        return
    some = x[: 2 * _LOOKED_AT, : 2 * _LOOKED_AT]
    some = some - some.mean((0, 1))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        along = [np.nan_to_num((a * b).mean((0, 1)) / (some**2).mean((0, 1))).max() for a, b in _neighbours(some)]
    if along[0] > max(along[1], 0) + _CLEARLY or (chains > draws and not along[1] > along[0] + _CLEARLY):
        warnings.warn(
            f"draws of shape {x.shape} are taken for {chains} chains of {draws} draws, but look as if the first axis "
            f"were time: neighbours along it correlate by {along[0]:.2f}, and along the second by {along[1]:.2f}. Of "
            "(draw, chain, dim) give x.swapaxes(0, 1).",
            stacklevel=4,
        )


def _neighbours(x):
    return (x[:-1], x[1:]), (x[:, :-1], x[:, 1:])

"""Saying of a run that has ended what its own draws say against it: chains apart, mixing too slow, temperatures off."""

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from sgworld_numpyro.chain.state import SGState

DRAWS = 100  # of a chain; fewer say little of its mixing
COORDINATES = 2000  # of a site, evenly spaced, of which R-hat is taken
R_HAT = 1.04, 10.0  # chains are apart from there on, and by so many draws of chance
RELAXATIONS = 20  # that a chain should be long
TEMPERATURE = 0.1  # that a coordinate's may be off
ERRORS = 5.0  # standard errors, of the worst coordinate


class ConvergenceWarning(UserWarning):
    """A run's own draws speak against it: they are not, or not enough, draws of the posterior."""


class Mixing(NamedTuple):
    """How well chains have mixed.

    Attributes:
        r_hat: split R-hat of the worst coordinate.
        apart: its site.
        effective: draws by which the worst coordinate is known, all chains together.
        slowest: its site.
    """

    r_hat: float
    apart: str
    effective: float
    slowest: str


def mixing_of(draws: dict[str, np.ndarray]) -> Mixing:
    """Of the worst coordinate of the worst site.

    Args:
        draws: by site, of shape (chains, draws, ...).
    """
    r_hats, effective = {"": 1.0}, {"": np.inf}
    for site, values in draws.items():
        flat = np.asarray(values, float).reshape(*values.shape[:2], -1)
        flat = flat[..., some_coordinates(flat.shape[-1])]
        flat = flat[..., np.ptp(flat, axis=(0, 1)) > 0]
        if flat.shape[-1]:
            r_hats[site] = float(np.max(split_gelman_rubin(flat)))
            effective[site] = float(np.min(effective_sample_size(flat)))
    apart, slowest = max(r_hats, key=r_hats.__getitem__), min(effective, key=effective.__getitem__)
    return Mixing(r_hats[apart], apart, effective[slowest], slowest)


def some_coordinates(size: int) -> np.ndarray:
    """Numbers of so many coordinates, or of some that are evenly spaced where there are very many."""
    return np.arange(size) if size <= COORDINATES else np.linspace(0, size - 1, COORDINATES).astype(int)


def complaints(draws: dict[str, np.ndarray], last: SGState, temperature: float, coordinates: list[str]) -> list[str]:
    """What speaks against a run, in words; of its draws nothing if they are too few to tell, or diverged.

    Args:
        draws: by site, of shape (chains, draws, ...).
        last: the state after them, chains first.
        temperature: T of the chains.
        coordinates: names of the flat position's.
    """
    found = []
    if last.tuning is not None and np.max(last.tuning.report.modes) > 0:
        found.append(
            "The posterior has other modes than the one that the chains start around: tuning met them, as low as it. "
            "Run again with init_params there."
        )
    shapes = [values.shape[:2] for values in draws.values()]
    if not shapes or shapes[0][1] < DRAWS or np.any(last.divergences):
        return found
    chains, length = shapes[0]
    mixing = mixing_of(draws)
    if mixing.r_hat > R_HAT[0] + R_HAT[1] / length:
        found.append(
            f"{'The chains are' if chains > 1 else 'The halves of the chain are'} apart: R-hat is {mixing.r_hat:.2f} "
            f"for {mixing.apart}."
        )
    relaxation = chains * length / mixing.effective
    if relaxation > length / RELAXATIONS:
        found.append(
            f"The chains mix slowly: {chains * length} draws are worth {mixing.effective:.0f} for {mixing.slowest}. "
            f"Take num_samples={_rounded_up(RELAXATIONS * relaxation)} or more, or write the model in other "
            "coordinates: a hierarchy with few rows a group not centred, one with many rows centred."
        )
    off = _temperature(last, temperature, relaxation, coordinates)
    return found + ([off] if off else [])


def _temperature(last, temperature, relaxation, coordinates):
    """What is said of the coordinate whose temperature is farthest off."""
    readings = np.atleast_1d(np.asarray(last.thermometer.readings, float))
    virials = np.asarray(last.thermometer.virials, float).reshape(len(readings), -1)
    squares = np.asarray(last.thermometer.squares, float).reshape(len(readings), -1)
    if readings.min() < DRAWS / 10 or not np.isfinite(virials).all():
        return None
    mean = virials.mean(0)
    error = np.sqrt(squares.sum(0) / readings.sum() / readings.sum() * max(relaxation, 1.0)) + 1e-12
    excess = np.abs(mean - temperature) - TEMPERATURE * temperature
    worst = int(np.argmax(excess / error))
    if excess[worst] <= ERRORS * error[worst]:
        return None
    return (
        f"The temperature of {coordinates[worst]} is {mean[worst]:.2f} ± {error[worst]:.2f} where it must be "
        f"{temperature:g}: the draws are {'wider' if mean[worst] > temperature else 'narrower'} there than the "
        "posterior. Give a smaller bias_tolerance, or larger minibatches."
    )


def _rounded_up(number: float) -> int:
    power = 10 ** np.floor(np.log10(number))
    return int(np.ceil(number / power) * power)


def warn_of_convergence(found: list[str]) -> None:
    """Warn of complaints, if there are any."""
    if found:
        warnings.warn(" ".join(found), ConvergenceWarning, stacklevel=2)


def draws_of(states: dict[str, Any], field: str) -> dict[str, np.ndarray]:
    """What ``MCMC`` has kept of a run by site, if it is floating-point numbers; chains first."""
    found = states.get(field)
    if not isinstance(found, dict):
        return {}
    return {name: np.asarray(values) for name, values in found.items() if np.asarray(values).dtype.kind == "f"}

"""What is known of the posteriors of the zoo: exact moments, or those of long runs of NUTS, stored with their errors.

``python benchmarks/defaults.py --references`` makes ``references.json`` anew, with ``--only`` a part of it.
"""

import contextlib
import io
import json
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import numpyro
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.handlers import seed, trace
from numpyro.infer import MCMC, NUTS

from benchmarks.zoo import Posterior
from sgworld_numpyro import SGWORLD

PATH = Path(__file__).with_name("references.json")
NUM_CHAINS, NUM_WARMUP, ROUND = 4, 1000, 1000
ENOUGH = 2500  # effective draws of the slowest coordinate
SECONDS = 120  # of CPU, after which no further round is begun
DIGITS = 6

_compilations: list[tuple[float, float]] = []  # begin and end of each, in order and without overlap


def _note_compilation(event, seconds, **_):
    """Called at the end of tracing, lowering and compiling, which may contain each other."""
    if event.startswith("/jax/core/compile"):
        end = time.perf_counter()
        begin = end - seconds
        while _compilations and _compilations[-1][0] >= begin:
            _compilations.pop()
        _compilations.append((max(begin, _compilations[-1][1]) if _compilations else begin, end))


jax.monitoring.register_event_duration_secs_listener(_note_compilation)


class Stopwatch:
    """CPU seconds since it was made; of compilation only the share of the time by the clock is known."""

    def __init__(self):
        self._begin, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """CPU seconds by what they were for."""
        cpu, clock = time.process_time() - self._cpu, time.perf_counter() - self._begin
        share = sum(end - begin for begin, end in _compilations if begin >= self._begin) / clock
        return {"seconds": cpu * (1 - share), "compiling": cpu * share}


def on_a_terminal_that_nobody_sees(mcmc, key, *data, **options):
    """Run with the progress bar: with it NumPyro compiles once for all runs of an ``MCMC``, without it every time."""
    mcmc.progress_bar = True  # NumPyro turns it off where the environment says CI
    with contextlib.redirect_stderr(io.StringIO()):
        mcmc.run(key, *data, **options)
        jax.block_until_ready(mcmc.get_samples())
        jax.effects_barrier()


class Moments(NamedTuple):
    """Means and sds of each coordinate, their Monte Carlo errors, and how well the chains mixed.

    Attributes:
        mean: (d,).
        mean_error: (d,).
        sd: (d,).
        sd_error: (d,).
        r_hat: the largest of the coordinates', of split chains.
        ess: the smallest effective number of draws.
    """

    mean: np.ndarray
    mean_error: np.ndarray
    sd: np.ndarray
    sd_error: np.ndarray
    r_hat: float
    ess: float

    @classmethod
    def of(cls, draws):
        """Of draws (chains, samples, d)."""
        with np.errstate(divide="ignore", invalid="ignore"):  # of chains that stand still all this is NaN
            mean, sd = draws.mean((0, 1)), draws.std((0, 1))
            squares = (draws - mean) ** 2
            ess = effective_sample_size(draws)
            sd_error = squares.std((0, 1)) / (2 * sd * np.sqrt(effective_sample_size(squares)))
            r_hat = split_gelman_rubin(draws)
            return cls(mean, sd / np.sqrt(ess), sd, sd_error, float(r_hat.max()), float(ess.min()))


class Reference(NamedTuple):
    """What is stored of a posterior.

    Attributes:
        source: in words.
        sites: shapes of what is compared, by name.
        data: mean size of each of the model's arguments, by which a change of the data is noticed.
        moments: see ``Moments``.
        seconds: of CPU that the run took, its warm-up included and compilation not; 0 of exact moments.
        gradients: of all the data, for each effective draw, those of the warm-up not counted.
    """

    source: str
    sites: dict
    data: list
    moments: Moments
    seconds: float
    gradients: float


def compared(posterior: Posterior, draws, data) -> dict:
    """What is compared, by name in alphabetical order, each (chains, draws, ...), of draws by site."""
    if posterior.quantities is None:
        sites = trace(seed(SGWORLD(posterior.model).model, 0)).get_trace(*data)
        free = {"sample": lambda site: not site["is_observed"], "deterministic": lambda site: True}
        names = [name for name, site in sites.items() if site["type"] in free and free[site["type"]](site)]
        draws = {name: draws[name] for name in names}
    else:
        draws = posterior.quantities({name: np.asarray(value) for name, value in draws.items()}, data)
    return {name: np.asarray(draws[name], float) for name in sorted(draws)}


def flat(quantities) -> np.ndarray:
    """Quantities by name as one array (chains, draws, d)."""
    return np.concatenate([value.reshape(*value.shape[:2], -1) for value in quantities.values()], axis=-1)


def labels(sites) -> list[str]:
    """Names of the coordinates of ``flat``, of shapes by name."""
    return [
        name + (f"[{','.join(map(str, index))}]" if shape else "")
        for name, shape in sites.items()
        for index in np.ndindex(*shape)
    ]


def _sizes(data):
    return [float(np.abs(value.astype(float)).mean()) for value in data]


def exact(posterior: Posterior) -> Reference:
    """By the formula."""
    data = posterior.data()
    found = posterior.exact(*data)
    sites = {name: list(np.shape(found[name][0])) for name in sorted(found)}
    mean, sd = (np.concatenate([np.ravel(found[name][part]) for name in sites]) for part in (0, 1))
    zero = np.zeros_like(mean)
    return Reference("exact", sites, _sizes(data), Moments(mean, zero, sd, zero, 1.0, np.inf), 0.0, np.nan)


def by_nuts(posterior: Posterior, key: int) -> Reference:
    """From rounds of NUTS on all the data, until there are enough effective draws or the time is over."""
    data = posterior.data()
    kernel = NUTS(SGWORLD(posterior.reference_model or posterior.model).model, **posterior.nuts)
    mcmc = MCMC(
        kernel,
        num_warmup=NUM_WARMUP,
        num_samples=ROUND,
        num_chains=NUM_CHAINS,
        chain_method="vectorized",
    )
    rounds, gradients, next_key, clock = [], 0, jax.random.key(key), Stopwatch()
    while True:
        on_a_terminal_that_nobody_sees(mcmc, next_key, *data, extra_fields=("num_steps",))
        quantities = compared(posterior, mcmc.get_samples(group_by_chain=True), data)
        rounds.append(flat(quantities))
        gradients += int(mcmc.get_extra_fields()["num_steps"].sum())
        seconds = clock.read()["seconds"]
        moments = Moments.of(np.concatenate(rounds, axis=1))
        if moments.ess >= ENOUGH or seconds > SECONDS:
            break
        mcmc.post_warmup_state = mcmc.last_state
        next_key = mcmc.last_state.rng_key
    options = "".join(f", {name} {value}" for name, value in posterior.nuts.items())
    elsewhere = ", in other coordinates" if posterior.reference_model else ""
    return Reference(
        source=f"NUTS{options}{elsewhere}, {NUM_CHAINS} × {len(rounds) * ROUND} draws, seed {key}",
        sites={name: list(value.shape[2:]) for name, value in quantities.items()},
        data=_sizes(data),
        moments=moments,
        seconds=seconds,
        gradients=gradients / moments.ess,
    )


def _rounded(value):
    if isinstance(value, np.ndarray):
        return [_rounded(entry) for entry in value.tolist()]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None
    return value


def _as_json(reference: Reference):
    fields = reference._asdict() | reference.moments._asdict()
    del fields["moments"]
    return {name: _rounded(np.asarray(value) if name == "data" else value) for name, value in fields.items()}


def store(found: dict[str, Reference], path=PATH):
    """Write references, beside those of other posteriors that the file has."""
    stored = json.loads(path.read_text()) if path.exists() else {}
    versions = f"numpyro {numpyro.__version__}, jax {jax.__version__}, {jax.devices()[0].platform}"
    stored |= {name: {"versions": versions} | _as_json(reference) for name, reference in found.items()}
    # a field a line, so that a reference that was made anew can be read in a diff
    blocks = [
        f'"{name}": {{\n'
        + ",\n".join(f'"{field}": {json.dumps(value, ensure_ascii=False)}' for field, value in stored[name].items())
        + "\n}"
        for name in sorted(stored)
    ]
    path.write_text("{\n" + ",\n".join(blocks) + "\n}\n", encoding="utf-8")


def load(posterior: Posterior, path=PATH) -> Reference:
    """The stored reference.

    Raises:
        LookupError: if there is none, or if it is of other data.
    """
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    again = f"python benchmarks/defaults.py --references --only {posterior.name}"
    if posterior.name not in stored:
        raise LookupError(f"{posterior.name} has no reference in {path}: run {again}")
    fields = stored[posterior.name]
    if not np.allclose(fields["data"], _sizes(posterior.data()), rtol=1e-4):
        raise LookupError(f"The data of {posterior.name} are not those of its reference: run {again}")
    arrays = (np.asarray(fields[name]) for name in ("mean", "mean_error", "sd", "sd_error"))
    moments = Moments(*arrays, fields["r_hat"], np.inf if fields["ess"] is None else fields["ess"])
    others = {name: fields[name] for name in ("source", "sites", "data", "seconds")}
    gradients = np.nan if fields["gradients"] is None else fields["gradients"]
    return Reference(moments=moments, gradients=gradients, **others)

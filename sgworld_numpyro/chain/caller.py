"""What NumPyro's ``MCMC`` knows of a run and does not tell its kernel, looked up the stack."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import Gibbs
from numpyro.infer.mcmc import MCMC
from numpyro.util import fori_collect, nested_attrgetter

from sgworld_numpyro.model.arrays import is_traced
from sgworld_numpyro.model.stack import locals_of

# NumPyro and SGState count samples in 32 bits.
MAX_SAMPLES = 2**31 - 1
# What a container may use, where Linux says so.
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
# NumPyro makes the array of draws as the product of two arrays, and stacks those of several chains.
COPIES = 2


class Run(NamedTuple):
    """A run of ``MCMC`` that is under way; ``before`` is the state that it goes on from, or None."""

    mcmc: MCMC
    rng_key: Any
    before: Any
    args: tuple
    kwargs: dict[str, Any]
    fields: tuple[str, ...]
    without: tuple[str, ...]


_ANNOUNCED: ContextVar[Run | None] = ContextVar("announced run", default=None)


@contextmanager
def announced(run: Run) -> Iterator[None]:
    """Calls of the kernel in this context are those of a run that a driver of our own makes of an ``MCMC``."""
    token = _ANNOUNCED.set(run)
    try:
        yield
    finally:
        _ANNOUNCED.reset(token)


def run_under_way() -> Run | None:
    """The run that the kernel is called from; None if something else than ``MCMC`` or a driver of ours calls it."""
    if (run := _ANNOUNCED.get()) is not None:
        return run
    here = locals_of(MCMC._single_chain_mcmc)
    if here is None:
        return None
    rng_key, before, _ = here["init"]
    return Run(
        here["self"], rng_key, before, here["args"], here["kwargs"], here["collect_fields"], here["remove_sites"]
    )


def initial_values_of_run(kernel: Any) -> Any:
    """``init_params`` of all chains of the run under way, as they were given; None if there are none, or no run."""
    here = locals_of(MCMC.run)
    if here is None or here["self"].sampler is not kernel:
        return None
    return here["init_params"]


def state_before() -> Any:
    """The state that the run under way goes on from, of all its chains and with values; None if there is none."""
    here = locals_of(MCMC.run)
    return None if here is None else here["init_state"]


class EndOfRun:
    """What is done when a run of ``MCMC`` has ended, in place of the last method that ``MCMC.run`` calls.

    NumPyro calls its kernel before and while it samples, and not after. Only there are the values of all chains known,
    whatever transformation of JAX they were run under.

    Args:
        mcmc: whose run it is.
        run: an object of this run alone: a run that failed has left its end behind.
    """

    def __init__(self, mcmc: MCMC, run: Any):
        self.mcmc = mcmc
        self.run = run
        self.tasks: list[Callable[[MCMC, Any], None]] = []

    def __call__(self, *args, **kwargs) -> None:
        """Do what the method of ``MCMC`` does, and then what is to be done if this is the end."""
        type(self.mcmc)._set_collection_params(self.mcmc, *args, **kwargs)
        here = locals_of(MCMC.run)
        if args or kwargs or here is None or here.get("partial_map_fn") is not self.run:
            return
        del self.mcmc._set_collection_params
        for task in self.tasks:
            task(self.mcmc, here["init_state"])

    def __reduce__(self):
        return type(self), (self.mcmc, None)


def at_end_of_run(kernel: Any, task: Callable[[MCMC, Any], None]) -> bool:
    """Have ``task(mcmc, initial state or None)`` called once when the run under way has ended.

    Args:
        kernel: that the run calls.
        task: what to do.

    Returns:
        Whether the run knew the task before.
    """
    run, whole = run_under_way(), locals_of(MCMC.run)
    if run is None or whole is None or not has_known_end(kernel):
        return False
    mcmc, this = run.mcmc, whole["partial_map_fn"]
    end = vars(mcmc).get("_set_collection_params")
    if end is None or end.run is not this:
        end = mcmc._set_collection_params = EndOfRun(mcmc, this)
    known = task in end.tasks
    if not known:
        end.tasks.append(task)
    return known


def has_known_end(kernel: Any) -> bool:
    """Whether the kernel is called at every start of a run like the one under way, a resumed one too.

    NumPyro asks the kernel of a run for its ``_sample_fn``, and blocks of ``Gibbs`` for how to constrain values.
    """
    run = run_under_way()
    if run is None:
        return False
    mcmc = run.mcmc
    return mcmc.sampler is kernel or (isinstance(mcmc.sampler, Gibbs) and mcmc.postprocess_fn is None)


class Tied:
    """An integer for NumPyro's loop, which becomes an array tied to a device where the loop makes it one.

    It counts draws by ``thinning`` and by ``lower + (upper - lower) % thinning``, and makes arrays of both.
    """

    def __init__(self, number: int, device: Any):
        self.number = number
        self.device = device

    def __index__(self):
        return self.number

    def __ge__(self, other):
        return self.number >= other

    def __rmod__(self, other):
        return Tied(other % self.number, self.device)

    def __radd__(self, other):
        return Tied(other + self.number, self.device)

    def __rfloordiv__(self, other):
        return other // self.number

    def __jax_array__(self):
        return jax.device_put(jnp.asarray(self.number), self.device)

    def __repr__(self):
        return repr(self.number)

    def __reduce__(self):
        return int, (self.number,)


def tie_counters(kernel: Any, device: Any) -> None:
    """Have NumPyro's loop tie its own two counters to a device, as all that the loop gets back from JAX will be.

    Else it compiles a second time for the second sample, where these are tied. To be called before the loop begins,
    with what goes into it tied already.

    Args:
        kernel: that the run under way calls.
        device: what a function that reads a ``jax.Ref`` ties its results to.
    """
    run = run_under_way()
    if run is None or not has_known_end(kernel):
        return
    mcmc = run.mcmc
    whole_run_in_jax = mcmc.num_chains > 1 and mcmc.chain_method not in ("vectorized", "sequential")
    if mcmc.progress_bar and not whole_run_in_jax:  # else the loop takes plain integers, and is called once
        at_end_of_run(kernel, _untie)
        mcmc.thinning = Tied(int(mcmc.thinning), device)


def _untie(mcmc, before):
    mcmc.thinning = int(mcmc.thinning)


def sample_shown_by_progress_bar() -> Any | None:
    """The state of the kernel after the sample that a progress bar is about to show; None if there is none."""
    here = locals_of(fori_collect)
    return here["vals"][0][0] if here is not None and here["progbar"] and "t" in here else None


def progress_bar_reports() -> bool:
    """Whether the compilation under way is for a loop that shows ``get_diagnostics_str`` after every sample."""
    here = locals_of(fori_collect)
    return here is not None and bool(here["progbar"]) and here["num_chains"] == 1


def check_number_of_chains() -> None:
    """Raise ``ValueError`` if an ``MCMC`` that is being made is to run no chain."""
    here = locals_of(MCMC.__init__)
    if here is None:
        return
    chains = here["num_chains"]
    if not isinstance(chains, int | np.integer) or chains < 1:
        raise ValueError(f"num_chains={chains!r} must be a positive integer: MCMC(kernel, ..., num_chains=4).")


def check_samples(num_warmup: int) -> None:
    """Raise ``ValueError`` if a run has more samples than can be counted."""
    run, samples, named = run_under_way(), num_warmup, f"num_warmup={num_warmup}"
    if run is not None and run.mcmc._collection_params["upper"] > num_warmup:
        samples = run.mcmc._collection_params["upper"]
        named += f" and num_samples={run.mcmc.num_samples}"
    check_count(samples, named)


def check_samples_after(taken: Any) -> None:
    """Raise ``ValueError`` if a run that goes on from a state has more samples than can be counted.

    Args:
        taken: how many samples each chain has by then.
    """
    run = run_under_way()
    if run is None or is_traced(taken):
        return
    before, samples = int(np.asarray(taken).max()), run.mcmc._collection_params["upper"]
    check_count(before + samples, f"{samples} samples after {before}")


def check_count(samples: int, named: str) -> None:
    """Raise ``ValueError`` if these are more samples than can be counted."""
    if samples > MAX_SAMPLES:
        raise ValueError(
            f"{named} are more samples than are counted in 32 bits, at most {MAX_SAMPLES} of a chain with its warm-up. "
            "Take fewer, each of more steps: steps_per_sample=... of the kernel."
        )


def check_keys(kernel: Any, batch: tuple[int, ...]) -> None:
    """Raise ``ValueError`` if the run under way has not one key a chain.

    Args:
        kernel: of the run; as a block of another it is called for each chain.
        batch: (keys,) if there are several to a call of the kernel, else ().
    """
    run = run_under_way()
    if run is None or run.mcmc.sampler is not kernel:
        return
    method, chains = run.mcmc.chain_method, run.mcmc.num_chains
    together = chains > 1 and (method == "vectorized" or devices_of(run.mcmc) is not None)
    if batch != ((chains,) if together else ()):
        raise ValueError(
            f"rng_key is {batch[0] if batch else 1} keys, and num_chains={chains}: give one key, "
            "mcmc.run(jax.random.key(0), ...), which NumPyro splits, or one for each chain."
        )


def devices_of(mcmc: MCMC) -> int | None:
    """Over how many devices the chains are spread, each of which runs its share side by side; None if they are not."""
    devices = getattr(mcmc.chain_method, "devices", None)
    return None if devices is None or mcmc.num_chains == 1 else len(devices)


def chains_beside() -> int:
    """How many chains a device runs side by side, where the kernel is called for one of them."""
    run = run_under_way()
    devices = None if run is None else devices_of(run.mcmc)
    return 1 if run is None or devices is None else run.mcmc.num_chains // devices


def check_room(kernel: Any, state: Any, batch: tuple[int, ...], sites: dict[str, Any]) -> None:
    """Raise ``ValueError`` if the draws of the run under way are larger than the memory there is.

    Args:
        kernel: of the run, or of a block of it, whose sites alone are counted then.
        state: the initial one, chains first.
        batch: (chains,) where they are vectorized, else ().
        sites: shape and dtype of what one chain keeps of a draw.
    """
    run, there = run_under_way(), memory()
    if run is None or there is None or run.mcmc.postprocess_fn is not None:
        return
    mcmc, params, thinning = run.mcmc, run.mcmc._collection_params, int(run.mcmc.thinning)
    draws = params["collection_size"]
    draws = (params["upper"] - params["lower"] if draws is None else draws) // thinning
    # Parallel chains have a device each, and others a share of some, which share the memory if they are CPUs.
    devices = mcmc.num_chains if mcmc.chain_method == "parallel" else devices_of(mcmc) or 1
    chains = mcmc.num_chains if jax.default_backend() == "cpu" else mcmc.num_chains // devices
    one_draw = chains * sum(_nbytes(leaf) for name, leaf in sites.items() if name not in run.without)
    if mcmc.sampler is kernel:
        for field in run.fields:
            if field != kernel.sample_field:
                one_draw += _field_bytes(state, field) * (1 if batch else chains)
    wanted = COPIES * draws * one_draw
    if wanted > there:
        fits = there // (2 * COPIES * one_draw)  # half of it is left for the rest
        every = math.ceil(draws * thinning / max(fits, 1))
        raise ValueError(
            f"num_samples={mcmc.num_samples} wants {readable(wanted)} of memory, for {draws} draws of {chains} "
            f"chain{'s' if chains > 1 else ''} and a copy, and there are {readable(there)}. Keep one in {every} with "
            f"MCMC(..., thinning={every}), keep less of a draw with keep=... or average=... of the kernel, or take "
            f"fewer: num_samples={fits * thinning}."
        )


def _nbytes(leaf):
    return math.prod(leaf.shape) * leaf.dtype.itemsize


def _field_bytes(state, field):
    try:
        value = nested_attrgetter(field)(state)
    except (AttributeError, KeyError, TypeError):  # NumPyro will say that there is none, or it is not known yet
        return 0
    return sum(_nbytes(leaf) for leaf in jax.tree.leaves(value))


def memory() -> int | None:
    """Bytes of memory of the device; None if unknown."""
    if jax.default_backend() != "cpu":
        return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None
    return min([machine, *(int(limit) for limit in map(_text_of, LIMITS) if limit.isdigit())])


def _text_of(path):
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def readable(size: float) -> str:
    """A number of bytes as people read it."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:,.3g} GiB" if size < 1000 else f"{size:,.0f} GiB"

"""Chains, run as the tests run them: one call from a kernel and its data to the draws."""

import os
import subprocess
import sys
from inspect import signature
from pathlib import Path

import jax
import numpy as np
from numpyro.infer import MCMC


def make(
    kernel,
    num_samples=2,
    num_warmup=0,
    num_chains=1,
    chain_method="vectorized",
    thinning=1,
    progress_bar=False,
    jit_model_args=False,
) -> MCMC:
    """An ``MCMC`` that has not run yet.

    With the progress bar NumPyro compiles each sample, and one compilation serves all runs of an ``MCMC``; without,
    it compiles the whole run. It knows no bar where ``chain_method`` is a function.
    """
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method=chain_method,
        thinning=thinning,
        progress_bar=False,
        jit_model_args=jit_model_args,
    )
    # assigned, as NumPyro turns a bar that is asked for off under continuous integration
    mcmc.progress_bar = progress_bar and not callable(chain_method)
    return mcmc


def run(kernel, *data, key=0, **options) -> MCMC:
    """Run a kernel on data, to the last of what it warns of.

    Args:
        kernel: Any of NumPyro's or ours.
        data: The model's positional arguments.
        key: A key, or the seed of one.
        options: Those of `make`; all others, such as ``init_params``, ``extra_fields`` and the model's arguments by
            keyword, are those of ``MCMC.run``.
    """
    of_mcmc = {name: options.pop(name) for name in signature(make).parameters if name in options}
    mcmc = make(kernel, **of_mcmc)
    mcmc.run(jax.random.key(key) if isinstance(key, int) else key, *data, **options)
    jax.block_until_ready(mcmc.get_samples())
    jax.effects_barrier()
    return mcmc


def samples_of(mcmc, *data, key=0, **options):
    """Run an ``MCMC``, perhaps not for the first time: its samples, (chain, draw, ...) by site."""
    mcmc.run(jax.random.key(key) if isinstance(key, int) else key, *data, **options)
    return mcmc.get_samples(group_by_chain=True)


def field(mcmc, name="position") -> np.ndarray:
    """An extra field that was recorded, (chain, draw, ...)."""
    return np.asarray(mcmc.get_extra_fields(group_by_chain=True)[name])


def subprocess_output(code: str, **environment: str) -> str:
    """What a program prints, run by itself from the top of the repository with more in its environment."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=600,  # a hang, and not a busy machine
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

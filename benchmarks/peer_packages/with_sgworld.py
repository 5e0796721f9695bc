"""This package through NumPyro's ``MCMC``, as users call it; and NumPyro's own NUTS and HMCECS on the same model."""

import contextlib
import io
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np
from harness import main
from numpyro.infer import HMCECS, MCMC, NUTS

from benchmarks.workloads import gaussian_mean, logistic_regression, mlp_classifier
from sgworld_numpyro import BAOAB, SGWORLD, BatchReshuffle

# built on few rows: a model reads N from its data
MODELS = {
    "W1": lambda batch_size: gaussian_mean(10, 2, batch_size).model,
    "W2": lambda batch_size: logistic_regression(10, 1, batch_size).model,
    "W3": lambda batch_size: mlp_classifier(10).model,
}
NUTS_WARMUP = 200


def sampler(kernel, warmup, samples, chains):
    return MCMC(kernel, num_warmup=warmup, num_samples=samples, num_chains=chains, chain_method="vectorized")


def prepare(task, data, kernel_of, warmup):
    """A function that runs the chains; a second call goes on where the first has stopped."""
    rows = tuple(jnp.asarray(data[name]) for name in ("x", "y") if name in data)
    kernel = kernel_of(MODELS[task.workload](task.batch_size), task, data)
    mcmc = sampler(kernel, warmup, task.samples, task.chains)
    mcmc.progress_bar = True  # NumPyro turns it off where the environment says CI

    def run(seed):
        mcmc.post_warmup_state = mcmc.last_state
        with contextlib.redirect_stderr(io.StringIO()):
            mcmc.run(jax.random.key(seed), *rows)
        return [np.asarray(leaf) for leaf in mcmc.get_samples(group_by_chain=True).values()]

    return run


def with_step(model, task, data, **options):
    return SGWORLD(model, task.step_size, steps_per_sample=task.thinning, **options)


def hmcecs(model, task, data):
    proxy = HMCECS.taylor_proxy({"weights": jnp.asarray(data["mode"])})
    return HMCECS(NUTS(model), num_blocks=10, proxy=proxy)


METHODS = {
    "SGWORLD": partial(prepare, kernel_of=with_step, warmup=0),
    "SGWORLD, BatchReshuffle": partial(prepare, kernel_of=partial(with_step, subsampling=BatchReshuffle()), warmup=0),
    "SGWORLD, BAOAB": partial(prepare, kernel_of=partial(with_step, integrator=BAOAB()), warmup=0),
    "SGWORLD(model)": partial(prepare, kernel_of=lambda model, task, data: SGWORLD(model), warmup=10),
    "NUTS": partial(prepare, kernel_of=lambda model, task, data: NUTS(SGWORLD(model).model), warmup=NUTS_WARMUP),
    "HMCECS": partial(prepare, kernel_of=hmcecs, warmup=NUTS_WARMUP),
}
MODEL = MODELS["W2"](100)
USER_CODE = {name: (MODEL, hmcecs, sampler) if name == "HMCECS" else (MODEL, sampler) for name in METHODS}

if __name__ == "__main__":
    main(METHODS, USER_CODE, ("sgworld_numpyro", "numpyro", "jax"))

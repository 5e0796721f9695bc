"""Peak memory of a network's run that keeps predictions in place of its draws.

784-100-10 network, 60 000 × 784 data in float32 (188 MB), 4 vectorized chains of 200 draws that keep the class
probabilities of 10 000 inputs (320 MB). Each number of steps a draw runs in a process of its own; what is told is the
peak of resident memory beyond what it was after the imports.
"""

import argparse
import json
import resource
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC

from sgworld_numpyro import SGWORLD, LeimkuhlerMatthews

ROWS, PIXELS, HIDDEN, CLASSES, BATCH_SIZE = 60_000, 784, 100, 10, 100
CHAINS, DRAWS, INPUTS = 4, 200, 10_000
STEPS = (5, 20, 80)


def logits(sites, x):
    return jax.nn.relu(x @ sites["first"]) @ sites["second"]


def model(x, y):
    sites = {
        "first": numpyro.sample("first", dist.Normal(0, 0.2).expand([PIXELS, HIDDEN]).to_event(2)),
        "second": numpyro.sample("second", dist.Normal(0, 0.5).expand([HIDDEN, CLASSES]).to_event(2)),
    }
    with numpyro.plate("rows", len(x), subsample_size=BATCH_SIZE):
        xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
        numpyro.sample("obs", dist.Categorical(logits=logits(sites, xb)), obs=yb)


def peak():
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def run(steps):
    """GiB beyond the imports, and of the arrays that must be there."""
    jnp.zeros(1).block_until_ready()
    imports = peak()
    rng = np.random.default_rng(0)
    x = rng.random((ROWS, PIXELS), np.float32)
    y = rng.integers(0, CLASSES, ROWS).astype(np.int32)
    inputs = x[:INPUTS]

    def keep(sites):
        return {"probability": jax.nn.softmax(logits(sites, inputs))}

    kernel = SGWORLD(model, 1e-6, integrator=LeimkuhlerMatthews(), steps_per_sample=steps, keep=keep)
    mcmc = MCMC(
        kernel, num_warmup=2, num_samples=DRAWS, num_chains=CHAINS, chain_method="vectorized", progress_bar=False
    )
    mcmc.run(jax.random.key(0), x, y)
    kept = mcmc.get_samples(group_by_chain=True)["probability"]
    return {"steps": steps, "peak_gib": peak() - imports, "arrays_gib": (x.nbytes + kept.nbytes) / 2**30}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write every number to FILE as well")
    parser.add_argument("--steps", type=int, help="measure this number of steps a draw in this process")
    options = parser.parse_args(argv)
    if options.steps is not None:
        print(json.dumps(run(options.steps)))
        return
    print(f"{'steps a draw':>12}{'peak, GiB':>12}{'data and kept draws':>22}")
    rows = []
    for steps in STEPS:
        made = subprocess.run(
            [sys.executable, __file__, "--steps", str(steps)], check=True, capture_output=True, text=True
        )
        rows.append(json.loads(made.stdout.splitlines()[-1]))
        print(f"{steps:>12}{rows[-1]['peak_gib']:>12.2f}{rows[-1]['arrays_gib']:>22.2f}", flush=True)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=2)


if __name__ == "__main__":
    main()

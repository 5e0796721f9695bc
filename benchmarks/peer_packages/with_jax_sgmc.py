"""jax-sgmc: SGLD by its ``alias``, one chain, which keeps so many samples of all steps."""

import jax
from densities import DENSITIES, leaves, logistic_likelihood, logistic_prior, start_of
from harness import main
from jax_sgmc import alias, potential
from jax_sgmc.data.numpy_loader import NumpyDataLoader


def sgld(prior, likelihood, data, batch_size, samples, **options):
    energy = potential.minibatch_potential(prior=prior, likelihood=likelihood, strategy="vmap")
    loader = NumpyDataLoader(**data)
    return alias.sgld(
        energy,
        loader,
        batch_size=batch_size,
        accepted_samples=samples,
        save_to_numpy=False,
        progress_bar=False,
        **options,
    )


def prepare(task, data):
    """A function that runs the chain. Every call compiles anew."""
    log_prior, row_likelihood = DENSITIES[task.workload]
    names = [name for name in ("x", "y") if name in data]

    def likelihood(sample, row):
        return row_likelihood(sample["position"], tuple(row[name] for name in names))

    arrays = {name: data[name] for name in names}
    run_chain = sgld(
        lambda sample: log_prior(sample["position"]),
        likelihood,
        arrays,
        task.batch_size,
        task.samples,
        first_step_size=task.step_size,
        last_step_size=task.step_size / 2,
    )
    start = jax.tree_util.tree_map(lambda leaf: leaf[0], start_of(task.workload, data, 1))

    def run(seed):
        (result,) = run_chain({"position": start}, iterations=task.samples * task.thinning)
        return [leaf[None] for leaf in leaves(result["samples"]["variables"])]

    return run


METHODS = {"SGLD": prepare}
USER_CODE = {"SGLD": (logistic_prior, logistic_likelihood, sgld)}

if __name__ == "__main__":
    main(METHODS, USER_CODE, ("jax-sgmc", "jax"))

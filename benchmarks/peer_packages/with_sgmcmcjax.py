"""SGMCMCJax: SGLD and SGHMC, by its kernels in a loop; its samplers keep every step."""

import jax
from densities import DENSITIES, leaves, logistic_likelihood, logistic_prior, rows_of, start_of
from harness import main
from sgmcmcjax.kernels import build_sghmc_kernel, build_sgld_kernel


def draw(key, position, built, samples, transitions):
    """Samples of one chain, so many transitions apart."""
    init, kernel, get_params = built
    start, key = jax.random.split(key)

    def transition(state, number_and_key):
        return kernel(*number_and_key, state), None

    def sample(state, numbers_and_keys):
        state, _ = jax.lax.scan(transition, state, numbers_and_keys)
        return state, get_params(state)

    numbers = jax.numpy.arange(samples * transitions).reshape(samples, transitions)
    keys = jax.random.split(key, samples * transitions).reshape(samples, transitions, -1)
    return jax.lax.scan(sample, init(start, position), (numbers, keys))[1]


def sgld(log_likelihood, log_prior, data, batch_size, step_size):
    return build_sgld_kernel(step_size, log_likelihood, log_prior, data, batch_size)


def sghmc(log_likelihood, log_prior, data, batch_size, step_size, integration_steps):
    return build_sghmc_kernel(step_size, integration_steps, log_likelihood, log_prior, data, batch_size)


def prepare(task, data, hamiltonian=False):
    """A function that runs all chains, compiled at its first call."""
    log_prior, row_likelihood = DENSITIES[task.workload]
    rows, each = rows_of(data), 1

    def log_likelihood(position, *row):
        return row_likelihood(position, row)

    if hamiltonian:
        each = task.integration_steps
        built = sghmc(log_likelihood, log_prior, rows, task.batch_size, task.step_size, each)
    else:
        built = sgld(log_likelihood, log_prior, rows, task.batch_size, task.step_size)
    positions = start_of(task.workload, data, task.chains)

    @jax.jit
    def chains(keys):
        def chain(key, position):
            return draw(key, position, built, task.samples, task.thinning // each)

        return jax.vmap(chain)(keys, positions)

    return lambda seed: leaves(chains(jax.random.split(jax.random.PRNGKey(seed), task.chains)))


METHODS = {"SGLD": prepare, "SGHMC": lambda task, data: prepare(task, data, hamiltonian=True)}
USER_CODE = {
    "SGLD": (logistic_prior, logistic_likelihood, draw, sgld),
    "SGHMC": (logistic_prior, logistic_likelihood, draw, sghmc),
}

if __name__ == "__main__":
    main(METHODS, USER_CODE, ("sgmcmcjax", "jax"))

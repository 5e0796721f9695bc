"""BlackJAX: SGLD and SGHMC, with control variates at the mode where asked."""

import blackjax
import jax
from blackjax.sgmcmc.gradients import control_variates, grad_estimator
from densities import DENSITIES, leaves, logistic_likelihood, logistic_prior, rows_of, start_of
from harness import main


def draw(key, position, kernel, data, batch_size, samples, transitions):
    """Samples of one chain, so many transitions apart."""

    def transition(position, key):
        pick, noise = jax.random.split(key)
        rows = jax.random.randint(pick, (batch_size,), 0, len(data[0]))
        return kernel(noise, position, tuple(array[rows] for array in data)), None

    def sample(position, key):
        position, _ = jax.lax.scan(transition, position, jax.random.split(key, transitions))
        return position, position

    return jax.lax.scan(sample, position, jax.random.split(key, samples))[1]


def sgld(gradient, step_size):
    sampler = blackjax.sgld(gradient)
    return lambda key, position, batch: sampler.step(key, position, batch, step_size)


def sghmc(gradient, step_size, integration_steps):
    sampler = blackjax.sghmc(gradient, integration_steps)
    return lambda key, position, batch: sampler.step(key, position, batch, step_size)


def prepare(task, data, hamiltonian=False, controlled=False):
    """A function that runs all chains, compiled at its first call."""
    rows = rows_of(data)
    gradient = grad_estimator(*DENSITIES[task.workload], len(rows[0]))
    if controlled:
        gradient = control_variates(gradient, data["mode"], rows)
    each = task.integration_steps if hamiltonian else 1
    kernel = sghmc(gradient, task.step_size, each) if hamiltonian else sgld(gradient, task.step_size)
    positions = start_of(task.workload, data, task.chains)

    @jax.jit
    def chains(keys, rows):
        def chain(key, position):
            return draw(key, position, kernel, rows, task.batch_size, task.samples, task.thinning // each)

        return jax.vmap(chain)(keys, positions)

    return lambda seed: leaves(chains(jax.random.split(jax.random.key(seed), task.chains), rows))


METHODS = {
    "SGLD": prepare,
    "SGHMC": lambda task, data: prepare(task, data, hamiltonian=True),
    "SGLD-CV": lambda task, data: prepare(task, data, controlled=True),
    "SGHMC-CV": lambda task, data: prepare(task, data, hamiltonian=True, controlled=True),
}
DENSITY = logistic_prior, logistic_likelihood
USER_CODE = {name: (*DENSITY, draw, sghmc if "SGHMC" in name else sgld, lambda: control_variates) for name in METHODS}

if __name__ == "__main__":
    main(METHODS, USER_CODE, ("blackjax", "jax"))

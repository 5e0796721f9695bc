"""How large a step can be before the chain diverges."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jaxtyping import Float

from sgworld_numpyro.chain.engine import Engine
from sgworld_numpyro.integrators import is_kinetic
from sgworld_numpyro.model.arguments import Arguments
from sgworld_numpyro.subsampling import Plate

ITERATIONS = 30
BATCHES = 8


def largest_stable_step_size(engine: Engine, position: Float[Array, "dim"], arguments: Arguments) -> Float[Array, ""]:
    """About 2 / λ at a position, λ = λ_max(M ∇²U): beyond it, steps overshoot by more than they correct.

    2 / √λ for kinetic integrators.

    The Hessian is that of a few minibatches, its largest eigenvalue found by power iteration on Hessian-vector
    products. Not positive, infinite or NaN where the potential curves nowhere upwards.
    """
    target = engine.target
    batches = min(BATCHES, target.longest_plate.batches)
    rows = {plate.name: _spread(plate, batches) for plate in target.plates}

    def energy(x):
        return jnp.mean(jax.vmap(lambda rows: target.energy(arguments, rows)(x))(rows))

    def product(vector):
        return engine.preconditioner.apply(jax.jvp(jax.grad(energy), (position,), (vector,))[1])

    def iterate(_, vector):
        image = product(vector)
        return image / jnp.linalg.norm(image)

    start = random.normal(random.key(0), position.shape, position.dtype)
    vector = lax.fori_loop(0, ITERATIONS, iterate, start / jnp.linalg.norm(start))
    largest = jnp.dot(vector, product(vector))
    return 2 / (jnp.sqrt(largest) if is_kinetic(engine.integrator) else largest)


def _spread(plate: Plate, batches: int):
    """Batches of rows spread evenly over the data, without the cost of compiling a shuffle."""
    rows = np.linspace(0, plate.size - 1, batches * plate.batch_size).astype(np.int32)
    return jnp.asarray(rows.reshape(plate.batch_size, batches).T)

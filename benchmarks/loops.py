"""What a user could write by hand instead: a plain loop, and one that draws ahead."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random

from benchmarks.workloads import Workload
from sgworld_numpyro import BatchReshuffle, RandomReshuffle
from sgworld_numpyro.randomness.counter_rng import seed_words
from sgworld_numpyro.randomness.noise import gaussian, three_point
from sgworld_numpyro.subsampling import Plate


def plain_scan(workload: Workload, steps: int) -> Callable:
    """SGLD as one writes it first: every step splits a key, draws its rows and its noise."""
    rows, batch_size, h = workload.data[0].shape[0], workload.batch_size, workload.step_size
    gradient = jax.grad(workload.potential)

    @jax.jit
    def run(x, key, data):
        def step(carry, _):
            x, key = carry
            key, row_key, noise_key = random.split(key, 3)
            index = random.randint(row_key, (batch_size,), 0, rows)
            force = gradient(x, tuple(array[index] for array in data), rows / batch_size)
            return (x - h * force + jnp.sqrt(2 * h) * random.normal(noise_key, x.shape), key), None

        return lax.scan(step, (x, key), None, length=steps)[0][0]

    return lambda: run(jnp.zeros(workload.dim), random.key(0), workload.data)


def predrawn_scan(
    workload: Workload, steps: int, block: int, three_points: bool = False, contiguous: bool = False
) -> Callable:
    """The same work as the package's, by hand: rows and noise drawn ahead for blocks of steps.

    Rows are drawn without replacement with the package's own function, and so is the noise; noise of more than a
    few thousand coordinates is drawn at its step. The mean potential energy is recorded.
    """
    rows, batch_size, h = workload.data[0].shape[0], workload.batch_size, workload.step_size
    plate = Plate("rows", rows, batch_size)
    value_and_gradient = jax.value_and_grad(workload.potential)
    draw_noise = three_point if three_points else gaussian
    scheme = BatchReshuffle() if contiguous else RandomReshuffle()
    data = workload.data
    if contiguous:
        data = tuple(array[np.asarray(scheme.layout(plate))] for array in data)
    ahead = workload.dim < 4096

    @jax.jit
    def run(x, key, data):
        row_key, noise_key = random.split(key)
        seed = seed_words(noise_key)

        def one_block(x, number):
            start = number * block
            draw_rows = scheme.batch_numbers if contiguous else scheme.indices
            taken = draw_rows(row_key, start, block, plate)
            now = start + jnp.arange(block, dtype=jnp.int32)
            noise = draw_noise(seed, now, workload.dim, x.dtype) if ahead else now

            def step(x, drawn):
                taken, noise = drawn
                if not ahead:
                    noise = draw_noise(seed, noise[None], workload.dim, x.dtype)[0]
                if contiguous:
                    batch = tuple(lax.dynamic_slice_in_dim(a, taken * batch_size, batch_size) for a in data)
                else:
                    batch = tuple(array[taken] for array in data)
                energy, force = value_and_gradient(x, batch, rows / batch_size)
                return x - h * force + jnp.sqrt(2 * h) * noise, energy

            x, energies = lax.scan(step, x, (taken, noise))
            return x, jnp.mean(energies)

        return lax.scan(one_block, x, jnp.arange(steps // block))

    return lambda: run(jnp.zeros(workload.dim), random.key(0), data)

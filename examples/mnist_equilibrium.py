"""Minibatches as a heat bath of a trained network on digits: is it in equilibrium? After arXiv 2306.03521.

Plain SGD fluctuates about a minimum, which L-BFGS finds, and SGLD and SGWORLD about it at T = 1. Of every draw only the
principal components of a pilot trajectory are kept. With replacement SGD is recorded every few steps, else at the ends
of epochs, where draws without replacement form a Markov chain. What is measured in a projection bounds the whole from
below; whether the linear description, on which the entropy production rests, holds there is tested and told.

5000 training digits (of MNIST; all 1437 of the small ones) are used, so that an epoch is short and thousands fit a run:
half an hour. The hidden units are tanh, since minima of ReLU networks lie at kinks, where no linear description holds.
"""

import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from _common import at_least, parse, write_json
from _mnist import MLP, initial_weights, make_model
from _mnist_figures import draw_currents, draw_theorem
from flax import linen
from jax.flatten_util import ravel_pytree
from numpyro.infer import MCMC

from sgworld_numpyro import SGD, SGLD, SGWORLD, RandomReshuffle, predictor, to_inference_data
from sgworld_numpyro.datasets import mnist
from sgworld_numpyro.landscape import row_potential
from sgworld_numpyro.nonequilibrium import (
    LinearDescriptionWarning,
    check_assumptions,
    circulation,
    entropy_production,
    fluctuation_theorems,
    held_out_sigma,
    principal_components,
    probability_current,
)

CHAINS = 4
COMPONENTS = 5
LEARNING_RATE = 0.2  # of the mean loss
WEIGHT_DECAY = 0.08  # of the mean loss; with less the softest directions take thousands of epochs to relax
RECORDED = 5  # draws an epoch with replacement
PILOT_DRAWS = 150  # a chain
LENGTHS = (1, 3, 10, 30)
FILES = {
    "SGD, with replacement": "mnist_sgd_wr",
    "SGD, without": "mnist_sgd_wor",
    "SGLD": "mnist_equilibrium_sgld",
    "SGWORLD": "mnist_equilibrium_sgworld",
}


def data_of(source, rows):
    digits = mnist(source)
    images = digits.train_images
    batch_size = 50 if images.shape[1] == 28 else 20
    rows = min(rows, len(images)) // batch_size * batch_size  # B | N: an epoch is a whole number of batches
    return images[:rows], digits.train_labels[:rows].astype(np.int32), batch_size, digits.source


def run(kernel, warmup, draws, data, start, seed, thinning=1):
    mcmc = MCMC(
        kernel,
        num_warmup=warmup,
        num_samples=draws * thinning,
        thinning=thinning,
        num_chains=CHAINS,
        chain_method="vectorized",
        progress_bar=sys.stderr.isatty(),
    )
    mcmc.run(jax.random.key(seed), *data, init_params=start)
    return mcmc


def project(axes):
    """The kernel's ``keep``: components of the flat position along the axes."""
    directions, origin = (jnp.asarray(part, jnp.float32) for part in (axes.directions, axes.origin))

    def keep(weights):
        flat = jnp.concatenate([jnp.ravel(weights[site]) for site in sorted(weights)])
        return {"component": directions @ (flat - origin)}

    return keep


def minimum(model, data, start):
    """Weights at a minimum near ``start``, and the largest component of the gradient there.

    In double precision, or the softest directions would not converge.
    """
    position, unravel = ravel_pytree(start)
    with jax.enable_x64(True):
        potential = row_potential(model, *data)
        slope = jax.jit(lambda potential, x: (potential.full(x), potential.gradient(x)))

        def value_and_gradient(x):
            value, gradient = slope(potential, jnp.asarray(x))
            return float(value), np.asarray(gradient)

        found = scipy.optimize.minimize(
            value_and_gradient,
            np.asarray(position, float),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 10_000, "maxcor": 30, "ftol": 0, "gtol": 1e-4},
        )
    print(f"L-BFGS: {found.nit} iterations, the largest component of the gradient is {abs(found.jac).max():.1e} nats.")
    return unravel(jnp.asarray(found.x, jnp.float32)), float(abs(found.jac).max())


def trajectory(mcmc):
    """Draws of all weights, (chain, draw, weight)."""
    draws = mcmc.get_samples(group_by_chain=True)
    return np.concatenate(
        [np.asarray(draws[site]).reshape(CHAINS, -1, draws[site][0, 0].size) for site in sorted(draws)], -1
    )


def measure(x, seed):
    """Numbers of a projected trajectory (chain, draw, component), each with its error."""
    found = circulation(x, seed=seed, surrogates=199)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LinearDescriptionWarning)  # what speaks against it is among the numbers
        production = entropy_production(x, seed=seed, surrogates=199)
    theorems = fluctuation_theorems(held_out_sigma(x), LENGTHS)
    guard = check_assumptions(x)
    return {
        "draws": int(x.shape[0] * x.shape[1]),
        "relaxation": float(guard.relaxation_time),
        "circulation_p_value": float(found.p_value),
        "entropy_production": float(production.rate),
        "entropy_production_error": float(production.rate_error),
        "entropy_production_p_value": float(production.p_value),
        "lengths": list(LENGTHS),
        **{
            key: [float(value) for value in getattr(theorems, key)]
            for key in ("integral", "integral_error", "slope", "slope_error")
        },
        "problems": list(guard.problems),
    }, (found, theorems)


def cell(value, error):
    return f"{value:.3f} ± {error:.3f}" if np.isfinite(value) else "too few"


def print_table(results):
    header = ("draws", "relaxation", "circulates", "entropy production", "p", "slope", "⟨e^−σ⟩")
    rows = []
    for name, run in results.items():
        known = np.isfinite(run["slope_error"])
        best = int(np.nanargmin(run["slope_error"])) if known.any() else 0
        rows.append(
            (
                name,
                str(run["draws"]),
                f"{run['relaxation']:.1f}",
                f"p = {run['circulation_p_value']:.3f}",
                f"{run['entropy_production']:.2e} ± {run['entropy_production_error']:.0e}",
                f"{run['entropy_production_p_value']:.3f}",
                cell(run["slope"][best], run["slope_error"][best]),
                cell(run["integral"][0], run["integral_error"][0]),
            )
        )
    widths = [max(len(row[n]) for row in [("", *header), *rows]) for n in range(len(header) + 1)]
    print()
    for row in [("", *header), *rows]:
        print(
            "  ".join([row[0].ljust(widths[0]), *(text.rjust(n) for text, n in zip(row[1:], widths[1:], strict=True))])
        )
    print("\nRelaxation in draws, entropy production in nats a draw; slope at the length that tells it best.")
    for name, run in results.items():
        print(
            f"\n{name}: "
            + ("the linear description holds." if not run["problems"] else "the linear description fails.")
        )
        for problem in run["problems"]:
            print(f"  - {problem}")


def add_options(parser):
    parser.add_argument("--data", metavar="SOURCE", help="a source of datasets.mnist(), by default the first at hand")
    parser.add_argument("--rows", type=at_least(100), default=5000, help="training digits to use")
    parser.add_argument("--epochs", type=at_least(100), help="passes to record, 1500 by default")


def main(argv=None):
    options = parse(__doc__.splitlines()[0], argv, add_options)
    images, labels, batch_size, source = data_of(options.data, options.rows)
    rows, data = len(images), (images, labels)
    batches, network = rows // batch_size, MLP(linen.tanh)
    epochs = options.epochs or (400 if options.quick else 1500)
    start = initial_weights(network, np.float32(images[:1]), jax.random.key(options.seed))
    model = make_model(network, dict.fromkeys(start, 1 / np.sqrt(WEIGHT_DECAY * rows)), batch_size, images.shape[1:])
    print(f"Digits of {source}: N = {rows}, B = {batch_size}. Looking for a minimum ...", flush=True)
    start, gradient = minimum(model, data, start)
    predicted = predictor(model, images, sites="probability")(start)["probability"].argmax(-1)
    accuracy = float(np.mean(np.asarray(predicted) == labels))
    print(f"There it tells {accuracy:.1%} of its digits.")
    start = jax.tree.map(lambda w: jnp.stack([w] * CHAINS), start)
    step = LEARNING_RATE / rows
    relaxing = epochs // 3
    print(
        f"{CHAINS} chains relax for {relaxing} epochs, then "
        f"{epochs} epochs are recorded, in {COMPONENTS} principal components."
    )
    methods = {
        "SGD, with replacement": lambda **o: SGD(model, step, **o),
        "SGD, without": lambda **o: SGD(model, step, subsampling=RandomReshuffle(), **o),
        "SGLD": lambda **o: SGLD(model, step, **o),
        "SGWORLD": lambda **o: SGWORLD(model, step, **o),
    }
    results, found, shown = {}, {}, {}
    for name, kernel in methods.items():
        print(f"{name} ...", flush=True)
        recorded = RECORDED if name == "SGD, with replacement" else 1
        steps = {"steps_per_sample": batches // recorded}
        pilot = run(
            kernel(), relaxing, PILOT_DRAWS, data, start, options.seed, thinning=max(1, epochs // (10 * PILOT_DRAWS))
        )
        draws = trajectory(pilot)
        axes = principal_components(draws, COMPONENTS)
        here = pilot.last_state.z
        del pilot, draws
        mcmc = run(kernel(keep=project(axes), **steps), 0, epochs * recorded, data, here, options.seed + 1)
        x = np.asarray(mcmc.get_samples(group_by_chain=True)["component"], float)
        results[name], found[name] = measure(x, options.seed)
        results[name]["explained"] = [float(share) for share in axes.explained]
        shown[name] = x
        saved = to_inference_data(mcmc, dims={"component": ["pc"]}, coords={"pc": np.arange(1, COMPONENTS + 1)})
        saved.to_netcdf(options.out / f"{FILES[name]}.nc")
    print_table(results)
    draw_currents(options.out / "mnist_currents.png", shown, found, probability_current)
    draw_theorem(options.out / "mnist_fluctuation_theorem.png", found, LENGTHS)
    files = ["mnist_currents.png", "mnist_fluctuation_theorem.png", *(f"{file}.nc" for file in FILES.values())]
    print(f"\nFigures and runs: {', '.join(str(options.out / file) for file in files)}")
    numbers = {"source": source, "rows": rows, "minimum": {"gradient": gradient, "accuracy": accuracy}, "runs": results}
    write_json(options.json, numbers)
    return numbers


if __name__ == "__main__":
    main()

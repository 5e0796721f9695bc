"""A Bayesian neural network on handwritten digits: predictions of SGLD, SGWORLD and BAOAB beside the MAP weights'.

784 pixels, 100 hidden units, 10 classes: 79 510 weights with normal priors. All methods start from the same random
weights, four chains each, and take the same number of minibatch gradients. No draw of the weights is kept: the kernel
keeps the predictions for the test digits, and averages those for digits that are turned by 90°, while it samples.

At these step sizes minibatches heat the stiffest directions (R h λ > 1), SGLD's all of the time, and in 60 passes over
the data the overdamped chains do not forget where they started. The kinetic integrator does, in about ten. The last row
is a cold posterior, T = 0.03: better calibrated, and not the posterior of this model and prior.

Real digits come from the extra mnist, or wherever datasets.mnist() finds them; without any, the 8 × 8 digits of
scikit-learn are used.
"""

import gc
import resource
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from _common import at_least, parse, write_json
from _mnist import NETWORKS, PRIORS, SITE, initial_scales, initial_weights, make_model, prior_scales
from _mnist_figures import draw_calibration, draw_curves, draw_digits, draw_weights
from _scores import entropy, scores
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer import MCMC

from sgworld_numpyro import BAOAB, SGD, SGLD, SGWORLD, RandomReshuffle, averages, predictor, to_inference_data
from sgworld_numpyro.datasets import mnist

CHAINS = 4
JUDGED_DIGITS = 1000  # whose predictions R-hat and ESS are taken of
SAVED_DIGITS = 100
LOO_ROWS = 500
SHOWN_WEIGHTS = 4
FILES = {"SGLD": "mnist_sgld", "SGWORLD": "mnist_sgworld", "SGWORLD+BAOAB": "mnist"}
FIGURES = ("curves", "calibration", "digits", "weights")
SCORES = ("accuracy", "nll", "ece", "brier", "entropy", "entropy_rotated")


def learning_rate_to_zero(start, steps):
    """Half a cosine, from ``start`` to nearly nothing."""

    def schedule(step):
        return start * (0.505 + 0.495 * jnp.cos(jnp.pi * jnp.minimum(step / steps, 1)))

    return schedule


def kernels(model, sampled, rows, steps, **options):
    """Makers of kernels by name. The potential grows with N, so steps are in units of 1/N, and times of 1/√N.

    The maximum is that of ``model``, which may have another prior than ``sampled``. A kernel holds the data that it has
    seen: each is made when its turn comes.
    """
    overdamped, kinetic, friction = 0.11 / rows, 0.235 / np.sqrt(rows), 0.43 * np.sqrt(rows)
    baoab = BAOAB(friction=friction)
    return {
        "MAP": lambda: SGD(model, learning_rate_to_zero(0.2 / rows, steps), subsampling=RandomReshuffle(), **options),
        "SGLD": lambda: SGLD(sampled, overdamped, **options),
        "SGWORLD": lambda: SGWORLD(sampled, overdamped, **options),
        "SGWORLD+BAOAB": lambda: SGWORLD(sampled, kinetic, integrator=baoab, **options),
        "the same, T = 0.03": lambda: SGWORLD(sampled, kinetic, integrator=baoab, temperature=0.03, **options),
    }


class Digits:
    """Images in bytes, labels as integers, and the test digits turned by 90°."""

    def __init__(self, source):
        found = mnist(source)
        self.source = found.source
        self.train, self.test = found.train_images, found.test_images
        self.labels, self.test_labels = found.train_labels.astype(np.int32), found.test_labels.astype(np.int32)
        self.rotated = np.rot90(self.test, axes=(1, 2)).copy()


def run(kernel, epochs, warmup, digits, start, seed, bar):
    """A finished run of vectorized chains, and the seconds it took, compilation included."""
    mcmc = MCMC(
        kernel,
        num_warmup=warmup,
        num_samples=epochs - warmup,
        num_chains=CHAINS,
        chain_method="vectorized",
        progress_bar=bar,
    )
    began = time.perf_counter()
    fields = ("potential_energy", "step_size", "configurational_temperature")
    mcmc.run(jax.random.key(seed), digits.train, digits.labels, init_params=start, extra_fields=fields)
    jax.block_until_ready(mcmc.last_state)
    return mcmc, time.perf_counter() - began


def with_error(values):
    """Mean and standard error of one number a chain."""
    return {"mean": float(np.mean(values)), "error": float(np.std(values, ddof=1) / np.sqrt(len(values)))}


def measure(name, mcmc, seconds, epochs, warmup, digits, turned_at_end):
    """Scores of what each chain predicts, averaged over its draws (of MAP: at its end), and of all chains together."""
    kept = mcmc.get_samples(group_by_chain=True)
    probability, is_map = np.asarray(kept["probability"]), name == "MAP"
    turned = np.asarray(turned_at_end) if is_map else averages(mcmc)["rotated"].by_chain
    by_chain = probability[:, -1] if is_map else np.stack([draws.mean(0) for draws in probability])
    of_chains = [scores(p, digits.test_labels) for p in by_chain]
    for found, p, q in zip(of_chains, by_chain, turned, strict=True):
        found |= {"entropy": entropy(p), "entropy_rotated": entropy(q)}
    numbers = {key: with_error([found[key] for found in of_chains]) for key in SCORES}
    mean = by_chain.mean(0)
    together = scores(mean, digits.test_labels)
    numbers["together"] = together | {"entropy": entropy(mean), "entropy_rotated": entropy(turned.mean(0))}
    numbers["seconds"] = seconds
    first = 0 if is_map else warmup
    count = np.arange(1, probability.shape[1] + 1)
    curves = []
    for draws in probability:  # one chain at a time: all at once would take as much memory again
        running = draws if is_map else np.cumsum(draws, 0) / count[:, None, None]
        curves.append([scores(p, digits.test_labels) for p in running])
    numbers["curve"] = {
        "epoch": (first + count).tolist(),
        "seconds": ((first + count) * seconds / epochs).tolist(),
        **{key: [[found[key] for found in chain] for chain in curves] for key in ("accuracy", "nll")},
    }
    if not is_map:
        judged = digits.test_labels[:JUDGED_DIGITS]
        truth = probability[:, :, np.arange(len(judged)), judged]
        r_hat, ess = diagnose(np.log(np.maximum(truth, np.finfo(np.float32).tiny)))
        numbers["r_hat"] = np.quantile(r_hat, [0.5, 0.9]).tolist()
        numbers["ess"] = np.quantile(ess, [0.5, 0.1]).tolist()
        numbers["r_hat_of_weights"] = float(np.median(diagnose(np.asarray(kept["weight"]))[0]))
        temperature = np.asarray(mcmc.get_extra_fields(group_by_chain=True)["configurational_temperature"])
        numbers["temperature"] = with_error(temperature[:, temperature.shape[1] // 2 :].mean(1))
    return numbers, mean


def diagnose(draws):
    """Split R-hat and effective sample size of numbers (chain, draw, ...) that move."""
    moves = np.ptp(draws, axis=(0, 1)) > 0
    return split_gelman_rubin(draws[..., moves]), effective_sample_size(draws[..., moves])


COLUMNS = {
    "accuracy": ("{:.4f}", "accuracy"),
    "nll": ("{:.4f}", "NLL, nats"),
    "ece": ("{:.4f}", "ECE"),
    "brier": ("{:.4f}", "Brier"),
    "entropy": ("{:.3f}", "entropy"),
    "entropy_rotated": ("{:.3f}", "turned by 90°"),
}


def print_tables(results):
    width = max(map(len, results)) + 2
    print(f"\nTest digits: one chain's averaged prediction, ± standard error over {CHAINS} chains")
    print(" " * width + "".join(f"{label:>18}" for _, label in COLUMNS.values()))
    for name, run in results.items():
        cells = (f"{f} ± {f}".format(run[key]["mean"], run[key]["error"]) for key, (f, _) in COLUMNS.items())
        print(f"{name:<{width}}" + "".join(f"{cell:>18}" for cell in cells))
    print(f"\nThe prediction averaged over all {CHAINS} chains (of MAP: an ensemble of as many networks)")
    print(" " * width + "".join(f"{label:>18}" for _, label in COLUMNS.values()))
    for name, run in results.items():
        print(f"{name:<{width}}" + "".join(f"{f.format(run['together'][key]):>18}" for key, (f, _) in COLUMNS.items()))
    print("\nHave the chains forgotten where they started? Of the log probability of the true class, over test digits")
    header = ("median R-hat", "9th decile", "median ESS", "1st decile", "R-hat, weights", "temperature", "seconds")
    print(" " * width + "".join(f"{label:>16}" for label in header))
    for name, run in results.items():
        cells = [""] * 6
        if "r_hat" in run:
            cells = [*(f"{r:.3f}" for r in run["r_hat"]), *(f"{e:.0f}" for e in run["ess"])]
            cells += [f"{run['r_hat_of_weights']:.2f}", f"{run['temperature']['mean']:.3f}"]
        print(f"{name:<{width}}" + "".join(f"{cell:>16}" for cell in [*cells, f"{run['seconds']:.0f}"]))


def save(path, mcmc, digits):
    """The run as ArviZ data: predictions for the first test digits, some weights, log-likelihood of some rows."""
    dims = {"probability": ["image", "digit"], "weight": ["to_class"], "log_likelihood": ["row"]}
    data = to_inference_data(mcmc, dims=dims)
    kept = posterior_of(data)
    posterior = kept[["probability", "weight"]].isel(image=slice(SAVED_DIGITS))
    likelihood = kept[["log_likelihood"]].rename(log_likelihood="label")
    labels = digits.test_labels[:SAVED_DIGITS]
    posterior = posterior.assign_coords(label=("image", labels)).assign_attrs(kept.attrs | {"data": digits.source})
    tree = {"posterior": posterior, "sample_stats": posterior_of(data, "sample_stats"), "log_likelihood": likelihood}
    whole = xr.DataTree.from_dict(tree) if isinstance(data, xr.DataTree) else type(data)(**tree)
    whole.to_netcdf(path)


def posterior_of(data, group="posterior"):
    found = data[group]
    return found if isinstance(found, xr.Dataset) else found.to_dataset()


def peak_memory():
    """The largest memory this process has had, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def add_options(parser):
    parser.add_argument("--data", metavar="SOURCE", help="a source of datasets.mnist(), by default the first at hand")
    parser.add_argument(
        "--network",
        choices=NETWORKS,
        default="mlp",
        help="cnn takes seconds a pass and chain on real digits without a GPU",
    )
    parser.add_argument(
        "--prior", choices=PRIORS, default="normal", help="hierarchical: an sd of each layer's weights is learnt"
    )
    parser.add_argument(
        "--epochs", type=at_least(6), help="passes over the data of each chain, by default 60; a third is warm-up"
    )


def main(argv=None):
    options = parse(__doc__.splitlines()[0], argv, add_options)
    before = peak_memory()
    digits = Digits(options.data)
    rows, network = len(digits.train), NETWORKS[options.network]
    real = digits.train.shape[1] == 28
    batch_size = 100 if real else 20
    epochs = options.epochs or (6 if options.quick and real else 60)
    warmup = epochs // 3
    keys = jax.random.split(jax.random.key(options.seed), CHAINS)
    start = [initial_weights(network, np.float32(digits.train[:1]), key) for key in keys]
    scales = prior_scales(start[0], digits.train[:1000] / 255)
    start = jax.tree.map(lambda *w: jnp.stack(w), *start)
    model = make_model(network, scales, batch_size, digits.train.shape[1:])
    sampled, start_of_samplers = model, start
    if options.prior == "hierarchical":
        sampled = make_model(network, scales, batch_size, digits.train.shape[1:], PRIORS[options.prior])
        start_of_samplers = start | {site: jnp.full(CHAINS, log) for site, log in initial_scales(scales).items()}
    size = sum(int(np.prod(value.shape[1:])) for value in start.values())
    side = digits.train.shape[1]
    print(
        f"Digits of {digits.source}: N = {rows} of {side}×{side} pixels, {len(digits.test)} to test; B = {batch_size}."
    )
    print(
        f"{options.network.upper()} of {size} weights, {CHAINS} chains, {epochs} passes each, {warmup} of them warm-up."
    )

    test = predictor(model, digits.test, sites="probability")
    turned = predictor(model, digits.rotated, sites="probability")
    train = predictor(model, digits.train[:LOO_ROWS], sites="probability")
    last_layer = f"{SITE}/{list(scales)[-1].removeprefix(f'{SITE}/').split('.')[0]}.kernel"

    def keep(weights):
        likelihood = jnp.take_along_axis(train(weights)["probability"], digits.labels[:LOO_ROWS, None], 1)[:, 0]
        return {
            "probability": test(weights)["probability"],
            "weight": weights[last_layer][0, :SHOWN_WEIGHTS],
            "log_likelihood": jnp.log(likelihood),
        }

    def average(weights):
        return {"rotated": turned(weights)["probability"]}

    steps = epochs * -(-rows // batch_size)
    results, means, shown = {}, {}, {}
    for name, make in kernels(model, sampled, rows, steps, keep=keep, average=average).items():
        print(f"{name} ...", flush=True)
        is_map = name == "MAP"
        here, first = (0, start) if is_map else (warmup, start_of_samplers)
        mcmc, seconds = run(make(), epochs, here, digits, first, options.seed, sys.stderr.isatty())
        if is_map:
            last = jax.vmap(turned)(mcmc.last_state.z)["probability"]
        results[name], means[name] = measure(name, mcmc, seconds, epochs, warmup, digits, last)
        shown[name] = {
            key: np.asarray(value) if key == "weight" else np.asarray(value[:, :, :SAVED_DIGITS])
            for key, value in mcmc.get_samples(group_by_chain=True).items()
            if key != "log_likelihood"
        }
        if name in FILES:
            save(options.out / f"{FILES[name]}.nc", mcmc, digits)
        del mcmc
        gc.collect()  # chains and kernels refer to one another
    print_tables(results)
    memory = peak_memory() - before
    print(f"\nMemory beyond the imports: {memory:.2f} GiB at most, the data among it.")
    draw_curves(options.out / "mnist_curves.png", results)
    draw_calibration(options.out / "mnist_calibration.png", means, digits.test_labels)
    draw_digits(options.out / "mnist_digits.png", digits.test, digits.test_labels, shown, means)
    draw_weights(options.out / "mnist_weights.png", shown)
    files = [*(f"mnist_{figure}.png" for figure in FIGURES), *(f"{name}.nc" for name in FILES.values())]
    print(f"Figures and runs: {', '.join(str(options.out / name) for name in files)}")
    numbers = {"source": digits.source, "epochs": epochs, "memory_gib": memory, "runs": results}
    write_json(options.json, numbers)
    return numbers


if __name__ == "__main__":
    main()

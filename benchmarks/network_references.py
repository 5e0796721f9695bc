"""The posteriors of ``network_posteriors`` by long runs of full-batch HMC, kept as small files beside this one.

``python benchmarks/network_references.py digits`` makes one anew. NumPyro's ``HMC`` runs on the same model with all the
data; trajectories last a quarter of the prior's period, as in Izmailov et al. (2021), in units of the prior's sds. Half
of the chains start at draws of the prior, half at maxima of the posterior density that Adam finds from such draws. How
far the chains' predictions differ is the reference's own error.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from jax.flatten_util import ravel_pytree
from numpyro.distributions import constraints
from numpyro.handlers import seed, trace
from numpyro.infer import HMC, MCMC
from numpyro.infer.util import potential_energy, unconstrain_fn

from benchmarks.network_posteriors import NETWORKS
from benchmarks.references import on_a_terminal_that_nobody_sees
from sgworld_numpyro import SGWORLD, predictor

DIRECTORY = Path(__file__).with_name("hmc")
QUARTER = np.pi / 2  # of the prior's period, in units in which its sds are 1
WARMUP_STEPS = 100  # a trajectory, while the step size is found
LEARNING_RATE, MAP_STEPS = 0.01, 2000
ACCEPT = 0.9
ROUND = 10  # trajectories
FIELDS = ("z_grad", "accept_prob", "num_steps", "potential_energy")
LOG_SCALE_SD = 0.05  # of the unconstrained coordinate of a positive site


class NetworkReference(NamedTuple):
    """What HMC found.

    Attributes:
        mean: predictions averaged over the draws, (chain, row) or (chain, row, class).
        sd: of the predictions over the draws, (chain, row) or (chain, row, class).
        about: how it was made; ``sites`` has mean (θ − mean) ∂U/∂θ by site and chain, which must be 1.
    """

    mean: np.ndarray
    sd: np.ndarray
    about: dict


def path_of(name):
    """Of the file."""
    return DIRECTORY / f"{name}.npz"


def load(name) -> NetworkReference:
    """The stored reference of a network.

    Raises:
        LookupError: if there is none, or if it is of other data.
    """
    again = f"run python benchmarks/network_references.py {name}"
    if not path_of(name).exists():
        raise LookupError(f"{name} has no reference in {path_of(name)}: {again}")
    with np.load(path_of(name)) as stored:
        mean, sd = (stored[part].astype(float) for part in ("mean", "sd"))
        about = json.loads(str(stored["about"]))
    if not np.allclose(about["data"], sizes(NETWORKS[name].data()), rtol=1e-4):
        raise LookupError(f"The data of {name} are not those of its reference: {again}")
    return NetworkReference(mean, sd, about)


def sizes(data):
    """Mean size of each array, by which a change of the data is noticed."""
    return [float(np.abs(array.astype(float)).mean()) for array in data]


def store(name, reference):
    """Write a reference; class probabilities in half precision, whose rounding is far below the chains' differences."""
    DIRECTORY.mkdir(exist_ok=True)
    kind = np.float16 if NETWORKS[name].classes else np.float32
    mean, sd = (part.astype(kind) for part in (reference.mean, reference.sd))
    np.savez_compressed(path_of(name), mean=mean, sd=sd, about=json.dumps(reference.about))


def latent_sites(model, data):
    """The sites of a model of all rows that are to be sampled, by name, at a draw of the prior."""
    sites = trace(seed(model, jax.random.key(0))).get_trace(*data)
    return {name: site for name, site in sites.items() if site["type"] == "sample" and not site["is_observed"]}


def prior_variance(sites):
    """By site, in unconstrained coordinates."""
    real = constraints.real

    def variance(site):
        shape = jnp.shape(site["value"])
        if site["fn"].support is real or getattr(site["fn"].support, "base_constraint", None) is real:
            return jnp.broadcast_to(site["fn"].variance, shape)
        return jnp.full(shape, LOG_SCALE_SD**2)

    return {name: variance(site) for name, site in sites.items()}


def _starts(model, data, keys):
    """Unconstrained values by site: draws of the prior, from every second of which Adam descends to a maximum."""

    def draw(key):
        sites = trace(seed(model, key)).get_trace(*data)
        values = {
            name: site["value"] for name, site in sites.items() if site["type"] == "sample" and not site["is_observed"]
        }
        return unconstrain_fn(model, data, {}, values)

    optimiser = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, MAP_STEPS))

    @jax.jit
    def descend(z):
        def step(carry, _):
            z, state = carry
            updates, state = optimiser.update(jax.grad(lambda z: potential_energy(model, data, {}, z))(z), state)
            return (optax.apply_updates(z, updates), state), None

        return jax.lax.scan(step, (z, optimiser.init(z)), None, length=MAP_STEPS)[0][0]

    starts = [draw(key) for key in keys]
    starts[1::2] = [descend(z) for z in starts[1::2]]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)


def sample(name, chains, warmup, minutes, key) -> Iterator[NetworkReference]:
    """What HMC has found after each round of a few trajectories, for so many minutes after the warm-up."""
    posterior, began = NETWORKS[name], time.perf_counter()
    data, inputs = posterior.data(), posterior.test()[0]
    model = SGWORLD(posterior.model, 1e-9).model  # of all rows
    latent = latent_sites(model, data)
    variance = ravel_pytree(prior_variance(latent))[0]
    keys = jax.random.split(jax.random.key(key), chains + 2)
    start = _starts(model, data, keys[2:])
    print(f"{name}: starts after {time.perf_counter() - began:.0f} s", flush=True)

    options = {"inverse_mass_matrix": variance, "adapt_mass_matrix": False, "target_accept_prob": ACCEPT}
    sizes = {"num_chains": chains, "chain_method": "vectorized"}
    search = HMC(model, step_size=1e-3, num_steps=WARMUP_STEPS, trajectory_length=None, **options)
    finding = MCMC(search, num_warmup=warmup, num_samples=1, **sizes)
    finding.run(keys[0], *data, init_params=start)
    state = finding.last_state
    step_size = float(jnp.median(state.adapt_state.step_size))
    gradients = warmup * WARMUP_STEPS
    print(f"{name}: steps of {state.adapt_state.step_size} after {time.perf_counter() - began:.0f} s", flush=True)

    kernel = HMC(model, step_size=step_size, trajectory_length=QUARTER, adapt_step_size=False, **options)
    mcmc = MCMC(kernel, num_warmup=0, num_samples=ROUND, **sizes)
    predict = jax.jit(jax.vmap(jax.vmap(predictor(posterior.model, inputs, sites="predicted"))))
    unconstrain = jax.jit(jax.vmap(jax.vmap(lambda values: unconstrain_fn(model, data, {}, values))))
    next_key, rounds, sampling = keys[1], [], time.perf_counter()
    while time.perf_counter() - sampling < 60 * minutes:
        on_a_terminal_that_nobody_sees(mcmc, next_key, *data, init_params=state.z, extra_fields=FIELDS)
        fields = mcmc.get_extra_fields(group_by_chain=True)
        draws = {site: value for site, value in mcmc.get_samples(group_by_chain=True).items() if site in latent}
        places, slopes = jax.device_get((unconstrain(draws), fields["z_grad"]))
        predicted = np.asarray(predict(draws)["predicted"], float)
        rounds.append(Round(predicted, places, slopes, np.asarray(fields["accept_prob"])))
        gradients += int(fields["num_steps"][0].sum())
        mcmc.post_warmup_state, next_key = mcmc.last_state, mcmc.last_state.rng_key
        seconds, energy = time.perf_counter() - began, np.asarray(fields["potential_energy"]).mean(1).round(1)
        print(f"{seconds:.0f} s: acceptance {rounds[-1].accepted.mean(1).round(2)}, energy {energy}", flush=True)
        about = {"seed": key, "warmup": warmup, "step_size": step_size, "gradients": gradients}
        yield summary(rounds, about | {"seconds": round(seconds)}, data)


class Round(NamedTuple):
    """What some trajectories gave.

    Attributes:
        predicted: (chain, draw, ...).
        places: unconstrained values by site, (chain, draw, ...).
        slopes: gradients of the potential energy there.
        accepted: acceptance probabilities, (chain, draw).
    """

    predicted: np.ndarray
    places: dict
    slopes: dict
    accepted: np.ndarray


def summary(rounds, about, data) -> NetworkReference:
    """Of all rounds but the first fifth."""
    skip = len(rounds) // 5

    def joined(parts):
        return np.concatenate(list(parts), axis=1).astype(float)

    predicted = joined(one.predicted for one in rounds[skip:])
    temperature = {}
    for site in rounds[0].places:
        z, gradient = (joined(getattr(one, field)[site] for one in rounds[skip:]) for field in ("places", "slopes"))
        virial = (z - z.mean(1, keepdims=True)) * gradient
        temperature[site] = virial.reshape(len(z), -1).mean(1).round(4).tolist()
    about = about | {
        "source": f"NumPyro {numpyro.__version__}'s HMC, jax {jax.__version__}, {jax.devices()[0].platform}",
        "chains": len(predicted),
        "burn_in": skip * ROUND,
        "draws": predicted.shape[1],
        "steps": int(np.ceil(QUARTER / about["step_size"])),
        "acceptance": joined(one.accepted for one in rounds[skip:]).mean(1).round(3).tolist(),
        "data": sizes(data),
        "temperature": temperature,
    }
    return NetworkReference(predicted.mean(1), predicted.std(1), about)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=NETWORKS)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--warmup", type=int, default=50, help="trajectories of 100 steps, to find the step size")
    parser.add_argument("--minutes", type=float, default=30, help="for each, after the warm-up")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    for name in arguments.names:
        for reference in sample(name, arguments.chains, arguments.warmup, arguments.minutes, arguments.seed):
            store(name, reference)  # after every round, so that a run may be stopped
        print(json.dumps(reference.about, indent=1))


if __name__ == "__main__":
    main()

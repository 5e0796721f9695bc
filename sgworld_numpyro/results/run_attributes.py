"""How a run was made, as attributes that outlive a netCDF file: what its kernel and its last state say."""

import json
import re
from typing import Any

import jax
import numpy as np
from numpyro.infer import MCMC

from sgworld_numpyro.chain.settings import Settings
from sgworld_numpyro.chain.state import SGState
from sgworld_numpyro.results.versions import package_versions


def settings_of(mcmc: MCMC) -> Settings:
    """How a run of a kernel of this package was made."""
    return mcmc.sampler.settings(mcmc._args, mcmc._kwargs, mcmc.last_state)


def attributes_of(settings: Settings, last: SGState) -> dict[str, Any]:
    """Numbers and texts for ``posterior.attrs``; see ``to_inference_data``.

    Args:
        settings: how the run was made.
        last: its last state.
    """
    found: dict[str, Any] = {}
    if callable(settings.step_size):
        found |= {"step_size": float(np.max(last.step_size)), "step_size_schedule": repr(settings.step_size)}
    else:
        found["step_size"] = settings.step_size
    if settings.friction is not None:
        found["friction"] = settings.friction
    if last.tuning is not None:
        found["bias_tolerance"] = settings.bias_tolerance
        for name in ("predicted_bias", "predicted_shift", "fastest_rate", "gradient_noise", "hessian_noise"):
            found[name] = float(np.max(getattr(last.tuning.report, name)))
    plates = {plate.name: {"num_rows": plate.size, "batch_size": plate.batch_size} for plate in settings.plates}
    return {
        "scheme": name_of(settings.subsampling),
        "integrator": name_of(settings.integrator),
        "gradient": name_of(settings.gradient),
        "preconditioner": name_of(settings.preconditioner),
        **found,
        "temperature": float(settings.temperature),
        "steps_per_sample": settings.steps_per_sample,
        "noise_key": _key_data(last.rng_key),
        "shuffle_key": _key_data(last.shuffle_key),
        **(next(iter(plates.values())) if len(plates) == 1 else {"plates": json.dumps(plates)}),
    }


def name_of(component: Any) -> str:
    """The name that a run stores for a component: the one that its class has, else the class's in snake case.

    ``random_reshuffle`` for a ``RandomReshuffle()``; ``my_own_euler`` for a ``MyOwnEuler()``, whatever that inherits.
    """
    name = vars(type(component)).get("name")
    if isinstance(name, str):
        return name
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(component).__name__).lower()


def _key_data(key) -> str:
    return json.dumps(np.asarray(jax.random.key_data(key)).tolist())


def taken_of(mcmc: MCMC) -> dict[str, Any]:
    """How an ``MCMC``, of whatever kernel, takes its draws, and with which versions."""
    return {"num_warmup": mcmc.num_warmup, "thinning": int(mcmc.thinning), **package_versions()}

"""How a run was made: what its kernel and its last state say."""

import json
import re
from typing import Any

import jax
import numpy as np
from numpyro.infer import MCMC

from sgworld_numpyro.chain.engine import Engine, rows_a_step
from sgworld_numpyro.chain.state import SGState
from sgworld_numpyro.integrators import is_kinetic
from sgworld_numpyro.kernel import StochasticGradientKernel
from sgworld_numpyro.model.target import Arguments


def settings_of(mcmc: MCMC, kernel: StochasticGradientKernel, engine: Engine) -> dict[str, Any]:
    """How a run was made, for ``posterior.attrs``; see ``to_inference_data``."""
    last: SGState = mcmc.last_state
    settings: dict[str, Any] = {"step_size": float(np.max(last.step_size))}
    if engine.schedule is not None:
        settings["step_size_schedule"] = repr(engine.schedule)
    else:  # the number itself, where the state has it in single precision
        settings["step_size"] = settings["step_size"] if kernel._step_size is None else float(kernel._step_size)
    if is_kinetic(engine.integrator):
        settings["friction"] = float(np.min(last.integrator_state.friction))
    if last.tuning:
        settings["bias_tolerance"] = kernel._bias_tolerance
        for name in ("predicted_bias", "predicted_shift", "fastest_rate", "gradient_noise", "hessian_noise"):
            settings[name] = float(np.max(getattr(last.tuning.report, name)))
    plates = {
        plate.name: {"num_rows": plate.size, "batch_size": rows_a_step(engine.subsampling, plate)}
        for plate in engine.target.plates
    }
    return {
        "scheme": name_of(engine.subsampling),
        "integrator": name_of(engine.integrator),
        "gradient": name_of(engine.gradient),
        "preconditioner": name_of(engine.preconditioner),
        **settings,
        "temperature": float(engine.temperature),
        "steps_per_sample": engine.steps,
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


def engine_of(mcmc: MCMC, kernel: StochasticGradientKernel) -> Engine:
    """What ran: as it was found out for the run, or once more if the kernel has been pickled or used elsewhere."""
    arguments = Arguments.of(mcmc._args, mcmc._kwargs)
    if kernel._binding is not None and kernel._binding.fits(arguments):
        return kernel._binding.engine
    return kernel._engine(arguments)


def _key_data(key) -> str:
    return json.dumps(np.asarray(jax.random.key_data(key)).tolist())

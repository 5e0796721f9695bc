"""From a finished run to ArviZ data that say how the run was made."""

import json
import sys
from typing import Any

import jax
import numpy as np
import numpyro
from numpyro.infer import MCMC

from sgworld_numpyro.engine import Engine, rows_a_step
from sgworld_numpyro.integrators import is_kinetic
from sgworld_numpyro.kernel import StochasticGradientKernel
from sgworld_numpyro.state import SGState
from sgworld_numpyro.target import Arguments
from sgworld_numpyro.tuning import name_of


def to_inference_data(mcmc: MCMC, **options: Any) -> Any:
    """``arviz.from_numpyro``, with the run's settings in ``posterior.attrs``, where they outlive a netCDF file.

    - **scheme, integrator, gradient, preconditioner** - names of their classes, such as ``random_reshuffle``.
    - **step_size** - h; of a schedule the last one, and the schedule's ``repr`` as **step_size_schedule**.
    - **friction** - γ, of kinetic integrators.
    - **bias_tolerance, predicted_bias, predicted_shift, fastest_rate, gradient_noise, hessian_noise** - of tuned runs;
      see ``tuning.Report``. Of chains that were tuned each for itself, the worst.
    - **temperature** - T.
    - **steps_per_sample** - inner steps a sample.
    - **num_rows, batch_size** - of the subsampled plate, and rows a step; if there are several, **plates** as JSON.
    - **samples_before** - the draw at coordinate n is the state after samples_before + (n + 1) thinning samples.
    - **num_warmup, thinning** - as ``MCMC`` was given them.
    - **sgworld_numpyro_version, jax_version, numpyro_version**.

    Of a run of another sampler there are the last two lines only.

    Args:
        mcmc: a finished run.
        options: those of ``arviz.from_numpyro``. ``log_likelihood`` is False by default: ArviZ 0.23 would compute it
            for every row at every draw.

    Returns:
        ``InferenceData`` with ArviZ 0.23, an xarray ``DataTree`` with 1.x.

    Raises:
        ValueError: if ``mcmc`` has not been run.
    """
    import arviz as az  # slow, and ArviZ 0.23 warns at its first import: nobody should meet that who does not use it

    if mcmc.last_state is None:
        raise ValueError("mcmc has no draws yet: call mcmc.run(key, ...) first.")
    data = az.from_numpyro(mcmc, **({"log_likelihood": False} | options))
    posterior = data["posterior"]
    if isinstance(mcmc.sampler, StochasticGradientKernel):
        posterior.attrs.update(_settings(mcmc, mcmc.sampler))
        taken = int(np.ravel(mcmc.last_state.i)[0])  # the last draw is the last state
        last = int(posterior["draw"].values[-1])
        posterior.attrs["samples_before"] = taken - (last + 1) * mcmc.thinning
    posterior.attrs.update(
        num_warmup=mcmc.num_warmup,
        thinning=mcmc.thinning,
        sgworld_numpyro_version=sys.modules["sgworld_numpyro"].__version__,
        jax_version=jax.__version__,
        numpyro_version=numpyro.__version__,
    )
    return data


def _settings(mcmc: MCMC, kernel: StochasticGradientKernel) -> dict[str, Any]:
    engine = _engine(mcmc, kernel)
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
        **(next(iter(plates.values())) if len(plates) == 1 else {"plates": json.dumps(plates)}),
    }


def _engine(mcmc: MCMC, kernel: StochasticGradientKernel) -> Engine:
    """What ran: as it was found out for the run, or once more if the kernel has been pickled or used elsewhere."""
    arguments = Arguments.of(mcmc._args, mcmc._kwargs)
    if kernel._binding is not None and kernel._binding.fits(arguments):
        return kernel._binding.engine
    return kernel._engine(arguments)

"""From a finished run to ArviZ data that say how the run was made."""

import copy
from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
import xarray as xr
from numpyro.infer import MCMC

from sgworld_numpyro.kernel import StochasticGradientKernel
from sgworld_numpyro.model.arguments import Arguments
from sgworld_numpyro.model.handlers import dotted, with_dots
from sgworld_numpyro.results.log_likelihood import chosen_rows, dims_of_draws, pointwise_log_likelihood
from sgworld_numpyro.results.run_attributes import attributes_of, settings_of, taken_of
from sgworld_numpyro.results.stored_data import stored_groups
from sgworld_numpyro.store.stored_run import StoredRun


def to_inference_data(
    mcmc: MCMC | str | PathLike,
    *,
    log_likelihood: Any = None,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """``arviz.from_numpyro``, with the run's settings in ``posterior.attrs``, where they outlive a netCDF file.

    Dimensions are named after the plates. Names of sites and plates get dots for slashes, which netCDF and ArviZ 1.x
    take for groups: ``"net/Dense_0.kernel"`` of a flax module is ``"net.Dense_0.kernel"``. The attributes:

    - **scheme, integrator, gradient, preconditioner** - names of their classes, such as ``random_reshuffle``.
    - **step_size** - h; of a schedule the last one, and the schedule's ``repr`` as **step_size_schedule**.
    - **friction** - γ, of kinetic integrators.
    - **bias_tolerance, predicted_bias, predicted_shift, fastest_rate, gradient_noise, hessian_noise** - of tuned runs;
      see ``tuning.report.Report``. Of chains that were tuned each for itself, the worst.
    - **complaints** - what the draws of a tuned run say against it, if anything; see ``ConvergenceWarning``.
    - **temperature** - T.
    - **steps_per_sample** - inner steps a sample.
    - **num_rows, batch_size** - of the subsampled plate, and rows a step; if there are several, **plates** as JSON.
    - **samples_before** - the draw at coordinate n is the state after samples_before + (n + 1) thinning samples.
    - **noise_key, shuffle_key** - key data of each chain, as JSON: what its noise and its minibatches are functions of.
    - **num_warmup, thinning** - as ``MCMC`` was given them.
    - **sgworld_numpyro_version, jax_version, numpyro_version**.

    Of a run of another sampler there are the last two lines only. Where data are read from a source there is no
    ``observed_data``; for the log-likelihood of all its rows see ``write_log_likelihood``.

    The directory of a ``long_run`` gives posterior and sample statistics as well, without the model and while the run
    goes on; a site's draws are read where they are used, and only those: ``data["posterior"]["w"][:, -100:]``.

    Args:
        mcmc: a finished run, or the directory of one.
        log_likelihood: True for that of every row at every draw, or numbers of the rows to take (of several plates, a
            dictionary by plate), which come out in ascending order. It is computed for a block of rows at a time.
        coords: values of dimensions by name.
        dims: names of the dimensions by site, where those of the plates are not enough.
        options: further ones of ``arviz.from_numpyro``: ``constant_data``, ``posterior_predictive``, ``predictions``.

    Returns:
        ``InferenceData`` with ArviZ 0.23, an xarray ``DataTree`` with 1.x.

    Raises:
        ValueError: if ``mcmc`` has not been run, or the directory holds no run; for rows that are not there, or whose
            log-likelihood takes more than 2 GiB; for that of a run that kept something else than its draws; for a run
            that kept nothing of them; or for dimensions called as a variable.
    """
    import arviz as az  # slow, and ArviZ 0.23 warns at its first import: nobody should meet that who does not use it

    if isinstance(mcmc, str | PathLike):
        if log_likelihood or options:
            raise ValueError(
                f"{mcmc} has draws and no model, for log_likelihood or {', '.join(options) or 'others'}: give the MCMC "
                "that long_run was given."
            )
        groups = stored_groups(StoredRun(mcmc), _with_dots(coords or {}), _with_dots(dims or {}))
        if "InferenceData" in vars(az):  # to ask for it otherwise is a warning of ArviZ 1.x
            return az.InferenceData(posterior=groups["posterior"], sample_stats=groups["sample_stats"])
        return xr.DataTree.from_dict(groups)
    if mcmc.last_state is None:
        raise ValueError("mcmc has no draws yet: call mcmc.run(key, ...) first.")
    kernel = mcmc.sampler
    draws = mcmc._states[mcmc._sample_field]
    if not draws:
        raise ValueError(
            "this run kept nothing of its draws (keep=... returned {}): what it averaged is averages(mcmc)."
        )
    _check_dims(dims or {}, draws)
    if not isinstance(kernel, StochasticGradientKernel):
        if log_likelihood is not None and not isinstance(log_likelihood, bool):
            raise ValueError(f"of a run of {type(kernel).__name__} want log_likelihood=True, for every row, or False.")
        data = az.from_numpyro(mcmc, log_likelihood=bool(log_likelihood), coords=coords, dims=dims, **options)
        data["posterior"].attrs.update(taken_of(mcmc))
        return data
    coords = _with_dots(coords or {})
    settings, arguments = settings_of(mcmc), Arguments.of(mcmc._args, mcmc._kwargs)
    names = dims_of_draws(mcmc, settings.target) | dict(dims or {})
    names = {dotted(site): list(map(dotted, axes)) for site, axes in names.items()}
    data = az.from_numpyro(
        _without_slashes(mcmc),
        log_likelihood=False,
        coords=coords,
        dims=names,
        **{name: _with_dots(value) if isinstance(value, Mapping) else value for name, value in options.items()},
    )
    posterior = data["posterior"]
    posterior.attrs.update(attributes_of(settings, mcmc.last_state))
    if said := kernel.complaints(mcmc):
        posterior.attrs["complaints"] = " ".join(said)
    taken = int(np.ravel(mcmc.last_state.i)[0])  # the last draw is the last state
    last = int(posterior["draw"].values[-1])
    posterior.attrs["samples_before"] = taken - (last + 1) * int(mcmc.thinning)
    posterior.attrs.update(taken_of(mcmc))
    if log_likelihood is not None and log_likelihood is not False:
        group = _log_likelihood(mcmc, kernel, settings.target, arguments, log_likelihood, names, coords, posterior)
        if isinstance(data, xr.DataTree):
            data["log_likelihood"] = xr.DataTree(group)
        else:
            data.add_groups({"log_likelihood": group})
    return data


def _check_dims(dims: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for what is no list, or called as a variable, which xarray would make its coordinate."""
    for name, axes in dims.items():
        if isinstance(axes, str):
            raise ValueError(f"dims={{{name!r}: {axes!r}}}: want a list of names, [{axes!r}].")
        for axis in axes:
            if axis in values:
                raise ValueError(
                    f"dims={{{name!r}: {list(axes)}}}: {axis!r} is a variable; call the dimension otherwise."
                )


def _with_dots(values: Mapping[str, Any]) -> dict[str, Any]:
    return {dotted(name): value for name, value in values.items()}


def _without_slashes(mcmc: MCMC) -> MCMC:
    """The run, its sites and those of its model renamed for ArviZ; the draws themselves are shared."""
    renamed = copy.copy(mcmc)
    renamed._states = mcmc._states | {mcmc._sample_field: _with_dots(mcmc._states[mcmc._sample_field])}
    renamed._states_flat = None
    renamed.sampler = copy.copy(mcmc.sampler)
    renamed.sampler._model = with_dots(mcmc.sampler._model)
    if Arguments.of(mcmc._args, mcmc._kwargs).columns:  # ArviZ would take all that is observed, whole
        renamed.sampler._model, renamed._args, renamed._kwargs = _without_observations, (), {}
    return renamed


def _without_observations():
    """A model without sites."""


def _log_likelihood(mcmc, kernel, target, arguments, rows, names, coords, posterior):
    if kernel.sample_field != "z":
        raise ValueError(
            "this run kept other values than its draws (keep=...), and their log-likelihood cannot be had: keep that "
            "of the rows you want as well."
        )
    chosen = chosen_rows(target, rows)
    found = pointwise_log_likelihood(target, arguments, mcmc.get_samples(), chosen)
    shape = (posterior.sizes["chain"], posterior.sizes["draw"])
    arrays = {}
    for name, values in _with_dots(found).items():
        axes = names.get(name, [])[: values.ndim - 1]
        axes = [*axes, *(f"{name}_dim_{n}" for n in range(len(axes), values.ndim - 1))]
        arrays[name] = (("chain", "draw", *axes), values.reshape(*shape, *values.shape[1:]))
    used = {axis for axes, _ in arrays.values() for axis in axes}
    where = {axis: posterior[axis].values for axis in ("chain", "draw")}
    where |= {name: np.asarray(values) for name, values in coords.items() if name in used}
    for plate, numbers in _with_dots(chosen).items():
        if plate in used:
            where[plate] = where[plate][numbers] if plate in where else numbers
    return xr.Dataset(arrays, where)

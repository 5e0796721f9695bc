"""What tuning refuses, and what to do about it."""

from collections.abc import Mapping
from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from sgworld_numpyro.model.target import Target
from sgworld_numpyro.subsampling import FullBatch
from sgworld_numpyro.tuning.curvature import MAX_DENSE, Rates
from sgworld_numpyro.tuning.flat import FALLS, RISE, SDS, Rise
from sgworld_numpyro.tuning.plan import Plan
from sgworld_numpyro.tuning.report import Report
from sgworld_numpyro.tuning.step_size import SHORTEST_PASS, Discretisation
from sgworld_numpyro.tuning.warm_start import FAR

FLAT = 3.0  # standard errors below zero that a curvature may be
LARGE = 100.0  # root mean square of an array that standardising would bring to 1
NAMED = 3  # coordinates, of a direction
LOADING = 0.1  # of the largest, below which a coordinate is no part of a direction

WITHOUT_MODE = (
    "A flat prior does that: give it a proper one. A hierarchical scale does it too: where groups have few rows use "
    "numpyro.infer.reparam.LocScaleReparam(centered=0) for their effects, and where they have many rows write the "
    "effects centred, without it."
)


def problem_with(
    plan: Plan, report: Report, rise: Rise, large: Mapping[str, float] | None = None, curvature: float = np.nan
) -> str | None:
    """Which assumption of the tuning fails and what to do about it, or None.

    Args:
        plan: what was asked.
        report: what was found, as numbers that are known.
        rise: the least rise of the potential, likewise.
        large: size of the arguments that are out of scale, by name; see ``out_of_scale``.
        curvature: the largest one of the potential in the model's own coordinates; NaN if it is not known.
    """
    scale = _standardise(large or {})
    by_hand = "" if scale else _by_hand(plan, curvature)  # of what is out of scale no step size is of use
    no_mode = scale or f"{WITHOUT_MODE} {by_hand}"
    finite = all(np.isfinite(x) for x in (report.fastest_rate, report.mean_rate, report.gradient_noise))
    dense = plan.target.dim <= MAX_DENSE  # beyond, the mode is not reached, and a potential that falls says nothing
    if not finite and (rise.nats >= RISE or (rise.nats < -FALLS and not dense)):
        return (
            "Tuning met gradients or curvatures that are not finite near the mode, in all chains. Look for sites whose "
            f"density is unbounded or undefined, such as a scale that can go to 0. {scale or by_hand}"
        )
    moved = report.window_passes > 0  # by pilot chains, to where the posterior is
    far = dense and report.distance**2 > FAR and not moved
    bounded = plan.temperature == 0 or rise.nats >= RISE or not (dense or rise.nats > -RISE)
    if not (far or bounded) and rise.nats >= -FALLS:
        return _no_normalisation(plan.target, rise)
    curved = report.fastest_rate > 0 and report.mean_rate > 0
    if finite and (report.flattest < -FLAT or not (curved or far)):
        return (
            f"Tuning wants a mode, but where the warm start ended the Hessian of the potential is indefinite: "
            f"{_curvatures(report)}. {no_mode}"
        )
    if far:
        closer = "Start closer, with init_strategy=numpyro.infer.init_to_median or init_params. There may be no mode: "
        return (
            f"The warm start ended {report.distance:.0f} posterior standard deviations a dimension from the mode. "
            f"{scale or closer + no_mode[0].lower() + no_mode[1:]}"
        )
    if not bounded:
        direction, _ = described(plan.target, np.asarray(rise.direction))
        return (
            "There is no posterior that tuning could find: from where it ended the potential goes on falling along "
            f"{direction} (unconstrained), by {-rise.nats:.2g} nats and more. {no_mode}"
        )
    if plan.step_size is not None or plan.discretisation is None:
        return None
    discretisation = plan.discretisation
    if _pass_time(discretisation, report) >= SHORTEST_PASS:
        return None
    remedies = filter(None, (_fewer_batches(discretisation, report), _other_estimator(discretisation)))
    return (
        f"No step size of use keeps the bias within bias_tolerance={discretisation.tolerance:g} at batch size "
        f"{discretisation.batch_size}: the gradients of minibatches are {report.gradient_noise:.3g} times as noisy as "
        f"in a well-specified model. {' '.join(remedies)} Or take a larger bias_tolerance."
    )


def _curvatures(report):
    """Which one is not positive, and how sure that is."""
    if report.flattest < -FLAT:
        return f"its smallest curvature is {-report.flattest:.1f} standard errors below 0"
    name, value = ("largest", report.fastest_rate) if report.fastest_rate <= 0 else ("mean", report.mean_rate)
    return (
        f"in the coordinates of the preconditioner its {name} curvature is {value:.2g}, where 1 was expected. The "
        "posterior is too curved or too skewed there for one preconditioner"
    )


def _no_normalisation(target: Target, rise: Rise) -> str:
    """What is said of a potential that is flat, or falls by less and less."""
    direction, sites = described(target, np.asarray(rise.direction))
    near, far = SDS
    return (
        f"The posterior has no normalisation that single precision could tell: along {direction} (unconstrained) the "
        f"potential does not rise, but changes by {rise.nats:.1g} nats at {near:g} and {far:g} standard deviations "
        "that way. Neither data nor priors bound the draws, and they would wander for ever. Give "
        f"{sites} a proper prior or a narrower one, such as dist.Normal(0, 1); or, where the data know these "
        "coordinates by a sum or difference only, drop one."
    )


def described(target: Target, direction: np.ndarray) -> tuple[str, str]:
    """A direction by its largest coordinates, such as ``0.71 a - 0.71 b``, and the sites that these are of."""
    sizes = np.abs(direction)
    order = [n for n in np.argsort(-sizes, kind="stable") if sizes[n] >= LOADING * sizes.max()]
    names = target.coordinates()
    sites = sorted({names[n][0] for n in order})
    labels = ["".join(names[n]) for n in order]
    unit = direction / np.linalg.norm(direction)
    more = f" and {len(order) - NAMED} more" if len(order) > NAMED else ""
    if len(order) == 1:
        return labels[0], sites[0]
    terms = [
        f"{'-' if unit[n] < 0 else '+'} {abs(unit[n]):.2g} {label}" for n, label in zip(order, labels, strict=True)
    ]
    terms[0] = terms[0].removeprefix("+ ").replace("- ", "-")
    return " ".join(terms[:NAMED]) + more, " and ".join(sites)


def out_of_scale(arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Root mean square of the arrays of floats that standardising would make much smaller, by name; largest first."""
    sizes = {}
    for name, array in arrays.items():
        values = np.asarray(array)
        if values.dtype.kind == "f" and values.ndim and values.size > 1:
            sizes[name] = float(np.sqrt(np.mean(np.square(values, dtype=float))))
    return dict(sorted(((n, s) for n, s in sizes.items() if s > LARGE), key=lambda item: -item[1]))


def _standardise(large: Mapping[str, float]) -> str:
    """What to do about arrays that are out of scale."""
    if not large:
        return ""
    which = " and ".join(f"{name} (root mean square {size:.2g})" for name, size in large.items())
    name = next(iter(large))
    return (
        f"The warm start and the usual priors expect numbers of order 1, and {which} is far from that. Standardise: "
        f"{name} = ({name} - {name}.mean(0)) / {name}.std(0), and scale the answer back."
    )


def _by_hand(plan: Plan, curvature: float) -> str:
    """How to do without tuning."""
    start = "start elsewhere (init_params)."
    if plan.step_size is not None:
        return f"Or give preconditioner=Identity() and what else is to be learnt, which turns tuning off, or {start}"
    step = "step_size=h"
    if plan.discretisation is not None and np.isfinite(curvature) and curvature > 0:
        step = f"step_size={_rounded_down(_untuned(plan.discretisation, curvature)):.0e}"
    return f"Or give a step size by hand, which turns tuning off ({step} can be tried), or {start}"


def _untuned(discretisation: Discretisation, curvature: float) -> float:
    """A step size without preconditioner, for the noise of a well-specified model."""
    one = [jnp.asarray(value, float) for value in (curvature, curvature, 1.0, 0.0, 0.0, 0.0)]
    return float(discretisation.choose(2 * jnp.sqrt(one[0]), Rates(*one)))


def _rounded_down(number: float) -> float:
    power = 10.0 ** np.floor(np.log10(number))
    return float(np.floor(number / power) * power)


def _other_estimator(discretisation: Discretisation) -> str:
    return "Or use gradient=ControlVariate()." if discretisation.minibatch_noise else ""


def _pass_time(discretisation: Discretisation, report: Report) -> float:
    """R h λ, or R h √λ, of the chosen step size."""
    rate = np.sqrt(report.fastest_rate) if discretisation.kinetic else report.fastest_rate
    return float(discretisation.batches * report.step_size * rate)


def _fewer_batches(discretisation: Discretisation, report: Report) -> str:
    """The smallest of some batch sizes with which a pass moves ten times as far as is of use."""
    rows, batch = discretisation.num_rows, discretisation.batch_size
    doublings = [batch * 2**n for n in range(1, 30) if batch * 2**n < rows]
    nearly_all = [rows - rows // 2**n for n in range(2, 12) if rows // 2**n > 0]
    for size in sorted({*doublings, *nearly_all} - set(range(batch + 1))):
        left = (rows - size) / (rows - batch) * batch / size
        other = replace(discretisation, batch_size=size)
        rates = report.rates._replace(hessian_noise=report.hessian_noise * left, slope=report.slope * left)
        found = report._replace(step_size=other.choose(report.friction, rates))
        if _pass_time(other, found) >= 10 * SHORTEST_PASS:
            return f"subsample_size={size} would do."
    if batch < rows:
        return f"Only subsample_size={rows}, all rows, would do."
    if not isinstance(discretisation.scheme, FullBatch):  # all rows a batch, but drawn with replacement
        return "subsampling=FullBatch() would do."
    return ""

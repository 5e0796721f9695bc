"""How biased by the step size? Measured, by theory, and from a run at half the step, as far as the run stores them.

Measured: the error of the covariance, where there is ``posterior.attrs["reference"]``. Theory: the exact stationary law
of the run's chain on a Gaussian posterior with the reference's covariance whose rows all have the same Hessian. What
governs it is R h λ, the time that a pass over the data takes in units of the fastest relaxation: R batches a pass, step
size h, λ the largest eigenvalue of the preconditioned posterior precision; for kinetic integrators R h √λ, and γ/√λ.
Where the chain's own law is known, rows as they are, ``posterior.attrs["law"]``, {"mean", "covariance"} as JSON, takes
the place of that theory.
Half the step: ``posterior.attrs["extrapolation"] = extrapolate(kernel, ...).to_json()``. The bias that tuning predicted
is in the attributes of a tuned run.
"""

import sys
from typing import Any

import numpy as np

from sgworld_numpyro.diagnostics import command
from sgworld_numpyro.diagnostics.monte_carlo import ROUGH, spread
from sgworld_numpyro.diagnostics.saved_run import as_run, reference_of, stored
from sgworld_numpyro.diagnostics.stored_extrapolation import (
    Extrapolated,
    draw_extrapolation,
    extrapolated,
    extrapolation_table,
    judged,
)
from sgworld_numpyro.diagnostics.tables import BLUE, ORANGE, columns, shortened, with_error
from sgworld_numpyro.diagnostics.theory import law_of
from sgworld_numpyro.diagnostics.verdicts import CannotTell, Verdict
from sgworld_numpyro.linear_gaussian import relative_covariance_error
from sgworld_numpyro.subsampling import WithReplacement

TOLERANCE = 0.02  # of runs that were not tuned to another one
SLACK = 1.05  # a tuned run is at the tolerance itself
GRID = 40
NEEDED = ("scheme", "integrator", "step_size", "batch_size", "num_rows")


def examine(data, *, seed=0, quick=False) -> Verdict:
    """Answer the question, of anything that ``saved_run.as_run`` takes."""
    run = as_run(data)
    notes = list(run.notes)
    tolerance = float(run.attrs.get("bias_tolerance", TOLERANCE))
    stored = float(run.attrs.get("predicted_bias", np.nan))  # NaN of a tuned run without theory too
    predicted = stored if np.isfinite(stored) else None
    found = extrapolated(run)
    try:
        numbers, (holds, sentence) = _by_theory(run, predicted, tolerance, quick, notes)
    except CannotTell as reason:
        if found is None and predicted is None:
            raise
        notes.append(f"Not compared with theory: {reason}.")
        numbers, holds, sentence = {}, None, ""
        if predicted is not None:
            holds, sentence = predicted <= SLACK * tolerance, _said_of(predicted)
    if found is not None:
        judgement, said = judged(found, tolerance)
        sentence = f"{sentence}; {said}" if sentence else said
        if numbers.get("measured_limit") is not None and False in (holds, judgement):
            holds = False
        elif judgement is not None:  # a measurement, which no prediction outweighs
            holds = judgement
        if found.negative:
            notes.append(
                f"The variance of {shortened(found.negative)} is extrapolated to nothing or less: h is too large to "
                "extrapolate from. Halve it, and again."
            )
        step_size = float(run.attrs.get("step_size", found.step_sizes[0]))
        if not np.isclose(step_size, found.step_sizes[0], rtol=0.1):
            notes.append(
                f"The extrapolation is from step size {found.step_sizes[0]:.3g}, the run's is {step_size:.3g}."
            )
    numbers |= {
        "tolerance": tolerance,
        "predicted": predicted,
        "extrapolation": None if found is None else found._asdict(),
        "notes": notes,
    }
    start = {True: "little", False: f"more than {100 * tolerance:g} %", None: "cannot tell"}[holds]
    return Verdict(holds, f"{start}: {sentence}", numbers)


def _said_of(predicted):
    return f"tuning predicts {100 * predicted:.2g} % of the variance in the fastest direction"


def _by_theory(run, predicted, tolerance, quick, notes):
    """Numbers, and (holds, sentence), of what is measured against a reference and of theory.

    Raises:
        CannotTell: if the run does not say enough for either.
    """
    missing = [key for key in NEEDED if key not in run.attrs]
    if missing:
        raise CannotTell(
            f"posterior.attrs lacks {', '.join(missing)}; sgworld_numpyro.to_inference_data(mcmc) stores them"
        )
    reference = reference_of(run)
    if float(run.attrs.get("temperature", 1.0)) != 1.0:
        raise CannotTell(f"at temperature {run.attrs['temperature']:g} the chain is not meant to sample the posterior")
    h = float(run.attrs["step_size"])
    law = law_of(run, reference, notes)
    pass_time = law.pass_time(h)
    grid = np.geomspace(min(0.01, pass_time / 3), min(3, law.batches), GRID if not quick else GRID // 2)
    grid = np.unique(np.append(grid[grid < 2 * law.batches], pass_time))
    curve, compare = law.curve(grid), law.curve(grid, WithReplacement())
    own = None if reference is None else stored(run, "law", ("mean", "covariance"))
    if own is None:
        expected = float(curve[np.searchsorted(grid, pass_time)])
    else:
        expected = float(relative_covariance_error(own["covariance"], reference["covariance"]))
    at_tolerance = _crossing(grid, curve, tolerance)
    allowed = at_tolerance and h * at_tolerance / pass_time
    notes.append(
        "Theory takes the model as right and the rows' Hessians as equal; in a regression those of minibatches differ, "
        "which adds to the bias."
        if own is None
        else "The run stores the exact law of its chain. The curve is that of rows as the model expects them."
    )
    measured: Any = None
    uncertainty: Any = None
    if reference is not None:
        found = spread(run.x.values, reference)
        if not found.blocks.independent:
            notes.append(ROUGH)
        measured, uncertainty = found.squared_covariance_error.root()
    numbers = {
        "scheme": law.scheme.name,
        "integrator": law.integrator.name,
        "step_size": h,
        "batches_a_pass": law.batches,
        "fastest_rate": law.fastest,
        "friction": law.friction and float(run.attrs["friction"]),
        "damping": law.friction,
        "symbol": law.symbol,
        "pass_time": pass_time,
        "measured": measured,
        "measured_error": None if measured is None else uncertainty,
        "measured_limit": uncertainty if measured is None else measured + 2 * uncertainty,
        "theory": expected,
        "exact": own is not None,
        "pass_time_at_tolerance": at_tolerance,
        "step_size_at_tolerance": allowed,
        "curve": {"pass_time": grid, "own": curve, "with_replacement": compare},
    }
    percent = f"{100 * tolerance:g} %"
    by = "by theory" if own is None else "by its exact law"
    theory = f"{100 * expected:.2g} % {by}" if np.isfinite(expected) else "unstable by theory"
    would = f"it would be {percent} at step size {allowed:.3g}" if allowed else f"no step size reached {percent}"
    if reference is None:
        said = f"covariance error {theory} at {law.symbol} = {pass_time:.3g}; {would}"
        worst = expected
        if predicted is not None:  # it knows of unequal Hessians
            said, worst = f"{_said_of(predicted)}; {said}", predicted
        return numbers, (worst <= SLACK * tolerance, said)
    seen = f"{with_error(100 * measured, 100 * uncertainty)} %" if measured else f"below {100 * uncertainty:.2g} %"
    said = f"covariance error {seen} at {law.symbol} = {pass_time:.3g}, {theory}"
    said += f"; {would}" if own is None else ""
    beyond = measured is not None and measured - 2 * uncertainty > tolerance
    if beyond or not expected <= SLACK * tolerance:
        return numbers, (False, said)
    if measured is not None or uncertainty < 2 * tolerance:
        return numbers, (True, said)
    return numbers, (None, f"theory says little; {said}")


def _crossing(grid, curve, tolerance):
    """R h λ at which the curve first reaches the tolerance, or None."""
    above = np.flatnonzero(~(curve <= tolerance))
    if not len(above) or above[0] == 0 or not np.isfinite(curve[above[0]]):
        return None
    around = slice(above[0] - 1, above[0] + 1)
    return float(np.exp(np.interp(np.log(tolerance), np.log(curve[around]), np.log(grid[around]))))


def table(verdict):
    """The numbers of a verdict, lined up."""
    n = verdict.numbers
    parts = [_settings_table(n)] if "theory" in n else []
    if n["predicted"] is not None and not parts:
        parts.append(f"Bias that tuning predicted: {n['predicted']:.3g}")
    if n["extrapolation"] is not None:
        parts.append(extrapolation_table(Extrapolated(**n["extrapolation"])))
    return "\n\n".join(parts)


def _settings_table(n):
    rows = [
        ("scheme, integrator", f"{n['scheme']}, {n['integrator']}"),
        ("step size h", f"{n['step_size']:.4g}"),
        ("batches a pass R", f"{n['batches_a_pass']:.4g}"),
        ("fastest rate λ", f"{n['fastest_rate']:.4g}"),
        (n["symbol"], f"{n['pass_time']:.4g}"),
    ]
    if n["damping"] is not None:
        rows += [("friction γ", f"{n['friction']:.4g}"), ("γ/√λ", f"{n['damping']:.4g}")]
    if n["measured_limit"] is not None:
        limit = f"< {n['measured_limit']:.3g}"
        seen = f"{n['measured']:.3g} ± {n['measured_error']:.1g}" if n["measured"] else limit
        rows.append(("relative covariance error, measured", seen))
    rows.append(("the same by its exact law" if n["exact"] else "the same by theory", f"{n['theory']:.3g}"))
    if n["predicted"] is not None:
        rows.append(("the same as tuning predicted", f"{n['predicted']:.3g}"))
    percent = f"{100 * n['tolerance']:g} %"
    at, size = n["pass_time_at_tolerance"], n["step_size_at_tolerance"]
    rows.append((f"{n['symbol']} at which it is {percent}", f"{at:.3g}" if at else "-"))
    rows.append((f"step size at which it is {percent}", f"{size:.3g}" if size else "-"))
    return columns(rows[1:], rows[0])


def draw(data, verdict, path):
    """Bias against the time of a pass, with the run's point; mean and variance at h, h/2 and extrapolated."""
    from matplotlib.figure import Figure

    n = verdict.numbers
    theory, extrapolation = "theory" in n, n["extrapolation"]
    if not theory and extrapolation is None:
        return _draw_prediction(n, path)
    figure = Figure(figsize=(6.6, 5.0 * theory + 3.4 * (extrapolation is not None)), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(5.0, 3.4)) if theory and extrapolation else [figure, figure]
    if theory:
        _draw_theory(parts[0].subplots(), n)
    if extrapolation is not None:
        draw_extrapolation(parts[1].subplots(1, 2), Extrapolated(**extrapolation))
    figure.savefig(path, dpi=150)


def _draw_prediction(n, path):
    """The predicted bias of the variance beside what tuning allowed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 1.9), layout="constrained")
    axes = figure.subplots()
    axes.barh(0, 100 * n["predicted"], height=0.5, color=BLUE)
    axes.axvline(100 * n["tolerance"], color="0.3", lw=1, ls=":", label="allowed")
    axes.set(yticks=[0], yticklabels=["predicted by tuning"], xlabel="relative error of the variance, %")
    axes.set_xlim(0, 130 * max(n["predicted"], n["tolerance"]))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside upper right")
    figure.savefig(path, dpi=150)


def _draw_theory(axes, n):
    curve, tolerance = n["curve"], n["tolerance"]
    label = f"{n['scheme'].replace('_', ' ')}, theory"
    if n["scheme"] != WithReplacement.name:
        axes.plot(curve["pass_time"], curve["with_replacement"], color="0.6", lw=1.3, label="with replacement, theory")
    axes.plot(curve["pass_time"], curve["own"], color=BLUE, lw=1.8, label=label)
    style, lowest = {"ms": 6, "color": ORANGE}, [np.nanmin(curve["own"]), tolerance]
    if n["measured"]:
        errors = [[min(n["measured_error"], 0.9 * n["measured"])], [n["measured_error"]]]
        label = "this run, ± 1 error"
        axes.errorbar(n["pass_time"], n["measured"], errors, fmt="o", capsize=3, label=label, **style)
    elif n["measured_limit"] is not None:
        limit, label = n["measured_limit"], "this run, upper limit (2 errors)"
        axes.errorbar(n["pass_time"], limit, limit / 3, uplims=True, fmt="o", mfc="w", label=label, **style)
    elif n["predicted"] is None:
        axes.plot(n["pass_time"], n["theory"], "o", mfc="w", label="this run's step size, theory", **style)
    if n["exact"]:
        axes.plot(n["pass_time"], n["theory"], "_", ms=16, mew=2, color="k", label="this run, exact law")
        lowest.append(n["theory"])
    if n["measured_limit"] is not None:
        lowest.append(n["measured_limit"])
    if n["predicted"] is not None:
        axes.plot(n["pass_time"], n["predicted"], "D", ms=6, color="0.3", label="this run, as tuning predicted")
        lowest.append(n["predicted"])
    axes.axhline(tolerance, color="0.3", lw=0.8, ls=":")
    axes.text(0.99, tolerance * 1.08, f"{100 * tolerance:g} %", transform=axes.get_yaxis_transform(), ha="right")
    if n["pass_time_at_tolerance"]:
        axes.plot(n["pass_time_at_tolerance"], tolerance, "|", ms=12, mew=1.5, color="0.3")
    axes.set(xscale="log", yscale="log", ylim=(max(1e-7, np.nanmin(lowest) / 3), 3))
    symbol = r"$R\,h\,\lambda$" if n["damping"] is None else r"$R\,h\,\sqrt{\lambda}$"
    axes.set(xlabel=f"step size, as time per pass over the data, {symbol}")
    axes.set(ylabel="relative error of the covariance")
    axes.legend(frameon=False, loc="upper left")
    damping = "" if n["damping"] is None else rf", friction $\gamma/\sqrt{{\lambda}}$ = {n['damping']:.2g}"
    axes.set_title(f"integrator: {n['integrator'].replace('_', ' ')}{damping}", fontsize=9, loc="left")


def main(argv=None):
    """Ask this question on the command line; the exit status."""
    return command.main(sys.modules[__name__], argv)


if __name__ == "__main__":
    sys.exit(main())

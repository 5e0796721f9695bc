"""How biased by the step size? The error of the covariance, measured, beside what theory says of the run's scheme.

The theory is the exact stationary law of the run's chain on a Gaussian posterior with the reference's covariance whose
rows all have the same Hessian. What governs it is R h λ, the time that a pass over the data takes in units of the
fastest relaxation: R batches a pass, step size h, λ the largest eigenvalue of the preconditioned posterior precision.
"""

import sys

import numpy as np

from diagnostics import _command
from diagnostics._common import BLUE, ORANGE, CannotTell, Verdict, as_run, columns, reference_of, with_error
from diagnostics._estimates import ROUGH, spread
from sgworld_numpyro.linear_gaussian import INTEGRATORS, SCHEMES, gaussian_mean, stationary_moments
from sgworld_numpyro.nonequilibrium.recorded import period_of

TOLERANCE = 0.02
MAX_ROWS = 2000  # more rows are taken together: only the number of batches in a pass matters
GRID = 40
NEEDED = ("scheme", "integrator", "step_size", "batch_size", "num_rows")


def examine(data, *, seed=0, quick=False) -> Verdict:
    run = as_run(data)
    missing = [key for key in NEEDED if key not in run.attrs]
    if missing:
        raise CannotTell(f"posterior.attrs lacks {', '.join(missing)}; save_run of examples/_common.py stores them")
    reference = reference_of(run)
    if float(run.attrs.get("temperature", 1.0)) != 1.0:
        raise CannotTell(f"at temperature {run.attrs['temperature']:g} the chain is not meant to sample the posterior")
    if reference is None:
        raise CannotTell('λ is that of the posterior, and the run stores no posterior.attrs["reference"]')
    notes = list(run.notes)
    h = float(run.attrs["step_size"])
    rates = _rates(run, reference["covariance"], notes)
    batches = float(run.attrs["num_rows"]) / float(run.attrs["batch_size"])
    pass_time = batches * h * rates.max()
    found = spread(run.x.values, reference)
    if not found.blocks.independent:
        notes.append(ROUGH)
    measured, uncertainty = found.squared_covariance_error.root()
    exact = _theory(run, seed)
    grid = np.geomspace(min(0.01, pass_time / 3), min(3, batches), GRID if not quick else GRID // 2)
    grid = np.unique(np.append(grid[grid < 2 * batches], pass_time))
    curve, compare = (_of_directions(exact[name], grid, rates / rates.max()) for name in ("own", "compare"))
    predicted = float(curve[np.searchsorted(grid, pass_time)])
    at_tolerance = _crossing(grid, curve)
    allowed = at_tolerance and h * at_tolerance / pass_time
    seen = f"{with_error(100 * measured, 100 * uncertainty)} %" if measured else f"below {100 * uncertainty:.2g} %"
    theory = f"{100 * predicted:.2g} % by theory" if np.isfinite(predicted) else "unstable by theory"
    would = f"it would be {100 * TOLERANCE:g} % at step size {allowed:.3g}" if allowed else "no step size reached 2 %"
    said = f"covariance error {seen} at R h λ = {pass_time:.3g}, {theory}; {would}"
    beyond = measured is not None and measured - 2 * uncertainty > TOLERANCE
    if beyond or not predicted <= TOLERANCE:
        holds, sentence = False, f"more than {100 * TOLERANCE:g} %: {said}"
    elif measured is not None or uncertainty < 2 * TOLERANCE:
        holds, sentence = True, f"little: {said}"
    else:
        holds, sentence = None, f"cannot tell, but theory says little: {said}"
    notes.append(
        "Theory takes the model as right and the rows' Hessians as equal; in a regression those of minibatches differ, "
        "which adds to the bias."
    )
    numbers = {
        "scheme": str(run.attrs["scheme"]),
        "integrator": str(run.attrs["integrator"]),
        "step_size": h,
        "batches_a_pass": batches,
        "fastest_rate": float(rates.max()),
        "pass_time": pass_time,
        "measured": measured,
        "measured_error": None if measured is None else uncertainty,
        "measured_limit": uncertainty if measured is None else measured + 2 * uncertainty,
        "theory": predicted,
        "tolerance": TOLERANCE,
        "pass_time_at_tolerance": at_tolerance,
        "step_size_at_tolerance": allowed,
        "curve": {"pass_time": grid, "own": curve, "with_replacement": compare},
        "notes": notes,
    }
    return Verdict(holds, sentence, numbers)


def _rates(run, covariance, notes):
    """Eigenvalues of the preconditioned precision M H."""
    kind = str(run.attrs.get("preconditioner", "identity"))
    if kind == "dense":
        notes.append("The dense preconditioner is taken to be the reference's covariance.")
        return np.ones(len(covariance))
    if kind == "diagonal":
        notes.append("The diagonal preconditioner is taken to be the reference's variances.")
        sd = np.sqrt(np.diag(covariance))
        covariance = covariance / np.outer(sd, sd)
    elif kind != "identity":
        raise CannotTell(f"preconditioner {kind!r} is unknown here; identity, diagonal and dense are")
    return 1 / np.linalg.eigvalsh(covariance)


def _theory(run, seed):
    """The relative error of the variance in one dimension as a function of R h λ, with the run's scheme and SGLD's."""
    attrs = run.attrs
    scheme, integrator = str(attrs["scheme"]), str(attrs["integrator"])
    if scheme not in SCHEMES or integrator not in INTEGRATORS:
        raise CannotTell(
            f"linear_gaussian has no theory of {scheme!r} with {integrator!r}; it has the integrators "
            f"{', '.join(INTEGRATORS)} and the schemes {', '.join(SCHEMES)}"
        )
    rows, batch = int(attrs["num_rows"]), int(attrs["batch_size"])
    if rows > MAX_ROWS:
        rows, batch = max(2, round(rows / batch)), 1
    values = np.random.default_rng(seed).standard_normal((rows, 1))
    # rows whose variance is N λ exactly: V = R λ, as in a well-specified model
    problem = gaussian_mean((values - values.mean()) / values.std(), np.eye(1) * rows)
    problem = problem._replace(row_shifts=problem.row_shifts * np.sqrt(rows))
    at_ends = period_of(run.dataset) == 1

    def error_of(name):
        def error(pass_time):
            try:
                moments = stationary_moments(problem, name, integrator, pass_time * batch / rows, batch)
            except ValueError:
                return np.nan  # no stationary law at this step size
            return float((moments.period_end if at_ends else moments.averaged)[1][0, 0]) - 1

        return error

    return {"own": error_of(scheme), "compare": error_of("with_replacement")}


def _of_directions(error, grid, relative_rates):
    """Root mean square over directions of the error, which depends on each one's own R h λ."""
    finest = grid[0] * relative_rates.min()
    fine = np.geomspace(finest, grid[-1], int(len(grid) * (1 + np.log10(grid[0] / finest) / 3)))
    values = np.array([error(pass_time) for pass_time in fine])
    own = np.interp(np.log(np.outer(grid, relative_rates)), np.log(fine), values)
    return np.sqrt((own**2).mean(1))


def _crossing(grid, curve):
    """R h λ at which the curve first reaches the tolerance, or None."""
    above = np.flatnonzero(~(curve <= TOLERANCE))
    if not len(above) or above[0] == 0 or not np.isfinite(curve[above[0]]):
        return None
    around = slice(above[0] - 1, above[0] + 1)
    return float(np.exp(np.interp(np.log(TOLERANCE), np.log(curve[around]), np.log(grid[around]))))


def table(verdict):
    n = verdict.numbers
    rows = [
        ("scheme, integrator", f"{n['scheme']}, {n['integrator']}"),
        ("step size h", f"{n['step_size']:.4g}"),
        ("batches a pass R", f"{n['batches_a_pass']:.4g}"),
        ("fastest rate λ", f"{n['fastest_rate']:.4g}"),
        ("R h λ", f"{n['pass_time']:.4g}"),
        (
            "relative covariance error, measured",
            f"< {n['measured_limit']:.3g}" if not n["measured"] else f"{n['measured']:.3g} ± {n['measured_error']:.1g}",
        ),
        ("the same by theory", f"{n['theory']:.3g}"),
        ("R h λ at which it is 2 %", f"{n['pass_time_at_tolerance']:.3g}" if n["pass_time_at_tolerance"] else "-"),
        ("step size at which it is 2 %", f"{n['step_size_at_tolerance']:.3g}" if n["step_size_at_tolerance"] else "-"),
    ]
    return columns(rows[1:], rows[0])


def draw(data, verdict, path):
    """Bias against R h λ, with the run's point."""
    from matplotlib.figure import Figure

    n = verdict.numbers
    curve = n["curve"]
    figure = Figure(figsize=(6.6, 5.0), layout="constrained")
    axes = figure.subplots()
    label = f"{n['scheme'].replace('_', ' ')}, theory"
    if n["scheme"] != "with_replacement":
        axes.plot(curve["pass_time"], curve["with_replacement"], color="0.6", lw=1.3, label="with replacement, theory")
    axes.plot(curve["pass_time"], curve["own"], color=BLUE, lw=1.8, label=label)
    if n["measured"]:
        errors = [[min(n["measured_error"], 0.9 * n["measured"])], [n["measured_error"]]]
        axes.errorbar(
            n["pass_time"], n["measured"], errors, fmt="o", ms=6, capsize=3, color=ORANGE, label="this run, ± 1 error"
        )
    else:
        limit = n["measured_limit"]
        axes.errorbar(
            n["pass_time"],
            limit,
            limit / 3,
            uplims=True,
            fmt="o",
            ms=6,
            mfc="w",
            color=ORANGE,
            label="this run, upper limit (2 errors)",
        )
    axes.axhline(TOLERANCE, color="0.3", lw=0.8, ls=":")
    axes.text(0.99, TOLERANCE * 1.08, f"{100 * TOLERANCE:g} %", transform=axes.get_yaxis_transform(), ha="right")
    if n["pass_time_at_tolerance"]:
        axes.plot(n["pass_time_at_tolerance"], TOLERANCE, "|", ms=12, mew=1.5, color="0.3")
    lowest = np.nanmin([curve["own"].min(), n["measured_limit"], TOLERANCE])
    axes.set(xscale="log", yscale="log", ylim=(max(1e-7, lowest / 3), 3))
    axes.set(xlabel=r"step size, as time per pass over the data, $R\,h\,\lambda$")
    axes.set(ylabel="relative error of the covariance")
    axes.legend(frameon=False, loc="upper left")
    axes.set_title(f"integrator: {n['integrator'].replace('_', ' ')}", fontsize=9, loc="left")
    figure.savefig(path, dpi=150)


def main(argv=None):
    return _command.main(sys.modules[__name__], argv)


if __name__ == "__main__":
    sys.exit(main())

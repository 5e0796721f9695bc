"""The exact stationary law of a run's chain, on a Gaussian posterior whose rows all have the same Hessian."""

from typing import NamedTuple

import numpy as np

from diagnostics._common import CannotTell
from sgworld_numpyro import integrators, subsampling
from sgworld_numpyro.linear_gaussian import gaussian_mean, stationary_moments
from sgworld_numpyro.nonequilibrium.recorded import period_of
from sgworld_numpyro.subsampling import FullBatch

MAX_ROWS = 2000  # more rows are taken together: only the number of batches in a pass matters
MAX_BATCHES = 500  # of a pass; more differ from these in the integrator's own error alone, which is added apart
MAX_RATES = 24


class Law(NamedTuple):
    """What decides the bias of a run, in units of its fastest direction's rate.

    Attributes:
        scheme: the subsampling scheme.
        integrator: the integrator; a kinetic one with its friction by √λ.
        batches: R, batches a pass.
        rows: of the model that stands for the run's.
        batch: rows of that model in a minibatch.
        fastest: λ, the largest eigenvalue of the preconditioned posterior precision.
        rates: some eigenvalues, as fractions of the largest.
        weights: how many each of them stands for.
        at_ends: whether draws lie at one phase of the scheme's period.
        noise: of minibatch gradients at the mode, by that of a well-specified model; 0 with control variates.
    """

    scheme: subsampling.NamedScheme
    integrator: integrators.NamedIntegrator
    batches: float
    rows: int
    batch: int
    fastest: float
    rates: np.ndarray
    weights: np.ndarray
    at_ends: bool
    noise: float

    @property
    def kinetic(self):
        return self.integrator.kinetic

    @property
    def friction(self):
        """γ/√λ of kinetic integrators, else None."""
        return self.integrator.friction if self.kinetic else None

    @property
    def symbol(self):
        """Of the time a pass takes in units of the fastest relaxation, or oscillation."""
        return "R h √λ" if self.kinetic else "R h λ"

    def pass_time(self, step_size):
        return self.batches * step_size * (np.sqrt(self.fastest) if self.kinetic else self.fastest)

    def error(self, pass_time, scheme=None):
        """Relative error of the variance, root mean square over directions; NaN where the chain is unstable."""
        step = pass_time * self.batch / self.rows
        values = np.linspace(-1, 1, self.rows)
        values /= values.std() or 1.0  # their mean is 0
        # rows whose variance is N λ exactly: V = R λ, as in a well-specified model
        problem = gaussian_mean(np.zeros((self.rows, len(self.rates))), np.diag(self.rows / self.rates))
        problem = problem._replace(row_shifts=values[:, None] * np.sqrt(self.rates / self.rows))

        def variances(scheme, step):
            moments = stationary_moments(problem, scheme, self.integrator, step, self.batch)
            return np.diagonal((moments.period_end if self.at_ends else moments.averaged)[1])

        try:
            drawn = variances(scheme or self.scheme, step) - variances(FullBatch(), step)
            own = variances(FullBatch(), pass_time / self.batches)
        except ValueError:
            return np.nan  # no stationary law at this step size
        error = self.rates * (self.noise * drawn + own) - 1
        return float(np.sqrt(np.average(error**2, weights=self.weights)))

    def curve(self, pass_times, scheme=None):
        return np.array([self.error(pass_time, scheme) for pass_time in pass_times])


def law_of(run, reference, notes) -> Law:
    """The law of a run, from its settings and, for the rates, its reference or what its tuning found.

    Raises:
        CannotTell: if the run does not say enough, or there is no theory of its scheme or integrator.
    """
    attrs = run.attrs
    names = str(attrs["scheme"]), str(attrs["integrator"])
    scheme, integrator = subsampling.named(names[0]), integrators.named(names[1])
    if scheme is None or integrator is None:
        raise CannotTell(
            f"linear_gaussian has no theory of {names[0]!r} with {names[1]!r}; it has the integrators "
            f"{', '.join(known.name for known in integrators.INTEGRATORS)} and the schemes "
            f"{', '.join(known.name for known in subsampling.SCHEMES)}"
        )
    friction = float(attrs.get("friction", np.nan))
    if integrator.kinetic and not 0 < friction < np.inf:
        raise CannotTell(f"posterior.attrs lacks friction, on which the law of {integrator.name} depends")
    rates = _rates(run, reference, notes)
    fastest = float(rates.max())
    relative, weights = np.unique(rates / fastest, return_counts=True)
    if len(relative) > MAX_RATES:
        relative = np.quantile(rates / fastest, np.linspace(0, 1, MAX_RATES))
        weights = np.ones(MAX_RATES)
    rows, batch = int(attrs["num_rows"]), int(attrs["batch_size"])
    batches = rows / batch
    if rows > MAX_ROWS:
        rows, batch = min(max(2, round(batches)), MAX_BATCHES), 1
    return Law(
        scheme=scheme(),
        integrator=integrator(friction=friction / np.sqrt(fastest)) if integrator.kinetic else integrator(),
        batches=batches,
        rows=rows,
        batch=batch,
        fastest=fastest,
        rates=relative,
        weights=weights,
        at_ends=period_of(run.dataset) == 1,
        noise=0.0 if str(attrs.get("gradient")) == "control_variate" else float(attrs.get("gradient_noise", 1.0)),
    )


def _rates(run, reference, notes):
    """Eigenvalues of the preconditioned precision M H."""
    found = run.attrs.get("fastest_rate")  # as the run's own tuning measured it, in the coordinates of M
    if reference is None:
        if found is None:
            raise CannotTell('λ is that of the posterior, and the run stores no posterior.attrs["reference"]')
        notes.append("λ is what tuning found; without a reference theory takes all directions to have it.")
        return np.array([float(found)])
    covariance, kind = reference["covariance"], str(run.attrs.get("preconditioner", "identity"))
    if kind == "dense":
        rates = np.ones(len(covariance))
        of = "the reference's covariance"
    elif kind == "diagonal":
        sd = np.sqrt(np.diag(covariance))
        rates = 1 / np.linalg.eigvalsh(covariance / np.outer(sd, sd))
        of = "the reference's variances"
    elif kind == "identity":
        rates, of = 1 / np.linalg.eigvalsh(covariance), None
    else:
        raise CannotTell(f"preconditioner {kind!r} is unknown here; identity, diagonal and dense are")
    if of is not None:
        scale = "" if found is None else ", up to the scale at which the fastest rate is what tuning found"
        notes.append(f"The {kind} preconditioner is taken to be {of}{scale}.")
        rates = rates if found is None else rates * float(found) / rates.max()
    return rates

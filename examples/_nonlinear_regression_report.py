"""What nonlinear_regression.py measures of a run, and its tables: measured beside predicted."""

from typing import NamedTuple

import numpy as np
from _nonlinear_regression import LEARNING_RATE, Prediction, in_basis, plane_of_currents

from sgworld_numpyro.nonequilibrium.autoregression import LinearDynamics, fit_linear_dynamics, linear_dynamics
from sgworld_numpyro.nonequilibrium.currents import Circulation, circulation
from sgworld_numpyro.nonequilibrium.entropy import EntropyProduction, entropy_production
from sgworld_numpyro.nonequilibrium.moments import LaggedMoments
from sgworld_numpyro.nonequilibrium.theorems import FluctuationTheorems, fluctuation_theorems

LENGTHS = (1, 2, 3, 10, 100)


class Measurement(NamedTuple):
    """What is measured of plain SGD.

    Attributes:
        fit: the linear description of the weights.
        along: that of their coordinates along the Hessian's eigenvectors.
        circulation: the area matrix.
        fitted: entropy production of ``fit``.
        mean_sigma: mean of σ over the run, with σ from the predicted dynamics: linear in the current that flows, and so
            half as uncertain as ``fitted``, which is quadratic.
        mean_sigma_error: its standard error.
        theorems: both fluctuation theorems, of the same σ.
    """

    fit: LinearDynamics
    along: LinearDynamics
    circulation: Circulation
    fitted: EntropyProduction
    mean_sigma: float
    mean_sigma_error: float
    theorems: FluctuationTheorems


def measure(moments: LaggedMoments, sigma, prediction) -> Measurement:
    per_chain = max(1, 64 // len(sigma))
    means = [part.mean(dtype=float) for chain in sigma for part in np.array_split(chain, per_chain)]
    return Measurement(
        fit_linear_dynamics(moments),
        fit_linear_dynamics(in_basis(moments, prediction.directions)),
        circulation(moments),
        entropy_production(moments),
        float(np.mean(means)),
        float(np.std(means, ddof=1) / np.sqrt(len(means))),
        fluctuation_theorems(sigma, LENGTHS),
    )


def relative(a, b):
    return float(np.linalg.norm(np.subtract(a, b)) / np.linalg.norm(b))


def numbers_of(measured: Measurement, prediction: Prediction, information):
    """Every number of a run of plain SGD, with standard errors."""
    fit, dynamics, theorems = measured.fit, prediction.dynamics, measured.theorems
    first = {"lengths": list(LENGTHS[:3])}
    for name in ("integral", "integral_error"):
        first[name] = [None if np.isnan(value) else float(value) for value in getattr(theorems, name)[:3]]
    along = {name: getattr(measured.along, name) for name in ("mean", "mean_error")}
    # of the noise, which millions of transitions show; of the slowest direction a run sees a few relaxations
    implied = linear_dynamics(dynamics.mean, dynamics.A, fit.Q).covariance
    return {
        "mean": fit.mean.tolist(),
        "mean_error": fit.mean_error.tolist(),
        "mean_predicted": dynamics.mean.tolist(),
        "loss_minimum": prediction.loss_minimum.tolist(),
        "landscape_minimum": prediction.landscape_minimum.tolist(),
        "mean_from_loss_minimum": relative(fit.mean, prediction.loss_minimum),
        "mean_from_landscape_minimum": relative(fit.mean, prediction.landscape_minimum),
        "mean_from_landscape_minimum_error": float(
            np.linalg.norm(along["mean_error"]) / np.linalg.norm(prediction.landscape_minimum)
        ),
        "mean_z": ((along["mean"] - prediction.directions.T @ dynamics.mean) / along["mean_error"]).tolist(),
        "hessian_eigenvalues": prediction.curvatures.tolist(),
        "covariance": fit.covariance.tolist(),
        "covariance_error": fit.covariance_error.tolist(),
        "covariance_predicted": dynamics.covariance.tolist(),
        "covariance_difference": relative(fit.covariance, dynamics.covariance),
        "covariance_of_measured_noise_difference": relative(implied, dynamics.covariance),
        "noise": fit.Q.tolist(),
        "noise_error": fit.Q_error.tolist(),
        "noise_predicted": dynamics.Q.tolist(),
        "noise_difference": relative(fit.Q, dynamics.Q),
        "circulation": measured.circulation.matrix.tolist(),
        "circulation_error": measured.circulation.error.tolist(),
        "circulation_predicted": prediction.circulation.tolist(),
        "circulation_p_value": measured.circulation.p_value,
        "entropy_production": measured.mean_sigma,
        "entropy_production_error": measured.mean_sigma_error,
        "entropy_production_predicted": prediction.entropy_production,
        "entropy_production_fitted": measured.fitted.rate,
        "entropy_production_fitted_error": measured.fitted.rate_error,
        "entropy_production_fitted_p_value": measured.fitted.p_value,
        **first,
        "slope": float(theorems.slope[0]),
        "slope_error": float(theorems.slope_error[0]),
        **information,
    }


def print_directions(measured: Measurement, prediction: Prediction):
    """Mean, spread and noise along the eigenvectors of the Hessian, where each has its own relaxation time."""
    basis, along = prediction.directions, measured.along
    expected = prediction.dynamics

    def of(matrix):
        return np.diag(basis.T @ matrix @ basis)

    sd, shift = np.sqrt(of(expected.covariance)), basis.T @ (expected.mean - prediction.loss_minimum)
    moved = along.mean - basis.T @ prediction.loss_minimum
    print(f"{'curvature':>10}{'relaxes in':>12}{'mean − min L, in predicted sds':>34}{'variance':>18}{'noise':>18}")
    print(f"{'λ':>10}{'1/(ηλ)':>12}{'measured':>21}{'predicted':>13}{'/ predicted':>18}{'/ predicted':>18}")
    for i, curvature in enumerate(prediction.curvatures):
        variance, noise = of(expected.covariance)[i], of(expected.Q)[i]
        print(
            f"{curvature:10.5g}{1 / (LEARNING_RATE * curvature):12.0f}"
            f"{moved[i] / sd[i]:+13.3f} ± {along.mean_error[i] / sd[i]:.3f}{shift[i] / sd[i]:+13.3f}"
            f"{along.covariance[i, i] / variance:10.3f} ± {along.covariance_error[i, i] / variance:.3f}"
            f"{along.Q[i, i] / noise:10.4f} ± {along.Q_error[i, i] / noise:.4f}"
        )


def print_measures(name, numbers, measured: Measurement, prediction: Prediction, unit):
    plane = plane_of_currents(prediction.dynamics)
    weight = plane @ np.array([[0, 1], [-1, 0]]) @ plane.T
    area, expected = (0.5 * np.sum(c * weight) for c in (measured.circulation.matrix, prediction.circulation))
    print(f"\n{name}")
    print_directions(measured, prediction)
    print(
        f"  mean: {numbers['mean_from_loss_minimum']:.2e} of |w| from the minimum of L, "
        f"{numbers['mean_from_landscape_minimum']:.1e} ± {numbers['mean_from_landscape_minimum_error']:.0e} "
        f"from that of the effective landscape\n"
        f"  covariance and noise: relative difference from the predicted matrices "
        f"{100 * numbers['covariance_difference']:.1f} % and {100 * numbers['noise_difference']:.2f} %; the covariance "
        f"that the measured noise makes, {100 * numbers['covariance_of_measured_noise_difference']:.2f} %\n"
        f"  circulation in the plane of most, in sds² per {unit}: {area:.3e}, predicted {expected:.3e}, "
        f"p = {numbers['circulation_p_value']:.3f} for none\n"
        f"  entropy production, nats per {unit}: {numbers['entropy_production']:.3e} ± "
        f"{numbers['entropy_production_error']:.1e}, predicted {numbers['entropy_production_predicted']:.3e}; "
        f"of the fitted dynamics {numbers['entropy_production_fitted']:.3e} ± "
        f"{numbers['entropy_production_fitted_error']:.1e}"
    )
    theorems = measured.theorems
    print(f"  {unit + 's':>8}{'integral theorem − 1':>28}{'slope of the detailed one':>30}")
    for i, length in enumerate(theorems.lengths):
        print(
            f"  {length:8d}{theorems.integral[i] - 1:+16.1e} ± {theorems.integral_error[i]:.1e}"
            f"{theorems.slope[i]:19.4f} ± {theorems.slope_error[i]:.4f}"
        )


def print_posterior(numbers, step_size):
    print(
        f"\nBayesian posterior, step size {step_size:g}, one draw an epoch\n"
        f"{'':8}{'entropy production, nats an epoch':^42}{'area in one plane, sds² an epoch':^40}\n"
        f"{'':8}{'measured':>22}{'linear':>11}{'p, none':>9}{'measured':>24}{'linear':>11}"
        f"{'sd / exact':>16}{'left the mode':>15}"
    )
    for name, row in numbers.items():
        ratio = row["sd_ratio"]
        print(
            f"{name:8}{row['entropy_production']:+12.2e} ± {row['entropy_production_error']:.1e}"
            f"{row['entropy_production_linear']:11.2e}{row['p_value']:9.3f}"
            f"{row['area']:+14.2e} ± {row['area_error']:.1e}{row['area_linear']:+11.2e}"
            f"{min(ratio):10.2f}–{max(ratio):.2f}{row['chains_that_left_the_mode']:7d} of {row['chains']}"
        )

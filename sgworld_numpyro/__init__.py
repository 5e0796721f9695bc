"""Stochastic-gradient MCMC for NumPyro, with minibatching as a first-class choice.

``MCMC(SGWORLD(model, step_size=h), ...)`` samples the posterior of an ordinary NumPyro model, with its
``plate(..., subsample_size=B)``, from minibatches.
"""

from sgworld_numpyro.chain.divergence import DivergenceWarning
from sgworld_numpyro.chain.state import SGState
from sgworld_numpyro.extrapolation import Extrapolation, extrapolate
from sgworld_numpyro.gradients import ControlVariate, Minibatch
from sgworld_numpyro.integrators import BAOAB, UBU, EulerMaruyama, LeimkuhlerMatthews
from sgworld_numpyro.kernel import SGD, SGLD, SGWORLD, StochasticGradientKernel
from sgworld_numpyro.model.requirements import ModelError
from sgworld_numpyro.preconditioners import Dense, Diagonal, Identity
from sgworld_numpyro.results.inference_data import to_inference_data
from sgworld_numpyro.results.predictions import Average, averages, predictor
from sgworld_numpyro.schedules import welling_teh
from sgworld_numpyro.subsampling import (
    BatchReshuffle,
    Cyclic,
    FullBatch,
    IndependentBatches,
    Plate,
    RandomReshuffle,
    ShuffleOnce,
    SubsamplingScheme,
    SymmetricReshuffle,
    WithReplacement,
)
from sgworld_numpyro.tuning.report import tuning_report
from sgworld_numpyro.tuning.tuned_start import TuningError

__version__ = "0.1.0"

__all__ = [
    "BAOAB",
    "SGD",
    "SGLD",
    "SGWORLD",
    "UBU",
    "Average",
    "BatchReshuffle",
    "ControlVariate",
    "Cyclic",
    "Dense",
    "Diagonal",
    "DivergenceWarning",
    "EulerMaruyama",
    "Extrapolation",
    "FullBatch",
    "Identity",
    "IndependentBatches",
    "LeimkuhlerMatthews",
    "Minibatch",
    "ModelError",
    "Plate",
    "RandomReshuffle",
    "SGState",
    "ShuffleOnce",
    "StochasticGradientKernel",
    "SubsamplingScheme",
    "SymmetricReshuffle",
    "TuningError",
    "WithReplacement",
    "averages",
    "extrapolate",
    "predictor",
    "to_inference_data",
    "tuning_report",
    "welling_teh",
]

"""Stochastic-gradient MCMC for NumPyro, with minibatching as a first-class choice.

``MCMC(SGWORLD(model, step_size=h), ...)`` samples the posterior of an ordinary NumPyro model, with its
``plate(..., subsample_size=B)``, from minibatches.

Beside the sampler there are, loaded at their first use: ``datasets``, ``diagnostics``, ``landscape``,
``linear_gaussian``, ``nonequilibrium`` and ``testing``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from sgworld_numpyro.chain.convergence import ConvergenceWarning
from sgworld_numpyro.chain.divergence import DivergenceWarning
from sgworld_numpyro.chain.state import SGState
from sgworld_numpyro.devices.chains import chains_over_devices
from sgworld_numpyro.devices.rows import rows_over_devices
from sgworld_numpyro.extrapolation import Extrapolation, extrapolate
from sgworld_numpyro.gradients import ControlVariate, Minibatch
from sgworld_numpyro.integrators import BAOAB, UBU, EulerMaruyama, LeimkuhlerMatthews
from sgworld_numpyro.kernel import SGD, SGLD, SGWORLD, StochasticGradientKernel
from sgworld_numpyro.learning_coefficient import (
    LearningCoefficient,
    LearningCoefficientWarning,
    local_learning_coefficient,
)
from sgworld_numpyro.model.requirements import ModelError
from sgworld_numpyro.results.inference_data import to_inference_data
from sgworld_numpyro.results.predictions import Average, averages, predictor
from sgworld_numpyro.results.versions import __version__
from sgworld_numpyro.results.written import write_log_likelihood, write_predictions
from sgworld_numpyro.runs.driver import long_run
from sgworld_numpyro.runs.outlook import Outlook, run_outlook
from sgworld_numpyro.schedules import WellingTeh
from sgworld_numpyro.sources import RowSource, SourceError, open_row_store, write_row_store
from sgworld_numpyro.store.files import DamagedRunError
from sgworld_numpyro.store.stored_run import StoredRun
from sgworld_numpyro.subsampling import (
    BatchReshuffle,
    Cyclic,
    FullBatch,
    IndependentBatches,
    RandomReshuffle,
    RunReshuffle,
    ShuffleOnce,
    SubsamplingScheme,
    SymmetricReshuffle,
    WithReplacement,
)
from sgworld_numpyro.tuning.report import tuning_report
from sgworld_numpyro.tuning.tuned_start import TuningError

if TYPE_CHECKING:
    from sgworld_numpyro import datasets as datasets
    from sgworld_numpyro import diagnostics as diagnostics
    from sgworld_numpyro import landscape as landscape
    from sgworld_numpyro import linear_gaussian as linear_gaussian
    from sgworld_numpyro import nonequilibrium as nonequilibrium
    from sgworld_numpyro import testing as testing

__all__ = [
    "BAOAB",
    "SGD",
    "SGLD",
    "SGWORLD",
    "UBU",
    "Average",
    "BatchReshuffle",
    "ControlVariate",
    "ConvergenceWarning",
    "Cyclic",
    "DamagedRunError",
    "DivergenceWarning",
    "EulerMaruyama",
    "Extrapolation",
    "FullBatch",
    "IndependentBatches",
    "LearningCoefficient",
    "LearningCoefficientWarning",
    "LeimkuhlerMatthews",
    "Minibatch",
    "ModelError",
    "Outlook",
    "RandomReshuffle",
    "RowSource",
    "RunReshuffle",
    "SGState",
    "ShuffleOnce",
    "SourceError",
    "StochasticGradientKernel",
    "StoredRun",
    "SubsamplingScheme",
    "SymmetricReshuffle",
    "TuningError",
    "WellingTeh",
    "WithReplacement",
    "__version__",
    "averages",
    "chains_over_devices",
    "extrapolate",
    "local_learning_coefficient",
    "long_run",
    "open_row_store",
    "predictor",
    "rows_over_devices",
    "run_outlook",
    "to_inference_data",
    "tuning_report",
    "write_log_likelihood",
    "write_predictions",
    "write_row_store",
]

_LOADED_AT_FIRST_USE = ("datasets", "diagnostics", "landscape", "linear_gaussian", "nonequilibrium", "testing")


if not TYPE_CHECKING:  # a type checker would take it to have every name

    def __getattr__(name):
        if name in _LOADED_AT_FIRST_USE:
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_LOADED_AT_FIRST_USE})

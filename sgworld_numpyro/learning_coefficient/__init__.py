"""The local learning coefficient of singular learning theory, from chains tied to a minimum."""

from sgworld_numpyro.learning_coefficient.linear_networks import ExactCoefficient, deep_linear_coefficient
from sgworld_numpyro.learning_coefficient.local import LearningCoefficient, local_learning_coefficient
from sgworld_numpyro.learning_coefficient.reliability import LearningCoefficientWarning

__all__ = [
    "ExactCoefficient",
    "LearningCoefficient",
    "LearningCoefficientWarning",
    "deep_linear_coefficient",
    "local_learning_coefficient",
]

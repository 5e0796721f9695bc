"""Posteriors of many kinds, each an ordinary NumPyro model with data that scikit-learn ships or a seed makes."""

from benchmarks.zoo import hierarchies, regressions, structured  # noqa: F401 (each enters its models)
from benchmarks.zoo.posterior import POSTERIORS, Posterior

__all__ = ["POSTERIORS", "Posterior"]

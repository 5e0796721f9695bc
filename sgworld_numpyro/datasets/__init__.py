"""Data sets of the examples: the same on every machine, and never fetched from the network unasked."""

from sgworld_numpyro.datasets.bump import gaussian_bump
from sgworld_numpyro.datasets.digits import Digits, mnist

__all__ = ["Digits", "gaussian_bump", "mnist"]

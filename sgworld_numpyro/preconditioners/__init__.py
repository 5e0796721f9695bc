"""Preconditioners: the metric in which steps are taken."""

from sgworld_numpyro.preconditioners.dense import Dense
from sgworld_numpyro.preconditioners.diagonal import Diagonal
from sgworld_numpyro.preconditioners.identity import Identity
from sgworld_numpyro.preconditioners.protocol import Preconditioner

__all__ = ["Dense", "Diagonal", "Identity", "Preconditioner"]

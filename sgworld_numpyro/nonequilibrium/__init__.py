"""Nonequilibrium measures of any chain: currents, entropy production, fluctuation theorems.

Arrays of draws (chain, draw, dim) in, NamedTuples of arrays out; ``labelled`` has the same measures on ArviZ data. None
of it needs this package's kernels: a chain of NUTS, or an array from elsewhere, will do.
"""

from sgworld_numpyro.nonequilibrium.assumptions import Assumptions, Finding, check_assumptions
from sgworld_numpyro.nonequilibrium.autoregression import LinearDynamics, fit_linear_dynamics, linear_dynamics
from sgworld_numpyro.nonequilibrium.basis import largest_order, radial_functions
from sgworld_numpyro.nonequilibrium.currents import (
    Circulation,
    ProbabilityCurrent,
    circulation,
    probability_current,
)
from sgworld_numpyro.nonequilibrium.entropy import (
    EntropyProduction,
    LinearDescriptionWarning,
    entropy_production,
    held_out_sigma,
)
from sgworld_numpyro.nonequilibrium.fisher import RelativeFisherDecomposition, relative_fisher_decomposition
from sgworld_numpyro.nonequilibrium.moments import LaggedMoments, lagged_moments
from sgworld_numpyro.nonequilibrium.projections import Projection, principal_components, random_projection
from sgworld_numpyro.nonequilibrium.theorems import (
    FluctuationTheorems,
    SigmaHistogram,
    fluctuation_theorems,
)
from sgworld_numpyro.nonequilibrium.uncertainty import UncertaintyRelation, uncertainty_relation
from sgworld_numpyro.nonequilibrium.velocity import LocalVelocity, VelocityField, local_velocity, velocity_field

__all__ = [
    "Assumptions",
    "Circulation",
    "EntropyProduction",
    "Finding",
    "FluctuationTheorems",
    "LaggedMoments",
    "LinearDescriptionWarning",
    "LinearDynamics",
    "LocalVelocity",
    "ProbabilityCurrent",
    "Projection",
    "RelativeFisherDecomposition",
    "SigmaHistogram",
    "UncertaintyRelation",
    "VelocityField",
    "check_assumptions",
    "circulation",
    "entropy_production",
    "fit_linear_dynamics",
    "fluctuation_theorems",
    "held_out_sigma",
    "lagged_moments",
    "largest_order",
    "linear_dynamics",
    "local_velocity",
    "principal_components",
    "probability_current",
    "radial_functions",
    "random_projection",
    "relative_fisher_decomposition",
    "uncertainty_relation",
    "velocity_field",
]

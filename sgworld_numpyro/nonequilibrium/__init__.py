"""Nonequilibrium measures of any chain: currents, entropy production, fluctuation theorems, effective landscapes.

Arrays of draws (chain, draw, dim) in, NamedTuples of arrays out; ``labelled`` has the same measures on ArviZ data. None
of it needs this package's kernels: a chain of NUTS, or an array from elsewhere, will do.
"""

from sgworld_numpyro.nonequilibrium.assumptions import Assumptions, Finding, check_assumptions
from sgworld_numpyro.nonequilibrium.circulation import (
    Circulation,
    ProbabilityCurrent,
    circulation,
    probability_current,
)
from sgworld_numpyro.nonequilibrium.diffusion import diffusion_matrix, diffusion_product
from sgworld_numpyro.nonequilibrium.entropy_production import (
    EntropyProduction,
    entropy_production,
    held_out_sigma,
)
from sgworld_numpyro.nonequilibrium.fisher import RelativeFisherDecomposition, relative_fisher_decomposition
from sgworld_numpyro.nonequilibrium.fluctuation_theorems import (
    FluctuationTheorems,
    SigmaHistogram,
    fluctuation_theorems,
)
from sgworld_numpyro.nonequilibrium.gradient_noise import (
    gradient_covariance,
    gradient_covariance_product,
    total_gradient_variance,
)
from sgworld_numpyro.nonequilibrium.landscape import (
    effective_gradient,
    effective_potential,
    hessian,
    hessian_product,
    landscape_minimum,
    laplacian,
    potential_minimum,
)
from sgworld_numpyro.nonequilibrium.linear_dynamics import LinearDynamics, fit_linear_dynamics, linear_dynamics
from sgworld_numpyro.nonequilibrium.moments import LaggedMoments, lagged_moments
from sgworld_numpyro.nonequilibrium.projections import Projection, principal_components, random_projection
from sgworld_numpyro.nonequilibrium.row_potential import RowPotential, row_potential
from sgworld_numpyro.nonequilibrium.uncertainty import UncertaintyRelation, uncertainty_relation

__all__ = [
    "Assumptions",
    "Circulation",
    "EntropyProduction",
    "Finding",
    "FluctuationTheorems",
    "LaggedMoments",
    "LinearDynamics",
    "ProbabilityCurrent",
    "Projection",
    "RelativeFisherDecomposition",
    "RowPotential",
    "SigmaHistogram",
    "UncertaintyRelation",
    "check_assumptions",
    "circulation",
    "diffusion_matrix",
    "diffusion_product",
    "effective_gradient",
    "effective_potential",
    "entropy_production",
    "fit_linear_dynamics",
    "fluctuation_theorems",
    "gradient_covariance",
    "gradient_covariance_product",
    "held_out_sigma",
    "hessian",
    "hessian_product",
    "lagged_moments",
    "landscape_minimum",
    "laplacian",
    "linear_dynamics",
    "potential_minimum",
    "principal_components",
    "probability_current",
    "random_projection",
    "relative_fisher_decomposition",
    "row_potential",
    "total_gradient_variance",
    "uncertainty_relation",
]

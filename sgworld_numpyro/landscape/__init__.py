"""The landscape that a chain moves in, from its model: gradient noise, diffusion, effective potential.

Functions take a ``RowPotential``, which ``row_potential`` makes of a NumPyro model, a position and a subsampling
scheme.
"""

from sgworld_numpyro.landscape.diffusion import diffusion_matrix, diffusion_product
from sgworld_numpyro.landscape.effective import (
    effective_gradient,
    effective_potential,
    landscape_minimum,
    potential_minimum,
)
from sgworld_numpyro.landscape.gradient_noise import (
    gradient_covariance,
    gradient_covariance_product,
    total_gradient_variance,
)
from sgworld_numpyro.landscape.hessians import hessian, hessian_product, laplacian
from sgworld_numpyro.landscape.row_potentials import RowPotential, row_potential

__all__ = [
    "RowPotential",
    "diffusion_matrix",
    "diffusion_product",
    "effective_gradient",
    "effective_potential",
    "gradient_covariance",
    "gradient_covariance_product",
    "hessian",
    "hessian_product",
    "landscape_minimum",
    "laplacian",
    "potential_minimum",
    "row_potential",
    "total_gradient_variance",
]

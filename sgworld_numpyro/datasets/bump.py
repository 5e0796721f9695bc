"""The regression problem of arXiv 2306.03521."""

import numpy as np
from jaxtyping import Float

BUMP_ROWS = 200
BUMP_SPACING = 0.03


def gaussian_bump(
    noise_scale: float = 0.1, seed: int = 0
) -> tuple[Float[np.ndarray, "rows"], Float[np.ndarray, "rows"]]:
    """A noisy Gaussian bump on a grid, the regression problem of arXiv 2306.03521.

    x = -3, -2.97, ..., 2.97 (200 points) and y = exp(-x²) + ``noise_scale`` · ξ, with ξ standard normal.

    Args:
        noise_scale: standard deviation of the noise, not negative.
        seed: of NumPy's ``default_rng``, which draws the noise.

    Returns:
        x and y, of 200 numbers each, in float64.

    Raises:
        ValueError: if ``noise_scale`` is negative or not finite.
    """
    if not (np.isfinite(noise_scale) and noise_scale >= 0):
        raise ValueError(
            f"noise_scale is {noise_scale}; it is a standard deviation, so give a finite number of 0 or more."
        )
    x = (np.arange(BUMP_ROWS) - BUMP_ROWS // 2) * BUMP_SPACING
    y = np.exp(-(x**2)) + noise_scale * np.random.default_rng(seed).standard_normal(BUMP_ROWS)
    return x, y

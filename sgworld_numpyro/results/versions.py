"""The versions that a run was made with."""

from importlib.metadata import PackageNotFoundError, version

import jax
import numpyro

try:
    __version__ = version("sgworld_numpyro")
except PackageNotFoundError:  # a source tree that nobody installed does not know
    __version__ = "0+unknown"


def package_versions() -> dict[str, str]:
    """Of this package, JAX and NumPyro, as they stand in ``posterior.attrs``."""
    return {
        "sgworld_numpyro_version": __version__,
        "jax_version": jax.__version__,
        "numpyro_version": numpyro.__version__,
    }

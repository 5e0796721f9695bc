"""A model whose priors are replaced by a Gaussian tie to one point."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import biject_to
from numpyro.primitives import Messenger


class tied(Messenger):
    """Run a model with N(w₀, s²) as the prior of every unconstrained coordinate; its likelihood is as it was.

    Args:
        fn: the model.
        centre: w₀, unconstrained values by latent site.
        scale: s.
    """

    def __init__(self, fn: Callable, centre: Mapping[str, Array], scale: float):
        self.centre = centre
        self.scale = scale
        super().__init__(fn)

    def process_message(self, msg):
        if msg["type"] != "sample" or msg["is_observed"] or msg["name"] not in self.centre:
            return
        prior = msg["fn"]
        transform = biject_to(prior.support)
        centre = jnp.broadcast_to(
            self.centre[msg["name"]], transform.inverse_shape(tuple(prior.batch_shape) + tuple(prior.event_shape))
        )
        normal = dist.Normal(centre, self.scale).to_event(centre.ndim - len(prior.batch_shape))
        # of the value that NumPyro transforms back, so that the density of the unconstrained one is normal
        msg["fn"] = dist.TransformedDistribution(normal, transform)

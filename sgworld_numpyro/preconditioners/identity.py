"""No preconditioning."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Identity:
    """M = 1."""

    def apply(self, vector):
        return vector

    def apply_root(self, vector):
        return vector

    def apply_root_transpose(self, vector):
        return vector

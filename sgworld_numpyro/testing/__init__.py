"""Checks that a subsampling scheme or an integrator of your own keeps its protocol's promises."""

__all__: list[str] = []

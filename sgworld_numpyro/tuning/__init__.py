"""Choosing what a run needs to know of its posterior: where it is, its scales, and how large a step may be.

Before the first sample (``procedure``): a warm start near the mode (``warm_start``), gradient noise and curvature there
and the preconditioner that they suggest (``curvature``), step size and friction from a tolerance of the bias
(``step_size``). Nothing changes afterwards: a preconditioner that followed the chain would change its stationary law.
"""

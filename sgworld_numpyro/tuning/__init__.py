"""Choosing what a run needs to know of its posterior: where it is, its scales, and how large a step may be.

Before the first sample (``staged``): draws of the posterior, roughly (``pilot``, ``windows``), and from curvature and
noise there what an effective draw costs least with (``choice``), within a tolerance of the bias (``step_size``,
``tilt``). In very many dimensions no matrix is made (``many_dimensions``); where data have no values, as in a trace,
all is learnt at the mode (``procedure``, ``curvature``). Nothing changes afterwards: a preconditioner that followed
the chain would change its stationary law.
"""

"""From a saved run to a verdict: one question a script, on any run that ArviZ saved as netCDF.

    python -m diagnostics does_probability_circulate runs/x.nc
    python -m diagnostics all runs/x.nc    # every question, and one page runs/x_diagnostics.html

Each module has ``examine(data) -> Verdict``, ``table(verdict)`` and ``draw(data, verdict, path)``.
"""

QUESTIONS = (
    "is_it_stationary",
    "has_it_the_right_spread",
    "how_biased_by_step_size",
    "does_probability_circulate",
    "do_fluctuation_theorems_hold",
    "which_landscape",
    "what_did_it_cost",
)

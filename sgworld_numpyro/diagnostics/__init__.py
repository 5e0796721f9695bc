"""From a saved run to a verdict: one question a module, of any run that ArviZ saved as netCDF.

    python -m sgworld_numpyro.diagnostics does_probability_circulate runs/x.nc
    python -m sgworld_numpyro.diagnostics all runs/x.nc    # every question, and one page runs/x_diagnostics.html

Each module named in ``QUESTIONS`` has

- ``examine(data, *, seed=0, quick=False)``, the ``Verdict``; ``data`` is ArviZ data or what ``saved_run.load`` returns,
  and ``quick`` takes fewer surrogates and grid points.
- ``table(verdict)``, its numbers as text.
- ``draw(data, verdict, path)``, its figure. This alone needs matplotlib, which the extra ``figures`` installs.
- ``WANTED = None``, where neither yes nor no is good news; of the others a yes is.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from sgworld_numpyro.diagnostics.verdicts import CannotTell, Verdict

if TYPE_CHECKING:
    from sgworld_numpyro.diagnostics import do_fluctuation_theorems_hold as do_fluctuation_theorems_hold
    from sgworld_numpyro.diagnostics import does_probability_circulate as does_probability_circulate
    from sgworld_numpyro.diagnostics import has_it_the_right_spread as has_it_the_right_spread
    from sgworld_numpyro.diagnostics import how_biased_by_step_size as how_biased_by_step_size
    from sgworld_numpyro.diagnostics import is_it_stationary as is_it_stationary
    from sgworld_numpyro.diagnostics import what_did_it_cost as what_did_it_cost
    from sgworld_numpyro.diagnostics import which_landscape as which_landscape

__all__ = ["QUESTIONS", "CannotTell", "Verdict"]

QUESTIONS = (
    "is_it_stationary",
    "has_it_the_right_spread",
    "how_biased_by_step_size",
    "does_probability_circulate",
    "do_fluctuation_theorems_hold",
    "which_landscape",
    "what_did_it_cost",
)


if not TYPE_CHECKING:  # a type checker would take it to have every name

    def __getattr__(name):
        if name in QUESTIONS:  # at first use: two of them import ArviZ, which is slow
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *QUESTIONS})

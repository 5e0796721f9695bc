"""From a saved run to a verdict: scripts named by their questions. The code is in ``sgworld_numpyro.diagnostics``.

python diagnostics/does_probability_circulate.py runs/x.nc
python -m diagnostics all runs/x.nc    # every question, and one page runs/x_diagnostics.html
"""

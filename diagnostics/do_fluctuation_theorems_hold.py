"""Do the fluctuation theorems hold? ⟨e^{−σ}⟩ = 1 and ln P(σ)/P(−σ) = σ for the entropy production σ of the draws."""

import sys

from sgworld_numpyro.diagnostics.do_fluctuation_theorems_hold import main

if __name__ == "__main__":
    sys.exit(main())

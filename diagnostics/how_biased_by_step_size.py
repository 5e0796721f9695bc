"""How biased by the step size? Measured, by theory, and from a run at half the step, as far as the run stores them."""

import sys

from sgworld_numpyro.diagnostics.how_biased_by_step_size import main

if __name__ == "__main__":
    sys.exit(main())

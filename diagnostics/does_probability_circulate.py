"""Does probability circulate? Areas that the chain sweeps out, its entropy production, and a map of the current."""

import sys

from sgworld_numpyro.diagnostics.does_probability_circulate import main

if __name__ == "__main__":
    sys.exit(main())
